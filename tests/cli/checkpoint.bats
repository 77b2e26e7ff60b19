# SPDX-License-Identifier: Apache-2.0
# Checkpoints as a user meets them: signals, time limits, crashes, full disks, export.
load helper

setup() {
    D=$BATS_TEST_TMPDIR
    [ -d "$BATS_FILE_TMPDIR/model" ] || make_model "$BATS_FILE_TMPDIR/model" >/dev/null 2>&1
    make_config "$BATS_FILE_TMPDIR/model"
    cat >>"$CFG" <<END
cache_dir = "$BATS_FILE_TMPDIR/cache";
plot_loss = false;
END
    set_keys per_device_train_batch_size=1 zero_stage=3 max_steps=30
}


# Waits until a step of the log of $OUTPUT is there.
wait_for_step() {
    for _ in $(seq 400); do
        ! grep -q "\"step\": $1," "$OUTPUT/train_log.jsonl" 2>/dev/null || return 0
        sleep 0.05
    done
    fail "step $1 never came"
}

same_model() { # FILE DIRECTORY DIRECTORY
    cmp "$2/$1" "$3/$1"
}

@test "SIGUSR1 and SIGTERM end a run with a checkpoint and exit 75; the same command completes it" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$D/whole"
    for signal in USR1 TERM; do
        rm -rf "$OUTPUT"
        "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=30 >"$D/log" 2>&1 3>&- &
        wait_for_step 2
        pkill -"$signal" -f "^hy3_sft $CFG"
        status=0
        wait $! || status=$?
        [ "$status" -eq 75 ] || fail "exit $status after SIG$signal" "$(tail "$D/log")"
        grep -q "stopped by SIG$signal after step" "$D/log" || fail "$(tail "$D/log")"
        ls -d "$OUTPUT"/checkpoint-*
        run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG"
        grep -q "continuing after step" "$ERR" "$OUT"
        same_model model.safetensors "$D/whole" "$OUTPUT"
        diff <(sed 's/, "tokens_per_second.*//' "$D/whole/train_log.jsonl") \
            <(sed 's/, "tokens_per_second.*//' "$OUTPUT/train_log.jsonl")
    done
}

@test "max_hours ends a run with a checkpoint and exit 75" {
    capture hy3_sft "$CFG" max_steps=100000 max_hours=0.0003
    [ "$status" -eq 75 ] || fail "exit $status"
    ls -d "$OUTPUT"/checkpoint-*
}

@test "hy3_export makes the model that the run wrote, in both layouts and as an adapter" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=3 save_steps=3
    run_ok "$MPIEXEC" -n 3 hy3_export "$OUTPUT/checkpoint-3" "$D/same"
    same_model model.safetensors "$OUTPUT" "$D/same"
    diff "$OUTPUT/config.json" "$D/same/config.json"
    run_ok hy3_export "$OUTPUT/checkpoint-3" "$D/outer" --format outer --dtype bf16 \
        --max_shard_size 20kB
    run_ok hy3_check "$D/outer" --all
    run_ok hy3_sft "$CFG" output_dir="$D/attention" finetuning_type=attention max_steps=2 \
        save_steps=2 bf16=true
    run_ok hy3_export "$D/attention/checkpoint-2" "$D/attention.out"
    same_model model.safetensors "$D/attention" "$D/attention.out"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$D/lora" finetuning_type=lora lora_rank=4 \
        lora_target=all max_steps=2 save_steps=2
    run_ok hy3_export "$D/lora/checkpoint-2" "$D/adapter"
    same_model adapter_model.safetensors "$D/lora" "$D/adapter"
    run_fails 2 "not empty" hy3_export "$OUTPUT/checkpoint-3" "$D/same"
    run_fails 2 "checkpoint-9" hy3_export "$OUTPUT/checkpoint-9" "$D/none"
    printf x | dd of="$OUTPUT/checkpoint-3/state.h5" bs=1 seek=40000 conv=notrunc 2>/dev/null
    run_fails 1 "state.h5" hy3_export "$OUTPUT/checkpoint-3" "$D/none"
    [ ! -e "$D/none/model.safetensors" ]
}

@test "h5py's view: names, global shapes and fp32 values" {
    command -v h5dump >/dev/null || skip "no h5dump"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=2 save_steps=2
    h5dump -n "$OUTPUT/checkpoint-2/state.h5" >"$D/names"
    grep -q "dataset *.*/param/model.layers.1.mlp.experts.gate_up_proj" "$D/names"
    grep -q "dataset *.*/adam_v/lm_head.weight" "$D/names"
    h5dump -H -d "/param/model.layers.1.mlp.experts.gate_up_proj" "$OUTPUT/checkpoint-2/state.h5" |
        grep -q "( 4, 32, 32 )"
}

