#!/usr/bin/env bash
# Installs SLURM, munge and MariaDB on Debian or Ubuntu, as root; starts none of them.
#   hpc/devcluster/packages.sh [--check]     --check: only say whether they are there
set -euo pipefail
. "$(dirname "$0")/../absent.sh"
look_for "${1:-}" slurmctld slurmd slurmdbd sbatch sacctmgr munged mariadbd
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
