# shellcheck shell=bash
# Sourced by the scripts in this folder, which set -euo pipefail and run in the repository root.
IMAGE=${IMAGE:-localhost/flexhpc:latest}
SIF=${SIF:-flexhpc.sif}

fail() {
  echo "$*" >&2
  exit 1
}

# Where podman's own settings do not work, and nobody gave others, those beside this file.
may_raise_limits() { ((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> 24 & 1)); }
if [ "$(id -u)" = 0 ] && [ -z "${CONTAINERS_CONF:-}" ] && command -v runc >/dev/null; then
  if [ -d /sys/fs/cgroup/unified ] || ! may_raise_limits; then
    CONTAINERS_CONF=$(realpath "$(dirname "${BASH_SOURCE[0]}")/containers.conf")
    export CONTAINERS_CONF
  fi
fi

# pick NAME...: the first of these programs that is installed and answers, or RUNTIME, which may
# have flags.
pick() {
  local name said why=
  [ -z "${RUNTIME:-}" ] || set -- "$RUNTIME"
  for name in "$@"; do
    command -v "${name%% *}" >/dev/null || { why+="; $name is not installed"; continue; }
    # shellcheck disable=SC2086 # the flags are words
    if said=$($name info 2>&1 >/dev/null); then echo "$name"; return; fi
    why+="; $name: $(tail -n 1 <<<"$said")"
  done
  fail "no container runtime works here: ${why#; }
on Debian as root, hpc/container/packages.sh installs podman and apptainer"
}

# with_image NAME...: the first of these runtimes that has the image, or the SIF file.
with_image() {
  local name said why=
  [ -z "${RUNTIME:-}" ] || set -- "$RUNTIME"
  for name in "$@"; do
    command -v "${name%% *}" >/dev/null || continue
    case $name in
      apptainer*) [ ! -f "$SIF" ] || { echo "$name"; return; } ;;
      *) if said=$($name image inspect "$IMAGE" 2>&1 >/dev/null); then echo "$name"; return; fi ;;
    esac
    [ -z "$said" ] || why+=" ($(tail -n 1 <<<"$said"))"
  done
  fail "no image found for $*: \`make image\` builds $IMAGE, \`make sif\` $SIF$why"
}

# room GIGABYTES FOLDER: stop unless so much is free where FOLDER will be.
room() {
  local free folder=$2
  until [ -d "$folder" ]; do folder=$(dirname "$folder"); done
  free=$(($(df --output=avail -k "$folder" | tail -n 1) / 1000000))
  [ $free -ge "$1" ] || fail "$folder has $free GB free, and this needs $1 GB; make room${3:-}"
}

version() { sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml; }
revision() { git -C "$(dirname "${BASH_SOURCE[0]}")" describe --always --dirty=+ --abbrev=12 2>/dev/null || echo unknown; }

# label RUNTIME NAME: a label of the image.
label() {
  $1 image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$2\"}}" "$IMAGE"
}
