# SPDX-License-Identifier: Apache-2.0
# What a program finds around it: limits, directories, variables, names of files.
load helper

setup() {
    D=$BATS_TEST_TMPDIR
    [ -d "$BATS_FILE_TMPDIR/model" ] || make_model "$BATS_FILE_TMPDIR/model" >/dev/null 2>&1
    make_config "$BATS_FILE_TMPDIR/model"
    set_keys max_steps=2
    echo "plot_loss = false; save_steps = 1;" >>"$CFG"
}

not_with_sanitizers() {
    ! grep -q asan <(ldd "$(command -v hy3_sft)") || skip "sanitizers reserve terabytes"
}

# "${LIMITED[@]}" ULIMIT-ARGUMENTS COMMAND …
LIMITED=(sh -c 'ulimit $1; shift; exec "$@"' limited)

@test "an odd OMP_NUM_THREADS is named once, and each rank takes its share" {
    for value in 0 -1 abc 2x 1e3 10000 ""; do
        run_ok env OMP_NUM_THREADS="$value" "$MPIEXEC" -n 2 "$HY3_BUILD/tests/comm/ending" threads
        [ "$(grep -c "OMP_NUM_THREADS = '$value' is not a number from 1 to 1024" "$ERR")" -eq 1 ] ||
            fail "$(shown "$value")"
        [ "$(cat "$OUT")" -le "$(nproc)" ] || fail "$(shown "$value")"
    done
    for value in 3 "3,2" " 3"; do
        run_ok env OMP_NUM_THREADS="$value" "$HY3_BUILD/tests/comm/ending" threads
        [ "$(cat "$OUT")" -eq 3 ] || fail "$(shown "$value")"
    done
}

@test "limits that leave no room end with one message that names them; others are raised" {
    not_with_sanitizers
    run_ok "${LIMITED[@]}" "-S -n 8" hy3_sft "$CFG"
    rm -rf "$OUTPUT"
    run_ok "${LIMITED[@]}" "-S -s 64" hy3_sft "$CFG"
    rm -rf "$OUTPUT"
    run_fails 1 "fewer than 32 files may be open" "${LIMITED[@]}" "-n 8" hy3_sft "$CFG"
    run_fails 1 "MPI could not be started" "${LIMITED[@]}" "-f 10" hy3_sft "$CFG"
    grep -q "warning: files may not have 16 MB" "$ERR"
    run_fails 1 "the stack is limited to less than 1 MB" "${LIMITED[@]}" "-s 256" hy3_sft "$CFG"
    run_fails 1 "raise its limit (ulimit -v)" "${LIMITED[@]}" "-v 260000" hy3_sft "$CFG"
    OMP_NUM_THREADS=2 run_fails 1 "raise its limit (ulimit -v)" "${LIMITED[@]}" "-v 300000" \
        hy3_sft "$CFG"
    [ ! -e "$OUTPUT/model.safetensors" ]
}

@test "without /dev/shm a warning says how to do without, and that works" {
    unshare -m true 2>/dev/null || skip "no right to change mounts"
    local hide='mount -t tmpfs -o size=0 none /dev/shm && mount -o remount,ro /dev/shm && exec "$@"'
    run_fails 1 "MPI could not be started" unshare -m sh -c "$hide" x hy3_sft "$CFG"
    grep -q "warning: /dev/shm is missing.*UCX_TLS=tcp,self" "$ERR"
    run_ok env UCX_TLS=tcp,self unshare -m sh -c "$hide" x "$MPIEXEC" -n 2 hy3_sft "$CFG"
    hy3_check "$OUTPUT"
}

@test "umask 0777 and no TMPDIR change nothing" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$D/whole" per_device_train_batch_size=1
    umask 0777
    TMPDIR=/nonexistent run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" per_device_train_batch_size=1
    umask 022
    [ "$(stat -c %a "$OUTPUT/model.safetensors")" = 600 ]
    cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
}

@test "a file system without locks is as good as any, unless the user asks HDF5 for them" {
    local failing=$HY3_BUILD/tests/support/.libs/failing.so
    [ -e "$failing" ] || skip "tests/support/failing.so is not built"
    export ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0"
    run_ok env LD_PRELOAD="$failing" HY3_FAIL_LOCKS=1 hy3_sft "$CFG"
    run_ok env LD_PRELOAD="$failing" HY3_FAIL_LOCKS=1 hy3_sft "$CFG" max_steps=3
    grep -q "continuing after step 2" "$ERR"
    run_fails 1 "No locks available" env LD_PRELOAD="$failing" HY3_FAIL_LOCKS=1 \
        HDF5_USE_FILE_LOCKING=TRUE hy3_sft "$CFG" output_dir="$D/locks"
}

