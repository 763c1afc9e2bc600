# shellcheck shell=bash
# Sourced by up.sh and down.sh: the folder of the cluster and checks of its processes.
ROOT=${DEVCLUSTER_ROOT:-/var/lib/flexhpc-devcluster}
export SLURM_CONF=$ROOT/etc/slurm.conf

# is_running PID NAME: whether the process is running and has this name. After a reboot the pid may
# belong to another program. A zombie does not count as running.
is_running() {
  local state
  state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 1
  [ -n "$state" ] && [ "$state" != Z ] && [ "$state" != X ] &&
    [[ $(cat "/proc/$1/comm" 2>/dev/null) == "$2"* ]]
}

# daemon_name PIDFILE: print the name of the daemon, slurmd for slurmd.n1.pid.
daemon_name() {
  local name=${1##*/}
  echo "${name%%.*}"
}

# is_alive PIDFILE: whether the daemon with this pid file is running.
is_alive() { [ -s "$1" ] && is_running "$(cat "$1")" "$(daemon_name "$1")"; }

# wait_until SECONDS COMMAND...: repeat the command until it succeeds.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "devcluster: timeout waiting for: $*" >&2; return 1; }
    sleep 0.1
  done
}
