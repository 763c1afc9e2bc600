#!/usr/bin/env bash
# Stops what up.sh started, by its pid files only.
#   hpc/devcluster/down.sh [--wipe]     --wipe: remove its state (jobs, accounting, logs) as well
set -uo pipefail
cd "$(dirname "$0")" || exit
. ./lib.sh
[ -d "$ROOT/run" ] || exit 0

stop() { # stop PIDFILE...: ask, wait, and kill what does not listen
  local file i name files=() pids=()
  for file in "$@"; do # a daemon removes its file: read them all first
    alive "$file" && files+=("$file") && pids+=("$(cat "$file")")
  done
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
  for i in "${!pids[@]}"; do
    name=$(daemon "${files[i]}")
    for _ in $(seq 150); do
      runs "${pids[i]}" "$name" || break
      sleep 0.1
    done
    if runs "${pids[i]}" "$name"; then
      echo "devcluster: killing $name, it did not stop" >&2
      kill -9 "${pids[i]}"
    fi
  done
  rm -f "$@"
}

if alive "$ROOT/run/slurmctld.pid"; then # no job may outlive its cluster
  timeout 5 scancel --full -u "$(id -un)" 2>/dev/null
  queue_empty() { [ -z "$(timeout 3 squeue -h)" ]; }
  wait_until 15 queue_empty
fi
stop "$ROOT/run/slurmctld.pid" # first: it would wait for each slurmd
shopt -s nullglob
nodes=("$ROOT"/run/slurmd.*.pid)
[ ${#nodes[@]} -eq 0 ] || stop "${nodes[@]}"
stop "$ROOT/run/slurmdbd.pid"
stop "$ROOT/run/mariadb.pid"
stop "$ROOT/run/munged.pid"
[ "${1:-}" != --wipe ] || rm -rf --one-file-system "$ROOT"
exit 0
