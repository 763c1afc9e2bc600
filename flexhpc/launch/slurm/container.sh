# shellcheck shell=bash disable=SC2154  # container.py writes the assignments of the variables:
# runtime, image, digest, identity, mark, source, work, binds, flags.
# Enters the image that an array was submitted with, and runs the given command there: once per
# process of a task, on its node.
options=()
refuse() { echo "$(hostname): $image: $1" >&2; exit 78; }
if [ "$runtime" = apptainer ]; then
  bind() { options+=(--bind "$1"); }
  hand_on() { export "APPTAINERENV_$1=${!1}"; }
  for name in $(compgen -e); do
    case $name in
      APPTAINERENV_* | SINGULARITYENV_* | APPTAINER_BIND* | SINGULARITY_BIND*) unset "$name" ;;
    esac
  done
else
  bind() { options+=(--volume "$1"); }
  hand_on() { options+=(--env "$1"); }
fi

# A place inside is taken once: the run folder and the profile's binds come before the places where
# data may lie. What is not there on this node is left out.
if [ -n "${FLEXHPC_DATA:-}" ]; then
  FLEXHPC_DATA=$(realpath -m "$FLEXHPC_DATA")
  binds+=("$FLEXHPC_DATA:$FLEXHPC_DATA:ro")
fi
binds+=(/usr/share/datasets:/usr/share/datasets:ro)
# Instead of the folder outside that we stand in, an empty one with places for what is beneath it.
here=$(cd "$(dirname "$0")" && pwd)/here
beneath() { case "$2/" in "${1%/}"/*) return 0 ;; *) return 1 ;; esac; }
declare -A taken=()
chosen=()
stands=no
for one in "${binds[@]}"; do
  IFS=: read -r outside inside _ <<<"$one"
  inside=${inside%/}
  if [ ! -e "$outside" ] || [ -n "${taken[$inside]:-}" ]; then continue; fi
  taken[$inside]=yes
  chosen+=("$one")
  ! beneath "$inside" "$work" || stands=yes
  if beneath "$work" "$inside"; then
    place=$here${inside#"$work"}
    if [ -d "$outside" ]; then mkdir -p "$place"; else mkdir -p "${place%/*}" && : >>"$place"; fi
  fi
done
if [ $stands = no ] && [ "$work" != / ]; then
  mkdir -p "$here"
  bind "$here:$work"
fi
for one in "${chosen[@]}"; do bind "$one"; done

if [ "$runtime" != apptainer ]; then
  # These run outside of SLURM's cgroup, where every GPU could be seen: name those of this step.
  # Inside they are numbered anew.
  gpus=${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-${CUDA_VISIBLE_DEVICES:-}}}
  unset CUDA_VISIBLE_DEVICES
  if [ -e /dev/nvidiactl ] && [ -n "$gpus" ]; then
    if [ "$runtime" = podman ]; then
      for gpu in ${gpus//,/ }; do options+=(--device "nvidia.com/gpu=$gpu"); done
    else
      options+=(--gpus "\"device=$gpus\"")
    fi
  fi
fi

export FLEXHPC_IMAGE="$identity" FLEXHPC_SOURCE="$source"
for name in $(compgen -e); do
  case $name in
    SLURM* | SUBMITIT_* | FLEXHPC_* | CUDA_* | NVIDIA_* | NCCL_* | GLOO_* | UCX_* | FI_* | OMP_* | \
      MKL_* | OPENBLAS_* | TORCH_* | PYTORCH_*) hand_on "$name" ;;
  esac
done

if [ "$runtime" = apptainer ]; then
  [ "$(stat -L -c '%s %Y' "$image" 2>/dev/null)" = "$mark" ] ||
    refuse "is gone, or was changed; submit the sweep again"
  [ ! -e /dev/nvidiactl ] || options+=(--nv)
  exec apptainer --silent exec --cleanenv --no-mount home,cwd --pwd "$work" \
    "${options[@]}" "${flags[@]}" "$image" "$@"
fi

its_id() { "$runtime" image inspect --format '{{.Id}}' "$image" 2>/dev/null; }
found=$(its_id) || { "$runtime" pull --quiet "$image" >&2 && found=$(its_id); } ||
  refuse "is not here; load it on every node, or use a registry"
[ "${found#sha256:}" = "${digest#sha256:}" ] ||
  refuse "is another image than the one that was submitted, $digest"
user=(--user "$(id -u):$(id -g)")
if [ "$runtime" = podman ]; then
  user+=(--security-opt label=disable)
  [ "$(id -u)" = 0 ] || user+=(--userns keep-id)
else
  for group in $(id -G); do user+=(--group-add "$group"); done
fi
# What an earlier attempt of this process may have left running here, out of SLURM's reach.
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
  task=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}-$SLURM_PROCID
  name=flexhpc-$(cksum <<<"$here" | cut -d ' ' -f 1)-$task
  "$runtime" rm --force "$name" >/dev/null 2>&1 || true
  options+=(--name "$name")
fi
exec "$runtime" run --rm --network host --ipc host --read-only --tmpfs /tmp --no-healthcheck \
  --log-driver none --env HOME --workdir "$work" "${user[@]}" \
  "${options[@]}" "${flags[@]}" --entrypoint "" "$image" "$@"
