#!/usr/bin/env bash
# Installs podman, apptainer and mmdebstrap on Debian or Ubuntu, as root.
#   hpc/container/packages.sh [--check]     --check: only report whether they are installed
set -euo pipefail
. "$(dirname "$0")/../missing.sh"
find_missing "${1:-}" podman runc mksquashfs mmdebstrap apptainer
export DEBIAN_FRONTEND=noninteractive

# apptainer_from SUITE: install apptainer from a newer suite, because Debian 12 has no package. The C
# library that it needs is installed in a separate folder, so that the system is not upgraded.
apptainer_from() {
  local suite=$1 home=/usr/lib/x86_64-linux-gnu/apptainer work mirror file
  work=$(mktemp -d)
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian$' | head -n 1)
  [ -n "$mirror" ] || { echo "apt has no Debian mirror; install apptainer manually" >&2; return 1; }
  mkdir -p "$work"/{sources,lists/partial,archives/partial,tree}
  cat >"$work/sources/newer.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
  local options=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources"
    -o Dir::State::lists="$work/lists" -o Dir::Cache::archives="$work/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
  apt-get -qq "${options[@]}" update
  (cd "$work" && apt-get -qq "${options[@]}" download apptainer libc6 libseccomp2 libsqlite3-0)
  for file in "$work"/*.deb; do dpkg-deb -x "$file" "$work/tree"; done

  mkdir -p $home/libs /etc/apptainer /var/lib/apptainer/mnt/session
  cp -r "$work/tree$home/." $home/
  cp -rn "$work/tree/etc/apptainer/." /etc/apptainer/
  cp "$work/tree/usr/bin/apptainer" "$work/tree/usr/bin/run-singularity.apptainer" /usr/bin/
  for file in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 \
    libresolv.so.2 libnss_files.so.2 libnss_dns.so.2 libseccomp.so.2 libsqlite3.so.0; do
    cp -L "$(find "$work/tree" -name $file -print -quit)" $home/libs/
  done
  for file in /usr/bin/apptainer $home/bin/starter; do
    patchelf --set-interpreter $home/libs/ld-linux-x86-64.so.2 --force-rpath --set-rpath $home/libs $file
  done
  rm -r "$work"
}

echo "installing ${missing[*]} ..." >&2
apt-get -qq update
apt-get -qq install -y --no-install-recommends podman buildah crun runc fuse-overlayfs uidmap \
  squashfs-tools mmdebstrap patchelf >/dev/null
command -v apptainer >/dev/null || {
  apt-get -qq install -y --no-install-recommends apptainer >/dev/null 2>&1 || apptainer_from sid
}
apptainer --version >&2
