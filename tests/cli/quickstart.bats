#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The shipped quick start on the built programs, cut to a few steps.

load helper

@test "the shipped files make a model, a run whose loss falls, and an answer" {
    work=$BATS_TEST_TMPDIR
    run_ok hy3_init --shape "$QUICK/shape.json" --tokenizer "$QUICK/tokenizer" \
        --output_dir "$work/model"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$HY3_SOURCE/etc/quickstart.cfg" \
        model_name_or_path="$work/model" \
        train_data_file="$QUICK/conversations.jsonl" output_dir="$work/output" max_steps=40
    losses=$(sed -n 's/.*"loss": *\([0-9]*\)\.\([0-9][0-9]\).*/\1\2/p' \
        "$work/output/train_log.jsonl")
    [ "$(echo "$losses" | tail -n 1)" -lt $(($(echo "$losses" | head -n 1) * 9 / 10)) ]
    run_ok hy3_generate "$work/output" --prompt "What is the lighthouse keeper's cat called?" \
        --max_new_tokens 8
    [ -s "$OUT" ]
}

@test "there are more than 200 conversations and each one is used" {
    [ "$(wc -l <"$QUICK/conversations.jsonl")" -gt 200 ]
    make_config "$QUICK"
    run_ok hy3_tokenize "$CFG" train_data_file="$QUICK/conversations.jsonl" \
        tokenizer_name_or_path="$QUICK/tokenizer" \
        cache_dir="$BATS_TEST_TMPDIR/cache"
    [ ! -s "$(find "$BATS_TEST_TMPDIR/cache" -name '*rejected.jsonl')" ]
}

@test "batch/quickstart.sh runs on given programs and explains itself" {
    run_ok bash "$HY3_SOURCE/batch/quickstart.sh" --help
    grep -q WORK_DIRECTORY "$OUT"
}

# The quick start's programs, a run cut to four steps.
make_programs() {
    mkdir "$BATS_TEST_TMPDIR/bin"
    for program in hy3_init hy3_generate; do
        ln -s "$(command -v $program)" "$BATS_TEST_TMPDIR/bin/$program"
    done
    printf '#!/bin/sh\nexec "%s" "$@" max_steps=4\n' "$(command -v hy3_sft)" \
        >"$BATS_TEST_TMPDIR/bin/hy3_sft"
    chmod +x "$BATS_TEST_TMPDIR/bin/hy3_sft"
}

@test "batch/quickstart.sh can be repeated and removes nothing that hy3 did not make" {
    make_programs
    work=$BATS_TEST_TMPDIR/work
    for again in 1 2; do
        run_ok env HY3_BIN="$BATS_TEST_TMPDIR/bin" bash "$HY3_SOURCE/batch/quickstart.sh" "$work"
        [ -s "$work/output/model.safetensors" ]
        [ "$(ls "$work")" = "model"$'\n'"output" ] || fail "$(ls "$work")"
        [ "$again" -eq 2 ] || echo precious >"$work/output/thesis.txt"
    done
    [ "$(cat "$work/output/thesis.txt")" = precious ]
    echo precious >"$work/model/model.safetensors"
    capture env HY3_BIN="$BATS_TEST_TMPDIR/bin" bash "$HY3_SOURCE/batch/quickstart.sh" "$work"
    [ "$status" -eq 1 ] || fail "$(shown)"
    grep -q "is not the model that this script makes" "$ERR" || fail "$(shown)"
    [ "$(cat "$work/model/model.safetensors")" = precious ]
    # what is left of a hy3_init that was killed
    rm -r "$work/model"
    mkdir "$work/model"
    echo hy3_init >"$work/model/.hy3_unfinished"
    run_ok env HY3_BIN="$BATS_TEST_TMPDIR/bin" bash "$HY3_SOURCE/batch/quickstart.sh" "$work"
    [ "$(ls "$work")" = "model"$'\n'"output" ] || fail "$(ls "$work")"
}

@test "batch/quickstart.sh that is ended takes its run with it, which leaves a checkpoint" {
    make_programs
    sed -i 's/max_steps=4/max_steps=100000/' "$BATS_TEST_TMPDIR/bin/hy3_sft"
    work=$BATS_TEST_TMPDIR/work
    HY3_BIN=$BATS_TEST_TMPDIR/bin bash "$HY3_SOURCE/batch/quickstart.sh" "$work" \
        >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
    for _ in $(seq 600); do
        ! grep -qs '"step": 1,' "$work/output/train_log.jsonl" || break
        sleep 0.05
    done
    kill -TERM $!
    status=0
    wait $! || status=$?
    [ "$status" -eq 75 ] || fail "$status" "$(tail -n 5 "$BATS_TEST_TMPDIR/log")"
    ls -d "$work"/output/checkpoint-*
    [ ! -e "$work/output/.hy3_lock" ]
}
