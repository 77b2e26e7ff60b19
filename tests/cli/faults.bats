# SPDX-License-Identifier: Apache-2.0
# A schedule of faults over every phase of the programs (tests/support/faults.sh).
load helper

setup() {
    D=$BATS_TEST_TMPDIR
    [ -e "$HY3_BUILD/tests/support/.libs/faulty.so" ] ||
        skip "tests/support/faulty.so is not built"
}

schedule() {
    bash "$HY3_SOURCE/tests/support/faults.sh" "$@" >"$D/faults" 2>&1 3>&- ||
        fail "$(cat "$D/faults")"
    tail -n 1 "$D/faults" >&3
}

@test "after any of 60 faults the same command completes, and nothing is missing" {
    schedule --seed 1 --count 60
}

@test "after any of a thousand faults the same command completes, and nothing is missing" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    schedule --seed "${HY3_SEED:-2}" --count 1000
}

@test "whichever system call of a saving fails, once or from then on, the rerun is right" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    schedule --every "resume save EIO"
    schedule --every "resume save ENOSPC+"
    schedule --every "async async-save EIO"
}
