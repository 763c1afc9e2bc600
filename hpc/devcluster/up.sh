#!/usr/bin/env bash
# Starts a SLURM cluster on this host, for testing: munge, MariaDB, slurmdbd, slurmctld and NODES
# slurmd, as root, on loopback only, independent of other SLURM installations on the host.
#   hpc/devcluster/up.sh [--quiet]      safe to repeat: starts only daemons that are not running
# Environment variables: DEVCLUSTER_ROOT, NODES, CPUS, MEM_MB and GPUS (each per node),
# ACCOUNTING (0: no slurmdbd), MAX_ARRAY (MaxArraySize), PORT (the first of NODES + 3 ports).
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh
NODES=${NODES:-4} CPUS=${CPUS:-8} MEM_MB=${MEM_MB:-4000} GPUS=${GPUS:-2}
ACCOUNTING=${ACCOUNTING:-1} MAX_ARRAY=${MAX_ARRAY:-1001} PORT=${PORT:-16800}
HOST=$(hostname -s)
umask 022

[ "$(id -u)" = 0 ] || { echo "devcluster: must be started as root" >&2; exit 1; }
./packages.sh
mkdir -p "$ROOT"/{etc,run,log,spool,state,dev,mysql,tmp}
chmod 755 "$ROOT"

replace() { # replace FILE: write standard input to it if the content differs
  cat >"$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

start_munge() {
  local key=$ROOT/etc/munge.key socket=$ROOT/run/munge.sock
  [ -s "$key" ] || (umask 077 && head -c 128 /dev/urandom >"$key")
  is_alive "$ROOT/run/munged.pid" && return
  rm -f "$socket"*
  munged --force --key-file="$key" --socket="$socket" --pid-file="$ROOT/run/munged.pid" \
    --log-file="$ROOT/log/munged.log" --seed-file="$ROOT/run/munge.seed" --num-threads=2
}

# Host names of the nodes. This file is mounted as /etc/hosts of each slurmd only.
write_hosts() {
  { cat /etc/hosts && for i in $(seq "$NODES"); do echo "127.0.0.1 n$i"; done; } | replace "$ROOT/etc/hosts"
}

write_config() {
  local gpu
  for gpu in $(seq 0 $((GPUS - 1))); do # character devices that simulate GPUs
    [ -e "$ROOT/dev/nvidia$gpu" ] || mknod "$ROOT/dev/nvidia$gpu" c 1 3
  done
  if [ "$GPUS" -gt 0 ]; then
    echo "NodeName=n[1-$NODES] Name=gpu File=$ROOT/dev/nvidia[0-$((GPUS - 1))] AutoDetect=off"
  fi | replace "$ROOT/etc/gres.conf"
  echo "CgroupAutomount=no" | replace "$ROOT/etc/cgroup.conf"
  slurm_conf >"$SLURM_CONF.new"
  if is_alive "$ROOT/run/slurmctld.pid" && ! cmp -s "$SLURM_CONF.new" "$SLURM_CONF"; then
    echo "devcluster: already running with other settings; stop it first (hpc/devcluster/down.sh)" >&2
    exit 1
  fi
  mv "$SLURM_CONF.new" "$SLURM_CONF"
}

slurm_conf() {
  local i
  # cred_expire: delay before a requeued job starts (seconds); SLURM's minimum is 5, its default 120.
  cat <<C
ClusterName=devcluster
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
StateSaveLocation=$ROOT/state
SlurmdPidFile=$ROOT/run/slurmd.%n.pid
SlurmdLogFile=$ROOT/log/slurmd.%n.log
SlurmdSpoolDir=$ROOT/spool/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
RebootProgram=/bin/false
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,batch_sched_delay=0,sched_min_interval=0,sched_interval=5
DependencyParameters=kill_invalid_depend
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
MinJobAge=300
MaxArraySize=$MAX_ARRAY
InactiveLimit=0
SlurmdTimeout=10
SlurmctldTimeout=10
C
  if [ "$ACCOUNTING" = 1 ]; then
    cat <<C
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$ROOT/run/munge.sock
AccountingStorageTRES=gres/gpu
C
  else
    echo "AccountingStorageType=accounting_storage/none"
  fi
  for i in $(seq "$NODES"); do
    echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 1 + i)) CPUs=$CPUS" \
      "Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM_MB" \
      "Gres=gpu:$GPUS State=UNKNOWN"
  done
  cat <<C
