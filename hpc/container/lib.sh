# Sourced by the scripts beside it, which set -euo pipefail and stand in the project's folder.
IMAGE=${IMAGE:-localhost/flexhpc:latest}
SIF=${SIF:-flexhpc.sif}

fail() {
  echo "$*" >&2
  exit 1
}

# pick NAME...: the first of these programs that is installed, or RUNTIME, which may have flags.
pick() {
  local name
  [ -z "${RUNTIME:-}" ] || set -- "$RUNTIME"
  for name in "$@"; do
    ! command -v "${name%% *}" >/dev/null || { echo "$name"; return; }
  done
  fail "not installed here: $* (on Debian as root: hpc/container/packages.sh)"
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
