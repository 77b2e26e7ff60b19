# SPDX-License-Identifier: Apache-2.0
# hy3_plan: what it says of the published model, and what it refuses.
load helper

PUBLISHED="--shape $HY3_SOURCE/etc/hy3_295b.json"

@test "the configurations in etc fit where they say they do" {
    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 --device-memory 80GB \
        --host-memory 2TB
    grep -q "^fits" "$OUT"
    grep -q "0.1783 of 295 G parameters trainable" "$OUT"
    run_ok hy3_plan "$HY3_SOURCE/etc/attention.cfg" $PUBLISHED --ranks 16 --device-memory 80GB \
        --host-memory 2TB
    run_ok hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 32 --device-memory 80GB \
        --host-memory 2TB
    grep -q "expert groups of 8; zero_stage 3, offload full" "$OUT"
}

@test "LoRA on a base in 8 bits fits on one machine of 8 GPUs with nothing in host memory" {
    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 --device-memory 80GB \
        --host-memory 2TB offload=none base_dtype=fp8
    grep -q "^as configured it fits on 8 ranks (device 48.5 GB" "$OUT" || fail "$(shown)"
    capture hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 --device-memory 80GB \
        --host-memory 2TB offload=none
    [ "$status" -eq 1 ] || fail "$(shown)"
}

