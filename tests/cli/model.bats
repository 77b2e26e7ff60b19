#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# hy3_init and hy3_generate as users run them, and hy3_sft on every hostile model directory of the
# golden case.

load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    MODEL=$BATS_FILE_TMPDIR/model
}

# A writable copy of the model in $BAD.
copy_model() {
    BAD=$BATS_TEST_TMPDIR/bad
    rm -rf "$BAD" "$BATS_TEST_TMPDIR/output"
    cp -r "$MODEL" "$BAD"
}

@test "hy3_init: --help, --version and wrong arguments" {
    run_ok hy3_init --help
    for option in --shape --tokenizer --output_dir --seed; do
        grep -q -- "$option" "$OUT"
    done
    run_ok hy3_init --version
    run_fails 2 "" hy3_init
    run_fails 2 "--shape" hy3_init --shap "$QUICK/shape.json" --tokenizer "$QUICK/tokenizer" \
        --output_dir "$BATS_TEST_TMPDIR/m"
    run_fails 2 "nowhere.json" hy3_init --shape nowhere.json --tokenizer "$QUICK/tokenizer" \
        --output_dir "$BATS_TEST_TMPDIR/m"
}

@test "hy3_init: the seed decides every byte, the number of ranks none" {
    make_model "$BATS_TEST_TMPDIR/same"
    "$MPIEXEC" -n 2 hy3_init --shape "$BATS_TEST_TMPDIR/same.json" --tokenizer "$QUICK/tokenizer" \
        --output_dir "$BATS_TEST_TMPDIR/ranks" --seed 1
    hy3_init --shape "$BATS_TEST_TMPDIR/same.json" --tokenizer "$QUICK/tokenizer" \
        --output_dir "$BATS_TEST_TMPDIR/other" --seed 2
    for file in "$MODEL"/*.safetensors; do
        cmp "$file" "$BATS_TEST_TMPDIR/same/$(basename "$file")"
        cmp "$file" "$BATS_TEST_TMPDIR/ranks/$(basename "$file")"
        ! cmp -s "$file" "$BATS_TEST_TMPDIR/other/$(basename "$file")" ||
            fail "the seed does not matter"
    done
}

@test "hy3_init: the directory has config, tokenizer and weights" {
    for file in config.json generation_config.json tokenizer.json tokenizer_config.json; do
        [ -s "$MODEL/$file" ] || fail "no $file: $(ls "$MODEL")"
    done
    ls "$MODEL"/*.safetensors
}

@test "hy3_generate: --help, --version and wrong arguments" {
    run_ok hy3_generate --help
    run_ok hy3_generate --version
    run_fails 2 "MODEL_DIR" hy3_generate
    run_fails 2 "--prompt" hy3_generate "$MODEL"
    run_fails 2 "--temperature" hy3_generate "$MODEL" --prompt hi --temperatur 1
    run_fails 2 "no-model" hy3_generate "$BATS_TEST_TMPDIR/no-model" --prompt hi
}

@test "hy3_generate: greedy answers repeat, draws depend on the seed alone" {
    run_ok hy3_generate "$MODEL" --prompt "Where can I buy bread?" --max_new_tokens 12
    cp "$OUT" "$BATS_TEST_TMPDIR/first"
    run_ok hy3_generate "$MODEL" --prompt "Where can I buy bread?" --max_new_tokens 12
    cmp "$OUT" "$BATS_TEST_TMPDIR/first"
    for seed in 1 1 2; do
        run_ok hy3_generate "$MODEL" --prompt "Where can I buy bread?" --max_new_tokens 12 \
            --temperature 1 --seed $seed
        mv "$OUT" "$BATS_TEST_TMPDIR/draw$((n += 1))"
    done
    cmp "$BATS_TEST_TMPDIR/draw1" "$BATS_TEST_TMPDIR/draw2"
    ! cmp -s "$BATS_TEST_TMPDIR/draw1" "$BATS_TEST_TMPDIR/draw3"
}

@test "hy3_generate: --messages answers every conversation and names the line of a bad one" {
    printf '%s\n' '{"messages":[{"role":"user","content":"Hello"}]}' '{"messages":[}' \
        >"$BATS_TEST_TMPDIR/ask.jsonl"
    run_fails 1 "ask.jsonl:2" hy3_generate "$MODEL" --messages "$BATS_TEST_TMPDIR/ask.jsonl" \
        --max_new_tokens 4
    head -n 3 "$QUICK/conversations.jsonl" >"$BATS_TEST_TMPDIR/ask.jsonl"
    run_ok hy3_generate "$MODEL" --messages "$BATS_TEST_TMPDIR/ask.jsonl" --max_new_tokens 4
    [ "$(wc -l <"$OUT")" -ge 3 ]
}

@test "every bad config.json is refused by name" {
    WRONG=
    make_config "$MODEL"
    while read -r expect file _; do
        copy_model
        cp "$GOLDEN/bad_inputs/$file" "$BAD/config.json"
        try_bad "$expect" config.json hy3_sft "$CFG" model_name_or_path="$BAD"
    done < <(bad_inputs config)
    [ -z "$WRONG" ] || fail "$WRONG"
}

@test "every bad safetensors file is refused by name" {
    WRONG=
    make_config "$MODEL"
    while read -r _ file _; do
        copy_model
        rm -f "$BAD"/*.safetensors "$BAD"/*.index.json
        cp "$GOLDEN/bad_inputs/$file" "$BAD/model.safetensors"
        # none holds this model's tensors, so even a well-formed one must end in a clear message
        case $file in
        st_nan.safetensors | st_duplicate_key.safetensors) words= ;;
        *) words=model.safetensors ;;
        esac
        try_bad reject "$words" hy3_sft "$CFG" model_name_or_path="$BAD"
    done < <(bad_inputs safetensors)
    [ -z "$WRONG" ] || fail "$WRONG"
}

@test "every bad index is refused by name" {
    WRONG=
    make_config "$MODEL"
    while read -r expect file _; do
        copy_model
        cp "$GOLDEN/bad_inputs/$file" "$BAD/model.safetensors.index.json"
        case $expect:$file in
        reject:index_missing_shard.json) words=model-00009-of-00009.safetensors ;;
        reject:*) words=model.safetensors.index.json ;;
        *) expect=reject words= ;; # the index does not list this model's tensors
        esac
        try_bad "$expect" "$words" hy3_sft "$CFG" model_name_or_path="$BAD"
    done < <(bad_inputs index)
    [ -z "$WRONG" ] || fail "$WRONG"
}

@test "a cut weight file is refused and no output is left that looks like a model" {
    make_config "$MODEL"
    copy_model
    file=$(find "$BAD" -name '*.safetensors' | sort | tail -n 1)
    truncate -s -100 "$file"
    run_fails 1 "$(basename "$file")" "$MPIEXEC" -n 2 hy3_sft "$CFG" model_name_or_path="$BAD"
    [ -z "$(find "$OUTPUT" -name '*.safetensors' 2>/dev/null)" ]
}

@test "load_format = dummy: config.json alone is a model, the same one on every layout" {
    local run=(load_format=dummy use_dummy_data=true finetuning_type=lora lora_rank=4
        lora_target=all max_samples=16 max_seq_length=32 plot_loss=false)
    loss() { sed -n "$2s/.*\"loss\": \([0-9.]*\).*/\1/p" "$1/train_log.jsonl"; }

    mkdir bare
    cp "$MODEL/config.json" bare
    make_config bare
    run_fails 1 "" hy3_sft "$CFG" use_dummy_data=true
    run_ok hy3_sft "$CFG" "${run[@]}" save_steps=2 output_dir=one
    grep -q "load_format = dummy: the weights are random" "$ERR" || fail "$(shown)"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" "${run[@]}" per_device_train_batch_size=1 zero_stage=3 \
        stage3_param_persistence_threshold=0 expert_parallel_size=2 offload=full output_dir=two
    awk -v a="$(loss one 4)" -v b="$(loss two 4)" \
        'BEGIN { exit !(a > 1 && a - b < 1e-5 && b - a < 1e-5) }' ||
        fail "$(loss one 4) and $(loss two 4)"
    cp -r one/checkpoint-2 kept
    run_ok hy3_sft "$CFG" "${run[@]}" resume_from_checkpoint=kept output_dir=rest
    cmp one/adapter_model.safetensors rest/adapter_model.safetensors
    run_ok hy3_sft "$CFG" "${run[@]}" seed=7 max_steps=1 output_dir=other
    [ "$(loss other 1)" != "$(loss one 1)" ] || fail "the seed does not matter"
    run_ok hy3_sft "$CFG" "${run[@]}" finetuning_type=full max_steps=1 output_dir=full
    run_ok hy3_check full
}