PartitionName=main Nodes=n[1-$NODES] Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=100 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=n[1-$NODES] MaxTime=INFINITE State=UP DefMemPerCPU=100 PriorityTier=10 PreemptMode=OFF
C
}

create_database() { # with a separate TMPDIR, because concurrent installs in one folder fail
  [ ! -e "$ROOT/mysql/.created" ] || return 0
  rm -rf --one-file-system "$ROOT/mysql"
  mkdir "$ROOT/mysql"
  TMPDIR=$ROOT/tmp mariadb-install-db --no-defaults --user=root --datadir="$ROOT/mysql" \
    --auth-root-authentication-method=socket --skip-test-db \
    >"$ROOT/log/mysql_install.log" 2>&1 || { cat "$ROOT/log/mysql_install.log" >&2; exit 1; }
  touch "$ROOT/mysql/.created"
}

start_accounting() {
  local socket=$ROOT/run/mysql.sock
  if ! is_alive "$ROOT/run/mariadb.pid"; then
    create_database
    TMPDIR=$ROOT/tmp setsid mariadbd --no-defaults --user=root --datadir="$ROOT/mysql" --socket="$socket" \
      --pid-file="$ROOT/run/mariadb.pid" --log-error="$ROOT/log/mariadb.log" --skip-networking \
      --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 \
      --innodb-lock-wait-timeout=900 --performance-schema=OFF </dev/null >/dev/null 2>&1 &
    wait_until 60 mariadb-admin --no-defaults --socket="$socket" ping
    mariadb --no-defaults --socket="$socket" -e "CREATE DATABASE IF NOT EXISTS slurm_acct_db"
  fi
  (
    umask 077 # slurmdbd rejects a configuration that others can read
    replace "$ROOT/etc/slurmdbd.conf" <<C
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.sock
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
SlurmUser=root
LogFile=$ROOT/log/slurmdbd.log
PidFile=$ROOT/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
C
  )
  is_alive "$ROOT/run/slurmdbd.pid" ||
    MYSQL_UNIX_PORT=$socket slurmdbd </dev/null >/dev/null 2>&1
  wait_until 60 timeout 3 sacctmgr -n list cluster
  sacctmgr -n list cluster format=cluster%20 | grep -qw devcluster ||
    sacctmgr -i add cluster devcluster >/dev/null
}

start_slurm() {
  local i
  is_alive "$ROOT/run/slurmctld.pid" || slurmctld </dev/null >/dev/null 2>&1
  wait_until 30 timeout 3 scontrol ping
  for i in $(seq "$NODES"); do
    mkdir -p "$ROOT/spool/n$i"
    is_alive "$ROOT/run/slurmd.n$i.pid" ||
      unshare -m --propagation slave bash -c \
        'mount --bind "$0" /etc/hosts; exec slurmd -N "$1"' "$ROOT/etc/hosts" "n$i" \
        </dev/null >"$ROOT/log/slurmd.n$i.out" 2>&1
  done
}

all_up() { [ "$(sinfo -h -N -p main -o '%N %T' | grep -cE ' (idle|mixed|allocated)$')" = "$NODES" ]; }

start_munge
write_hosts
write_config
[ "$ACCOUNTING" = 0 ] || start_accounting
start_slurm
if ! wait_until 15 all_up 2>/dev/null; then
  for i in $(seq "$NODES"); do scontrol update NodeName="n$i" State=RESUME 2>/dev/null || true; done
  wait_until 15 all_up || { sinfo -R >&2; sinfo -N >&2; exit 1; }
fi
if [ "${1:-}" != --quiet ]; then
  sinfo
  echo "# use PROFILE=hpc/profiles/devcluster.yaml; for squeue and other commands:"
  echo "export SLURM_CONF=$SLURM_CONF"
fi