@test "the comments of the configurations for a number of GPUs are what hy3_plan says" {
    run_ok bash "$HY3_SOURCE/benchmarks/plans.sh" "$HY3_BUILD" --check
    ! grep -q "does not fit" "$HY3_SOURCE"/etc/*.cfg
}

@test "the configurations of the 30B model fit on one GPU and on eight" {
    local model=(--shape "$HY3_SOURCE/etc/hy_mt2_30b.json" --device-memory 80GB)

    run_ok hy3_plan "$HY3_SOURCE/etc/hymt2_lora.cfg" "${model[@]}" --ranks 1 --host-memory 100GB
    grep -q "0.05348 of 30.06 G parameters trainable" "$OUT" || fail "$(shown)"
    run_ok hy3_plan "$HY3_SOURCE/etc/hymt2_lora.cfg" "${model[@]}" --ranks 8 --host-memory 100GB
    run_ok hy3_plan "$HY3_SOURCE/etc/hymt2_full.cfg" "${model[@]}" --ranks 8 --host-memory 400GB
    grep -q "30.06 of 30.06 G parameters trainable" "$OUT" || fail "$(shown)"
    capture hy3_plan "$HY3_SOURCE/etc/hymt2_full.cfg" "${model[@]}" --ranks 1 --host-memory 400GB
    [ "$status" -eq 1 ] || fail "$(shown)"
}

@test "moments of 8 bits or bf16 take 4 and 6 bytes a weight instead of 10" {
    optimizer() { hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 64 offload=none "$@" |
        awk '$1 == "optimizer" { print $2 }'; }
    awk -v a="$(optimizer)" -v b="$(optimizer optim=adamw_8bit)" \
        -v c="$(optimizer optim=adamw_bf16)" 'BEGIN { exit !(b / a > 0.402 && b / a < 0.405 &&
            c / a > 0.599 && c / a < 0.602) }' || fail "$(optimizer) and others"
    run_ok hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 64 --device-memory 80GB \
        offload=none optim=adamw_8bit
    grep -q "^fits" "$OUT"
}

@test "bf16 gradients halve what is reduced and the buffers, not a rank's slice" {
    of() { hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 64 offload=none "${@:2}" |
        awk -v what="$1" 'index($0, what) == 3 { print $(NF - 1) }'; }
    for what in "reduce-scatter of gradients" "gradients"; do
        wide=$(of "$what")
        narrow=$(of "$what" grad_dtype=bf16)
        awk -v a="$wide" -v b="$narrow" -v w="$what" 'BEGIN {
            exit !(w == "gradients" ? a == b : b / a > 0.49 && b / a < 0.52) }' ||
            fail "$what: $wide and $narrow"
    done
    wide=$(of "device, peak")
    narrow=$(of "device, peak" grad_dtype=bf16)
    awk -v a="$wide" -v b="$narrow" 'BEGIN { exit !(b < a) }' || fail "peak: $wide and $narrow"
    run_fails 2 "set zero_stage = 1, 2 or 3" hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED \
        --ranks 64 offload=none grad_dtype=bf16 zero_stage=0
}

@test "a run that does not fit is refused with what would" {
    capture hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 16 --device-memory 80GB \
        --host-memory 2TB
    [ "$status" -eq 1 ] || fail "$(shown)"
    grep -q "^does not fit" "$OUT"
    grep -q "it fits on 32 ranks" "$OUT"
    capture hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 32 --device-memory 80GB \
        --host-memory 2TB offload=none
    [ "$status" -eq 1 ] || fail "$(shown)"
    grep -q "offload = auto .* fits" "$OUT"
}

@test "offload = auto puts as little into host memory as fits" {
    local lora=("$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 offload=auto)

    run_ok hy3_plan "${lora[@]}" --device-memory 80GB
    grep -qE "^offload = auto: in host memory 100 % of the optimizer state, [0-9]\.?[0-9]* % of" \
        "$OUT" || fail "$(shown)"
    awk '/device, peak/ { device = $3 } /copies from and to host/ { copied = $7 }
        END { exit !(device > 78 && device <= 80 && copied > 4 * 4 && copied <= 4 * 20) }' "$OUT" ||
        fail "$(shown)"
    run_ok hy3_plan "${lora[@]}"
    grep -q "^offload = auto: nothing needs host memory" "$OUT" || fail "$(shown)"
    capture hy3_plan "${lora[@]}" --device-memory 8GB
    [ "$status" -eq 1 ] || fail "$(shown)"
    grep -q "offload=full offload_ratio=1)" "$OUT" || fail "$(shown)"
}

@test "activations in host memory leave the device, and attention that is kept is not recomputed" {
    local long=("$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 16 --rates h100 offload=none
        max_seq_length=32768 gradient_accumulation_steps=1 expert_parallel_size=8)
    value() { awk -v what="$1" 'index($0, what) { print $(NF - 1) }' "$OUT"; }

    run_ok hy3_plan "${long[@]}"
    local device=$(value "device, peak") seconds=$(awk '$2 == "x" { print $3 }' "$OUT")
    run_ok hy3_plan "${long[@]}" recompute=selective offload_activations=true
    # 78 layers: inputs and results of 32768 tokens in bf16, there and back
    awk -v before="$device" -v s="$seconds" -v device="$(value "device, peak")" \
        -v copied="$(value "copies from and to host")" '$2 == "x" { now = $3 }
        END { gb = 32768 * 2 * 78 / 1e9; exit !(before - device > 4096 * gb * 0.85 &&
            copied > 2 * 12288 * gb * 0.99 && copied < 2 * 12288 * gb * 1.01 && now < 0.9 * s) }' \
        "$OUT" || fail "$device $seconds" "$(shown)"
}

@test "only settings that are not set yet are advised, and only the memory that lacks is named" {
    capture hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 16 --device-memory 80GB \
        --host-memory 4T
    [ "$status" -eq 1 ] || fail "$(shown)"
    grep -q "the run does not fit into the given memory" "$ERR"
    grep -qx "does not fit: 96.1 GB per device, 80.0 GB given" "$OUT" || fail "$(shown)"
    ! grep -qE "zero_stage = 3|gradient_checkpointing = |batch_size = 1|offload = " "$OUT" ||
        fail "$(shown)"
    grep -qE "^      stage3_max_reuse_distance = 0 +device" "$OUT"
    grep -qE "^  and save_async = false +device" "$OUT"
    capture hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 16 --host-memory 2T
    grep -qx "does not fit: 3540.6 GB per node, 2000.0 GB given" "$OUT" || fail "$(shown)"
    ! grep -qE "[0-9]\.[0-9]{3} GB" "$OUT"
}

@test "weights of a rank fall as one over the ranks at ZeRO 3, gradients and optimizer too" {
    weights() { hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks "$1" expert_parallel_size=1 |
        awk -v what="$2" '$1 == what { print $2 }'; }
    for what in weights gradients optimizer; do
        awk -v a="$(weights 1 $what)" -v b="$(weights 8 $what)" \
            'BEGIN { exit !(a / b > 7.99 && a / b < 8.01) }' ||
            fail "$what: $(weights 1 $what) on 1 rank, $(weights 8 $what) on 8"
    done
}

@test "ranks that share samples need a part of the memory each, and are of one node" {
    local run=("$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 16 offload=none max_seq_length=65536)
    workspace() { awk '/activations and workspace/ { print $5 == "GB" ? $4 : $4 / 1000 }' "$OUT"; }

    run_ok hy3_plan "${run[@]}"
    alone=$(workspace)
    run_ok hy3_plan "${run[@]}" sequence_parallel_size=8
    grep -q "sequence groups of 8" "$OUT" || fail "$(shown)"
    grep -q "1 x 65536 tokens / 8 ranks" "$OUT" || fail "$(shown)"
    awk -v one="$alone" -v eight="$(workspace)" \
        'BEGIN { exit !(eight > one / 8 && eight < one / 5) }' || fail "$alone, then $(shown)"
    run_fails 2 "sequence_parallel_size = 16 does not divide the 8 ranks of a node" \
        hy3_plan "${run[@]}" sequence_parallel_size=16
}

@test "seconds of a step are the sum of their parts, and grow with the imbalance" {
    local rates="--rates $HY3_SOURCE/etc/devices/h100.cfg" even

    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 16 offload=none
    ! grep -q "tokens/s\|checkpoint at" "$OUT" || fail "seconds without rates"
    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 16 --disk 1GB
    grep -q "checkpoint at 1 GB/s: 2 s; with --rates" "$OUT" || fail "$(shown)"
    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 16 offload=none $rates \
        --imbalance 1 --disk 1GB
    even=$(sed -n 's/.* = \([0-9.]*\) s$/\1/p' "$OUT")
    awk -v step="$even" '/ s +[0-9.]+ %$/ { sum += $(NF - 3) }
        END { exit !(sum > 0.999 * step && sum < 1.001 * step) }' "$OUT" || fail "$(shown)"
    grep -q "checkpoint at 1 GB/s: 2 s; --signal=USR1@120" "$OUT" || fail "$(shown)"
    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 16 offload=none $rates \
        --imbalance 2
    awk -v one="$even" -v two="$(sed -n 's/.* = \([0-9.]*\) s$/\1/p' "$OUT")" \
        'BEGIN { exit !(two > 1.1 * one && two < 2 * one) }' || fail "$even, then $(shown)"
}

@test "auto expert groups: within a node, with rates over nodes where that is faster" {
    local run=("$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 32 --rates h100 offload=optimizer)
    seconds() { sed -n 's/.* = \([0-9.]*\) s$/\1/p' "$OUT"; }

    run_ok hy3_plan "${run[@]}"
    grep -q "expert groups of 16" "$OUT" || fail "$(shown)"
    least=$(seconds)
    for size in 1 8 32; do
        run_ok hy3_plan "${run[@]}" expert_parallel_size=$size
        awk -v a="$least" -v b="$(seconds)" 'BEGIN { exit !(a < b) }' || fail "$size: $(seconds)"
    done
    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 16 --rates h100 offload=none
    grep -q "expert groups of 8" "$OUT" || fail "$(shown)"
    run_ok hy3_plan "$HY3_SOURCE/etc/full.cfg" $PUBLISHED --ranks 32 offload=optimizer
    grep -q "expert groups of 8" "$OUT" || fail "$(shown)"
}

# What is suggested is planned again, as a user would.
@test "--suggest: at most five, each fits, changes something and is faster than as configured" {
    local run=("$HY3_SOURCE/etc/hymt2_full.cfg" --shape "$HY3_SOURCE/etc/hy_mt2_30b.json" --ranks 8
        --device-memory 80GB --host-memory 400GB --rates h100) line before
    rate() { sed -n 's/^ *\([0-9]*\) tokens.s per rank, .* in all.*/\1/p' "$OUT"; }

    run_ok hy3_plan "${run[@]}" --suggest
    before=$(rate)
    sed -n 's/^  [0-9.e-]* s per token, \([0-9]*\) tokens.*:\( .*=.*\)$/\1\2/p' "$OUT" >lines
    [ "$(wc -l <lines)" -ge 1 ] && [ "$(wc -l <lines)" -le 5 ] || fail "$(shown)"
    sort -u lines | cmp -s - <(sort lines) || fail "$(cat lines)"
    sort -rn lines | cmp -s - lines || fail "not the fastest first" "$(cat lines)"
    while read -r line; do
        run_ok hy3_plan "${run[@]}" ${line#* }
        grep -qx fits "$OUT" || fail "$line" "$(shown)"
        [ "$(rate)" -eq "${line%% *}" ] && [ "$(rate)" -gt $((before * 1009 / 1000)) ] ||
            fail "$line: $(rate)"
    done <lines
    read -r _ line <lines
    run_ok hy3_plan "${run[@]}" $line --suggest
    ! grep -F " tokens/s per rank, device" "$OUT" | grep -qF -- "${line%% *}" || fail "$(shown)"
    run_fails 2 "--suggest needs --rates" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED \
        --ranks 8 --suggest
}

@test "--suggest finds what fits where the run as configured does not" {
    capture hy3_plan "$HY3_SOURCE/etc/hymt2_full.cfg" --shape "$HY3_SOURCE/etc/hy_mt2_30b.json" \
        --ranks 8 --device-memory 40GB --host-memory 1TB --rates h100 --suggest
    [ "$status" -eq 1 ] || fail "$(shown)"
    grep -A 5 "^settings that fit$" "$OUT" | grep -q ": .*offload=" || fail "$(shown)"
}

@test "--suggest lets ranks share samples that are too long for one, in the same global batch" {
    local run=("$HY3_SOURCE/etc/hymt2_lora.cfg" --shape "$HY3_SOURCE/etc/hy_mt2_30b.json" --ranks 8
        --device-memory 60GB --host-memory 1TB --rates h100 max_seq_length=131072 offload=none
        per_device_train_batch_size=1 gradient_accumulation_steps=4) line

    capture hy3_plan "${run[@]}" --suggest
    [ "$status" -eq 1 ] || fail "$(shown)"
    line=$(grep -m 1 -o "sequence_parallel_size=.*" "$OUT") || fail "$(shown)"
    run_ok hy3_plan "${run[@]}" $line
    awk -v line="$line" 'BEGIN { split(line, a, /[= ]/); shared = a[2]
        sub(/.*per_device_train_batch_size=/, "", line); split(line, b, /[= ]/)
        exit !(b[1] * b[3] == 4 * shared) }' || fail "$line"
}

