# SPDX-License-Identifier: Apache-2.0
# The GPU backend as a user meets it: absent, on an emulated GPU, out of memory, and with calls that
# fail.
load helper

setup() {
    D=$BATS_TEST_TMPDIR
    make_gpu_config
}

same_model() { # DIRECTORY …
    for directory; do cmp "$1/model.safetensors" "$directory/model.safetensors"; done
}

@test "without a GPU: device = cuda says why and ends, auto says why and computes on the CPU" {
    export HY3_CUDA_MODULE=$D/missing.so
    run_fails 1 'device = "cuda": the GPU library cannot be opened' "$MPIEXEC" -n 2 hy3_sft "$CFG"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" device=auto
    [ "$(grep -c 'running on the CPU: the GPU library cannot be opened' "$ERR")" \
        -eq 1 ] || fail "$(shown)"
    on_emulated_gpu
    HY3_EMU_FAIL_AT=1 run_fails 1 \
        'device = "cuda": no GPU can be used here: no CUDA-capable device' hy3_sft "$CFG"
}

@test "every kernel equals the reference under other schedules of the emulated GPU, too" {
    on_emulated_gpu
    for seed in 7 ${HY3_LONG:+1 8}; do # 0: tests/backend/kernels itself
        HY3_EMU_SEED=$seed LIMIT=1200 run_ok "$HY3_BUILD/tests/backend/kernels" '*_on_gpu'
        [ "$(grep -c '^ok' "$OUT")" -ge 15 ]
    done
}

@test "a run has the same bits under every schedule, and after a resume" {
    on_emulated_gpu
    for seed in 0 7 ${HY3_LONG:+1 8}; do HY3_EMU_SEED=$seed run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" \
        output_dir="$D/$seed"; done
    same_model "$D/0" "$D/7" ${HY3_LONG:+"$D/1" "$D/8"}
    grep -q "on cuda" "$ERR" "$OUT"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=4 save_steps=2 save_async=true \
        output_dir="$D/whole"
    cp -r "$D/whole/checkpoint-2" "$D/kept"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=4 output_dir="$D/rest" \
        resume_from_checkpoint="$D/kept"
    same_model "$D/whole" "$D/rest"
}

@test "moments and gradients of fewer bytes: as on the CPU, and where the state is in host memory" {
    on_emulated_gpu
    for settings in optim=adamw_8bit optim=adamw_bf16 "grad_dtype=bf16 zero_stage=1" \
        "grad_dtype=bf16 zero_stage=3 optim=adamw_8bit"; do
        for where in "device=cuda offload=none" "device=cuda offload=optimizer" device=cpu; do
            # shellcheck disable=SC2086 # lists of words
            run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" learning_rate=1e-3 $settings $where \
                stage3_param_persistence_threshold=0 output_dir="$D/${where//[ =]/-}"
        done
        same_model "$D/device-cuda-offload-none" "$D/device-cuda-offload-optimizer"
        for where in cuda-offload-none cpu; do
            sed 's/.*"loss": \([0-9.]*\).*/\1/' "$D/device-$where/train_log.jsonl" >"$D/$where"
        done
        paste "$D/cuda-offload-none" "$D/cpu" | awk '{ d = $1 - $2 } d > 5e-3 || d < -5e-3 {
            bad = 1 } END { exit bad || NR != 2 }' ||
            fail "$settings: $(paste "$D/cuda-offload-none" "$D/cpu")"
        rm -rf "$D"/device-*
    done
}

@test "too small a device is an error before the first step; what hy3_plan counts is enough" {
    on_emulated_gpu
    for mb in 1 100 200; do
        HY3_EMU_MEMORY=$mb run_fails 1 "this run needs 0.2" hy3_sft "$CFG"
        [ ! -s "$OUTPUT/train_log.jsonl" ] || fail "a step was done with $mb MiB"
    done
    for settings in "zero_stage=0" \
        "zero_stage=3 stage3_param_persistence_threshold=0 offload=full" \
        "finetuning_type=lora lora_rank=4 lora_target=all"; do
        # shellcheck disable=SC2086 # a list of words
        HY3_EMU_MEMORY=1 capture hy3_sft "$CFG" $settings overwrite_output_dir=true \
            resume_from_checkpoint=none
        needed=$(sed -n 's/.*this run needs \([0-9.]*\) GB.*/\1/p' "$ERR")
        # shellcheck disable=SC2086
        HY3_EMU_MEMORY=$(awk -v gb="$needed" 'BEGIN { printf "%d", gb * 1e9 / 1048576 + 2 }') \
            run_ok hy3_sft "$CFG" $settings overwrite_output_dir=true \
            resume_from_checkpoint=none
        taken=$(sed -n 's/.*device memory per rank: \([0-9.]*\) GB used.*/\1/p' "$ERR")
        awk -v t="$taken" -v n="$needed" 'BEGIN { exit !(t > 0 && t <= n + 0.0005) }' ||
            fail "$settings: $taken GB taken, $needed counted"
    done
}

# Lets call number $1 of CUDA, cuBLAS or NCCL fail: the run must say which, where and what to do.
# Fails when that call never comes.
fail_call() {
    capture env HY3_EMU_FAIL_AT="$1" hy3_sft "$CFG" save_steps=1
    grep -q "^hy3_emu: call $1, " "$ERR" || return 1
    # what is freed at the end may fail without harm
    local ends="cudaFree|cudaEventDestroy|cudaStreamDestroy|cudaFreeHost|cudaDeviceSynchronize"
    [ "$status" -ne 0 ] || ! grep -qE "^hy3_emu: call $1, ($ends)" "$ERR" || return 0
    local error='( failed \([a-z]*\.cuh? line [0-9]+\): |no GPU can be used here)'
    [ "$status" -eq 1 ] &&
        [ "$(cat "$OUT" "$ERR" | grep -cE "^hy3_sft: error: .*$error.*")" -eq 1 ] ||
        fail "call $1" "$(shown)"
}

