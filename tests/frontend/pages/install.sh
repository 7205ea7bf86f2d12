#!/usr/bin/env bash
# Install on Debian, as root, the browser of these tests. They are skipped where there is none.
set -euo pipefail

! command -v chromium >/dev/null || exit 0
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends chromium fonts-dejavu-core
chromium --version
