#!/usr/bin/env bash
# Makes the Apptainer image from the image of podman or docker, and tests it.
#   SIF=flexhpc.sif   the file                    RUNTIME=          podman or docker
#   IMAGE=...         what it is made from        APPTAINER_FLAGS=  of `apptainer test`, as --no-privs
set -euo pipefail
cd "$(dirname "$0")/../.."
. hpc/container/lib.sh
runtime=$(pick podman docker)
command -v apptainer >/dev/null || fail "apptainer is not installed (hpc/container/packages.sh)"
id=$($runtime image inspect --format '{{.Id}}' "$IMAGE" 2>/dev/null) ||
  fail "$runtime has no $IMAGE; \`make image\` builds it"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The saved image, what is unpacked from it, and the file.
size=$($runtime image inspect --format '{{.Size}}' "$IMAGE")
needed=$((size * 3 / 1000000000 + 1))
room "${ROOM_GB:-$((needed > 15 ? needed : 15))}" "$work" ", or say TMPDIR=... or ROOM_GB=..."

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
# shellcheck disable=SC2086 # the flags are words
apptainer test ${APPTAINER_FLAGS:-} "$sif"
echo "$sif: $(stat -c %s "$sif") bytes, sha256:$(sha256sum "$sif" | cut -d ' ' -f 1)"
