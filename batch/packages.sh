#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what building hy3 on Debian 12 needs and this machine lacks, as root or through sudo.
# With nothing missing it needs neither and no network.
#   bash batch/packages.sh [tests] [lint]
set -eu

packages="autoconf automake gcc gnuplot-nox libc6-dev libconfig-dev libdnnl-dev libhdf5-mpich-dev
    libjansson-dev libmpich-dev libpcre2-dev libssl-dev libtool libxxhash-dev libyaml-dev make mpich
    pkg-config"
for word in "$@"; do
    case $word in
    tests)
        packages="$packages bats hdf5-tools libcmocka-dev munge procps slurm-client slurmctld
            slurmd"
        ;;
    lint) packages="$packages clang clang-format clang-tidy cppcheck libclang-rt-14-dev" ;;
    *)
        echo "packages.sh: error: unknown word '$word'; it may be tests or lint" >&2
        exit 2
        ;;
    esac
done

if ! command -v dpkg-query >/dev/null; then
    echo "packages.sh: this is no Debian; configure will name what is missing" >&2
    exit 0
fi
missing=
for package in $packages; do
    case $(dpkg-query -W -f='${db:Status-Status} ' "$package" 2>/dev/null) in
    installed*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "packages.sh: error: there is no sudo; as root run: apt-get install$missing" >&2
        exit 1
    fi
    root=sudo
fi
echo "installing$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    if ! $root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        echo "packages.sh: error: apt-get $1 failed, see above" >&2
        exit 1
    fi
}
apt update
# shellcheck disable=SC2086 # a list of words
apt install -y --no-install-recommends $missing
