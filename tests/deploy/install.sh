#!/usr/bin/env bash
# Install on Debian, as root, the balancer of tests/e2e/test_balancer.py. It is skipped where there is none.
set -euo pipefail

! command -v haproxy >/dev/null || exit 0
apt-get update --quiet
# No service is started: the tests start their own.
RUNLEVEL=1 apt-get install --quiet --yes --no-install-recommends haproxy
haproxy -v
