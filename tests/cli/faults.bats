# SPDX-License-Identifier: Apache-2.0
# A schedule of faults over every phase of the programs (tests/support/faults.sh).
load helper

setup() {
    D=$BATS_TEST_TMPDIR
    [ -e "$HY3_BUILD/tests/support/.libs/faulty.so" ] ||
        skip "tests/support/faulty.so is not built"
}

schedule() {
    local status=0
    bash "$HY3_SOURCE/tests/support/faults.sh" "$@" >"$D/faults" 2>&1 3>&- || status=$?
    [ "$status" -ne 77 ] || skip "$(tail -n 1 "$D/faults")"
    [ "$status" -eq 0 ] || fail "$(cat "$D/faults")"
    sed '/^faults: seed/d; s/^/# /' "$D/faults" >&3
}

@test "after any of 60 faults the same command completes, and nothing is missing" {
    schedule --seed 1 --count 60
}

@test "after any of a thousand faults the same command completes, and nothing is missing" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    schedule --seed "${HY3_SEED:-2}" --count 1000
}

@test "whichever system call fails while saving or writing a result, the rerun is right" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    for fault in "resume save ENOSPC+" "sft save EIO" "async async-save EIO" "sft final EIO" \
        "tokenize tokenize-write EIO" "convert convert-write EIO" "merge merge-write EIO" \
        "export export-write EIO" "init init-write EIO"; do
        schedule --every "$fault"
    done
}

@test "a job that loses a node or its link at any place is started again and completes" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    schedule --cluster --seed "${HY3_SEED:-1}" --count 12
}

@test "a file that the disk does not tell of is not taken for one that is missing" {
    local faulty=(env LD_PRELOAD="$HY3_BUILD/tests/support/.libs/faulty.so"
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" HY3_FAULT_ROOT="$D/model/")
    local convert=(hy3_convert --to outer --input_dir "$D/model" --output_dir)
    make_model "$D/model" >/dev/null 2>&1
    run_ok "${faulty[@]}" HY3_FAULT="0 -" HY3_FAULT_LOG="$D/calls" "${convert[@]}" "$D/whole"
    for place in $(sed -n 's|^\([0-9]*\) stat .*/tokenizer.json$|\1|p' "$D/calls"); do
        capture "${faulty[@]}" HY3_FAULT="$place EIO" "${convert[@]}" "$D/result"
        run_ok "${convert[@]}" "$D/result"
        cmp "$D/whole/tokenizer.json" "$D/result/tokenizer.json"
        rm -rf "$D/result"
    done
    [ -n "$place" ]
}
