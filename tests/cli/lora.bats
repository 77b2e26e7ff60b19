#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Adapters as users train, continue and use them.

load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    make_config "$BATS_FILE_TMPDIR/model"
    printf '%s\n' 'finetuning_type = "lora";' 'lora_rank = 4;' 'lora_alpha = 16;' \
        'lora_target = "all";' >>"$CFG"
}

losses() { # of the run in DIRECTORY, all digits
    sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$1/train_log.jsonl"
}

# The losses of two runs differ by less than 2e-6 in every step.
same_losses() {
    paste <(losses "$1") <(losses "$2") | awk 'function abs(x) { return x < 0 ? -x : x }
        NF != 2 || abs($1 - $2) > 2e-6 { bad = 1; print } END { exit bad || NR < 4 }'
}

@test "dropout: the same losses on 1, 2 and 4 ranks, other ones without it" {
    local one=$OUTPUT
    run_ok hy3_sft "$CFG" lora_dropout=0.3 gradient_accumulation_steps=4 \
        per_device_train_batch_size=1
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" lora_dropout=0.3 output_dir="$one-2" \
        gradient_accumulation_steps=2 \
        per_device_train_batch_size=1
    run_ok "$MPIEXEC" -n 4 hy3_sft "$CFG" lora_dropout=0.3 output_dir="$one-4" \
        per_device_train_batch_size=1
    run_ok hy3_sft "$CFG" lora_dropout=0 output_dir="$one-0" gradient_accumulation_steps=4 \
        per_device_train_batch_size=1
    same_losses "$one" "$one-2"
    same_losses "$one" "$one-4"
    ! same_losses "$one" "$one-0"
}

@test "dropout: gradient checkpointing does not change a byte" {
    run_ok hy3_sft "$CFG" lora_dropout=0.3 gradient_checkpointing=true
    run_ok hy3_sft "$CFG" lora_dropout=0.3 gradient_checkpointing=false output_dir="$OUTPUT-kept"
    cmp "$OUTPUT/adapter_model.safetensors" "$OUTPUT-kept/adapter_model.safetensors"
}

@test "a run writes an adapter and no model, and says how much learns" {
    run_ok hy3_sft "$CFG"
    [ -s "$OUTPUT/adapter_model.safetensors" ]
    [ -s "$OUTPUT/adapter_config.json" ]
    [ -s "$OUTPUT/tokenizer.json" ]
    [ ! -e "$OUTPUT/model.safetensors" ]
    [ ! -e "$OUTPUT/config.json" ]
    cat "$OUT" "$ERR" | grep -q "M trainable parameters"
    cat "$OUT" "$ERR" | grep -q "the adapter is in"
    grep -q '"target_parameters": \[' "$OUTPUT/adapter_config.json"
    run_fails 2 "output_dir" hy3_sft "$CFG" seed=5
}

@test "in bf16 the adapter keeps fp32 and a continued one loses nothing" {
    run_ok hy3_sft "$CFG" bf16=true
    run_ok hy3_sft "$CFG" bf16=true learning_rate=0 max_steps=1 adapter_name_or_path="$OUTPUT" \
        output_dir="$OUTPUT-same"
    cmp "$OUTPUT/adapter_model.safetensors" "$OUTPUT-same/adapter_model.safetensors"
}

@test "hy3_generate --adapter answers with what was learned" {
    local prompt answer
    printf '%s\n' '{"messages": [{"role": "user", "content": "colour?"},'\
' {"role": "assistant", "content": "deep green"}]}' \
        >"$BATS_TEST_TMPDIR/train.jsonl"
    run_ok hy3_sft "$CFG" lora_rank=16 lora_dropout=0 max_steps=60 learning_rate=2e-2 \
        per_device_train_batch_size=1 plot_loss=false
    run_ok hy3_generate "$BATS_FILE_TMPDIR/model" --prompt "colour?" --adapter "$OUTPUT" \
        --max_new_tokens 12
    grep -q "^deep" "$OUT" # the head is random and frozen: the rest takes longer
    run_ok hy3_generate "$BATS_FILE_TMPDIR/model" --prompt "colour?" --max_new_tokens 12
    ! grep -q "^deep" "$OUT"
}

