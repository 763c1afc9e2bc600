#!/usr/bin/env bash
# What the tests use beyond Python: a browser for the MLflow UI, and a real data set.
# Installed on Debian and Ubuntu as root; elsewhere it says what will be left out.
set -euo pipefail
missing=()
command -v chromium >/dev/null || missing+=(chromium)
[ -d /usr/share/datasets/fashion-mnist ] || missing+=(dataset-fashion-mnist)
[ ${#missing[@]} -gt 0 ] || exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "installing ${missing[*]} ..." >&2
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
    "${missing[@]}" fonts-dejavu-core >/dev/null
else
  echo "not installed: ${missing[*]}; the tests that need them are skipped" >&2
fi
