# shellcheck shell=bash
# Sourced by hpc/*/packages.sh.
# find_missing MODE COMMAND...: set `missing` to the commands that are not installed. Exit with status
# 0 if all are installed, or with status 1 if MODE is --check or if they cannot be installed here.
find_missing() {
  local mode=$1 command
  shift
  missing=()
  for command in "$@"; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  [ ${#missing[@]} -gt 0 ] || exit 0
  if [ "$mode" = --check ]; then
    echo "not installed: ${missing[*]}" >&2
    exit 1
  fi
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "not installed: ${missing[*]}; installing them requires root on Debian or Ubuntu" >&2
    exit 1
  fi
}
