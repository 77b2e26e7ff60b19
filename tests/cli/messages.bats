#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What the programs say to wrong use: which argument or key, what is wrong with it, what to do; and
# the exit code that goes with it.

load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    D=$BATS_TEST_TMPDIR
    MODEL=$BATS_FILE_TMPDIR/model
    make_config "$MODEL"
}

@test "the name of a model on a hub says how to download it, in every program that reads one" {
    local command="hf download tencent/Hy3-preview --local-dir models/Hy3-preview"
    run_fails 2 "$command" hy3_sft "$CFG" model_name_or_path=tencent/Hy3-preview
    grep -q "model_name_or_path: 'tencent/Hy3-preview' does not exist; hy3 does not download" "$ERR"
    run_fails 2 "$command" hy3_tokenize "$CFG" tokenizer_name_or_path=tencent/Hy3-preview
    run_fails 2 "$command" hy3_check tencent/Hy3-preview
    run_fails 2 "$command" hy3_generate tencent/Hy3-preview --prompt hi
    run_fails 2 "$command" hy3_generate "$MODEL" --adapter tencent/Hy3-preview --prompt hi
    run_fails 2 "$command" hy3_convert --to outer --output_dir "$D/x" \
        --input_dir https://huggingface.co/tencent/Hy3-preview
    run_fails 2 "does not exist: there is no directory '/no'" hy3_check /no/such
    ! grep -q "hf download" "$ERR" || fail "$(shown)"
}

@test "a file for a directory, a directory for a file and what is missing have words of their own" {
    run_fails 2 "model_name_or_path: '$CFG' is a file, not a directory" hy3_sft "$CFG" \
        model_name_or_path="$CFG"
    run_fails 2 "the directory '$D' has files of more than one kind" hy3_sft "$CFG" \
        train_data_file="$D"
    rm -rf "$OUTPUT" # a directory is looked at where data are read
    run_fails 2 "eval_data_file: '$D/none.jsonl' does not exist" hy3_sft "$CFG" \
        eval_data_file="$D/none.jsonl"
    run_fails 2 "output_dir: '$CFG/out' cannot exist: '$CFG' is a file, not a directory" \
        hy3_sft "$CFG" output_dir="$CFG/out"
    run_fails 2 "cache_dir: '$CFG' is a file, not a directory" hy3_tokenize "$CFG" cache_dir="$CFG"
    run_fails 2 "CONFIG: '$D' is a directory, not a file" hy3_sft "$D"
    run_fails 2 "resume_from_checkpoint: '$D/none' does not exist; output_dir" hy3_sft "$CFG" \
        output_dir="$D/other" resume_from_checkpoint="$D/none"
    run_fails 2 "resume_from_checkpoint: '$CFG' is a file, not a directory" hy3_sft "$CFG" \
        output_dir="$D/other" resume_from_checkpoint="$CFG"
    run_fails 2 "MODEL_DIR: '$CFG' is a file, not a directory" hy3_generate "$CFG" --prompt hi
    run_fails 2 "--messages: '$D' is a directory, not a file" hy3_generate "$MODEL" --messages "$D"
    run_fails 2 "--shape: '$MODEL' is a directory, not a file" hy3_plan "$CFG" --ranks 1 \
        --shape "$MODEL"
    run_fails 2 "CHECKPOINT_DIR: '$D/none' does not exist" hy3_export "$D/none" "$D/x"
    run_fails 2 "--tokenizer: '$CFG' is a file" hy3_init --shape "$MODEL.json" --tokenizer "$CFG" \
        --output_dir "$D/x"
    run_fails 2 "--output_path: '$CFG' is a file" hy3_merge --base_model_path "$MODEL" \
        --adapter_model_path "$MODEL" --output_path "$CFG"
    run_fails 2 "--input_dir is empty" hy3_convert --to outer --input_dir "" --output_dir "$D/x"
    ln -s gone "$D/link.jsonl"
    run_fails 2 "is a symbolic link to 'gone', which does not exist" hy3_sft "$CFG" \
        train_data_file="$D/link.jsonl"
    [ ! -e "$D/x" ] && [ ! -e "$OUTPUT" ]
}

