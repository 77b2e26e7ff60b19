#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# cluster.sh: a private, real Slurm cluster on one host, for integration tests.
#
#   cluster.sh up     PREFIX   start munged + slurmctld + N slurmd's, wait until all nodes are idle
#   cluster.sh env    PREFIX   print the export lines a client needs: eval "$(cluster.sh env
# PREFIX)"
#   cluster.sh status PREFIX   exit 0 if every daemon lives and every node answers
#   cluster.sh down   PREFIX   cancel the jobs, stop the daemons by pid, leave PREFIX (logs) in
# place
#   cluster.sh kill-node  PREFIX NODE   node failure: kill -9 that slurmd, its slurmstepds and its
# tasks
#   cluster.sh start-node PREFIX NODE   bring it back
#   cluster.sh link       PREFIX NODE up|down   NETNS=1 clusters: unplug/replug the node's network
#
# Needs (Debian 12): apt-get install slurmctld slurmd slurm-client munge   (mpich for MPI jobs)
# Root only; no systemd, no cgroup use, no database; touches nothing outside PREFIX (except what
# the daemons read: /etc/passwd, /etc/hosts). Two clusters may run at once (own ports, own munge
# socket).
# PREFIX must be short (< 80 characters: it holds a unix socket) and its parents not group-writable
# unless sticky (munged's rule): a directory made by mktemp -d is fine.
#
# Settings (environment):  NODES=4  CPUS=4  MEM=2000 (MB, per node)  GPUS=2 (fake, per node)
#                          PORT=<base port, default: a free range>   START_TIMEOUT=30
#                          NETNS=1: each node in its own network + UTS namespace, 10.77.0.I on a
# bridge
#                          (one such cluster at a time); default 0: all on 127.0.0.1
#                          CRED_EXPIRE=5 KILLWAIT=10 SLURMD_TIMEOUT=10 MPI_DEFAULT=none
# SLURMD_DEBUG=info
set -u -o pipefail
umask 022

