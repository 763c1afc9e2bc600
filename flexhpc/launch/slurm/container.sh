# shellcheck shell=bash disable=SC2154
# Runs a command in the container image with which an array was submitted; called once per process
# of a task, on its node. container.py prepends assignments of runtime, image, digest, identity,
# file_stamp, source, workdir, binds and flags.
options=()
fail() { echo "$(hostname): $image: $1" >&2; exit 78; }
if [ "$runtime" = apptainer ]; then
  bind() { options+=(--bind "$1"); }
  pass_variable() { export "APPTAINERENV_$1=${!1}"; }
  for name in $(compgen -e); do
    case $name in
      APPTAINERENV_* | SINGULARITYENV_* | APPTAINER_BIND* | SINGULARITY_BIND*) unset "$name" ;;
    esac
  done
else
  bind() { options+=(--volume "$1"); }
  pass_variable() { options+=(--env "$1"); }
fi

# If several binds have the same target, the first is used: the run folder and the profile's binds
# precede the data folders. A bind is skipped if its source does not exist on this node.
if [ -n "${FLEXHPC_DATA:-}" ]; then
  FLEXHPC_DATA=$(realpath -m "$FLEXHPC_DATA")
  binds+=("$FLEXHPC_DATA:$FLEXHPC_DATA:ro")
fi
binds+=(/usr/share/datasets:/usr/share/datasets:ro)
# In the container, the working directory is an empty folder with mount points for binds below it.
mount_points=$(cd "$(dirname "$0")" && pwd)/mount_points
contains() { case "$2/" in "${1%/}"/*) return 0 ;; *) return 1 ;; esac; }
declare -A targets=()
selected=()
workdir_is_bound=no
for spec in "${binds[@]}"; do
  IFS=: read -r source_path target_path _ <<<"$spec"
  target_path=${target_path%/}
  if [ ! -e "$source_path" ] || [ -n "${targets[$target_path]:-}" ]; then continue; fi
  targets[$target_path]=yes
  selected+=("$spec")
  ! contains "$target_path" "$workdir" || workdir_is_bound=yes
  if contains "$workdir" "$target_path"; then
    mount_point=$mount_points${target_path#"$workdir"}
    if [ -d "$source_path" ]; then
      mkdir -p "$mount_point"
    else
      mkdir -p "${mount_point%/*}"
      : >>"$mount_point"
    fi
  fi
done
if [ $workdir_is_bound = no ] && [ "$workdir" != / ]; then
  mkdir -p "$mount_points"
  bind "$mount_points:$workdir"
fi
for spec in "${selected[@]}"; do bind "$spec"; done

if [ "$runtime" != apptainer ]; then
  # Podman and docker run outside of SLURM's cgroup, where all GPUs are visible, so the GPUs of this
  # step are selected here. The container renumbers them, so CUDA_VISIBLE_DEVICES is unset.
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
      MKL_* | OPENBLAS_* | TORCH_* | PYTORCH_*) pass_variable "$name" ;;
  esac
done

if [ "$runtime" = apptainer ]; then
  [ "$(stat -L -c '%s %Y' "$image" 2>/dev/null)" = "$file_stamp" ] ||
    fail "was removed or changed; submit the sweep again"
  [ ! -e /dev/nvidiactl ] || options+=(--nv)
  exec apptainer --silent exec --cleanenv --no-mount home,cwd --pwd "$workdir" \
    "${options[@]}" "${flags[@]}" "$image" "$@"
fi

image_id() { "$runtime" image inspect --format '{{.Id}}' "$image" 2>/dev/null; }
actual=$(image_id) || { "$runtime" pull --quiet "$image" >&2 && actual=$(image_id); } ||
  fail "image not found; load it on every node, or use a registry"
[ "${actual#sha256:}" = "${digest#sha256:}" ] ||
  fail "is not the image with which the sweep was submitted ($digest); submit the sweep again"
user=(--user "$(id -u):$(id -g)")
if [ "$runtime" = podman ]; then
  user+=(--security-opt label=disable)
  [ "$(id -u)" = 0 ] || user+=(--userns keep-id)
else
  for group in $(id -G); do user+=(--group-add "$group"); done
fi
# A previous attempt of this process may have left a container running, which SLURM cannot kill.
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
  task=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}-$SLURM_PROCID
  name=flexhpc-$(cksum <<<"$mount_points" | cut -d ' ' -f 1)-$task
  "$runtime" rm --force "$name" >/dev/null 2>&1 || true
  options+=(--name "$name")
fi
exec "$runtime" run --rm --network host --ipc host --read-only --tmpfs /tmp --no-healthcheck \
  --log-driver none --env HOME --workdir "$workdir" "${user[@]}" \
  "${options[@]}" "${flags[@]}" --entrypoint "" "$image" "$@"
