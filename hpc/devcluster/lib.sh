# Sourced by up.sh and down.sh: where the cluster lives, and how its processes are told apart.
ROOT=${DEVCLUSTER_ROOT:-/var/lib/flexhpc-devcluster}
export SLURM_CONF=$ROOT/etc/slurm.conf

# Whether the process of a pid file runs. A zombie that nobody has reaped yet does not.
alive() {
  local state
  [ -s "$1" ] && state=$(sed 's/.*) //; s/ .*//' "/proc/$(cat "$1")/stat" 2>/dev/null) &&
    [ -n "$state" ] && [ "$state" != Z ] && [ "$state" != X ]
}

# wait_until SECONDS COMMAND...: until it succeeds.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "devcluster: waited too long for: $*" >&2; return 1; }
    sleep 0.1
  done
}