@test "all paths that cannot be used are named at once" {
    run_fails 2 "3 problems:" "$MPIEXEC" -n 2 hy3_sft "$CFG" model_name_or_path="$D/m" \
        train_data_file="$D/t.jsonl" eval_data_file="$D/e.jsonl"
    [ "$(grep -c "^  .*'$D/.*' does not exist" "$ERR")" -eq 3 ] || fail "$(shown)"
}

@test "a size needs a unit, and says which" {
    local plan=(hy3_plan "$HY3_SOURCE/etc/lora.cfg" --shape "$HY3_SOURCE/etc/hy3_295b.json")
    run_fails 2 "'device-memory' is 80 without a unit; write 80G" "${plan[@]}" --ranks 8 \
        --device-memory 80
    run_ok "${plan[@]}" --ranks 8 --device-memory 80G --host-memory 2T
    run_ok "${plan[@]}" --ranks 8 --device-memory 80GiB
    run_fails 2 "'max_shard_size' is 5 without a unit; write 5G" hy3_sft "$CFG" max_shard_size=5
    run_fails 2 "'max_shard_size' is 5000000000 without a unit; write 5000000000B" hy3_convert \
        --to outer --input_dir "$MODEL" --output_dir "$D/x" --max_shard_size 5000000000
}

@test "an argument that is given twice is a warning with both values" {
    run_ok hy3_sft "$CFG" seed=1 max_steps=1 seed=2
    grep -q "warning: seed is given twice: argument 'seed=1' and argument 'seed=2'; the last" "$ERR"
    grep -q "^hy3_sft:   seed = 2;" "$ERR" || fail "$(shown)"
    run_ok hy3_plan "$CFG" --ranks 8 --ranks 4
    grep -q "warning: --ranks is given twice, as 8 and as 4; the last counts: 4" "$ERR"
    run_ok hy3_plan "$CFG" --ranks 4 --ranks 4 cutoff_len=64 max_seq_length=64
    [ "$(grep -c warning "$ERR")" -eq 1 ] || fail "$(shown)"
}

@test "an argument written as a key, and a key written as an argument, are told apart" {
    run_fails 2 "'ranks=8' is an argument of hy3_plan: write --ranks 8" hy3_plan "$CFG" ranks=8
    run_fails 2 "'device-memory=80G' is an argument of hy3_plan: write --device-memory 80G" \
        hy3_plan device-memory=80G "$CFG" --ranks 8
    run_fails 2 "'dry_run=true' is an argument of hy3_sft: write --dry-run" hy3_sft "$CFG" \
        dry_run=true
    run_fails 2 "'input_dir=m' is an argument of hy3_convert: write --input_dir m" hy3_convert \
        input_dir=m
    run_fails 2 "unknown argument '--seed'; keys have no dashes: seed=…" hy3_sft "$CFG" --seed 3
    run_fails 2 "unknown argument '--seed=3'; keys have no dashes: seed=3" hy3_sft "$CFG" --seed=3
}

@test "an empty value unsets a number of the file" {
    echo 'min_lr_rate = 0.1;' >>"$CFG"
    run_ok hy3_sft "$CFG" max_steps=1 min_lr_rate= min_lr=1e-5
    grep -q "^# min_lr_rate is not set" "$OUTPUT/config.cfg"
}

@test "a warmup that the run is too short for is a warning with both numbers" {
    run_ok hy3_sft "$CFG" lr_scheduler_type=linear warmup_steps=100
    grep -q "warning: the warmup of 100 steps (warmup_steps) does not end within the 4 steps" \
        "$ERR" || fail "$(shown)"
    run_ok hy3_sft "$CFG" output_dir="$D/one" lr_scheduler_type=cosine warmup_ratio=1 max_steps=1
    grep -q "warning: the warmup of 1 step (warmup_ratio) does not end within the 1 step of" "$ERR"
    run_ok hy3_sft "$CFG" output_dir="$D/two" warmup_steps=1
    grep -q 'warmup_steps has no effect with lr_scheduler_type = "constant"' "$ERR"
    run_ok hy3_sft "$CFG" output_dir="$D/good" lr_scheduler_type=linear warmup_steps=3
    ! grep -q warning "$ERR" || fail "$(shown)"
}

