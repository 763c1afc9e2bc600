#!/usr/bin/env bash
# Sets up .venv with the pinned packages; safe to repeat and to run concurrently.
#   [HASHES=1] hpc/setup.sh [dev]     dev: include the packages for tests and lint
# HASHES=1: accept only archives listed in hpc/hashes.txt (valid for one system and Python version).
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-}
[ "${HASHES:-}" = 1 ] && hashes=1 || hashes=
stamp=.venv/.installed${hashes:+-hashes}${extra:+-$extra}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "flexhpc needs Python 3.11 or newer; $python is $("$python" -V 2>&1); set PYTHON=..." >&2
  exit 1
}
if command -v flock >/dev/null; then
  exec 9>.venv.lock
  flock -n 9 || { echo "waiting for another setup to finish ..." >&2; flock 9; }
fi
up_to_date() {
  [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ] &&
    [ "$stamp" -nt hpc/hashes.txt ]
}
up_to_date && exit 0

if [ -n "$hashes" ]; then
  system=$("$python" -c 'import platform as p
print(f"{p.system()} {p.machine()}, Python", ".".join(p.python_version_tuple()[:2]))')
  grep -q "^# $system:" hpc/hashes.txt || {
    echo "hpc/hashes.txt is not for $system; run python hpc/hashes.py on it" >&2
    exit 1
  }
  # pip does not check the hashes of packages that are already installed.
  compgen -G '.venv/.installed-hashes*' >/dev/null || rm -rf .venv
fi
echo "setting up .venv (once; torch is several gigabytes) ..." >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
if [ -n "$hashes" ]; then
  pins=$(mktemp)
  trap 'rm -f "$pins"' EXIT
  if [ -n "$extra" ]; then cp hpc/hashes.txt "$pins"; else grep -v '# dev$' hpc/hashes.txt >"$pins"; fi
  "${pip[@]}" --require-hashes --only-binary :all: --no-deps -r "$pins"
  "${pip[@]}" --no-deps --no-build-isolation -e .
else
  rm -f .venv/.installed-hashes*
  "${pip[@]}" -c constraints.txt -e ".${extra:+[$extra]}"
fi
touch .venv/.installed ".venv/.installed${extra:+-$extra}" "$stamp"