@test "checkpoints of an earlier run are neither overwritten nor continued by mistake" {
    run_ok hy3_sft "$CFG" max_steps=2 save_steps=2
    run_fails 2 "holds checkpoints" hy3_sft "$CFG" max_steps=4 resume_from_checkpoint=none
    run_fails 2 "global batch" hy3_sft "$CFG" max_steps=4 per_device_train_batch_size=2
    run_ok hy3_sft "$CFG" max_steps=2 save_steps=2 resume_from_checkpoint=none \
        overwrite_output_dir=true
    run_ok hy3_sft "$CFG" max_steps=3 output_dir="$D/other" \
        resume_from_checkpoint="$OUTPUT/checkpoint-2"
    grep -q "continuing after step 2" "$ERR" "$OUT"
    [ "$(wc -l <"$D/other/train_log.jsonl")" -eq 1 ]
}

@test "a full disk while saving: the run stops, the older checkpoint stays; or it trains on" {
    command -v unshare >/dev/null && unshare -rm true 2>/dev/null ||
        skip "no user namespaces to mount a small disk in"
    run_ok hy3_sft "$CFG" max_steps=2 save_steps=2 output_dir="$D/probe"
    size=$(du -sk "$D/probe/checkpoint-2" | cut -f1)
    mkdir "$D/small"
    run_fails 1 "was not saved" unshare -rm sh \
        -c "mount -t tmpfs -o size=$((size * 3 / 2 + 100))k none '$D/small' &&
        { hy3_sft '$CFG' max_steps=6 save_steps=2 output_dir='$D/small/out'; code=\$?; ls \
        -d '$D/small/out'/checkpoint-2/state.h5 >&2 || code=99; exit \$code; }"
    run_ok unshare -rm sh -c "mount -t tmpfs -o size=$((size * 3 / 2 + 1500))k none '$D/small' &&
        fallocate -l 1100k '$D/small/ballast' &&
        hy3_sft '$CFG' max_steps=4 save_steps=2 save_total_limit=1 save_failure=continue \
        output_dir='$D/small/out' &&
        ls '$D/small/out/checkpoint-2/state.h5'"
    grep -q "warning: checkpoint-4 was not saved" "$ERR"
}

# breaks_saving WORDS BREAK [key=value …]: a run on two ranks whose saving BREAK (a command) makes
# impossible after checkpoint-2.
breaks_saving() {
    local words=$1 break=$2 plain=()
    shift 2
    # permissions count for root, too
    [ "$(id -u)" -ne 0 ] || plain=(setpriv --bounding-set -dac_override,-dac_read_search)
    "${plain[@]}" "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=100000 save_steps=2 "$@" \
        >"$D/log" 2>&1 3>&- &
    wait_for_step 3
    for _ in $(seq 400); do # an asynchronous saving may still be under way
        [ ! -e "$OUTPUT/checkpoint-2" ] || break
        sleep 0.05
    done
    $break
    status=0
    wait $! || status=$?
    [ "$status" -eq 1 ] || fail "exit $status" "$(tail "$D/log")"
    local error="error: checkpoint-[0-9]* was not saved: .*$words.*; the previous one is untouched"
    [ "$(grep -c "$error" "$D/log")" -eq 1 ] || fail "$(tail "$D/log")"
}

# What is there is complete, and the run goes on from it.
goes_on() {
    local last
    last=$(ls "$OUTPUT" | sed -n 's/^checkpoint-\([0-9]*\)$/\1/p' | sort -n | tail -1)
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=$((last + 1))
    grep -q "continuing after step $last" "$ERR" "$OUT" || fail "$(shown)"
    ! grep -q "skipping checkpoint" "$ERR" "$OUT" || fail "$(shown)"
}

make_read_only() {
    chmod a-w "$OUTPUT"
}

# As a quota: no file of the ranks may grow beyond half of what a checkpoint needs.
limit_files() {
    local size pid
    size=$(stat -c %s "$OUTPUT/checkpoint-2/state.h5")
    for pid in $(pgrep -f "^hy3_sft $CFG"); do prlimit --pid "$pid" --fsize=$((size / 2)); done
}

@test "a read-only output directory or a file size limit stops the run; it resumes from before" {
    breaks_saving "[Pp]ermission" make_read_only
    chmod u+w "$OUTPUT"
    goes_on
    for async in false true; do
        rm -rf "$OUTPUT"
        breaks_saving "File too large" limit_files save_async=$async
        goes_on
    done
}

