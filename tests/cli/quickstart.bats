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
