# SPDX-License-Identifier: Apache-2.0
# Files and flags of other tools (tests/migration), run as they stand.
#   arguments   of hy3_sft; @MODEL@ is a model directory, there and in the YAML
#   settings    lines of the resolved configuration; absent: the case is refused with 2
#   says, lacks texts that standard error has, or must not have

load helper

# Runs a case with --print-config in a copy of its directory.
run_case() {
    local case=$1 model=$BATS_FILE_TMPDIR/model words wanted=0
    shift
    cp -r "$HY3_SOURCE/tests/migration/$case" "$BATS_TEST_TMPDIR/$case"
    chmod -R u+w "$BATS_TEST_TMPDIR/$case"
    cd "$BATS_TEST_TMPDIR/$case"
    mkdir -p disk
    sed -i "s#@MODEL@#$model#" ./*.yaml ./*.cfg arguments 2>/dev/null || true
    read -ra words <arguments
    [ -f settings ] || wanted=2
    capture "$@" hy3_sft "${words[@]}" --print-config
    [ "$status" -eq "$wanted" ] || fail "status $status, not $wanted" "$(shown "${words[@]}")"
    sed 's/ *# .*//; t; s/^# \(.* is not set\).*/# \1/' "$OUT" >resolved
    sed -n 's/^\(# [a-z_]* is not set\) .*/\1/p' "$OUT" >>resolved
    [ $wanted -eq 2 ] || while read -r line; do
        grep -qxF -- "$line" resolved || fail "not set: $line" "$(cat resolved)"
    done <settings
    while read -r text; do
        grep -qF -- "$text" "$ERR" || fail "not said: $text" "$(cat "$ERR")"
    done <says
    [ ! -f lacks ] || while read -r text; do
        ! grep -qF -- "$text" "$ERR" || fail "said: $text" "$(cat "$ERR")"
    done <lacks
}

