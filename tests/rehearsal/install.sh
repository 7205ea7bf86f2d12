#!/usr/bin/env bash
# Install on Debian 12, as root, what `make rehearsal` needs: dockerd, its compose plugin, and debootstrap.
set -euo pipefail

apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends docker.io iptables debootstrap openssl
! docker compose version 2>/dev/null || exit 0

# Debian 12 has no such plugin. The one of Debian 13 runs there too: it needs libc 2.34.
next=$(mktemp --directory)
trap 'rm -r "$next"' EXIT
# shellcheck disable=SC2016  # apt fills that in
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head --lines 1)
mkdir "$next/lists"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$next/sources.list"
options=(-o "Dir::Etc::sourcelist=$next/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$next/lists")
apt-get "${options[@]}" --quiet update
(cd "$next" && apt-get "${options[@]}" --quiet download docker-compose)
apt-get install --quiet --yes "$next"/docker-compose_*.deb
docker compose version
