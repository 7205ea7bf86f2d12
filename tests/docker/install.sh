#!/usr/bin/env bash
# Install on Debian, as root, Prometheus and promtool for these tests and those of tests/e2e. They are skipped without.
set -euo pipefail

! { command -v prometheus && command -v promtool; } >/dev/null || exit 0
# The package would start a Prometheus of its own, on the port that the containers' is published on.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends prometheus
promtool --version