# faulty "CALL RANK N" ASYNC: four steps, whose second saving meets that fault of the disk
# (tests/support/failing.c).
faulty() {
    rm -rf "$OUTPUT"
    run_ok "$MPIEXEC" -n 2 env LD_PRELOAD="$HY3_BUILD/tests/support/.libs/failing.so" \
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" \
        HY3_FAIL="$1 checkpoint-4.part/state.h5" hy3_sft "$CFG" max_steps=4 save_steps=2 \
        save_failure=continue save_async="$2"
    [ -e "$OUTPUT/checkpoint-2/state.h5" ] || fail "$1, async = $2: checkpoint-2 is gone"
}

@test "whichever system call fails while saving: one warning, no hang, no crash, no half file" {
    [ -e "$HY3_BUILD/tests/support/.libs/failing.so" ] ||
        skip "tests/support/failing.so is not built"
    async=false
    for fault in "fallocate 0 1" "fallocate 0 2" "ftruncate 0 1" "pwrite 0 1" "pwrite 0 8" \
        "pwrite 0 25" "pwrite 1 1" "pwrite 1 30" \
        "pread 0 1" "pread 0 20" "pread 1 2" "fsync 0 1" "fsync 0 2" "fsync 1 1"; do
        faulty "$fault" $async
        warning="checkpoint-4 was not saved: .*state.h5.*: .*\(No space\|error\|too large\)"
        [ "$(grep -c "warning: $warning" "$ERR")" -eq 1 ] ||
            fail "$fault, async = $async" "$(shown)"
        [ ! -e "$OUTPUT/checkpoint-4" ] && [ ! -e "$OUTPUT/checkpoint-4.part" ] ||
            fail "$fault, async = $async: $(ls "$OUTPUT")"
        [ $async = true ] && async=false || async=true
    done
    for fault in "close 0 1" "close 1 1"; do # what was flushed is there, whatever closing says
        faulty "$fault" $async
        [ -e "$OUTPUT/checkpoint-4/state.h5" ] || fail "$fault" "$(shown)"
        goes_on
    done
}

@test "a hanging rank ends the job within ddp_timeout: one message that names its place; exit 4" {
    "$MPIEXEC" -n 4 hy3_sft "$CFG" max_steps=100000 ddp_timeout=3 >"$D/log" 2>&1 3>&- &
    wait_for_step 3
    victim=$(pgrep -f "^hy3_sft $CFG" | sed -n 2p)
    kill -STOP "$victim"
    begin=$(date +%s)
    status=0
    wait $! || status=$?
    kill -KILL "$victim" 2>/dev/null || true
    [ "$status" -eq 4 ] || fail "exit $status" "$(tail "$D/log")"
    [ $(($(date +%s) - begin)) -le 15 ] || fail "it took $(($(date +%s) - begin)) s"
    [ "$(grep -c 'error: rank' "$D/log")" -eq 1 ] || fail "$(cat "$D/log")"
    place="rank [0-9]* on $(hostname).*step [0-9]*, .*collective [0-9]*"
    grep -q "error: $place.*behind or silent on this node: rank [0-9]*: step" "$D/log" ||
        fail "$(tail "$D/log")"
}

@test "a job that is suspended for longer than ddp_timeout goes on" {
    "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=400 save_strategy=no ddp_timeout=3 \
        >"$D/log" 2>&1 3>&- &
    wait_for_step 3
    pkill -STOP -f "^hy3_sft $CFG"
    sleep 5
    ! grep -q '"step": 400,' "$OUTPUT/train_log.jsonl" || fail "it had ended before"
    pkill -CONT -f "^hy3_sft $CFG"
    status=0
    wait $! || status=$?
    [ "$status" -eq 0 ] || fail "exit $status" "$(tail "$D/log")"
}

@test "a rank that hangs while all save ends the job, in MPI-IO as elsewhere: one message, exit 4" {
    for async in false true; do
        rm -rf "$OUTPUT"
        "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=100000 save_steps=1 save_total_limit=1 \
            ddp_timeout=3 save_async=$async >"$D/log" 2>&1 3>&- &
        wait_for_step 3
        victim=$(pgrep -f "^hy3_sft $CFG" | sed -n 2p)
        for _ in $(seq 2000); do
            ! ls "$OUTPUT"/checkpoint-*.part/state.h5 >/dev/null 2>&1 || break
        done
        kill -STOP "$victim"
        status=0
        wait $! || status=$?
        kill -KILL "$victim" 2>/dev/null || true
        [ "$status" -eq 4 ] || fail "exit $status" "$(tail "$D/log")"
        [ "$(grep -c 'error: rank' "$D/log")" -eq 1 ] || fail "$(cat "$D/log")"
        grep -q "no answer from another rank.* for 3 s (ddp_timeout)" "$D/log" ||
            fail "$(tail "$D/log")"
        goes_on
    done
}
