#!/usr/bin/env bash
# Builds the image with podman or docker.
#   IMAGE=localhost/flexhpc:latest  its name       TORCH=cuda|cpu   which builds of torch
#   BASE=...                        its base       RUNTIME=         podman or docker
#   BUILD_FLAGS=...                 more flags of `build`; RUNTIME may contain flags as well:
#                                   RUNTIME='podman --runtime runc'
set -euo pipefail
cd "$(dirname "$0")/../.."
. hpc/container/lib.sh
runtime=$(pick podman docker)
kind=${runtime%% *}
export DOCKER_BUILDKIT=1 # docker before 23 ignores secrets without it
case $kind in podman) field=.Store.GraphRoot ;; *) field=.DockerRootDir ;; esac
store=$($runtime info --format "{{$field}}")
room "${ROOM_GB:-15}" "$store" " or set ROOM_GB=..."

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
python=python3
[ ! -x .venv/bin/python ] || python=.venv/bin/python
site_flags=$($python hpc/container/build_flags.py "$secrets" "$kind")
mapfile -t site <<<"$site_flags"
flags=(--tag "$IMAGE" ${site_flags:+"${site[@]}"} --build-arg "TORCH=${TORCH:-cuda}"
  --build-arg "VERSION=$(version)" --build-arg "REVISION=$(revision)")
[ -z "${BASE:-}" ] || flags+=(--build-arg "BASE=$BASE")
[ "$kind" != podman ] || flags+=(--format docker --layers)  # the OCI format has no health check
# shellcheck disable=SC2086 # split into words
$runtime build "${flags[@]}" ${BUILD_FLAGS:-} .
$runtime image inspect --format "$IMAGE: {{.Size}} bytes, {{.Id}}" "$IMAGE"
