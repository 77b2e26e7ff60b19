# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Read by tests/support/faults.sh: a job of batch/hy3_sft.sbatch under a real Slurm of four nodes
# loses one of its two nodes, or that node's link is cut, at a counted place of that node's rank,
# which stands still there until it has happened. Slurm starts the job again, on another node.
#   node1  the node of rank 0 and of the batch script; save_async = true
#   node2  the other one
SCENARIOS="node1 node2" KINDS=(NODE LINK) PHASES='load|step|(async-)?saves?|final'
CLUSTER=$W/cluster JOB=''

cluster() {
    bash "$HY3_SOURCE/tests/slurm/cluster.sh" "$1" "$CLUSTER" "${@:2}" >>"$W/cluster.log" 2>&1
}

# To be called once; 77 where there can be none.
cluster_up() {
    local node
    mkdir "$W/bin"
    # what srun starts: each node has a boot of its own, as another machine has; only ranks of the
    # life that FAULT or PLACES is for are watched
    for node in n1 n2 n3 n4; do cat /proc/sys/kernel/random/uuid >"$W/boot.$node"; done
    cat >"$W/bin/hy3_sft" <<END
#!/bin/sh
exec unshare -m sh -c 'mount --bind "\$0" /proc/sys/kernel/random/boot_id || exit 1
    [ ! -e "$W/watch" ] || . "$W/watch"
    exec "\$@"' "$W/boot.\$(hostname)" "$HY3_BUILD/hy3_sft" "\$@"
END
    chmod +x "$W/bin/hy3_sft"
    # SLURM_CONF must be there before a client is asked; nodes talk over their network alone
    export SLURM_CONF=$CLUSTER/etc/slurm.conf UCX_TLS=tcp,self
    NETNS=1 cluster up || { echo "faults.sh: no cluster: $(tail -n 1 "$W/cluster.log")" >&2 &&
        exit 77; }
    trap 'cluster down; [ -n "${HY3_FAULTS_KEEP:-}" ] || rm -rf "$W" "$W.log"' EXIT
}

# All nodes as they were, with nothing on them.
mend() {
    local node
    timeout 10 scancel -u root >/dev/null 2>&1
    for node in n1 n2 n3 n4; do
        cluster link "$node" up
        [ -e "$CLUSTER/run/slurmd.$node.pid" ] || cluster start-node "$node"
    done
    for _ in $(seq 300); do
        [ "$(timeout 10 sinfo -h -N -t idle -o %N | sort -u | wc -l)" -ne 4 ] || return 0
        # Slurm drains a node whose step could not tell of its end: the link was cut once more
        for node in $(timeout 10 sinfo -h -N -t drain -o %N | sort -u); do
            timeout 10 scontrol update nodename="$node" state=resume
        done
        sleep 0.3
    done
    fail "the cluster did not come back" "$(timeout 10 sinfo -N)" || exit 1
}

# The rank of node N stands still at its place.
strike() { # KIND N
    local pid
    case $1 in
    NODE) cluster kill-node "n$2" ;;
    LINK)
        cluster link "n$2" down
        for pid in $(pgrep -x hy3_sft); do
            ! grep -qsz "^HY3_FAULT_LOG=$W/hit" "/proc/$pid/environ" || kill -CONT "$pid"
        done
        ;;
    esac
}

watch() { # N; of faults.sh: FAULT or PLACES
    local log=$W/hit
    rm -f "$W/watch" "$W/hit"
    [ -z "${PLACES:-}" ] || { log=$W/places && rm -f "$log"; }
    [ -z "${PLACES:-}${FAULT:-}" ] || cat >"$W/watch" <<END
export LD_PRELOAD="$PRELOAD" HY3_FAULT="${FAULT:-0 -}" HY3_FAULT_LOG="$log" \
    HY3_FAULT_RANK=$(($1 - 1))
END
}

# As live of faults.sh: a life of the job, to its end or until Slurm has taken it back.
live_on_cluster() {
    local node=${1#node} state struck=''
    watch "$node"
    rm -f "$W.log"
    if [ "${LIFE:-0}" -eq 0 ]; then
        JOB=$(PATH=$W/bin:$PATH timeout 20 sbatch --parsable --export=ALL --nodes=2 \
            --ntasks-per-node=1 --time=20 --signal=USR1@1 --output="$W.log" \
            "${COMMAND[@]}") || exit 1
    else
        timeout 20 scontrol requeue "$JOB" 2>/dev/null # what ended of itself
    fi
    STATUS=124
    for _ in $(seq 600); do
        state=$(timeout 10 scontrol show job "$JOB" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')
        case $state in
        COMPLETED) STATUS=0 && return ;;
        FAILED | NODE_FAIL | CANCELLED | TIMEOUT) STATUS=1 && return ;;
        PENDING) [ -z "$struck" ] || { STATUS=1 && return; } ;;
        esac
        [ -n "$struck" ] || [ ! -e "$W/hit" ] || { strike "${FAULT#* }" "$node" && struck=yes; }
        sleep 0.2
    done
}