# Limits of the schedule: without the next layer under way, or with rows that queue behind weights,
# these are 3.5 and 14.3 s.
@test "weights travel while a layer computes, and rows do not wait for them" {
    micro() { hy3_plan "$HY3_SOURCE/etc/$1" $PUBLISHED --rates "$HY3_SOURCE/etc/devices/h100.cfg" \
        --imbalance 1 --ranks "${@:2}" | sed -n 's/^  4 x \([0-9.]*\) s .*/\1/p'; }
    awk -v lora="$(micro lora.cfg 16 offload=none)" \
        -v full="$(micro full.cfg 128 offload=none per_device_train_batch_size=4)" \
        'BEGIN { print lora, full; exit !(lora > 1 && lora <= 2.3 && full > 4 && full <= 8.5) }'
}

# With slices over all ranks it is 2.0 and 1.33 times as long.
@test "a step on 1024 ranks is at most 15 % longer than on 64" {
    step() { hy3_plan "$HY3_SOURCE/etc/$1" $PUBLISHED --rates "$HY3_SOURCE/etc/devices/h100.cfg" \
        --imbalance 1 expert_parallel_size=8 --ranks "${@:2}" |
        sed -n 's/^  4 x .* = \([0-9.]*\) s$/\1/p'; }
    for run in "lora.cfg none" "full.cfg optimizer"; do
        set -- $run
        awk -v few="$(step "$1" 64 "offload=$2")" -v many="$(step "$1" 1024 "offload=$2")" \
            -v one="$(step "$1" 1024 "offload=$2" zero_group_size=1024)" \
            'BEGIN { print few, many, one
                exit !(few > 1 && many <= 1.15 * few && one > 1.3 * few) }'
    done
}

