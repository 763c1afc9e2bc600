#!/usr/bin/env bash
# Builds the Apptainer image from the image of podman or docker, and tests it.
#   SIF=flexhpc.sif   output file                 RUNTIME=          podman or docker
#   IMAGE=...         source image                APPTAINER_FLAGS=  options of `apptainer test`: --no-privs
set -euo pipefail
cd "$(dirname "$0")/../.."
. hpc/container/lib.sh
runtime=$(pick_runtime podman docker)
command -v apptainer >/dev/null || fail "apptainer is not installed (hpc/container/packages.sh)"
id=$($runtime image inspect --format '{{.Id}}' "$IMAGE" 2>/dev/null) ||
  fail "$runtime: image $IMAGE not found; run \`make image\`"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Space for the saved image, its unpacked layers and the SIF file.
size=$($runtime image inspect --format '{{.Size}}' "$IMAGE")
needed=$((size * 3 / 1000000000 + 1))
require_space "${ROOM_GB:-$((needed > 15 ? needed : 15))}" "$work" " or set TMPDIR=... or ROOM_GB=..."

$runtime save --output "$work/image.tar" "$IMAGE" >/dev/null
cp apptainer.def "$work"
sif=$(realpath -m "$SIF")
(
  cd "$work"
  export APPTAINER_TMPDIR=$work
  apptainer --quiet build --disable-cache --force --notest --mksquashfs-args "-comp zstd -Xcompression-level 1" \
    --build-arg bootstrap=docker-archive --build-arg from=image.tar \
    --build-arg image="$IMAGE@sha256:${id#sha256:}" \
    --build-arg version="$(label "$runtime" version)" --build-arg revision="$(label "$runtime" revision)" \
    "$sif" apptainer.def
)
# shellcheck disable=SC2086 # split into words
apptainer test ${APPTAINER_FLAGS:-} "$sif"
echo "$sif: $(stat -c %s "$sif") bytes, sha256:$(sha256sum "$sif" | cut -d ' ' -f 1)"
