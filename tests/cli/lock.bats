# SPDX-License-Identifier: Apache-2.0
# One run at a time in an output directory, one tokenizing at a time in a cache.
load helper

setup() {
    D=$BATS_TEST_TMPDIR
    [ -d "$BATS_FILE_TMPDIR/model" ] || make_model "$BATS_FILE_TMPDIR/model" >/dev/null 2>&1
    make_config "$BATS_FILE_TMPDIR/model"
    echo "plot_loss = false;" >>"$CFG"
    LOCK=$OUTPUT/.hy3_lock
}

# A file system without locks for the programs that follow.
without_locks() {
    [ -e "$HY3_BUILD/tests/support/.libs/failing.so" ] ||
        skip "tests/support/failing.so is not built"
    export LD_PRELOAD=$HY3_BUILD/tests/support/.libs/failing.so HY3_FAIL_LOCKS=1 \
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" HDF5_USE_FILE_LOCKING=FALSE
}

# write_lock FILE HOST BOOT PID: a lock as another program leaves it.
write_lock() {
    mkdir -p "$(dirname "$1")"
    printf 'hy3 lock\nprogram hy3_sft\nhost %s\nmachine x\nboot %s\nspace %s\njob 77\npid %s 0
restarts \nsince 2026-01-01T00:00:00Z\nnonce 0123456789abcdef\nbeat 0000000003\n' \
        "$2" "$3" "$(readlink /proc/self/ns/pid)" "$4" >"$1"
}

refused() {
    grep -q "belongs to hy3_sft on $(hostname) (process [0-9]*.*one run at a time" "$1"
}

# two_at_once PREPARE …: pairs of runs, each started at one instant into one directory, where
# PREPARE was called: one ends with the model of a run that was alone, the other is refused. A pair
# of which the second only came when the first had finished proves nothing and is repeated.
two_at_once() {
    local pids met=0 tries=0 pairs=${PAIRS:-${HY3_LONG:+50}}
    [ -e "$D/whole" ] || run_ok hy3_sft "$CFG" output_dir="$D/whole"
    while [ "$met" -lt "${pairs:-3}" ]; do
        [ $((tries += 1)) -le 200 ] || fail "only $met pairs met in $tries"
        rm -rf "$OUTPUT"
        "$@"
        hy3_sft "$CFG" >"$D/0" 2>&1 3>&- &
        pids=($!)
        hy3_sft "$CFG" >"$D/1" 2>&1 3>&- &
        pids+=($!)
        codes=
        for pid in "${pids[@]}"; do
            status=0
            wait "$pid" || status=$?
            codes+=$status
        done
        case $codes in
        02) refused "$D/1" && met=$((met + 1)) ;;
        20) refused "$D/0" && met=$((met + 1)) ;;
        00) grep -q "is finished (4 steps)" "$D/0" "$D/1" ;;
        *) false ;;
        esac || fail "exits $codes" "$(tail "$D/0" "$D/1")" || return 1
        cmp "$OUTPUT/model.safetensors" "$D/whole/model.safetensors"
        [ "$(wc -l <"$OUTPUT/train_log.jsonl")" -eq 4 ]
        [ -z "$(find "$OUTPUT" -name '.hy3_lock*')" ] || fail "$(ls -a "$OUTPUT")"
    done
    echo "# $met pairs" >&3
}

leave_a_dead_lock() {
    local pid
    true &
    pid=$!
    wait $pid
    write_lock "$LOCK" "$(hostname)" "$(cat /proc/sys/kernel/random/boot_id)" "$pid"
}

@test "of two runs started at one instant into one directory exactly one runs" {
    two_at_once :
    two_at_once leave_a_dead_lock
}

@test "the same on a file system without locks" {
    without_locks
    two_at_once :
    two_at_once leave_a_dead_lock
}

@test "a run with other settings is refused while one is under way, whose results are its own" {
    run_ok hy3_sft "$CFG" max_steps=100 output_dir="$D/whole"
    hy3_sft "$CFG" max_steps=100 >"$D/log" 2>&1 3>&- &
    for _ in $(seq 400); do
        ! grep -qs '"step": 1,' "$OUTPUT/train_log.jsonl" || break
        sleep 0.05
    done
    kill -STOP $!
    capture hy3_sft "$CFG" learning_rate=4e-3 overwrite_output_dir=true
    kill -CONT $!
    wait $!
    [ "$status" -eq 2 ] && refused "$ERR" || fail "$(shown)"
    cmp "$OUTPUT/model.safetensors" "$D/whole/model.safetensors"
    [ "$(wc -l <"$OUTPUT/train_log.jsonl")" -eq 100 ]
}

