#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A new kind of tensor is one entry: programs built with that of new_kind.h make it, load it under
# both names, divide it over ranks, train, save, resume, export, check and plan it.

load ../cli/helper

LIST="$HY3_BUILD/tests/support/list_tensors"
OLD=$HY3_BUILD
PATH="$HY3_BUILD/tests/model/new_kind:$PATH"

setup() {
    D=$BATS_TEST_TMPDIR
}

# setup_file's model: 2 layers of 2 heads, inner names
setup_file() {
    make_model "$BATS_FILE_TMPDIR/inner" >/dev/null 2>&1
}

# "name dtype shape" of the new tensors of a directory
new_tensors() {
    "$LIST" "$1" | grep 'self_attn\.gat' | cut -d' ' -f1-3
}

# has_tensors DIRECTORY NAME: every layer has it, with an element a head
has_tensors() {
    diff <(new_tensors "$1" | sed 's/ [A-Z0-9]* / /') \
        <(printf 'model.layers.%d.self_attn.%s 2\n' 0 "$2" 1 "$2")
}

# The fp32 values of the new tensors of a directory.
new_values() {
    "$LIST" "$1" | grep 'self_attn\.gat' | while read -r name dtype shape shard begin bytes; do
        tail -c +$((begin + 1)) "$1/$shard" | head -c "$bytes" | od -An -tf4
    done
}

# "name dtype shape sha256" of every tensor of a directory, sorted
sums() {
    "$LIST" --sums "$1" | cut -d' ' -f1-3,5 | sort
}

@test "it is initialized, named in both layouts and checked" {
    has_tensors "$BATS_FILE_TMPDIR/inner" gating
    run_ok hy3_convert --to outer --input_dir "$BATS_FILE_TMPDIR/inner" --output_dir "$D/outer"
    has_tensors "$D/outer" gate
    run_ok hy3_check "$D/outer" --all
    run_ok hy3_check "$BATS_FILE_TMPDIR/inner" --all
    run_fails 1 "" "$OLD/hy3_check" "$D/outer"
    grep -q "model\.layers\.1\.self_attn\.gate: not a tensor" "$OUT"
}

@test "it is loaded from both layouts, divided, saved, resumed and exported, without decay" {
    make_config "$BATS_FILE_TMPDIR/inner"
    echo 'weight_decay = 0.5; max_steps = 2; save_steps = 1;' | sed 's/; /;\n/g' >>"$CFG"
    sed -i '/^max_steps = 4/d' "$CFG"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" zero_stage=3 expert_parallel_size=2 \
        stage3_param_persistence_threshold=0
    has_tensors "$OUTPUT" gating
    # no gradient: a decay alone would change it
    [ "$(new_values "$OUTPUT" | tr -s ' \n' ' ')" = " 1 1 1 1 " ]

    run_ok hy3_convert --to outer --input_dir "$BATS_FILE_TMPDIR/inner" --output_dir "$D/outer"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" model_name_or_path="$D/outer" output_dir="$D/second" \
        zero_stage=3 expert_parallel_size=2 stage3_param_persistence_threshold=0 max_steps=1
    has_tensors "$D/second" gate
    run_ok hy3_convert --to inner --input_dir "$D/second" --output_dir "$D/second.inner"
    run_ok hy3_export "$OUTPUT/checkpoint-1" "$D/export" --format inner
    has_tensors "$D/export" gating
    diff <(sums "$D/export") <(sums "$D/second.inner")

    run_ok hy3_sft "$CFG" output_dir="$D/resumed" per_device_train_batch_size=4 \
        resume_from_checkpoint="$OUTPUT/checkpoint-1"
    has_tensors "$D/resumed" gating
    run_ok hy3_check "$D/resumed" --all
}

@test "it is planned: an element a head and layer more to train" {
    sed -e 's/\("num_attention_heads":\) [0-9]*/\1 4096/' -e 's/\("head_dim":\) [0-9]*/\1 2/' \
        "$BATS_FILE_TMPDIR/inner.json" >"$D/shape.json"
    make_config "$BATS_FILE_TMPDIR/inner"
    trained() { sed -n 's/.*; \([0-9.]*\) of [0-9.]* G parameters trainable/\1/p' "$OUT"; }
    run_ok hy3_plan "$CFG" --ranks 2 --shape "$D/shape.json"
    with=$(trained)
    run_ok "$OLD/hy3_plan" "$CFG" --ranks 2 --shape "$D/shape.json"
    awk -v a="$with" -v b="$(trained)" \
        'BEGIN { exit !(a - b > 7e-6 && a - b < 9.4e-6) }' || fail "$with against $(trained)"
}