@test "models without experts or without a dense layer have adapters too" {
    local shape
    for shape in '"num_experts": 0' '"first_k_dense_replace": 0'; do
        sed "s/${shape%:*}: [0-9]*/$shape/" "$BATS_FILE_TMPDIR/model.json" \
            >"$BATS_TEST_TMPDIR/shape.json"
        grep -q "$shape" "$BATS_TEST_TMPDIR/shape.json"
        run_ok hy3_init --shape "$BATS_TEST_TMPDIR/shape.json" --tokenizer "$QUICK/tokenizer" \
            --overwrite \
            --output_dir "$BATS_TEST_TMPDIR/model"
        rm -rf "$OUTPUT" "$OUTPUT-merged"
        run_ok hy3_sft "$CFG" model_name_or_path="$BATS_TEST_TMPDIR/model"
        run_ok hy3_merge --base_model_path "$BATS_TEST_TMPDIR/model" \
            --adapter_model_path "$OUTPUT" --output_path "$OUTPUT-merged"
        run_ok hy3_check "$OUTPUT-merged" --all
    done
}

@test "attention-only tuning writes a model in which nothing else has changed" {
    run_ok hy3_sft "$CFG" finetuning_type=attention
    cat "$OUT" "$ERR" | grep -q "finetuning_type attention"
    [ -s "$OUTPUT/model.safetensors" ] && [ ! -e "$OUTPUT/adapter_config.json" ]
}

@test "wrong use of adapters" {
    run_fails 2 "there is no 'q_prj'" hy3_sft "$CFG" lora_target=q_prj
    run_fails 2 "adapter_name_or_path: " hy3_sft "$CFG" \
        adapter_name_or_path="$BATS_TEST_TMPDIR/none"
    run_fails 2 "finetuning_type" hy3_sft "$CFG" finetuning_type=full \
        adapter_name_or_path="$BATS_TEST_TMPDIR/none"
    run_fails 1 "belongs to no matrix" hy3_sft "$CFG" adapter_name_or_path="$GOLDEN/adapter/final"
    run_fails 2 "--adapter: '/none' does not exist" hy3_generate \
        "$BATS_FILE_TMPDIR/model" --prompt a \
        --adapter /none
}

# A run of two steps in $OUTPUT, with checkpoint-2.
half_a_run() {
    run_ok hy3_sft "$CFG" max_steps=2 save_steps=2 plot_loss=false "$@"
}

# go_on KEY=VALUE ...: the rest of that run, in a directory of its own.
go_on() {
    hy3_sft "$CFG" resume_from_checkpoint="$OUTPUT/checkpoint-2" plot_loss=false \
        output_dir="$OUTPUT-rest" "$@"
}

@test "an adapter run continues with its own base and settings only" {
    export -f go_on
    export CFG OUTPUT
    hy3_init --shape "$BATS_FILE_TMPDIR/model.json" --tokenizer "$QUICK/tokenizer" --seed 2 \
        --output_dir "$BATS_TEST_TMPDIR/other"
    half_a_run
    run_fails 2 "the base '$BATS_TEST_TMPDIR/other' has other weights" hy3_sft "$CFG" \
        model_name_or_path="$BATS_TEST_TMPDIR/other" max_steps=4
    run_fails 2 "lora_alpha: 16 -> 8" hy3_sft "$CFG" lora_alpha=8
    run_fails 2 "the base '$BATS_TEST_TMPDIR/other' has other weights" bash -c 'go_on "$@"' - \
        model_name_or_path="$BATS_TEST_TMPDIR/other"
    grep -q "trained on the base '$BATS_FILE_TMPDIR/model' (fingerprint [0-9a-f]\{16\})" "$ERR"
    run_fails 2 "an adapter with rank 4, alpha 16, dropout 0.05" bash -c 'go_on lora_alpha=8'
    grep -q "this one trains an adapter with rank 4, alpha 8, dropout 0.05" "$ERR"
    run_fails 2 "dropout 0.5" bash -c 'go_on lora_dropout=0.5'
    run_fails 2 "rank 8" bash -c 'go_on lora_rank=8'
    run_fails 2 "targets q_proj;" bash -c 'go_on lora_target=q_proj'
    # the same weights elsewhere, with other names, in other shards, on two ranks
    run_ok hy3_convert --to outer --max_shard_size 50kB --input_dir "$BATS_FILE_TMPDIR/model" \
        --output_dir "$BATS_TEST_TMPDIR/moved"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" model_name_or_path="$BATS_TEST_TMPDIR/moved" \
        per_device_train_batch_size=1 resume_from_checkpoint="$OUTPUT/checkpoint-2" \
        output_dir="$OUTPUT-rest"
    cat "$OUT" "$ERR" | grep -q "continuing after step 2"
    run_fails 2 "has other weights" hy3_export "$OUTPUT/checkpoint-2" "$BATS_TEST_TMPDIR/exported" \
        --base "$BATS_TEST_TMPDIR/other"
}

