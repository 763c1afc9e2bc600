#!/usr/bin/env bash
# Builds the image with podman or docker.
#   IMAGE=localhost/flexhpc:latest  image name     TORCH=cuda|cpu   builds of torch
#   BASE=...                        base image     RUNTIME=         podman or docker
#   BUILD_FLAGS=...                 additional options of `build`; RUNTIME may contain options as well:
#                                   RUNTIME='podman --runtime runc'
set -euo pipefail
cd "$(dirname "$0")/../.."
. hpc/container/lib.sh
runtime=$(pick_runtime podman docker)
kind=${runtime%% *}
export DOCKER_BUILDKIT=1 # without it, docker before 23 ignores secrets
case $kind in podman) field=.Store.GraphRoot ;; *) field=.DockerRootDir ;; esac
store=$($runtime info --format "{{$field}}")
require_space "${ROOM_GB:-15}" "$store" " or set ROOM_GB=..."

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
python=python3
[ ! -x .venv/bin/python ] || python=.venv/bin/python
site_flags=$($python hpc/container/build_flags.py "$secrets" "$kind")
mapfile -t site <<<"$site_flags"
flags=(--tag "$IMAGE" ${site_flags:+"${site[@]}"} --build-arg "TORCH=${TORCH:-cuda}"
  --build-arg "VERSION=$(version)" --build-arg "REVISION=$(revision)")
[ -z "${BASE:-}" ] || flags+=(--build-arg "BASE=$BASE")
[ "$kind" != podman ] || flags+=(--format docker --layers)  # the OCI format does not support health checks
# shellcheck disable=SC2086 # split into words
$runtime build "${flags[@]}" ${BUILD_FLAGS:-} .
$runtime image inspect --format "$IMAGE: {{.Size}} bytes, {{.Id}}" "$IMAGE"