# Of the four micro-batches the second and third take the same and stand there once.
@test "the timeline of a step is a Chrome trace" {
    local trace=$BATS_TEST_TMPDIR/trace.json

    run_ok hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 \
        --rates "$HY3_SOURCE/etc/devices/h100.cfg" --trace "$trace"
    [ "$(grep -c '"attention_forward","ph":"X"' "$trace")" -eq $((80 * 3 * 2)) ] ||
        fail "$(head -c 300 "$trace")"
    [ "$(sed -n '1p;$p' "$trace" | tr -d '\n')" = '{"traceEvents":[]}' ] ||
        fail "$(head -c 300 "$trace")"
    ! grep -qE '"(ts|dur)":-' "$trace"
}

@test "the name of a device is enough, in the build tree and where HY3_DATADIR says" {
    run_ok env -u HY3_DATADIR hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 --rates h100
    grep -q "tokens/s per rank" "$OUT" || fail "$(shown)"
    mkdir -p data/etc/devices
    sed 's/^launch .*/launch = -1;/' "$HY3_SOURCE/etc/devices/h100.cfg" >data/etc/devices/h100.cfg
    run_fails 2 "data/etc/devices/h100.cfg" env HY3_DATADIR=data hy3_plan \
        "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 --rates h100
}

# What is measured is never asserted, only that a plan takes it.
@test "--probe measures this machine for --rates, and writes over no file of others" {
    make_model "$BATS_TEST_TMPDIR/model" >/dev/null 2>&1
    make_config "$BATS_TEST_TMPDIR/model"
    run_ok "$MPIEXEC" -n 2 hy3_plan "$CFG" max_seq_length=64 --probe cpu.cfg
    grep -q "^# .*: 2 ranks x 1 thread, hidden_size 32$" cpu.cfg || fail "$(cat cpu.cfg)"
    [ "$(grep -c ' = [0-9.e+-]*;$' cpu.cfg)" -eq \
        "$(grep -c ' = [0-9.e+-]*;' "$HY3_SOURCE/etc/devices/h100.cfg")" ] || fail "$(cat cpu.cfg)"
    run_ok hy3_plan "$CFG" --rates ./cpu.cfg --ranks 2
    grep -q "tokens/s per rank" "$OUT" || fail "$(shown)"
    run_ok hy3_plan "$CFG" max_seq_length=64 bf16=true finetuning_type=lora --probe cpu.cfg
    grep -q "^# .*: 1 rank x 1 thread" cpu.cfg || fail "$(cat cpu.cfg)"
    echo "mine" >mine.cfg
    run_fails 2 "'mine.cfg' was not written by --probe" hy3_plan "$CFG" --probe mine.cfg
    [ "$(cat mine.cfg)" = mine ]
    run_ok hy3_plan "$CFG" max_seq_length=64 --probe mine.cfg --overwrite
    local argument
    for argument in "ranks 2" "ranks-per-node 2" "imbalance 1" "device-memory 1GB" "suggest"; do
        run_fails 2 "makes no plan: leave out --${argument% *}" hy3_plan "$CFG" --probe mine.cfg \
            --overwrite --$argument
    done
    run_fails 2 "--overwrite is of the file of --probe" hy3_plan "$CFG" --ranks 2 --overwrite
    run_ok hy3_plan "$CFG" --rates ./mine.cfg --ranks 1
}