@test "one of a thing is written as one" {
    run_ok hy3_sft "$CFG" max_samples=1 max_steps=1 per_device_train_batch_size=1
    grep -q "1 rank x 1 thread on cpu; global batch 1 sample = .*; 1 step, 1 per epoch" "$ERR" ||
        fail "$(shown)"
    grep -q "train: 1 sample, " "$ERR"
    grep -q "done: 1 step, " "$ERR"
    run_ok hy3_check "$MODEL"
    grep -q " tensors in 1 shard, " "$OUT"
    rm -r "$OUTPUT"
    run_ok hy3_sft "$CFG"
    grep -q "1 rank x .* global batch 2 samples = .*; 4 steps, 4 per epoch" "$ERR"
}

@test "code 2 is a wrong command line, configuration or path; code 1 is a failure at work" {
    echo 'no JSON' >"$D/bad.jsonl"
    mkdir "$D/empty" "$D/taken"
    echo mine >"$D/taken/thesis.txt"
    cp -r "$MODEL" "$D/torn"
    truncate -s -100 "$D/torn/model.safetensors"

    run_fails 2 "" hy3_sft
    run_fails 2 "" hy3_sft "$D/none.cfg"
    run_fails 2 "" hy3_sft "$CFG" seed=x
    run_fails 2 "" hy3_sft "$CFG" model_name_or_path="$D/none"
    run_fails 2 "" hy3_sft "$CFG" train_data_file="$D/none"
    run_fails 2 "" hy3_sft "$CFG" output_dir="$D/taken"
    run_fails 2 "" hy3_tokenize "$CFG" train_data_file="$D/none"
    run_fails 2 "" hy3_check "$D/none"
    run_fails 2 "" hy3_generate "$MODEL" --messages "$D/none"
    run_fails 2 "" hy3_export "$D/none" "$D/x"
    run_fails 2 "" hy3_merge --base_model_path "$D/none" --adapter_model_path "$D/none" \
        --output_path "$D/x"
    run_fails 2 "" hy3_init --shape "$D/none" --tokenizer "$D/none" --output_dir "$D/x"

    run_fails 1 "bad.jsonl:1" hy3_sft "$CFG" train_data_file="$D/bad.jsonl"
    run_fails 1 "bad.jsonl:1" hy3_tokenize "$CFG" train_data_file="$D/bad.jsonl"
    run_fails 1 "bad.jsonl:1" hy3_generate "$MODEL" --messages "$D/bad.jsonl"
    run_fails 1 "model.safetensors" hy3_sft "$CFG" model_name_or_path="$D/torn"
    run_fails 1 "model.safetensors" hy3_convert --to inner --input_dir "$D/torn" --output_dir "$D/x"
    run_fails 1 "finding" hy3_check "$D/torn"
    run_fails 1 "config.json" hy3_sft "$CFG" model_name_or_path="$D/empty"
    run_fails 1 "does not fit" hy3_plan "$CFG" --ranks 1 --host-memory 1KB --device-memory 1KB
}