die() { echo "cluster.sh: $*" >&2; exit 1; }
cmd=${1:-}; P=${2:-}
[ -n "$cmd" ] && [ -n "$P" ] || { sed -n '3,26p' "$0"; exit 2; }
mkdir -p "$P" && P=$(cd "$P" && pwd -P) || die "cannot use $P"
[ ${#P} -lt 80 ] || die "prefix too long for a unix socket: $P"
[ "$(id -u)" = 0 ] || die "must be root"

NODES=${NODES:-4} CPUS=${CPUS:-4} MEM=${MEM:-2000} GPUS=${GPUS:-2} NETNS=${NETNS:-0}
export SLURM_CONF=$P/etc/slurm.conf
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH

# alive PIDFILE NAME: the pid in the file is alive and is that program (not a reused pid)
alive() {
    local pid; pid=$(cat "$1" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]
}
# stop PIDFILE NAME: TERM, 10 s, KILL; only that pid
stop() {
    alive "$1" "$2" || { rm -f "$1"; return 0; }
    local pid i; pid=$(cat "$1"); kill -TERM "$pid" 2>/dev/null
    for i in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
    [ -d "/proc/$pid" ] && { echo "cluster.sh: $2 $pid ignored TERM, killing" >&2; kill -KILL \
        "$pid"; }
    rm -f "$1"
}
nodes() { sed -n 's/^NodeName=\([^ ]*\) .*/\1/p' "$P/etc/slurm.conf"; }
free_base() { # a base port with NODES+1 free ports above it
    local b p used
    used=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk '{split($2,a,":"); print a[2]}' | sort -u)
    for b in $(seq $((20000 + RANDOM % 8000)) 16 32000); do
        for p in $(seq "$b" $((b + NODES))); do grep -qi "^$(printf %04X "$p")$" <<<"$used" &&
            continue 2; done
        echo "$b"; return
    done; return 1
}
in_node() { # in_node NODE CMD...: in the node's namespaces, if it has any
    local n=$1; shift
    if [ -e "$P/run/netns" ]; then nsenter --net="/run/netns/slurmlab-$n" unshare -u sh \
        -c 'hostname "$0"; exec "$@"' "$n" "$@"; else "$@"; fi
}
net_up() {
    local i; ip link add slurmlab0 type bridge && ip addr add 10.77.0.254/24 dev slurmlab0 &&
        ip link set slurmlab0 up || die "no bridge (NETNS=1 needs CAP_NET_ADMIN)"
    for i in $(seq "$NODES"); do
        ip netns add "slurmlab-n$i" && ip link add "sl-n$i" type veth peer name eth0 netns \
            "slurmlab-n$i" || die "no namespace"
        ip link set "sl-n$i" master slurmlab0 up; ip -n "slurmlab-n$i" addr add "10.77.0.$i/24" \
            dev eth0
        ip -n "slurmlab-n$i" link set eth0 up; ip -n "slurmlab-n$i" link set lo up
    done; : >"$P/run/netns"
}
net_down() {
    [ -e "$P/run/netns" ] || return 0
    local n
    # the kernel keeps a namespace, and its end of the link, while a connection waits for answers
    for n in $(nodes); do ip netns del "slurmlab-$n"; ip link del "sl-$n" 2>/dev/null; done
    ip link del slurmlab0; rm -f "$P/run/netns"
}
start_slurmd() { # the pid file is written by slurmd itself (SlurmdPidFile has %n)
    in_node "$1" slurmd -N "$1" -f "$SLURM_CONF" ||
        die "slurmd $1 did not start: see $P/log/slurmd.$1.log"
}

write_conf() {
    local h base i ctl=127.0.0.1 addr=127.0.0.1 host comm=NoCtldInAddrAny,NoInAddrAny; \
        h=$(hostname -s); base=${PORT:-$(free_base)} || die "no free port range"
    mkdir -p "$P"/{etc,log,run,state,spool,gpu}; chmod 755 "$P"/*
    [ -s "$P/etc/munge.key" ] || (umask 077; head -c 1024 /dev/urandom >"$P/etc/munge.key")
    [ "$NETNS" = 1 ] && ctl=10.77.0.254 comm=   \
        # NoCtldInAddrAny would bind to what the host's name resolves to
    {
        cat <<CONF
ClusterName=slurmlab
SlurmctldHost=$h($ctl)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it may start again (default 120 s)
AuthInfo=socket=$P/run/munge.socket,cred_expire=${CRED_EXPIRE:-5}
${comm:+CommunicationParameters=$comm}
StateSaveLocation=$P/state
SlurmdSpoolDir=$P/spool/%n
SlurmctldPidFile=$P/run/slurmctld.pid
SlurmdPidFile=$P/run/slurmd.%n.pid
SlurmctldLogFile=$P/log/slurmctld.log
SlurmdLogFile=$P/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=${SLURMD_DEBUG:-info}
PlugStackConfig=$P/etc/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$P/log/jobcomp.log
MpiDefault=${MPI_DEFAULT:-none}
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
# CPUs/memory as configured below, whatever the machine has
SlurmdParameters=config_overrides
# 1: a crashed node comes back when its slurmd does; a node an admin set down stays down (2 would
# bring that back too)
ReturnToService=1
JobRequeue=1
KillWait=${KILLWAIT:-10}
OverTimeLimit=0
MinJobAge=3600
InactiveLimit=0
SlurmctldTimeout=10
SlurmdTimeout=${SLURMD_TIMEOUT:-10}
TCPTimeout=2
MessageTimeout=10
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
CONF
        for i in $(seq "$NODES"); do
            host=$h; [ "$NETNS" = 1 ] && addr=10.77.0.$i host=n$i
            echo "NodeName=n$i NodeHostname=$host NodeAddr=$addr Port=$((base + i)) CPUs=$CPUS" \
                "Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1" \
                "RealMemory=$MEM Gres=gpu:$GPUS State=UNKNOWN"
        done
        echo "PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=5 State=UP" \
            "OverSubscribe=NO"
    } >"$P/etc/slurm.conf"
    : >"$P/etc/plugstack.conf"; 
    # nothing uses cgroups, but slurmd 22.05 loads the plugin and dies if no cgroup file system can
    # be detected ("No filesystem mounted on /sys/fs/cgroup"): naming the v1 plugin skips the
    # detection
    { echo "CgroupAutomount=no"; mountpoint -q /sys/fs/cgroup ||
        echo "CgroupPlugin=cgroup/v1"; } >"$P/etc/cgroup.conf"
    # fake GPUs: File= must be a character device, or CUDA_VISIBLE_DEVICES is not set: copies of
    # /dev/null do
    for i in $(seq 0 $((GPUS - 1))); do
        [ -c "$P/gpu/nvidia$i" ] || mknod -m 666 "$P/gpu/nvidia$i" c 1 3 ||
            die "mknod refused: use GPUS=0"
    done
    if [ "$GPUS" -gt 0 ]; then
        echo "AutoDetect=off" >"$P/etc/gres.conf"
        gpus=$([ "$GPUS" -gt 1 ] && echo "[0-$((GPUS - 1))]" || echo 0)
        echo "NodeName=n[1-$NODES] Name=gpu File=$P/gpu/nvidia$gpus" >>"$P/etc/gres.conf"
    else sed -i 's/ Gres=gpu:0//; /^GresTypes/d' "$P/etc/slurm.conf"; : >"$P/etc/gres.conf"; fi
}

up() {
    local i n t0=$EPOCHREALTIME
    for n in munged slurmctld slurmd srun sinfo scontrol; do command -v $n >/dev/null ||
        die "$n is not installed"; done
    alive "$P/run/slurmctld.pid" slurmctld && die "already up in $P"
    net_down; rm -rf "$P"/{state,spool,run}; write_conf; [ "$NETNS" = 1 ] && net_up
    munged --force --socket="$P/run/munge.socket" --key-file="$P/etc/munge.key" \
        --pid-file="$P/run/munged.pid" \
           --log-file="$P/log/munged.log" --seed-file="$P/run/munged.seed" ||
           die "munged failed: $P/log/munged.log"
    slurmctld -f "$SLURM_CONF" -c || die "slurmctld failed: $P/log/slurmctld.log"
    for n in $(nodes); do start_slurmd "$n"; done
    for i in $(seq $((${START_TIMEOUT:-30} * 10))); do
        [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$NODES" ] && {
            awk -v a="$t0" -v b="$EPOCHREALTIME" -v n="$NODES" \
                'BEGIN{printf "up: %d nodes idle after %.2f s\n", n, b-a}'; return 0; }
        sleep 0.1
    done
    sinfo -N -l >&2; tail -n 5 "$P"/log/*.log >&2; down; die "nodes did not become idle"
}
down() {
    local n i
    # a node that is cut off can be told nothing
    [ ! -e "$P/run/netns" ] || for n in $(nodes); do ip link set "sl-$n" up; done
    if alive "$P/run/slurmctld.pid" slurmctld && timeout 3 scontrol ping >/dev/null 2>&1; then
        timeout 5 scancel -s KILL --full -u root 2>/dev/null; timeout 5 scancel -u root 2>/dev/null
        for i in $(seq 100); do [ -z "$(timeout 3 squeue -h 2>/dev/null)" ] &&
            break; sleep 0.1; done
    fi
    for n in $(nodes 2>/dev/null); do stop "$P/run/slurmd.$n.pid" slurmd; done
    stop "$P/run/slurmctld.pid" slurmctld
    stop "$P/run/munged.pid" munged
    sweep
    net_down
    echo "down"
}
status() {
    local rc=0 n
    alive "$P/run/munged.pid" munged || { echo "munged: dead"; rc=1; }
    alive "$P/run/slurmctld.pid" slurmctld || { echo "slurmctld: dead"; rc=1; }
    for n in $(nodes 2>/dev/null); do alive "$P/run/slurmd.$n.pid" slurmd ||
        { echo "slurmd $n: dead"; rc=1; }; done
    [ $rc = 0 ] && { timeout 15 scontrol ping || rc=1; timeout 15 sinfo -h -N -o '%N %T %C %G' ||
        rc=1; timeout 15 squeue || rc=1; }
    return $rc
}
tree() { local c; echo "$1"; for c in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$c"; \
    done; }
# What a daemon left behind: step daemons that were started with this cluster's configuration, and
# their tasks.
sweep() {
    local p
    for p in /proc/[0-9]*; do
        [ "$(cat "$p/comm" 2>/dev/null)" = slurmstepd ] || continue
        tr '\0' '\n' <"$p/environ" 2>/dev/null | grep -qx "SLURM_CONF=$SLURM_CONF" || continue
        # shellcheck disable=SC2046
        kill -KILL $(tree "${p#/proc/}") 2>/dev/null
    done
}
# A node's crash: kill -9 its slurmd, its slurmstepds (found by the unix sockets they hold in the
# node's spool directory) and every process below them.
kill_node() {
    local n=$1 pid p inodes victims
    alive "$P/run/slurmd.$n.pid" slurmd || die "no slurmd for $n"
    pid=$(cat "$P/run/slurmd.$n.pid"); victims=$pid
    [ ! -e "$P/run/netns" ] || victims=$(ip netns pids "slurmlab-$n")
    inodes=" $(awk -v d="$P/spool/$n/" 'index($8, d) == 1 {printf "%s ", $7}' /proc/net/unix)"
    for p in /proc/[0-9]*; do
        [ "$(cat "$p/comm" 2>/dev/null)" = slurmstepd ] || continue
        readlink "$p"/fd/* 2>/dev/null | sed -n 's/^socket:\[\(.*\)\]$/\1/p' | while read -r i; do
            case $inodes in *" $i "*) exit 7 ;; esac; done
        [ $? = 7 ] && victims="$victims $(tree "${p#/proc/}")"
    done
    # shellcheck disable=SC2086
    kill -KILL $victims; rm -f "$P/run/slurmd.$n.pid"
    echo "killed node $n:" $victims
}
case $cmd in
    up) up ;;
    down) down ;;
    status) status ;;
    env) echo "export SLURM_CONF=$P/etc/slurm.conf" ;;
    kill-node) kill_node "${3:?node}" ;;
    link) [ -e "$P/run/netns" ] || die "not a NETNS=1 cluster"; ip link set "sl-${3:?node}" \
        "${4:?up or down}" ;;
    start-node) start_slurmd "${3:?node}" ;;
    *) die "unknown command $cmd" ;;
esac
