#!/usr/bin/env bash
# Builds the image with podman or docker.
#   IMAGE=localhost/flexhpc:latest  its name       TORCH=cuda|cpu   which builds of torch
#   BASE=...                        its base       RUNTIME=         podman or docker
#   BUILD_FLAGS=...                 more flags of `build`, as a site may need; RUNTIME takes some too:
#                                   RUNTIME='podman --runtime runc'
set -euo pipefail
cd "$(dirname "$0")/../.."
. hpc/container/lib.sh
runtime=$(pick podman docker)
kind=${runtime%% *}
store=/var/lib/docker
[ "$kind" != podman ] || store=$(podman info --format '{{.Store.GraphRoot}}')
room "${ROOM_GB:-15}" "$store"

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
mapfile -t site < <(python3 hpc/container/site.py "$secrets" "$kind")
flags=(--tag "$IMAGE" "${site[@]}" --build-arg "TORCH=${TORCH:-cuda}"
  --build-arg "VERSION=$(version)" --build-arg "REVISION=$(revision)")
[ -z "${BASE:-}" ] || flags+=(--build-arg "BASE=$BASE")
[ "$kind" != podman ] || flags+=(--format docker --layers)  # OCI's format has no health check
# shellcheck disable=SC2086 # the flags are words
$runtime build "${flags[@]}" ${BUILD_FLAGS:-} .
$runtime image inspect --format "$IMAGE: {{.Size}} bytes, {{.Id}}" "$IMAGE"