setup_file() {
    mkdir -p "$BATS_FILE_TMPDIR/model"
    cp "$GOLDEN"/tokenizer/* "$GOLDEN/inner/config.json" "$BATS_FILE_TMPDIR/model"
}

# The tokens and labels of a data set of another tool are those of same.jsonl, which says the same
# in our own form.
same_tokens() {
    local case=$1 set
    cp -r "$HY3_SOURCE/tests/migration/$case" "$BATS_TEST_TMPDIR/$case"
    chmod -R u+w "$BATS_TEST_TMPDIR/$case"
    cd "$BATS_TEST_TMPDIR/$case"
    sed -i "s#@MODEL@#$BATS_FILE_TMPDIR/model#" run.*
    run_ok "$MPIEXEC" -n 2 hy3_tokenize run.* cache_dir=there
    run_ok hy3_tokenize "$HY3_SOURCE/tests/migration/native.cfg" max_seq_length=512 cache_dir=here \
        model_name_or_path="$BATS_FILE_TMPDIR/model" train_data_file=same.jsonl
    for set in tokens label_mask offsets; do
        h5dump -d "/$set" -w 0 there/train.h5 | tail -n +2 >there.txt
        h5dump -d "/$set" -w 0 here/train.h5 | tail -n +2 >here.txt
        diff here.txt there.txt
    done
}

@test "the public full fine-tuning YAML, with other values" {
    run_case yaml_full
}

@test "absent keys have LLaMA-Factory's defaults" {
    run_case yaml_defaults
}

@test "plain packing of LLaMA-Factory packs samples that do not see each other, and says so" {
    run_case yaml_packing
}

@test "every form of a YAML scalar; an argument overrides" {
    run_case yaml_forms
}

@test "a LoRA YAML with a ZeRO 2 JSON" {
    run_case yaml_lora_zero2
}

@test "DeepSpeed's NVMe offload" {
    run_case yaml_nvme
}

@test "what changes the result is refused, all of it, with file and line" {
    run_case yaml_refused
}

@test "a key given twice is refused" {
    run_case yaml_twice
}

@test "ms-swift's YAML" {
    run_case swift_lora
}

@test "where ms-swift's YAML is silent, what it would take is said" {
    run_case swift_silent
}

@test "the flags of train.sh" {
    run_case flags_train_sh
}

@test "all ranks get the configuration that one has read" {
    run_case yaml_full "$MPIEXEC" -n 3
}

@test "the printed configuration runs again, and prints the same" {
    run_case yaml_forms
    cp "$OUT" first.cfg
    run_ok hy3_sft first.cfg --print-config
    diff first.cfg "$OUT"
}

@test "alpaca: prompt, input and history, in a JSON array" {
    same_tokens data_alpaca
}

@test "sharegpt: turns, a call, tools as text, a system message" {
    same_tokens data_sharegpt
}

@test "a think block in front of an answer is its reasoning" {
    same_tokens data_think
}

@test "T4: of mask_history the last answer is learned, and earlier reasoning is gone" {
    same_tokens data_history
    run_ok hy3_tokenize run.yaml tokenized_path=kept preserve_thinking=true
    h5dump -d /tokens -w 0 kept/train.h5 | tail -n +2 >kept.txt
    h5dump -d /tokens -w 0 there/train.h5 | tail -n +2 >there.txt
    ! diff -q there.txt kept.txt
}

@test "a cut sample whose last turn is lost is counted, and what keeps it is said" {
    cp -r "$HY3_SOURCE/tests/migration/data_history" "$BATS_TEST_TMPDIR"
    cd "$BATS_TEST_TMPDIR/data_history"
    sed -i "s#@MODEL@#$BATS_FILE_TMPDIR/model#" run.yaml
    run_fails 1 "dropped 2" hy3_tokenize run.yaml cutoff_len=24
    grep -q "truncation_strategy = left keeps it" there/train.rejected.jsonl
    run_ok hy3_tokenize run.yaml cutoff_len=24 tokenized_path=kept disable_shuffling=true
    grep -q "without a label token [1-9]" "$ERR" || fail "$(shown)"
    run_ok hy3_tokenize run.yaml cutoff_len=24 tokenized_path=left truncation_strategy=left
    grep -q "dropped 0," "$ERR" || fail "$(shown)"
}

@test "of ms-swift's last_round all behind the last question is learned, the call too" {
    same_tokens data_last_round
}

@test "T1: in plain lines a think block is text, as upstream has it, and that is said" {
    local ask='{"messages": [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", '
    printf '%s\n' "$ask\"content\": \"<think>add</think>5\"}]}" \
        "$ask\"content\": \"<think>sum</think>5\"}]}" "$ask\"content\": \"5\"}]}" >plain.jsonl
    local native=("$HY3_SOURCE/tests/migration/native.cfg" max_seq_length=512
        model_name_or_path="$BATS_FILE_TMPDIR/model" train_data_file=plain.jsonl)
    run_ok hy3_tokenize "${native[@]}" cache_dir=text
    [ "$(grep -c "learned as text: see split_think (2 lines)" "$ERR")" -eq 1 ] || fail "$(shown)"
    run_ok hy3_tokenize "${native[@]}" cache_dir=split split_think=true
    ! grep -q "learned as text" "$ERR" || fail "$(shown)"
    ! diff -q <(h5dump -d /tokens text/train.h5 | tail -n +2) \
        <(h5dump -d /tokens split/train.h5 | tail -n +2)
}

@test "T2: the effort of a line counts, else that of its reasoning, else the configuration's" {
    same_tokens data_effort
    sed -i '3,4s/"reasoning_effort": "[a-z_]*"/"reasoning_effort": "low"/' same.jsonl
    run_ok hy3_tokenize run.yaml tokenized_path=low reasoning_effort=low
    run_ok hy3_tokenize "$HY3_SOURCE/tests/migration/native.cfg" max_seq_length=512 \
        cache_dir=same model_name_or_path="$BATS_FILE_TMPDIR/model" train_data_file=same.jsonl
    diff <(h5dump -d /tokens low/train.h5 | tail -n +2) <(h5dump -d /tokens same/train.h5 |
        tail -n +2)
}

@test "T3: without enable_thinking no reasoning is left" {
    same_tokens data_no_thinking
}

@test "ms-swift's lines: their form is found by their keys" {
    same_tokens data_swift
}

@test "a data set of the hub is named, with how to fetch it" {
    cd "$HY3_SOURCE/tests/migration/data_hub"
    run_fails 2 "someone/some-set" hy3_tokenize run.cfg cache_dir="$BATS_TEST_TMPDIR/cache" \
        model_name_or_path="$BATS_FILE_TMPDIR/model"
    grep -q "does not download" "$ERR"
}
