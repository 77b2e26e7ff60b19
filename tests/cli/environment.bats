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
