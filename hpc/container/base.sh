#!/usr/bin/env bash
# Builds a base image without an image registry, with Python from this machine's package mirror
# (Debian or Ubuntu, as root, one minute). Then: make image BASE=localhost/flexhpc-base
#   BASE=localhost/flexhpc-base  image name     RUNTIME=   podman or docker
set -euo pipefail
cd "$(dirname "$0")/../.."
. hpc/container/lib.sh
base=${BASE:-localhost/flexhpc-base}
runtime=$(pick_runtime podman docker)
command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed (hpc/container/packages.sh)"
! $runtime image inspect "$base" >/dev/null 2>&1 || { echo "$base already exists"; exit 0; }
require_space 2 "${TMPDIR:-/tmp}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. /etc/os-release
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources >"$work/sources" 2>/dev/null || true
# Remove the mirror's address, the host name and the logs from the image.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
  --customize-hook='cd "$1"/etc && rm -f apt/sources.list apt/sources.list.d/* hostname resolv.conf' \
  --customize-hook='cd "$1" && rm -rf etc/apt/apt.conf.d/99mmdebstrap var/log/* var/cache/ldconfig' \
  "$VERSION_CODENAME" "$work/base.tar" - <"$work/sources"
$runtime import --change 'CMD ["bash"]' "$work/base.tar" "$base"
