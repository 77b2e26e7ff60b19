#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Models in 8 bits, and a base that is kept so (base_dtype).

load helper

setup() {
    EIGHT=$HY3_SOURCE/tests/golden/fp8/mixed
    cd "$BATS_TEST_TMPDIR"
    : >run.cfg
}

# train OUTPUT key=value …: two steps on the model in 8 bits
train() {
    local output=$1
    shift
    run_ok hy3_sft run.cfg model_name_or_path="$EIGHT" use_dummy_data=true max_samples=8 \
        output_dir="$output" max_steps=2 max_seq_length=32 per_device_train_batch_size=2 \
        device=cpu plot_loss=false "$@"
}

@test "a base in 8 bits trains as the same one expanded, and what is saved is in bf16" {
    train eight finetuning_type=attention base_dtype=fp8
    train wide finetuning_type=attention
    cmp eight/model.safetensors wide/model.safetensors
    ! grep -q quantization_config eight/config.json
    run_ok hy3_check eight --all
    run_ok hy3_export eight/checkpoint-2 exported
    cmp eight/model.safetensors exported/model.safetensors
}

@test "a base in another dtype is quantized, and its error told per kind of tensor" {
    train eight finetuning_type=attention
    run_ok hy3_sft run.cfg model_name_or_path=eight use_dummy_data=true max_samples=8 \
        output_dir=lora max_steps=2 max_seq_length=32 per_device_train_batch_size=2 device=cpu \
        plot_loss=false finetuning_type=lora lora_target=all base_dtype=fp8
    grep -q "relative RMS error: self_attn.q_proj.weight 1.91 %, .*mlp.experts.down_proj 2.55 %" \
        "$ERR" || fail "$(shown)"
    train dummy finetuning_type=lora load_format=dummy base_dtype=fp8
}

@test "base_dtype is for frozen weights, and of one run" {
    run_fails 2 'base_dtype = "fp8" is for weights that are not trained' hy3_sft run.cfg \
        model_name_or_path="$EIGHT" use_dummy_data=true output_dir=result base_dtype=fp8
    train result finetuning_type=lora base_dtype=fp8
    run_fails 2 'base_dtype: "fp8" -> "bf16" (another run)' hy3_sft run.cfg \
        model_name_or_path="$EIGHT" use_dummy_data=true max_samples=8 output_dir=result \
        max_steps=4 max_seq_length=32 per_device_train_batch_size=2 device=cpu plot_loss=false \
        finetuning_type=lora
}

@test "models in 8 bits are checked, not rewritten" {
    run_ok hy3_check "$EIGHT" --all
    run_fails 1 "models in 8 bits" hy3_convert --to outer --input_dir "$EIGHT" --output_dir result
    [ ! -e result ]
    train adapter finetuning_type=lora
    run_fails 1 "models in 8 bits" hy3_merge --base_model_path "$EIGHT" \
        --adapter_model_path adapter --output_path merged
}
