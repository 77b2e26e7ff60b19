# SPDX-License-Identifier: Apache-2.0
# Many more ranks than cores: 64 of them train and write a checkpoint, from which 48 go on; and what
# the memory of a rank has to do with their number.
load helper

setup_file() {
    [ -n "${HY3_LONG:-}" ] || return 0
    make_model "$BATS_FILE_TMPDIR/model"
}

setup() {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    make_config "$BATS_FILE_TMPDIR/model"
    cat >>"$CFG" <<'KEYS'
use_dummy_data = true;
max_samples = 768;
plot_loss = false;
device = "cpu";
stage3_param_persistence_threshold = 0;
KEYS
    sed -i '/^train_data_file/d' "$CFG"
    set_keys max_seq_length=64 per_device_train_batch_size=1 zero_stage=3
    LIMIT=1800
}

@test "64 ranks train three steps and 48 go on with the same global batch" {
    run_ok "$MPIEXEC" -n 64 hy3_sft "$CFG" max_steps=3 gradient_accumulation_steps=3
    [ -e "$OUTPUT/checkpoint-3/state.h5" ] || fail "$(shown)"
    run_ok "$MPIEXEC" -n 48 hy3_sft "$CFG" max_steps=5 gradient_accumulation_steps=4
    grep -q "step 3" "$ERR" || fail "$(shown)"
    [ "$(wc -l <"$OUTPUT/train_log.jsonl")" -eq 5 ] || fail "$(cat "$OUTPUT/train_log.jsonl")"
}

# Megabytes by which the rank that needs most grows in a run on N ranks. Nothing is sharded: what a
# rank keeps does not shrink meanwhile.
growth() {
    run_ok "$MPIEXEC" -n "$1" hy3_sft "$CFG" max_steps=2 zero_stage=0 \
        gradient_accumulation_steps=$((192 / $1)) overwrite_output_dir=true \
        resume_from_checkpoint=none
    sed -n 's/.*peak host memory growth per rank: \([0-9.]*\) MB.*/\1/p' "$ERR"
}

# The tables of doc/design.md, "What grows with the ranks", are some kilobytes here.
@test "a rank needs as much memory among 64 as among 8" {
    awk -v eight="$(growth 8)" -v some="$(growth 32)" -v many="$(growth 64)" 'BEGIN {
        print eight, some, many
        exit !(eight > 10 && some > 10 && many > 10 && some < eight + 2 && many < eight + 2) }'
}