@test "words that are no arguments are told what they lack" {
    run_fails 2 "the key 'seed' has no value; write seed=…" hy3_sft "$CFG" seed
    run_fails 2 "'seed = 3': write key=value, without blanks" hy3_sft "$CFG" "seed = 3"
    run_fails 2 "'=3': write key=value, without blanks" hy3_sft "$CFG" =3
    run_fails 2 "unknown key 'SEED'; did you mean 'seed'?" hy3_sft "$CFG" SEED=3
    run_fails 2 "an argument is empty" hy3_sft "$CFG" ""
    run_fails 2 "CONFIG is empty" hy3_sft ""
    run_fails 2 "it must be a number, 0 to 1, with a decimal point" hy3_sft "$CFG" \
        learning_rate=0,001
    run_fails 2 "'output_dir' is too long: 5000 bytes, at most 4095" hy3_sft "$CFG" \
        output_dir="$(printf 'x%.0s' {1..5000})"
    run_fails 2 "unknown argument '-p'; did you mean '--prompt'?" hy3_generate "$MODEL" -p hi
    run_fails 2 "'--prompt' needs a value" hy3_generate "$MODEL" --prompt --seed 3
    run_fails 2 "--prompt is empty" hy3_generate "$MODEL" --prompt ""
    run_fails 2 "--prompt and --messages are both given; keep one" hy3_generate "$MODEL" \
        --prompt hi --messages "$D/train.jsonl"
    run_fails 2 "'max_new_tokens' is 0; it must be a whole number, 1 or more" hy3_generate \
        "$MODEL" --prompt hi --max_new_tokens 0
    run_fails 2 "unknown argument '--base'; did you mean '--base_model_path'?" hy3_merge --base x
    run_fails 2 "unknown argument '-n'; see --help" hy3_plan "$CFG" -n 8
}

@test "what only a shell replaces in a path is not taken for a name" {
    cd "$D"
    run_fails 2 "'~' is not expanded here: write the whole path" hy3_sft "$CFG" \
        'output_dir="~/out"'
    run_fails 2 "variables are not expanded here" hy3_sft "$CFG" 'output_dir=$SCRATCH/out'
    run_fails 2 "variables are not expanded here" hy3_tokenize "$CFG" 'cache_dir=${HOME}/c'
    run_fails 2 "no file matches 'data/*.jsonl'" hy3_sft "$CFG" 'train_data_file=data/*.jsonl'
    run_fails 2 "hf download org/name --repo-type dataset" hy3_sft "$CFG" train_data_file=org/name
    run_fails 2 "dataset_dir: '$D/dataset_info.json' does not exist" hy3_sft "$CFG" \
        train_data_file= dataset=x dataset_dir="$D"
    [ ! -e '~' ] && [ ! -e '$SCRATCH' ] && [ ! -e '${HOME}' ]
}

@test "results that standard output cannot take are an error" {
    for command in "hy3_check $MODEL" "hy3_plan $CFG --ranks 2" "hy3_sft --help" \
        "hy3_generate $MODEL --prompt hi --max_new_tokens 2"; do
        run_fails 1 "cannot write to standard output" bash -c "exec $command >/dev/full"
    done
}

@test "every --help fits 100 columns and names its arguments as the manual page does" {
    for page in "$HY3_SOURCE"/doc/man/*.1; do
        program=$(basename "$page" .1)
        run_ok "$program" --help
        ! grep -E '^.{101}' "$OUT" || fail "$(shown "$program")"
        for name in $(grep -oE '^  --[a-z0-9_-]+' "$OUT" | tr -d ' -'); do
            tr -d '\\-' <"$page" | grep -q "\\b$name\\b" || fail "$page does not name $name"
        done
    done
}

@test "a directory whose name has a colon, quotes and blanks takes a whole run" {
    local out="$D/ufs:a 'b' \"c\""
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="\"$D/ufs:a 'b' \\\"c\\\"\"" max_steps=2 \
        save_steps=1
    [ -s "$out/model.safetensors" ]
    [ -s "$out/checkpoint-1/state.h5" ]
    run_ok hy3_export "$out/checkpoint-1" "$D/export:1"
    run_ok hy3_check "$D/export:1"
}

@test "the scripts say how they are used" {
    for script in convert merge scaling; do
        capture bash "$HY3_SOURCE/batch/$script.sbatch" only-one
        [ "$status" -eq 2 ] || fail "$(shown "$script")"
        grep -q "^usage: sbatch .*batch/$script.sbatch " "$ERR" || fail "$(shown "$script")"
    done
    capture bash "$HY3_SOURCE/batch/quickstart.sh" "$CFG"
    [ "$status" -eq 2 ] || fail "$(shown)"
    grep -qx "quickstart.sh: error: '$CFG' is a file, not a directory" "$ERR" || fail "$(shown)"
}
