# shellcheck shell=bash
# Sourced by the scripts in this folder, which set -euo pipefail.
IMAGE=${IMAGE:-localhost/flexhpc:latest}
SIF=${SIF:-flexhpc.sif}

fail() {
  echo "$*" >&2
  exit 1
}

# Unless CONTAINERS_CONF is set, use containers.conf of this folder where podman's defaults fail.
may_raise_limits() { ((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> 24 & 1)); }
if [ "$(id -u)" = 0 ] && [ -z "${CONTAINERS_CONF:-}" ] && command -v runc >/dev/null; then
  if [ -d /sys/fs/cgroup/unified ] || ! may_raise_limits; then
    CONTAINERS_CONF=$(realpath "$(dirname "${BASH_SOURCE[0]}")/containers.conf")
    export CONTAINERS_CONF
  fi
fi

# pick_runtime NAME...: print the first of these runtimes that is installed and works. If RUNTIME is
# set, try only RUNTIME, which may contain flags.
pick_runtime() {
  local name output reasons=
  [ -z "${RUNTIME:-}" ] || set -- "$RUNTIME"
  for name in "$@"; do
    command -v "${name%% *}" >/dev/null || { reasons+="; $name is not installed"; continue; }
    # shellcheck disable=SC2086 # split into words
    if output=$($name info 2>&1 >/dev/null); then echo "$name"; return; fi
    reasons+="; $name: $(tail -n 1 <<<"$output")"
  done
  fail "no working container runtime: ${reasons#; }
on Debian as root, hpc/container/packages.sh installs podman and apptainer"
}

# runtime_with_image NAME...: print the first of these runtimes that has the image (apptainer: the
# SIF file).
runtime_with_image() {
  local name output reasons=
  [ -z "${RUNTIME:-}" ] || set -- "$RUNTIME"
  for name in "$@"; do
    command -v "${name%% *}" >/dev/null || continue
    output=
    case $name in
      apptainer*) [ ! -f "$SIF" ] || { echo "$name"; return; } ;;
      *) if output=$($name image inspect "$IMAGE" 2>&1 >/dev/null); then echo "$name"; return; fi ;;
    esac
    [ -z "$output" ] || reasons+=" ($(tail -n 1 <<<"$output"))"
  done
  fail "no image found for $*: \`make image\` builds $IMAGE, \`make sif\` $SIF$reasons"
}

# require_space GIGABYTES FOLDER [FIX]: fail unless the file system of FOLDER has this much free
# space.
require_space() {
  local free folder=$2
  until [ -d "$folder" ]; do folder=$(dirname "$folder"); done
  free=$(($(df --output=avail -k "$folder" | tail -n 1) / 1000000))
  [ $free -ge "$1" ] || fail "$folder: $free GB free, $1 GB required; free some space${3:-}"
}

version() { sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml; }
revision() { git -C "$(dirname "${BASH_SOURCE[0]}")" describe --always --dirty=+ --abbrev=12 2>/dev/null || echo unknown; }

# label RUNTIME NAME: print a label of the image.
label() {
  $1 image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$2\"}}" "$IMAGE"
}
