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
label() {
  $runtime image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$IMAGE"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
room "${ROOM_GB:-15}" "$work"

$runtime save --output "$work/image.tar" "$IMAGE" >/dev/null
cp apptainer.def "$work"
sif=$(realpath -m "$SIF")
(
  cd "$work"
  export APPTAINER_TMPDIR=$work
  apptainer --quiet build --disable-cache --force --notest --mksquashfs-args "-comp zstd -Xcompression-level 1" \
    --build-arg bootstrap=docker-archive --build-arg from=image.tar \
    --build-arg image="$IMAGE@sha256:${id#sha256:}" \
    --build-arg version="$(label version)" --build-arg revision="$(label revision)" \
    "$sif" apptainer.def
)
# shellcheck disable=SC2086 # the flags are words
apptainer test ${APPTAINER_FLAGS:-} "$sif"
echo "$sif: $(stat -c %s "$sif") bytes, sha256:$(sha256sum "$sif" | cut -d ' ' -f 1)"
