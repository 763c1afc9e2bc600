#!/usr/bin/env bash
# Stops the processes that up.sh started, identified by their pid files.
#   hpc/devcluster/down.sh [--wipe]     --wipe: also remove the state (jobs, accounting, logs)
set -uo pipefail
cd "$(dirname "$0")" || exit
. ./lib.sh
[ -d "$ROOT/run" ] || exit 0

stop() { # stop PIDFILE...: send SIGTERM, and SIGKILL after 15 s
  local file i name files=() pids=()
  for file in "$@"; do # read all files first, because daemons remove them on exit
    is_alive "$file" && files+=("$file") && pids+=("$(cat "$file")")
  done
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
  for i in "${!pids[@]}"; do
    name=$(daemon_name "${files[i]}")
    for _ in $(seq 150); do
      is_running "${pids[i]}" "$name" || break
      sleep 0.1
    done
    if is_running "${pids[i]}" "$name"; then
      echo "devcluster: killing $name: still running after 15 s" >&2
      kill -9 "${pids[i]}"
    fi
  done
  rm -f "$@"
}

if is_alive "$ROOT/run/slurmctld.pid"; then # cancel all jobs, which would outlive the cluster
  timeout 5 scancel --full -u "$(id -un)" 2>/dev/null
  queue_empty() { [ -z "$(timeout 3 squeue -h)" ]; }
  wait_until 15 queue_empty
fi
stop "$ROOT/run/slurmctld.pid" # first, because it would wait for each slurmd
shopt -s nullglob
nodes=("$ROOT"/run/slurmd.*.pid)
[ ${#nodes[@]} -eq 0 ] || stop "${nodes[@]}"
stop "$ROOT/run/slurmdbd.pid"
stop "$ROOT/run/mariadb.pid"
stop "$ROOT/run/munged.pid"
[ "${1:-}" != --wipe ] || rm -rf --one-file-system "$ROOT"
exit 0