@test "paths may hold spaces, quotes and UTF-8, be 4,000 bytes long, and go through links" {
    local odd="$D/a b'c\"d ü" long
    mkdir "$odd" "$D/real"
    ln -s real "$D/link"
    cp "$D/train.jsonl" "$odd/t r.jsonl"
    cp -r "$BATS_FILE_TMPDIR/model" "$odd/m o"
    run_ok hy3_sft "$CFG" output_dir="$odd/o u" train_data_file="$odd/t r.jsonl" \
        model_name_or_path="$odd/m o" plot_loss=true
    [ -s "$odd/o u/loss.png" ]
    run_ok hy3_check "$odd/o u" --all
    run_ok hy3_sft "$CFG" output_dir="$D/link/o"
    cmp "$odd/o u/model.safetensors" "$D/real/o/model.safetensors"
    long=$D
    while [ ${#long} -lt 3700 ]; do
        long=$long/$(printf 'x%.0s' $(seq 200))
    done
    run_ok hy3_sft "$CFG" output_dir="$long/$(printf 'y%.0s' $(seq $((3999 - ${#long}))))"
}

@test "a locale with a decimal comma changes no number" {
    localedef -i de_DE -f UTF-8 "$D/de_DE.UTF-8" 2>/dev/null || skip "no sources of locales"
    run_ok hy3_sft "$CFG" output_dir="$D/whole"
    run_ok env LOCPATH="$D" LC_ALL=de_DE.UTF-8 hy3_sft "$CFG" plot_loss=true
    cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
    diff <(sed 's/, "tokens_per_second.*//' "$D/whole/train_log.jsonl") \
        <(sed 's/, "tokens_per_second.*//' "$OUTPUT/train_log.jsonl")
}

# A wall clock that jumps for the programs that follow, and whether it was read.
jumping() {
    [ -e "$HY3_BUILD/tests/support/.libs/clock.so" ] || skip "tests/support/clock.so is not built"
    JUMPS=(env LD_PRELOAD="$HY3_BUILD/tests/support/.libs/clock.so" HY3_CLOCK_LOG="$D/jumped"
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" HY3_CLOCK="$1")
}

# a day, thirty years back, the year 2100
DAY="0 86400 0 -86400" DECADES="0 -946080000" CENTURY="0 2400000000"

@test "a wall clock that jumps ends nothing, hangs nothing and shows in no number" {
    local two=("$MPIEXEC" -n 2 hy3_sft "$CFG" per_device_train_batch_size=1 save_steps=5)
    run_ok "${two[@]}" output_dir="$D/whole" max_steps=20
    for jumps in "$DAY $DECADES $CENTURY" ${HY3_LONG:+"$DAY" "$DECADES" "$CENTURY"}; do
        jumping "$jumps"
        rm -rf "$OUTPUT" "$D/jumped"
        for steps in 7 20; do # and a checkpoint is continued
            run_ok "${JUMPS[@]}" "${two[@]}" max_hours=1 ddp_timeout=100 max_steps=$steps \
                save_async=true
        done
        [ -e "$D/jumped" ]
        grep -q "continuing after step 7" "$ERR" || fail "$(shown "$jumps")"
        cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
        ! grep -E ' -?(nan|inf)|-[0-9.]+ (s|MB)|(ETA|took) ([0-9]{3,}|-|[0-9]+:[0-9]+:)' "$ERR" ||
            fail "$(shown "$jumps")"
        ! grep -vE '"tokens_per_second": [1-9][0-9]{0,6}[.,}]' "$OUTPUT/train_log.jsonl" ||
            fail "$(shown "$jumps")"
    done
    jumping "$DAY"
    set_keys max_steps=1000000
    LIMIT=30 capture "${JUMPS[@]}" hy3_sft "$CFG" max_hours=0.0005 save_steps=1000000
    [ "$status" -eq 75 ] || fail "$(shown max_hours)"
    grep -q "stopped by max_hours after step" "$ERR" || fail "$(shown max_hours)"
}

@test "a wall clock that jumps takes over no living lock, and a dead one in the same time" {
    local lock=$OUTPUT/.hy3_lock
    mkdir "$OUTPUT"
    printf 'hy3 lock\nprogram hy3_sft\nhost elsewhere\nmachine x\nboot y\nspace z\njob 77
pid 1 0\nrestarts \nsince 2026-01-01T00:00:00Z\nnonce 0123456789abcdef
beat 0000000001\n' >"$lock"
    jumping "$DAY $DECADES $CENTURY"
    HY3_LOCK_SECONDS=3 "${JUMPS[@]}" hy3_sft "$CFG" >"$D/log" 2>&1 3>&- &
    for _ in $(seq 100); do
        ! grep -q "watching its heartbeat" "$D/log" || break
        sleep 0.05
    done
    sed -i 's/beat 0000000001/beat 0000000002/' "$lock"
    status=0
    wait $! || status=$?
    [ "$status" -eq 2 ] || fail "exit $status" "$(cat "$D/log")"
    grep -q "belongs to hy3_sft on elsewhere" "$D/log"
    HY3_LOCK_SECONDS=1 LIMIT=30 run_ok "${JUMPS[@]}" hy3_sft "$CFG"
    grep -q "taking over the lock of hy3_sft on elsewhere" "$ERR" || fail "$(shown)"
    # of this host: one that lives is refused
    "${JUMPS[@]}" hy3_sft "$CFG" max_steps=1000000 save_steps=1000000 >"$D/log" 2>&1 3>&- &
    for _ in $(seq 400); do
        ! grep -q '"step": 5,' "$OUTPUT/train_log.jsonl" || break
        sleep 0.05
    done
    HY3_LOCK_SECONDS=1 run_fails 2 "one run at a time" "${JUMPS[@]}" hy3_sft "$CFG"
    kill -TERM $!
    status=0
    wait $! || status=$?
    [ "$status" -eq 75 ] || fail "exit $status" "$(cat "$D/log")"
}

@test "files from before 1970 and after 2100 are read, reused and continued like any" {
    run_ok hy3_sft "$CFG" output_dir="$D/whole" max_steps=3
    for year in 1960 2150; do
        rm -rf "$OUTPUT"
        touch -d "$year-06-01" "$D/train.jsonl"
        run_ok hy3_sft "$CFG"
        find "$OUTPUT" -exec touch -d "$year-06-01" {} +
        run_ok hy3_sft "$CFG" max_steps=3
        grep -q "continuing after step 2" "$ERR" || fail "$(shown "$year")"
        grep -q "read from '$OUTPUT/cache/train.h5'" "$ERR" || fail "$(shown "$year")"
        cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
    done
}

# "${MOUNTED[@]}" COMMANDS PROGRAM …: where the shell's commands have changed what is mounted
MOUNTED=(unshare -m sh -c 'eval "$1" && shift && exec "$@"' mounted)

may_mount() {
    unshare -m true 2>/dev/null || skip "no right to change mounts"
}

@test "without /sys and with a TMPDIR that is read-only or full a run is the same" {
    may_mount
    mkdir "$D/tmp"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$D/whole" per_device_train_batch_size=1
    for way in "mount -t tmpfs -o ro none /sys && mount -t tmpfs -o ro none '$D/tmp'" \
        "umount -l /sys && mount -t tmpfs -o size=4k none '$D/tmp' &&
        { yes >'$D/tmp/full' 2>/dev/null || :; }"; do
        rm -rf "$OUTPUT"
        TMPDIR=$D/tmp run_ok "${MOUNTED[@]}" "$way" "$MPIEXEC" -n 2 hy3_sft "$CFG" \
            per_device_train_batch_size=1
        cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
    done
}

@test "a full /dev/shm ends with a message or is done without, and leaves no half file" {
    may_mount
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$D/whole" per_device_train_batch_size=1
    for size in 4k 64k 1m 4m; do
        rm -rf "$OUTPUT"
        capture "${MOUNTED[@]}" "mount -t tmpfs -o size=$size none /dev/shm" "$MPIEXEC" -n 2 \
            hy3_sft "$CFG" per_device_train_batch_size=1
        case $status in
        0) cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors" ;;
        *) grep -q "/dev/shm.*UCX_TLS=tcp,self" "$ERR" || fail "$(shown "$size")" ;;
        esac
        [ -z "$(find "$OUTPUT" -name '*.part' 2>/dev/null)" ]
    done
}

@test "outputs may be mount points and directories bound elsewhere; one directory is one lock" {
    may_mount
    mkdir "$D/real" "$D/bound" "$D/other"
    run_ok hy3_sft "$CFG" output_dir="$D/whole" max_steps=3
    local bind="mount --bind '$D/real' '$D/bound' && mkdir -p '$D/bound/cache' &&
        mount --bind '$D/other' '$D/bound/cache'"
    run_ok "${MOUNTED[@]}" "$bind" hy3_sft "$CFG" output_dir="$D/bound"
    run_ok "${MOUNTED[@]}" "$bind" hy3_sft "$CFG" output_dir="$D/bound" max_steps=3
    grep -q "continuing after step 2" "$ERR" || fail "$(shown)"
    cmp "$D/whole/model.safetensors" "$D/real/model.safetensors"
    run_ok "${MOUNTED[@]}" "$bind" hy3_sft "$CFG" output_dir="$D/bound" seed=7 \
        overwrite_output_dir=true
    grep -q "the earlier run is set aside" "$ERR" || fail "$(shown)"
    [ ! -e "$D/real/previous" ]
    for program in "hy3_convert --to outer --input_dir $D/whole --output_dir $D/bound" \
        "hy3_export $D/whole/checkpoint-3 $D/bound" \
        "hy3_init --shape $BATS_FILE_TMPDIR/model.json --tokenizer $QUICK/tokenizer \
            --output_dir $D/bound"; do
        rm -rf "$D/real" && mkdir "$D/real"
        # shellcheck disable=SC2086 # words
        run_ok "${MOUNTED[@]}" "mount --bind '$D/real' '$D/bound'" $program
        hy3_check "$D/real"
    done
    rm -rf "$D/real" && mkdir "$D/real"
    hy3_sft "$CFG" output_dir="$D/real" max_steps=1000000 save_steps=1000000 >"$D/log" 2>&1 3>&- &
    for _ in $(seq 400); do
        ! grep -qs '"step": 2,' "$D/real/train_log.jsonl" || break
        sleep 0.05
    done
    run_fails 2 "one run at a time" "${MOUNTED[@]}" "mount --bind '$D/real' '$D/bound'" \
        hy3_sft "$CFG" output_dir="$D/bound"
    kill -TERM $!
    status=0
    wait $! || status=$?
    [ "$status" -eq 75 ] || fail "exit $status" "$(cat "$D/log")"
}

@test "a user who owns the output directory alone can use it; others get one message" {
    [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null || skip "needs root and setpriv"
    D=$(mktemp -d /tmp/hy3-user-XXXXXX)
    chmod 755 "$D"
    local user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    "${user[@]}" test -x "$HY3_BUILD/hy3_sft" || skip "the programs are not everybody's"
    cp -r "$BATS_FILE_TMPDIR/model" "$BATS_TEST_TMPDIR/train.jsonl" "$D"
    sed "s|$BATS_TEST_TMPDIR|$D|; s|$BATS_FILE_TMPDIR|$D|" "$CFG" >"$D/run.cfg"
    CFG=$D/run.cfg OUTPUT=$D/output
    chmod -R go+rX "$D"
    mkdir -p "$D/home/theirs"
    chown 65534:65534 "$D/home/theirs"
    run_ok "${user[@]}" hy3_sft "$CFG" output_dir="$D/home/theirs"
    run_ok "${user[@]}" hy3_sft "$CFG" output_dir="$D/home/theirs/a/b"
    run_ok "${user[@]}" hy3_convert --to outer --input_dir "$D/model" \
        --output_dir "$D/home/theirs/c/d"
    run_ok hy3_sft "$CFG"
    before=$(find "$OUTPUT" -type f -exec cksum {} + | sort)
    run_fails 2 "no permission to write" "${user[@]}" hy3_sft "$CFG" max_steps=3
    run_fails 2 "no permission to write" "${user[@]}" hy3_sft "$CFG" overwrite_output_dir=true \
        seed=9
    run_fails 2 "no permission" "${user[@]}" hy3_sft "$CFG" output_dir="$D/new"
    # a directory that both may write, files that only one may
    chmod 777 "$OUTPUT"
    find "$OUTPUT" -type f -exec chmod 600 {} +
    run_fails 2 "may not be read: no permission" "${user[@]}" hy3_sft "$CFG" max_steps=3
    [ "$(find "$OUTPUT" -type f -exec cksum {} + | sort)" = "$before" ]
    # a process that lives, though no signal may be sent to it
    hy3_sft "$CFG" max_steps=1000000 save_steps=1000000 >"$D/log" 2>&1 3>&- &
    for _ in $(seq 400); do
        ! grep -q '"step": 5,' "$OUTPUT/train_log.jsonl" || break
        sleep 0.05
    done
    HY3_LOCK_SECONDS=1 run_fails 2 "one run at a time" "${user[@]}" hy3_sft "$CFG"
    kill -TERM $!
    code=0
    wait $! || code=$?
    [ "$code" -eq 75 ] || fail "exit $code" "$(cat "$D/log")"
    rm -rf "$D"
}
