# SPDX-License-Identifier: Apache-2.0
# What hangs on GPUs, planted in the emulated one: each hang ends the job with code 4 and one
# message that names rank, host, place and what to do. With HY3_LONG=1 each is planted HY3_HANG_RUNS
# times (default 10).
load helper

setup() {
    D=$BATS_TEST_TMPDIR
    make_gpu_config
    echo 'ddp_timeout = 2;' >>"$CFG"
    on_emulated_gpu
    RUNS=1
    [ -z "${HY3_LONG:-}" ] || RUNS=${HY3_HANG_RUNS:-10}
}

# told PATTERN: the one message of the job, and what must be in it besides
told() {
    [ "$status" -eq 4 ] || fail "exit status $status" "$(shown)" || return 1
    [ "$(cat "$OUT" "$ERR" | grep -c '^hy3_sft: error: ')" -eq 1 ] || fail "not one message" \
        "$(shown)" || return 1
    grep -E "^hy3_sft: error: rank [0-9]+ on $(hostname), .*Position: step .*nvidia-smi.*goes on" \
        "$ERR" | grep -qE "$1" || fail "not told: $1" "$(shown)"
}

# hangs PATTERN FAULT SETTING …: rank 1 of two has the fault. LIMIT: ddp_timeout + 30 s, and the
# start.
hangs() {
    local pattern=$1 fault=$2
    shift 2
    for _ in $(seq "$RUNS"); do
        rm -rf "$OUTPUT"
        LIMIT=40 capture "$MPIEXEC" -n 1 hy3_sft "$CFG" "$@" : \
            -n 1 env "$fault" hy3_sft "$CFG" "$@"
        told "$pattern" || fail "with $fault $*" || return 1
    done
}

@test "a call of the driver that does not return ends the job: the call is named" {
    hangs "in cudaMemcpyAsync \(device.cu line [0-9]+\)" HY3_EMU_HANG=pageable
    hangs "in cudaFree \(device.cu line" HY3_EMU_HANG=cudaFree
    hangs "in cudaStreamQuery \(device.cu line" HY3_EMU_HANG=cudaStreamQuery:40
    hangs "in kernel launch \(elementwise.cu line" HY3_EMU_HANG=square_end_kernel
    # nobody else is there to miss this rank
    LIMIT=40 HY3_EMU_HANG=pageable capture hy3_sft "$CFG"
    told "in cudaMemcpyAsync"
    grep -q "cudaMemcpyAsync (device.cu line [0-9]*) has not returned for [0-9]* s (ddp_timeout)" \
        "$ERR" || fail "$(shown)"
}

@test "a step copies nothing between the device and memory that is not pinned" {
    for steps in 2 6; do
        HY3_EMU_COUNT=pageable run_ok hy3_sft "$CFG" max_steps=$steps output_dir="$D/$steps" \
            zero_stage=3 neftune_noise_alpha=5
        grep -x "hy3_emu: [1-9][0-9]* calls of pageable" "$ERR" >"$D/calls.$steps" ||
            fail "$(shown)"
    done
    cmp "$D/calls.2" "$D/calls.6"
}

@test "a kernel that never ends ends the job, on one rank and on two" {
    hangs "rank 1.*step 1" HY3_EMU_HANG=kernel:20
    LIMIT=40 HY3_EMU_HANG=kernel:20 capture hy3_sft "$CFG"
    told "Position: step 1"
}

@test "a rank that stops in a collective of NCCL ends the job, and is named" {
    for call in ncclAllReduce ncclAllReduce:3; do
        hangs "this node: rank 1: step 1.*silent" HY3_EMU_STOP=$call zero_stage=0
    done
    # the 60th is in a step: the test of the links makes fewer
    for call in ncclAllGather:60 ncclReduceScatter; do
        hangs "this node: rank 1: step [1-9].*silent" HY3_EMU_STOP=$call zero_stage=3 max_steps=50
    done
    for call in ncclSend:60 ncclRecv:60 ncclGroupEnd:60; do
        hangs "this node: rank 1: step [1-9].*silent" HY3_EMU_STOP=$call expert_parallel_size=2 \
            max_steps=50
    done
    hangs "this node: rank 1: step 0, opening the run.*silent" HY3_EMU_STOP=ncclAllGather
}

@test "a network that does not come up ends the job before weights are loaded" {
    for fault in HY3_EMU_HANG HY3_EMU_STOP; do
        hangs "ncclCommInitRankConfig.*rank 1: step 0, opening the run" \
            $fault=ncclCommInitRankConfig
        ! grep -q loading "$ERR" || fail "$(shown)"
    done
}

# Two ranks with the environment given: one line, before anything is loaded.
refused() {
    run_fails 1 "$1" env "$2" "$MPIEXEC" -n 2 hy3_sft "$CFG"
    ! grep -q loading "$ERR" || fail "$(shown)"
}

