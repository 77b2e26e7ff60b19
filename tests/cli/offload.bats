# SPDX-License-Identifier: Apache-2.0
# What is kept in host memory or recomputed: no choice changes a bit, and auto takes what lacks.
load helper

WHOLE="zero_stage=3 stage3_param_persistence_threshold=0"

setup() {
    make_gpu_config
}

# same SETTINGS … : two ranks train the same model with each of the settings (a text of words).
same() {
    local settings first='' n=0
    for settings; do
        # shellcheck disable=SC2086 # a list of words
        run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" $WHOLE $settings output_dir="out$n"
        first=${first:-out$n}
        cmp "$first/${FILE:=model.safetensors}" "out$n/$FILE" || fail "$settings"
        n=$((n + 1))
    done
}

@test "any share in host memory gives the same bits on the CPU" {
    same "device=cpu expert_parallel_size=1" \
        "device=cpu expert_parallel_size=1 offload=param offload_ratio=0.3" \
        "device=cpu expert_parallel_size=1 offload=full offload_ratio=0.7" \
        "device=cpu expert_parallel_size=1 offload=optimizer offload_ratio=0.5" \
        "device=cpu expert_parallel_size=1 offload=auto"
    grep -q "offload_ratio = " out1/config.cfg
    same "device=cpu optim=adamw_8bit overwrite_output_dir=true" \
        "device=cpu optim=adamw_8bit overwrite_output_dir=true offload=full offload_ratio=0.3"
}

@test "any share in host memory gives the same bits on the GPU, under several schedules" {
    on_emulated_gpu
    same "expert_parallel_size=2" "expert_parallel_size=2 offload=param offload_ratio=0.3" \
        "expert_parallel_size=2 offload=full offload_ratio=0.3" \
        "expert_parallel_size=2 offload=full offload_ratio=0.7"
    for seed in 7 ${HY3_LONG:+1 8}; do
        HY3_EMU_SEED=$seed run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" $WHOLE expert_parallel_size=2 \
            offload=full offload_ratio=0.6 stage3_prefetch_bucket_size=1000000 \
            output_dir="seed$seed"
        cmp out0/model.safetensors "seed$seed/model.safetensors"
    done
}

@test "auto puts into host memory what the GPUs have no room for, and goes on elsewhere" {
    on_emulated_gpu
    local run=("$CFG" $WHOLE stage3_max_reuse_distance=0) memory
    needs() { # SETTINGS …: GB of the GPU
        HY3_EMU_MEMORY=1 capture hy3_sft "${run[@]}" "$@" output_dir=small
        sed -n 's/.*this run needs \([0-9.]*\) GB.*offload = auto.*/\1/p' "$ERR"
    }

    cat >shape.json <<'END'
{"hidden_size": 160, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2,
 "num_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
 "num_nextn_predict_layers": 0, "vocab_size": 2560, "max_position_embeddings": 4096}
END
    run_ok hy3_init --shape shape.json --tokenizer "$QUICK/tokenizer" --output_dir model
    run+=(model_name_or_path=model)
    run_ok hy3_sft "${run[@]}" max_steps=4 save_steps=2 output_dir=whole
    memory=$(awk -v none="$(needs)" -v full="$(needs offload=full)" 'BEGIN {
        printf "%d", (none + 2 * full) / 3 * 1e9 / 0.98 / 1048576 }')
    HY3_EMU_MEMORY=$memory run_fails 1 "this run needs" hy3_sft "${run[@]}" output_dir=small
    HY3_EMU_MEMORY=$memory run_ok hy3_sft "${run[@]}" max_steps=4 save_steps=2 offload=auto \
        output_dir=auto
    grep -qE "offload = auto: in host memory [0-9.]+ % of the optimizer" "$ERR" || fail "$(shown)"
    grep -q 'offload = "auto"' auto/config.cfg
    cmp whole/model.safetensors auto/model.safetensors
    cp -r auto/checkpoint-2 kept
    run_ok hy3_sft "${run[@]}" max_steps=4 offload=auto resume_from_checkpoint=kept \
        output_dir=rest
    grep -q "offload = auto: nothing needs host memory" "$ERR" || fail "$(shown)"
    cmp whole/model.safetensors rest/model.safetensors
}

# kept DEVICE GROUP TASK …: what a layer leaves for its backward, for a model of 7 layers and parts
# of it.
kept() {
    make_deep_model
    for task in "${@:3}"; do
        local run="model_name_or_path=deep device=$1 expert_parallel_size=$2 $task
            overwrite_output_dir=true resume_from_checkpoint=none val_size=2 eval_steps=1"
        FILE=adapter_model.safetensors
        [ "${task#*lora}" != "$task" ] || FILE=model.safetensors
        same "$run" "$run recompute=none" "$run recompute=selective" \
            "$run offload_activations=true" \
            "$run recompute=selective offload_activations=true stage3_max_reuse_distance=0"
    done
}

make_deep_model() {
    [ -d deep ] || sed 's/\("num_hidden_layers":\) [0-9]*/\1 7/' "$BATS_FILE_TMPDIR/model.json" \
        >deep.json
    [ -d deep ] || run_ok hy3_init --shape deep.json --tokenizer "$QUICK/tokenizer" \
        --output_dir deep --seed 2
}

@test "what is recomputed, and what waits in host memory, changes no bit on the CPU" {
    kept cpu 1 "" "finetuning_type=freeze freeze_trainable_layers=4 sequence_parallel_size=2" \
        "finetuning_type=lora lora_rank=4 lora_target=all packing=true"
}

@test "what is recomputed, and what waits in host memory, changes no bit on the GPU" {
    on_emulated_gpu
    for seed in 0 ${HY3_LONG:+7 1 8}; do
        HY3_EMU_SEED=$seed kept cuda 2 "finetuning_type=freeze freeze_trainable_layers=4" \
            ${HY3_LONG:+"" "finetuning_type=lora lora_rank=4 lora_target=all packing=true"}
    done
}

@test "host memory for activations that are not there is refused" {
    run_fails 2 'with recompute = "none" all activations stay on the device' hy3_sft "$CFG" \
        device=cpu recompute=none offload_activations=true
    run_fails 2 'with gradient_checkpointing = false all activations stay' hy3_sft "$CFG" \
        device=cpu gradient_checkpointing=false offload_activations=true
    run_fails 2 'recompute = "selective" has no effect without gradient_checkpointing' hy3_sft \
        "$CFG" device=cpu gradient_checkpointing=false recompute=selective
}

@test "a ratio without an effect is refused" {
    run_fails 2 'offload_ratio has no effect with offload = "none"; leave it out' \
        hy3_sft "$CFG" device=cpu offload_ratio=0.5
    run_fails 2 'offload_ratio has no effect with offload = "auto", which finds it' \
        hy3_sft "$CFG" device=cpu offload=auto offload_ratio=0.5
    run_fails 2 "offload_ratio" hy3_sft "$CFG" device=cpu offload=param offload_ratio=1.5
    run_fails 2 "offload_ratio = 0 moves nothing" hy3_sft "$CFG" device=cpu offload=param \
        offload_ratio=0
    run_fails 2 "moves weights, which needs zero_stage = 3" hy3_sft "$CFG" device=cpu \
        zero_stage=2 offload=full offload_ratio=0.6
    run_ok hy3_sft "$CFG" device=cpu zero_stage=2 offload=full offload_ratio=0.3 max_steps=1 \
        offload_activations=true
    grep -q "offload_activations saves no memory" "$ERR" || fail "$(shown)"
}
