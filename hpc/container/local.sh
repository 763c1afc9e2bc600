#!/usr/bin/env bash
# Runs a sweep inside the container on this machine, on its GPU if it has one.
#   hpc/container/local.sh SPEC [OPTION OF `flexhpc sweep` ...]
# It sees the spec, runs/ and data/ of the current folder, FLEXHPC_DATA and BINDS, and nothing else.
#   RUNTIME=   docker, podman or apptainer; by default the first that has the image
#   IMAGE=localhost/flexhpc:latest   SIF=flexhpc.sif (for apptainer)
#   BINDS=     further folders, as /scratch or /host/folder:/inside:ro
#   RUN_FLAGS= further options of the runtime, as: --network none
set -euo pipefail
. "$(dirname "$0")/lib.sh"
[ $# -gt 0 ] || fail "which spec? hpc/container/local.sh sweeps/quickstart.yaml"
[ -f "$1" ] || fail "$1: no such file"
spec=$(realpath "$1")
shift
runtime=$(with_image docker podman apptainer)
mkdir -p runs data

options=()
case $runtime in apptainer*) bind=--bind ;; *) bind=--volume ;; esac
add() { [ ! -e "${1%%:*}" ] || options+=("$bind" "$1"); }
for folder in "$PWD/runs" "$PWD/data"; do add "$folder:$folder"; done
for folder in "$spec" /usr/share/datasets ${FLEXHPC_DATA:-}; do add "$folder:$folder:ro"; done
for folder in ${BINDS:-}; do
  case $folder in *:*) add "$folder" ;; *) add "$folder:$folder" ;; esac
done
[ -z "${FLEXHPC_DATA:-}" ] || options+=(--env "FLEXHPC_DATA=$FLEXHPC_DATA")

if [[ $runtime == apptainer* ]]; then
  [ ! -e /dev/nvidiactl ] || options+=(--nv)
  options+=(--env "FLEXHPC_IMAGE=${SIF##*/}@sha256:$(sha256sum "$SIF" | cut -d ' ' -f 1)")
  # shellcheck disable=SC2086 # the flags are words
  exec $runtime run --cleanenv --no-mount home,cwd --pwd "$PWD" "${options[@]}" ${RUN_FLAGS:-} \
    "$SIF" sweep "$spec" "$@"
fi
id=$($runtime image inspect --format '{{.Id}}' "$IMAGE")
options+=(--env "FLEXHPC_IMAGE=$IMAGE@sha256:${id#sha256:}")
gpu="--gpus all"
if [[ $runtime == podman* ]]; then
  gpu="--device nvidia.com/gpu=all"
  [ "$(id -u)" = 0 ] || options+=(--userns keep-id)
fi
[ -e /dev/nvidiactl ] || gpu=
[ ! -t 0 ] || [ ! -t 1 ] || options+=(--tty)
# shellcheck disable=SC2086 # the flags are words
exec $runtime run --rm --interactive --user "$(id -u):$(id -g)" --env HOME=/tmp --ipc host \
  --read-only --tmpfs /tmp --no-healthcheck --log-driver none --workdir "$PWD" $gpu \
  "${options[@]}" ${RUN_FLAGS:-} "$IMAGE" sweep "$spec" "$@"