@test "two ranks on one GPU or on slices of one are refused before weights are loaded" {
    for _ in $(seq "$RUNS"); do
        refused "ranks 0 and 1 on $(hostname) have the same GPU" HY3_EMU_UUID=7
        refused "have slices (MIG) of one GPU, which NCCL cannot connect" HY3_EMU_BUS=7
    done
    HY3_EMU_UUID=7 run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" device=auto max_steps=1
    grep -q "running on the CPU: ranks 0 and 1 on $(hostname) have the same GPU" "$ERR"
    rm -r "$OUTPUT"
    HY3_EMU_MPS=1 HY3_EMU_NAME="NVIDIA A100-SXM4-40GB MIG 1g.5gb" run_ok hy3_sft "$CFG" max_steps=1
    grep -q "warning: 1 of the ranks have their GPU by MPS" "$ERR"
    grep -q "warning: 1 of the ranks compute on a slice (MIG) of a GPU" "$ERR"
}

@test "a run on GPUs says what their links reach, and warns of one at a tenth of its kind" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=1 expert_parallel_size=1
    grep -qE "GPUs: an emulated GPU, NCCL 2\.[0-9.]*; 2 ranks on 1 node; expert groups of 1" \
        "$ERR" || fail "$(shown)"
    grep -qE "links, GB/s received per rank: all ranks [0-9.]+ \(in the node\), expert repl" "$ERR"
    ! grep -q "warning: " "$ERR" || fail "$(shown)"
    rm -r "$OUTPUT"
    run_ok "$MPIEXEC" -n 4 hy3_sft "$CFG" max_steps=1 zero_stage=1 zero_group_size=2
    grep -q "zero_stage 1 over 2 ranks" "$ERR" || fail "$(shown)"
    grep -qE "per rank: ZeRO groups [0-9.]+ \(in the node\), ZeRO peers [0-9.]+ \(in" "$ERR"
    rm -r "$OUTPUT"
    # MPICH then takes two ranks for a node
    run_ok env MPIR_CVAR_NUM_CLIQUES=2 MPIR_CVAR_CLIQUES_BY_BLOCK=1 "$MPIEXEC" -n 4 \
        hy3_sft "$CFG" max_steps=1 expert_parallel_size=4 hierarchical_exchange=true
    grep -qE "groups in nodes [0-9.]+ \(in the node\), expert groups over nodes [0-9.]+ \(netw" \
        "$ERR" || fail "$(shown)"
    rm -r "$OUTPUT"
    export HY3_EMU_NAME="NVIDIA H100 80GB HBM3"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=1 expert_parallel_size=2
    grep -qE "warning: expert groups: .* where NVLink reaches 300; perhaps a process sees" "$ERR"
    rm -r "$OUTPUT"
    MPIR_CVAR_ODD_EVEN_CLIQUES=1 run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=1
    grep -q "warning: all ranks: .* an adapter of 400 Gb/s a GPU reaches 45; perhaps NCCL" "$ERR"
}

@test "a call of NCCL that does not return ends the job, and is named" {
    hangs "in ncclAllReduce \(collectives.cu" HY3_EMU_HANG=ncclAllReduce
    hangs "in ncclGroupEnd \(collectives.cu" HY3_EMU_HANG=ncclGroupEnd \
        expert_parallel_size=2
}

@test "an abort of NCCL's communicators that does not return does not keep the job" {
    for _ in $(seq "$RUNS"); do
        rm -rf "$OUTPUT"
        LIMIT=40 HY3_EMU_HANG=ncclCommAbort capture "$MPIEXEC" -n 1 hy3_sft "$CFG" : \
            -n 1 env HY3_EMU_STOP=ncclAllReduce:2 hy3_sft "$CFG"
        told "rank 1: step 1"
        grep -q "^hy3_emu: ncclCommAbort hangs" "$ERR"
    done
}

@test "a rank that stops on another node is named in the one message of the job" {
    export MPIR_CVAR_ODD_EVEN_CLIQUES=1 # MPICH then takes odd and even ranks for two nodes
    for _ in $(seq "$RUNS"); do
        rm -rf "$OUTPUT"
        LIMIT=40 capture "$MPIEXEC" -n 3 hy3_sft "$CFG" : \
            -n 1 env HY3_EMU_STOP=ncclAllReduce hy3_sft "$CFG"
        told "(this|other) nodes?: rank 3: step 1"
        rm -rf "$OUTPUT"
        LIMIT=40 capture "$MPIEXEC" -n 1 hy3_sft "$CFG" : \
            -n 1 env HY3_EMU_STOP=ncclAllReduce hy3_sft "$CFG" : -n 2 hy3_sft "$CFG"
        told "(this node: rank 1: step 1|other nodes: no answer from rank 1 \($(hostname)\))"
    done
}
