#!/usr/bin/env bash
# Installs SLURM, munge and MariaDB on Debian or Ubuntu, as root; starts none of them.
#   hpc/devcluster/packages.sh [--check]     --check: only say whether they are there
set -euo pipefail
absent=()
for command in slurmctld slurmd slurmdbd sbatch sacctmgr munged mariadbd; do
  command -v $command >/dev/null || absent+=($command)
done
[ ${#absent[@]} -gt 0 ] || exit 0
if [ "${1:-}" = --check ]; then
  echo "not installed: ${absent[*]}" >&2
  exit 1
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "not installed: ${absent[*]}; only root on Debian or Ubuntu can install them here" >&2
  exit 1
fi
echo "installing SLURM, munge and MariaDB ..." >&2
# Debian starts services when it installs them; the devcluster starts its own, with its own state.
guard=/usr/sbin/policy-rc.d
if [ ! -e $guard ]; then
  printf '#!/bin/sh\nexit 101\n' >$guard
  chmod +x $guard
  trap 'rm -f $guard' EXIT
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
  slurm-wlm slurm-client slurmdbd munge mariadb-server >/dev/null