@test "rates that are no rates are refused, all of them together" {
    sed -e 's/^launch .*/launch = -1;/' -e 's/^wait .*/waits = 1;/' \
        "$HY3_SOURCE/etc/devices/h100.cfg" >odd.cfg
    run_fails 2 "'launch' must be a number above 0" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED \
        --ranks 8 --rates odd.cfg
    grep -q "'waits' is no rate of a device" "$ERR" || fail "$(shown)"
    sed -e '/^wait /d' "$HY3_SOURCE/etc/devices/h100.cfg" >short.cfg
    run_fails 2 "'wait' is missing" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 \
        --rates short.cfg
    run_fails 2 "no rates of the device 'abacus'" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED \
        --ranks 8 --rates abacus
    run_fails 2 "needs --rates" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 --trace t
}

@test "wrong use is told" {
    run_ok hy3_plan --help
    grep -qF "usage: hy3_plan CONFIG [--name value ...] [key=value ...]" "$OUT" || fail "$(shown)"
    run_fails 2 "the argument --ranks is missing" hy3_plan "$HY3_SOURCE/etc/lora.cfg"
    run_fails 2 "give its config.json with --shape" hy3_plan "$HY3_SOURCE/etc/lora.cfg" --ranks 8
    run_fails 2 "CONFIG" hy3_plan --ranks 8
    run_fails 2 "does not divide" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 \
        expert_parallel_size=3
    run_fails 2 "zero_group_size = 3 does not divide the 8 ranks; these do: 1, 2, 4, 8" hy3_plan \
        "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 zero_group_size=3
    run_fails 2 "--device-memory" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 \
        --device-memory much
    run_fails 2 "zero_stages" hy3_plan "$HY3_SOURCE/etc/lora.cfg" $PUBLISHED --ranks 8 zero_stages=2
}
