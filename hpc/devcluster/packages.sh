#!/usr/bin/env bash
# Installs SLURM, munge and MariaDB on Debian or Ubuntu, as root, without starting them.
#   hpc/devcluster/packages.sh [--check]     --check: only report whether they are installed
set -euo pipefail
. "$(dirname "$0")/../missing.sh"
find_missing "${1:-}" slurmctld slurmd slurmdbd sbatch sacctmgr munged mariadbd
echo "installing SLURM, munge and MariaDB ..." >&2
# Keep Debian from starting the services on installation: the devcluster starts separate ones.
guard=/usr/sbin/policy-rc.d
if [ ! -e $guard ]; then
  printf '#!/bin/sh\nexit 101\n' >$guard
  chmod +x $guard
  trap 'rm -f $guard' EXIT
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
  slurm-wlm slurm-client slurmdbd munge mariadb-server >/dev/null
