#!/usr/bin/env bash
# Runs a sweep in a container on this machine, on its GPU if it has one.
#   hpc/container/local.sh SPEC [--set KEY=VALUE ...]
# Mounted in the container: the spec (and its folder, if that contains Python modules for custom code),
# runs/ and data/ of the current folder, FLEXHPC_DATA and BINDS; with apptainer also /tmp.
#   RUNTIME=   podman, docker or apptainer; default: the first of them that has the image
#   IMAGE=localhost/flexhpc:latest   SIF=flexhpc.sif (for apptainer)
#   BINDS=     additional folders: /scratch or /host/folder:/inside:ro
#   GPU=       none, or options of the runtime: GPU="--gpus device=1"
#   RUN_FLAGS= additional options of the runtime: --network none
set -euo pipefail
. "$(dirname "$0")/lib.sh"
[ $# -gt 0 ] || fail "no spec; usage: hpc/container/local.sh SPEC [--set KEY=VALUE ...]"
[ -f "$1" ] || fail "$1: file not found"
spec=$(realpath "$1")
shift
for argument in "$@"; do
  case $argument in --set | *=*) ;; *) fail "$argument: unknown option; only --set KEY=VALUE is supported" ;; esac
done
runtime=$(runtime_with_image podman docker apptainer)
mkdir -p runs data

case $runtime in apptainer*) bind=--bind ;; *) bind=--volume ;; esac
options=()
declare -A bound=()
add() { # add HOST INSIDE [:ro]: bind HOST to INSIDE, unless INSIDE is bound already
  case $1$2 in *[:,]*) fail "$1: a bind path cannot contain : or ," ;; esac
  [ -e "$1" ] || fail "$1: file or folder not found"
  [ -n "${bound[$2]:-}" ] || options+=("$bind" "$1:$2${3:-}")
  bound[$2]=yes
}
spec_folder=$(dirname "$spec")
! compgen -G "$spec_folder/*.py" >/dev/null || add "$spec_folder" "$spec_folder" :ro # before its subfolders
for folder in "$PWD/runs" "$PWD/data"; do add "$folder" "$folder"; done
for bind_spec in ${BINDS:-}; do
  IFS=: read -r outside inside mode <<<"$bind_spec"
  outside=$(realpath "$outside")
  add "$outside" "${inside:-$outside}" "${mode:+:$mode}"
done
add "$spec" "$spec" :ro
if [ -n "${FLEXHPC_DATA:-}" ]; then
  FLEXHPC_DATA=$(realpath "$FLEXHPC_DATA")
  add "$FLEXHPC_DATA" "$FLEXHPC_DATA" :ro
  options+=(--env "FLEXHPC_DATA=$FLEXHPC_DATA")
fi
[ ! -d /usr/share/datasets ] || add /usr/share/datasets /usr/share/datasets :ro

case $runtime in
  apptainer*) gpu=--nv ;;
  podman*) gpu="--device nvidia.com/gpu=all" ;;
  *) gpu="--gpus all" ;;
esac
[ -e /dev/nvidiactl ] || gpu=
gpu=${GPU:-$gpu}
[ "$gpu" != none ] || gpu=

if [[ $runtime == apptainer* ]]; then
  for name in $(compgen -e); do
    case $name in APPTAINERENV_* | SINGULARITYENV_* | APPTAINER_BIND* | SINGULARITY_BIND*) unset "$name" ;; esac
  done
  options+=(--env "FLEXHPC_IMAGE=${SIF##*/}@sha256:$(sha256sum "$SIF" | cut -d ' ' -f 1)")
  # shellcheck disable=SC2086 # split into words
  exec $runtime run --cleanenv --no-mount home,cwd --pwd "$PWD" $gpu "${options[@]}" ${RUN_FLAGS:-} \
    "$SIF" sweep "$spec" "$@"
fi
id=$($runtime image inspect --format '{{.Id}}' "$IMAGE")
built=$(label "$runtime" revision)
[ "$built" = "$(revision)" ] || echo "$IMAGE was built from commit $built, the current one is $(revision); \`make image\` rebuilds it" >&2
options+=(--env "FLEXHPC_IMAGE=$IMAGE@sha256:${id#sha256:}")
if [[ $runtime == podman* ]]; then
  options+=(--security-opt label=disable)
  [ "$(id -u)" = 0 ] || options+=(--userns keep-id)
else
  for group in $(id -G); do options+=(--group-add "$group"); done
fi
[ ! -t 0 ] || [ ! -t 1 ] || options+=(--tty)
# shellcheck disable=SC2086 # split into words
exec $runtime run --rm --interactive --user "$(id -u):$(id -g)" --env HOME=/tmp --ipc host \
  --read-only --tmpfs /tmp --no-healthcheck --log-driver none --workdir "$PWD" $gpu \
  "${options[@]}" ${RUN_FLAGS:-} "$IMAGE" sweep "$spec" "$@"
