#!/usr/bin/env bash
# Installs what the tests need besides Python packages: SLURM, a browser for the MLflow UI, a C
# compiler and a data set. Except as root on Debian or Ubuntu, it only prints which tests are skipped.
set -euo pipefail
cd "$(dirname "$0")"
missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v cc >/dev/null || missing+=(gcc libc6-dev) # for the simulated failing disk of tests/faults
[ -d /usr/share/datasets/fashion-mnist ] || missing+=(dataset-fashion-mnist)
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  devcluster/packages.sh
  [ ${#missing[@]} -gt 0 ] || exit 0
  echo "installing ${missing[*]} ..." >&2
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
    "${missing[@]}" fonts-dejavu-core >/dev/null
  exit 0
fi
[ ${#missing[@]} -eq 0 ] ||
  echo "not installed: ${missing[*]}; the tests that need them are skipped" >&2
devcluster/packages.sh --check || echo "the SLURM tests are skipped" >&2
[ "$(id -u)" = 0 ] || echo "not root: the SLURM tests are skipped" >&2
