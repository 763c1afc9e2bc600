# shellcheck shell=bash
# Sourced by hpc/*/packages.sh.
# look_for MODE COMMAND...: set `absent` to the commands that are not installed. Exit with status 0 if
# all are installed, or with status 1 if MODE is --check or if they cannot be installed here.
look_for() {
  local mode=$1 command
  shift
  absent=()
  for command in "$@"; do
    command -v "$command" >/dev/null || absent+=("$command")
  done
  [ ${#absent[@]} -gt 0 ] || exit 0
  if [ "$mode" = --check ]; then
    echo "not installed: ${absent[*]}" >&2
    exit 1
  fi
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "not installed: ${absent[*]}; installing them requires root on Debian or Ubuntu" >&2
    exit 1
  fi
}
