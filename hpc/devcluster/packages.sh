#!/usr/bin/env bash
# Installs SLURM, munge and MariaDB on Debian or Ubuntu, as root; starts none of them.
set -euo pipefail
commands=(slurmctld slurmd slurmdbd sbatch sacctmgr munged mariadbd)
missing() { for one in "${commands[@]}"; do command -v "$one" >/dev/null || return 0; done; return 1; }
missing || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "SLURM is not installed, and only root on Debian or Ubuntu can install it here" >&2
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