@test "whichever call fails, the message names it, its place and what to do; checkpoints stay" {
    on_emulated_gpu
    local n=1 tried=0
    while fail_call "$n"; do
        tried=$((tried + 1))
        for directory in "$OUTPUT"/checkpoint-*; do [ ! -d "$directory" ] ||
            [ "${directory%.part}" != "$directory" ] || [ -e "$directory/state.h5" ]; done
        rm -rf "$OUTPUT"
        if [ -n "${HY3_LONG:-}" ]; then n=$((n + 1 + n / 50)); else n=$((n + 1 + n / 2)); fi
    done
    grep -q "^hy3_emu: call" "$ERR" && fail "$(shown)"
    [ "$tried" -ge 10 ] || fail "only $tried calls failed"
    # on one rank of two: the other must not wait for ever
    for n in 200 ${HY3_LONG:+40 1000}; do
        rm -rf "$OUTPUT"
        capture "$MPIEXEC" -n 1 env HY3_EMU_FAIL_AT=$n hy3_sft "$CFG" ddp_timeout=20 : -n 1 \
            hy3_sft "$CFG" ddp_timeout=20
        wanted="1  failed \([a-z]*\.cuh? line [0-9]+\): "
        # asked while the rank waits: trouble that is nobody's call
        ! grep -q "hy3_emu: call $n, ncclCommGetAsyncError, fails" "$ERR" ||
            wanted="[14] (communication between the GPUs failed|${wanted#* })"
        # UCX aborts a rank that reads from the memory of one that has ended
        [ "$status" -ne 6 ] || ! grep -q "libuct" "$ERR" || status=1
        [[ $status == ${wanted%% *} ]] && grep -qE "${wanted#* }" "$ERR" "$OUT" ||
            fail "call $n of one rank" "$(shown)"
    done
}

@test "auto expert groups follow the rates of the GPU's name, and the end compares with them" {
    on_emulated_gpu
    HY3_EMU_NAME="NVIDIA H100 80GB HBM3" run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" zero_stage=3
    grep -q "parallel_size: auto takes 1, .* the rates '.*/h100.cfg'; 2, within a node" "$ERR" ||
        fail "$(shown)"
    grep -q "; expert groups of 1; " "$ERR" || fail "$(shown)"
    grep -q "time: both  *predicted .* measured" "$ERR" || fail "$(shown)"
    HY3_EMU_NAME="NVIDIA ABACUS" run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" zero_stage=3 \
        output_dir="$D/other"
    grep -q "; expert groups of 2; " "$ERR" || fail "$(shown)"
    ! grep -q "auto takes\|predicted" "$ERR" || fail "$(shown)"
}

@test "the script of the day with a GPU, rehearsed with a small model" {
    on_emulated_gpu
    export HY3_DAY_SMALL=1
    LIMIT=200 run_ok bash "$HY3_SOURCE/benchmarks/gpu_day.sh" bundle "$HY3_BUILD" "$D/day.tar.xz"
    [ "$(stat -c %s "$D/day.tar.xz")" -le 60000000 ] || fail "$(cat "$OUT")"
    tar -C "$D" -xf "$D/day.tar.xz"
    unset HY3_CUDA_MODULE
    LIMIT=300 run_ok env -i PATH="$PATH" HY3_DAY_SMALL=1 OMP_NUM_THREADS=1 \
        bash "$D/gpu_day/gpu_day.sh" run "$D/day" ${HY3_LONG:+steps} 30b
    for part in ${HY3_LONG:+lora attention full offload profile} 30b; do
        grep -q "^$part: [0-9.]* tokens/s" "$D/day/summary" || fail "$(cat "$D/day/summary")"
    done
    [ "$(grep -c "device memory per rank: .* used, .* planned" "$D/day/summary")" -eq \
        "$(grep -c "tokens/s" "$D/day/summary")" ] || fail "$(cat "$D/day/summary")"
    grep -q "after USR1 and a resume the adapter has the same bits" "$D/day/summary"
    ! grep -q "FAILED\|not finished" "$D/day/summary" || fail "$(cat "$D/day/summary")"
}

@test "gpu-check without a GPU says so before it compiles anything" {
    ! ls /dev/nvidia[0-9]* >/dev/null 2>&1 || skip "this machine has a GPU"
    printf '#!/bin/sh\necho compiled >>"%s"\n' "$BATS_TEST_TMPDIR/calls" >"$BATS_TEST_TMPDIR/nvcc"
    chmod +x "$BATS_TEST_TMPDIR/nvcc"
    LIMIT=10 NVCC=$BATS_TEST_TMPDIR/nvcc capture bash "$HY3_SOURCE/tests/gpu/check.sh" \
        "$BATS_TEST_TMPDIR/build"
    [ "$status" -eq 1 ] || fail "$(shown)"
    [ "$(cat "$OUT" "$ERR" | wc -l)" -eq 1 ] || fail "$(shown)"
    grep -q "^gpu-check: error: this machine has no NVIDIA GPU" "$ERR"
    [ ! -e "$BATS_TEST_TMPDIR/calls" ] && [ ! -e "$BATS_TEST_TMPDIR/build" ]
}
