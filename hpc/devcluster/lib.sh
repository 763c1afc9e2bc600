# shellcheck shell=bash
# Sourced by up.sh and down.sh: where the cluster lives, and how its processes are told apart.
ROOT=${DEVCLUSTER_ROOT:-/var/lib/flexhpc-devcluster}
export SLURM_CONF=$ROOT/etc/slurm.conf

# runs PID NAME: whether that process is still one of ours. After a reboot the number may be a
# stranger's, and a zombie that nobody has reaped yet no longer runs.
runs() {
  local state
  state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 1
  [ -n "$state" ] && [ "$state" != Z ] && [ "$state" != X ] &&
    [[ $(cat "/proc/$1/comm" 2>/dev/null) == "$2"* ]]
}

# daemon PIDFILE: the name of the daemon that wrote it, as in slurmd.n1.pid.
daemon() {
  local name=${1##*/}
  echo "${name%%.*}"
}

# alive PIDFILE: whether its daemon runs.
alive() { [ -s "$1" ] && runs "$(cat "$1")" "$(daemon "$1")"; }

# wait_until SECONDS COMMAND...: until it succeeds.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "devcluster: waited too long for: $*" >&2; return 1; }
    sleep 0.1
  done
}