@test "of two runs that watch one dead lock of another host exactly one takes it over" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    export HY3_LOCK_SECONDS=1
    two_at_once write_lock "$LOCK" elsewhere another 1
    without_locks
    two_at_once write_lock "$LOCK" elsewhere another 1
}

@test "a lock of another host is taken over when it has no heartbeat, and nothing is done before" {
    write_lock "$LOCK" elsewhere another 1
    HY3_LOCK_SECONDS=1 run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG"
    grep -q "watching its heartbeat: it is taken over if there is none for 1 s" "$ERR"
    grep -q "taking over the lock of hy3_sft on elsewhere (process 1, job 77)" "$ERR"
    [ ! -e "$LOCK" ]
    write_lock "$LOCK" elsewhere another 1
    cp -r "$OUTPUT" "$D/before"
    hy3_sft "$CFG" overwrite_output_dir=true >"$D/log" 2>&1 3>&- &
    for _ in $(seq 100); do
        ! grep -q "watching its heartbeat" "$D/log" || break
        sleep 0.05
    done
    sed -i 's/beat 0000000003/beat 0000000004/' "$LOCK"
    status=0
    wait $! || status=$?
    [ "$status" -eq 2 ] || fail "exit $status" "$(cat "$D/log")"
    grep -q "error: .*belongs to hy3_sft on elsewhere.*remove '$LOCK'" "$D/log"
    sed -i 's/beat 0000000004/beat 0000000003/' "$LOCK"
    diff -r "$D/before" "$OUTPUT"
}

@test "a lock of an earlier start of the same job is taken over at once" {
    write_lock "$LOCK" elsewhere another 1
    SLURM_JOB_ID=77 run_ok hy3_sft "$CFG"
    ! grep -q "watching" "$ERR" || fail "$(shown)"
}

@test "a run that finds its lock gone or replaced stops before its next save" {
    for change in "rm -f '$LOCK'" "write_lock '$LOCK' elsewhere another 1"; do
        rm -rf "$OUTPUT"
        hy3_sft "$CFG" max_steps=100000 save_steps=100000 save_total_limit=1 >"$D/log" 2>&1 3>&- &
        for _ in $(seq 400); do
            ! grep -q '"step": 2,' "$OUTPUT/train_log.jsonl" 2>/dev/null || break
            sleep 0.05
        done
        eval "$change"
        kill -TERM $!
        status=0
        wait $! || status=$?
        [ "$status" -eq 1 ] || fail "exit $status" "$(tail "$D/log")"
        grep -q "error: .*hy3_lock.*nothing more is written" "$D/log" || fail "$(tail "$D/log")"
        [ -z "$(ls -d "$OUTPUT"/checkpoint-* 2>/dev/null)" ]
    done
    grep -q "elsewhere" "$LOCK" # the other's stays
}

@test "programs that share a cache wait for the one that tokenizes, then read; signals are heard" {
    mkdir "$D/cache"
    write_lock "$D/cache/.hy3_lock_of_train" "$(hostname)" \
        "$(cat /proc/sys/kernel/random/boot_id)" $$
    for program in hy3_tokenize hy3_sft; do
        "$program" "$CFG" cache_dir="$D/cache" output_dir="$D/$program" \
            >"$D/$program.log" 2>&1 3>&- &
        pids[${#pids[@]}]=$!
        for _ in $(seq 200); do
            ! grep -q "waiting for the lock '$D/cache/.*process $$," "$D/$program.log" || break
            sleep 0.05
        done
        grep -q "waiting for the lock" "$D/$program.log" || fail "$(cat "$D/$program.log")"
    done
    hy3_sft "$CFG" cache_dir="$D/cache" output_dir="$D/third" >"$D/third.log" 2>&1 3>&- &
    for _ in $(seq 200); do
        ! grep -q "waiting for the lock" "$D/third.log" || break
        sleep 0.05
    done
    kill -TERM $!
    status=0
    wait $! || status=$?
    [ "$status" -eq 75 ] || fail "exit $status" "$(cat "$D/third.log")"
    rm "$D/cache/.hy3_lock_of_train"
    for pid in "${pids[@]}"; do wait "$pid"; done
    [ "$(cat "$D"/*.log | grep -c "samples, .* read from '$D/cache/train.h5'")" -eq 1 ] ||
        fail "$(cat "$D"/*.log)"
    [ -z "$(find "$D" -name '.hy3_lock*')" ]
}
