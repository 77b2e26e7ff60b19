#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Hosts h1 … hN as network namespaces 10.77.1.1 … on one bridge (10.77.1.254), for mpiexec without
# Slurm. Needs CAP_NET_ADMIN.
#   netlab.sh up N | down N | link I up|down
#   mpiexec -launcher ssh -launcher-exec netlab.sh -localhost 10.77.1.254 -hosts 10.77.1.1,10.77.1.2
# …
set -eu
# what mpiexec calls to start a process on a host: [-x …] HOST COMMAND …
remote() {
    while [ "${1#-}" != "$1" ]; do shift; done
    local host=h${1##*.}
    shift
    exec nsenter --net="/run/netns/hy3-$host" unshare -u sh -c "hostname $host; exec $*"
}
# also what a killed run left
down() {
    for i in $(seq "$1"); do
        ip netns del "hy3-h$i" 2>/dev/null || :
        ip link del "hy3v$i" 2>/dev/null || :
    done
    ip link del hy3lab0 2>/dev/null || :
}
case $1 in
up)
    down "$2"
    ip link add hy3lab0 type bridge
    ip addr add 10.77.1.254/24 dev hy3lab0
    ip link set hy3lab0 up
    for i in $(seq "$2"); do
        ip netns add "hy3-h$i"
        ip link add "hy3v$i" type veth peer name eth0 netns "hy3-h$i"
        ip link set "hy3v$i" master hy3lab0 up
        ip -n "hy3-h$i" addr add "10.77.1.$i/24" dev eth0
        ip -n "hy3-h$i" link set eth0 up
        ip -n "hy3-h$i" link set lo up
    done
    ;;
down) down "$2" ;;
link) ip link set "hy3v$2" "$3" ;;
*) remote "$@" ;;
esac
