#!/usr/bin/env bash
# Sets up .venv with the pinned packages; safe to repeat, and to run twice at the same time.
#   [HASHES=1] hpc/setup.sh [dev]     dev: with what the tests need
# HASHES=1 takes no archive but those of hpc/hashes.txt, which is for one system and Python.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-}
stamp=.venv/.installed${extra:+-$extra}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "flexhpc needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Set PYTHON=..." >&2
  exit 1
}
if command -v flock >/dev/null; then
  exec 9>.venv.lock
  flock -n 9 || { echo "waiting for another set-up ..." >&2; flock 9; }
fi
fresh() { [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ]; }
fresh && exit 0

echo "setting up .venv (once; torch alone is several gigabytes) ..." >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
if [ -n "${HASHES:-}" ]; then
  pins=$(mktemp)
  trap 'rm -f "$pins"' EXIT
  if [ -n "$extra" ]; then cp hpc/hashes.txt "$pins"; else grep -v '# dev$' hpc/hashes.txt >"$pins"; fi
  "${pip[@]}" --require-hashes --no-deps -r "$pins"
  "${pip[@]}" --no-deps --no-build-isolation -e .
else
  "${pip[@]}" -c constraints.txt -e ".${extra:+[$extra]}"
fi
touch .venv/.installed "$stamp"