@test "trained attention continues on its own base, a full model on any, with a warning" {
    export -f go_on
    export CFG OUTPUT
    hy3_init --shape "$BATS_FILE_TMPDIR/model.json" --tokenizer "$QUICK/tokenizer" --seed 2 \
        --output_dir "$BATS_TEST_TMPDIR/other"
    half_a_run finetuning_type=attention
    run_fails 2 "has other weights" bash -c 'go_on finetuning_type=attention "$@"' - \
        model_name_or_path="$BATS_TEST_TMPDIR/other"
    OUTPUT=$OUTPUT-full
    half_a_run finetuning_type=full output_dir="$OUTPUT"
    run_ok bash -c 'go_on finetuning_type=full "$@"' - \
        model_name_or_path="$BATS_TEST_TMPDIR/other"
    grep -q "warning: .*the biases of routers" "$ERR"
}

# le64 N: as eight bytes.
le64() {
    local i n=$1
    for i in 1 2 3 4 5 6 7 8; do
        printf '%b' "\\0$(printf %o $((n & 255)))"
        n=$((n >> 8))
    done
}

# An adapter of q_proj of layer 1 only, as PEFT writes one for layers_to_transform, in DIRECTORY:
# every element of A and B is 0x3c3c3c3c, 0.011489.
partial_adapter() {
    local name=base_model.model.model.layers.1.self_attn.q_proj header
    mkdir "$1"
    header='{"'$name.lora_A.weight'":{"dtype":"F32","shape":[4,32],"data_offsets":[0,512]},"'
    header+=$name.lora_B.weight'":{"dtype":"F32","shape":[32,4],"data_offsets":[512,1024]}}'
    {
        le64 ${#header}
        printf '%s' "$header"
        head -c 1024 /dev/zero | tr '\000' '\074'
    } >"$1/adapter_model.safetensors"
    echo '{"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q_proj"],' \
        '"layers_to_transform": [1]}' >"$1/adapter_config.json"
}

@test "an adapter of one layer is used, trained on, exported and merged as such" {
    local one=$BATS_TEST_TMPDIR/one model=$BATS_FILE_TMPDIR/model
    partial_adapter "$one"
    run_ok hy3_check "$one"
    run_ok hy3_generate "$model" --adapter "$one" --prompt x --max_new_tokens 2
    run_ok hy3_sft "$CFG" adapter_name_or_path="$one" max_steps=2 save_steps=1
    grep -q '"model.layers.1.self_attn.q_proj"' "$OUTPUT/adapter_config.json"
    run_ok hy3_check "$OUTPUT"
    grep -q "2 tensors; it fits its base '$model' in 1 layer" "$OUT"
    run_ok hy3_export "$OUTPUT/checkpoint-2" "$OUTPUT-exported"
    run_ok hy3_merge --base_model_path "$model" --adapter_model_path "$OUTPUT-exported" \
        --output_path "$OUTPUT-merged" --verbose
    [ "$(grep -c "$(printf '\tupdated\tyes\t')" "$OUT")" -eq 1 ]
    grep -q "layers.1.self_attn.q_proj.weight$(printf '\tupdated')" "$OUT"
}

# Every program that takes the adapter $OUTPUT, with the base $1; $2: a new directory for results.
use_adapter_on() {
    sed -i "s|\(\"base_model_name_or_path\": \)\"[^\"]*\"|\1\"$1\"|" "$OUTPUT/adapter_config.json"
    rm -f "$OUTPUT/checksums.json" # of the file as it was
    mkdir "$2"
    hy3_check "$OUTPUT" &&
        hy3_generate "$1" --adapter "$OUTPUT" --prompt x --max_new_tokens 1 &&
        hy3_merge --base_model_path "$1" --adapter_model_path "$OUTPUT" --output_path "$2/merged" &&
        hy3_sft "$CFG" adapter_name_or_path="$OUTPUT" model_name_or_path="$1" max_steps=1 \
            output_dir="$2/run"
}

@test "an adapter that meets another base than its own is told, by every program" {
    local other=$BATS_TEST_TMPDIR/other
    hy3_init --shape "$BATS_FILE_TMPDIR/model.json" --tokenizer "$QUICK/tokenizer" --seed 2 \
        --output_dir "$other"
    run_ok hy3_sft "$CFG" max_steps=1
    use_adapter_on "$other" "$BATS_TEST_TMPDIR/1" >"$BATS_TEST_TMPDIR/log" 2>&1
    [ "$(grep -c "warning: .* trained on a base with the fingerprint [0-9a-f]*; '$other' has" \
        "$BATS_TEST_TMPDIR/log")" -eq 4 ]
    use_adapter_on "$BATS_FILE_TMPDIR/model" "$BATS_TEST_TMPDIR/2" >"$BATS_TEST_TMPDIR/log" 2>&1
    ! grep "trained on a base" "$BATS_TEST_TMPDIR/log"
}

@test "embedding and head beside an adapter: every program reads what hy3_sft wrote" {
    local model=$BATS_FILE_TMPDIR/model
    run_ok hy3_sft "$CFG" additional_target=embed_tokens,lm_head use_rslora=true \
        loraplus_lr_ratio=4 learning_rate=0.01 max_steps=4 save_steps=2 seed=5
    tr -d ' \n' <"$OUTPUT/adapter_config.json" |
        grep -q '"modules_to_save":\["embed_tokens","lm_head"\]'
    grep -q '"use_rslora": true' "$OUTPUT/adapter_config.json"
    run_ok hy3_check "$OUTPUT"
    grep -q "rsLoRA" "$OUT"
    run_ok hy3_export "$OUTPUT/checkpoint-4" "$OUTPUT-exported"
    cmp "$OUTPUT/adapter_model.safetensors" "$OUTPUT-exported/adapter_model.safetensors"
    run_ok hy3_merge --base_model_path "$model" --adapter_model_path "$OUTPUT" \
        --output_path "$OUTPUT-merged" --save_dtype fp32 --verbose
    grep -q "^lm_head.weight$(printf '\tupdated\tyes\t0$')" "$OUT"
    grep -q "^model.embed_tokens.weight$(printf '\tupdated\tyes\t0$')" "$OUT"
    run_ok hy3_generate "$OUTPUT-merged" --prompt "colour?" --max_new_tokens 8
    cp "$OUT" "$BATS_TEST_TMPDIR/merged"
    run_ok hy3_generate "$model" --adapter "$OUTPUT" --prompt "colour?" --max_new_tokens 8
    cmp "$OUT" "$BATS_TEST_TMPDIR/merged"
    # it is continued from, and one whose tensor is lost is refused
    run_ok hy3_sft "$CFG" adapter_name_or_path="$OUTPUT" max_steps=1 output_dir="$OUTPUT-next"
    grep -q '"lm_head"' "$OUTPUT-next/adapter_config.json"
    cp -r "$OUTPUT-next" "$OUTPUT-lost"
    sed -i 's/"lm_head"/"embed_tokens"/' "$OUTPUT-lost/adapter_config.json"
    run_fails 1 "and to no module of modules_to_save" hy3_generate "$model" \
        --adapter "$OUTPUT-lost" --prompt a
    run_fails 2 "the names are embed_tokens and lm_head" hy3_sft "$CFG" additional_target=norm
}

@test "LoRA+, noise, smoothing and whole modules: any ranks, and bit for bit after a break" {
    local more=(additional_target=lm_head loraplus_lr_ratio=3 neftune_noise_alpha=5 \
        label_smoothing_factor=0.1 use_rslora=true lora_dropout=0.1 bf16=false max_steps=4
        per_device_train_batch_size=1 plot_loss=false)
    run_ok hy3_sft "$CFG" "${more[@]}" gradient_accumulation_steps=4 save_steps=2
    run_ok hy3_sft "$CFG" "${more[@]}" gradient_accumulation_steps=4 output_dir="$OUTPUT-rest" \
        resume_from_checkpoint="$OUTPUT/checkpoint-2"
    cmp "$OUTPUT/adapter_model.safetensors" "$OUTPUT-rest/adapter_model.safetensors"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" "${more[@]}" gradient_accumulation_steps=2 zero_stage=2 \
        output_dir="$OUTPUT-2"
    run_ok "$MPIEXEC" -n 4 hy3_sft "$CFG" "${more[@]}" zero_stage=3 expert_parallel_size=2 \
        stage3_param_persistence_threshold=0 output_dir="$OUTPUT-4"
    same_losses "$OUTPUT" "$OUTPUT-2"
    same_losses "$OUTPUT" "$OUTPUT-4"
    run_ok hy3_sft "$CFG" "${more[@]}" neftune_noise_alpha=0 gradient_accumulation_steps=4 \
        output_dir="$OUTPUT-0"
    ! same_losses "$OUTPUT" "$OUTPUT-0"
}

@test "hierarchical_exchange: the same losses over two nodes, inside a node a warning" {
    local more=(lora_target=all bf16=false max_steps=4 per_device_train_batch_size=1
        plot_loss=false expert_parallel_size=4 profile=true)
    local nodes=(env MPIR_CVAR_NUM_CLIQUES=2 MPIR_CVAR_CLIQUES_BY_BLOCK=1) # MPICH's, of two ranks
    run_ok "${nodes[@]}" "$MPIEXEC" -n 4 hy3_sft "$CFG" "${more[@]}"
    ! grep -q "profile: relabel" "$ERR" || fail "$(shown)"
    for way in "" gradient_checkpointing=false; do
        rm -rf "$OUTPUT-4"
        run_ok "${nodes[@]}" "$MPIEXEC" -n 4 hy3_sft "$CFG" "${more[@]}" $way \
            hierarchical_exchange=true output_dir="$OUTPUT-4"
        grep -q "profile: relabel" "$ERR" || fail "$(shown)"
        ! grep -q "go straight" "$ERR" || fail "$(shown)"
        same_losses "$OUTPUT" "$OUTPUT-4"
    done
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" "${more[@]}" expert_parallel_size=2 \
        hierarchical_exchange=true output_dir="$OUTPUT-2"
    [ "$(grep -c "tokens go straight to their ranks" "$ERR")" -eq 1 ] || fail "$(shown)"
}

sums() { # name and checksum of each tensor in DIRECTORY
    "$HY3_BUILD/tests/support/list_tensors" --sums "$1" | sed 's/^\([^ ]*\) .* /\1 /'
}

# The tensors of the model in DIRECTORY that differ from the base's.
changed() {
    diff <(sums "$BATS_FILE_TMPDIR/model") <(sums "$1") | sed -n 's/^> \([^ ]*\).*/\1/p'
}

@test "freeze tuning changes the chosen layers only, freeze_router no router" {
    run_ok hy3_sft "$CFG" finetuning_type=freeze freeze_trainable_layers=1 \
        freeze_trainable_modules=mlp,self_attn max_steps=2 save_steps=1 learning_rate=0.01 \
        bf16=true # as the base is stored
    changed "$OUTPUT" >"$BATS_TEST_TMPDIR/names"
    grep -q "layers.1.self_attn.q_proj" "$BATS_TEST_TMPDIR/names"
    ! grep -v "layers.1.\(mlp\|self_attn\)" "$BATS_TEST_TMPDIR/names" || fail "others changed"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" finetuning_type=full freeze_router=true max_steps=2 \
        learning_rate=0.01 bf16=true per_device_train_batch_size=1 output_dir="$OUTPUT-full"
    changed "$OUTPUT-full" >"$BATS_TEST_TMPDIR/names"
    grep -q "experts" "$BATS_TEST_TMPDIR/names"
    ! grep "router\|mlp.gate\." "$BATS_TEST_TMPDIR/names" || fail "the router changed"
    run_fails 2 "freeze_trainable_modules: there is no 'attn'" hy3_sft "$CFG" \
        finetuning_type=freeze freeze_trainable_modules=attn
}
