# SPDX-License-Identifier: Apache-2.0
# sequence_parallel_size: ranks that share the tokens of a sample.
load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model"
}

setup() {
    make_config "$BATS_FILE_TMPDIR/model"
    echo 'plot_loss = false; device = "cpu";' >>"$CFG"
}

number() { # KEY STEP: of the log
    sed -n "$2s/.*\"$1\": \([-0-9.e]*\).*/\1/p" "$OUTPUT/train_log.jsonl"
}

@test "ranks that share samples take those of one rank, and count each token once" {
    local tokens loss

    run_ok "$MPIEXEC" -n 1 hy3_sft "$CFG"
    tokens=$(number num_tokens 4) loss=$(number loss 4)
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" sequence_parallel_size=2 overwrite_output_dir=true \
        resume_from_checkpoint=none
    grep -q "run: 2 ranks .* global batch 2 samples = 2 x 1 x 1" "$ERR" || fail "$(shown)"
    grep -q "each 2 consecutive ranks share their samples" "$ERR" || fail "$(shown)"
    [ "$(number num_tokens 4)" = "$tokens" ] || fail "$(number num_tokens 4), not $tokens"
    awk -v a="$loss" -v b="$(number loss 4)" 'BEGIN { exit !(a - b < 2e-5 && b - a < 2e-5) }' ||
        fail "loss $(number loss 4), not $loss"
}

@test "a run goes on with other groups that share samples" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=2 save_steps=2 sequence_parallel_size=2
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" per_device_train_batch_size=1
    grep -q "step 2" "$ERR" || fail "$(shown)"
    run_ok hy3_export "$OUTPUT/checkpoint-2" exported # one process
    [ "$(wc -l <"$OUTPUT/train_log.jsonl")" -eq 4 ] || fail "$(cat "$OUTPUT/train_log.jsonl")"
    run_fails 2 "global batch" "$MPIEXEC" -n 2 hy3_sft "$CFG" max_steps=6 sequence_parallel_size=2 \
        per_device_train_batch_size=1
}

@test "groups that do not divide the ranks of a node are refused" {
    run_fails 2 "sequence_parallel_size = 3 does not divide the 2 ranks of a node" \
        "$MPIEXEC" -n 2 hy3_sft "$CFG" sequence_parallel_size=3
    [ ! -e "$OUTPUT/config.cfg" ]
}

# One sample on four ranks of this machine. Attention alone takes minutes. What the plan does not
# count are copies that products on the CPU make: 0.2 to 0.35 GB, also where no samples are shared.
@test "131,072 tokens train on four ranks, each with memory for a quarter of them" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    local planned used

    sed -e 's/"hidden_size": [0-9]*/"hidden_size": 256/' \
        -e 's/"num_attention_heads": [0-9]*/"num_attention_heads": 1/' \
        -e 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 262144/' \
        "$BATS_FILE_TMPDIR/model.json" >long.json
    run_ok hy3_init --shape long.json --tokenizer "$QUICK/tokenizer" --output_dir long
    sed -i '/^train_data_file/d' "$CFG"
    set_keys "model_name_or_path=\"long\"" max_seq_length=131072 per_device_train_batch_size=1 \
        max_steps=1
    echo 'use_dummy_data = true; max_samples = 1; sequence_parallel_size = 4;' >>"$CFG"
    run_ok hy3_plan "$CFG" --ranks 4
    planned=$(awk '/, peak/ { sum += $4 == "GB" ? 1000 * $3 : $3 } END { print sum }' "$OUT")
    LIMIT=7000
    run_ok "$MPIEXEC" -n 4 hy3_sft "$CFG"
    used=$(sed -n 's/.*peak host memory growth per rank: \([0-9.]*\) MB.*/\1/p' "$ERR")
    awk -v p="$planned" -v u="$used" 'BEGIN { exit !(u > 0.95 * p && u < 1.5 * p) }' ||
        fail "$used MB used, $planned MB planned"
}
