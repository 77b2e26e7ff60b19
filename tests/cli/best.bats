#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# When a run saves and evaluates, which checkpoint becomes its result, and where early stopping ends
# it. At this learning rate eval_loss falls until step 6 and rises then.

load helper

PRELOAD=$HY3_BUILD/tests/support/.libs/signals.so

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    D=$BATS_TEST_TMPDIR
    make_config "$BATS_FILE_TMPDIR/model"
    head -n 16 "$QUICK/conversations.jsonl" | tail -n 8 >"$D/eval.jsonl"
    cat >>"$CFG" <<END
cache_dir = "$BATS_FILE_TMPDIR/cache";
plot_loss = false;
eval_data_file = "$D/eval.jsonl";
eval_steps = 2;
save_steps = 2;
END
    set_keys learning_rate=2e-2 max_steps=10 per_device_train_batch_size=4
    BEST=(load_best_model_at_end=true)
}

said() {
    grep -q -- "$1" "$ERR" || fail "not said: $1" "$(shown)"
}

checkpoints() {
    ls "${1:-$OUTPUT}" | sed -n 's/^checkpoint-//p' | sort -n | tr '\n' ' '
}

# The steps that have an eval_loss in the log.
evaluated() {
    sed -n 's/^{"step": \([0-9]*\),.*eval_loss.*/\1/p' "$OUTPUT/train_log.jsonl" | tr '\n' ' '
}

# The step with the lowest eval_loss in the log.
lowest() {
    sed -n 's/^{"step": \([0-9]*\),.*"eval_loss": \(.*\)}/\2 \1/p' "$OUTPUT/train_log.jsonl" |
        sort -g | sed -n '1s/.* //p'
}

# The run in $1 as if it had been cut short after checkpoint-$2, in $3.
cut_short() {
    local step
    cp -r "$1" "$3"
    for step in $(checkpoints "$3"); do
        [ "$step" -le "$2" ] || rm -r "$3/checkpoint-$step"
    done
    rm -f "$3"/model.safetensors "$3"/adapter_model.safetensors
    sed -i -e 's/"state": "finished"/"state": "running"/' -e "s/\"step\": [0-9]*/\"step\": $2/" \
        "$3/.hy3_run"
}

@test "the result is the best checkpoint, byte for byte that of a run that ends there" {
    run_ok hy3_sft "$CFG" "${BEST[@]}"
    best=$(lowest)
    [ "$best" -gt 2 ] && [ "$best" -lt 10 ] || fail "the best step is $best"
    said "the result is checkpoint-$best, the best"
    [ "$(checkpoints)" = "2 4 6 8 10 " ]
    run_ok hy3_sft "$CFG" output_dir="$D/short" max_steps="$best"
    cmp "$OUTPUT/model.safetensors" "$D/short/model.safetensors"
    run_ok hy3_sft "$CFG" output_dir="$D/last"
    ! cmp -s "$OUTPUT/model.safetensors" "$D/last/model.safetensors" || fail "the last step's"
    run_ok hy3_sft "$CFG" "${BEST[@]}" # the same command
    said "is finished (10 steps)"
    run_ok hy3_sft "$CFG" "${BEST[@]}" max_steps=11
    said "continuing after step 10"
    said "the result is checkpoint-$best, the best"
    cmp "$OUTPUT/model.safetensors" "$D/short/model.safetensors"
    run_fails 2 "load_best_model_at_end: true -> false" hy3_sft "$CFG" max_steps=11
    run_fails 2 "eval_steps: 2 -> 1" hy3_sft "$CFG" "${BEST[@]}" max_steps=11 eval_steps=1
}

@test "an adapter is that of the best checkpoint, in bf16, on two ranks, with a copy being saved" {
    # the highest loss is that of the first evaluations, the lowest changes with the last bits
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" "${BEST[@]}" finetuning_type=lora bf16=true \
        zero_stage=3 save_async=true per_device_train_batch_size=2 greater_is_better=true \
        learning_rate=0.1
    best=$(sed -n 's/.*the result is checkpoint-\([0-9]*\), the best.*/\1/p' "$ERR")
    [ "$best" -lt 10 ] || fail "the best step is $best"
    cmp "$OUTPUT/adapter_model.safetensors" \
        "$OUTPUT/checkpoint-$best/adapter_model.safetensors"
    ! cmp -s "$OUTPUT/adapter_model.safetensors" \
        "$OUTPUT/checkpoint-10/adapter_model.safetensors"
}

@test "greater_is_better chooses the highest, with a warning" {
    run_ok hy3_sft "$CFG" "${BEST[@]}" greater_is_better=true max_steps=6 metric_for_best_model=loss
    said "warning: greater_is_better: the highest eval_loss counts as the best"
    said "the result is checkpoint-2, the best"
}

@test "save_total_limit keeps the best one and the last" {
    run_ok hy3_sft "$CFG" "${BEST[@]}" save_total_limit=1
    best=$(lowest)
    [ "$(checkpoints)" = "$best 10 " ]
    said "the result is checkpoint-$best, the best"
    run_ok hy3_sft "$CFG" "${BEST[@]}" save_total_limit=3 output_dir="$D/three"
    [ "$(checkpoints "$D/three")" = "$best 8 10 " ]
    run_ok hy3_sft "$CFG" save_total_limit=1 output_dir="$D/one"
    [ "$(checkpoints "$D/one")" = "10 " ]
}

@test "early stopping ends a run, the same command leaves it, more patience goes on" {
    run_ok hy3_sft "$CFG" early_stopping_patience=2 max_steps=40
    best=$(lowest) last=$(($(lowest) + 4))
    said "early stopping after step $last of 40: 2 evaluations without an improvement"
    said "done: $last steps"
    [ "$(checkpoints)" = "$(seq -s ' ' 2 2 "$last") " ]
    run_ok hy3_sft "$CFG" output_dir="$D/short" max_steps="$last"
    cmp "$OUTPUT/model.safetensors" "$D/short/model.safetensors" # it is the last step
    before=$(cd "$OUTPUT" && find . -type f -exec cksum {} + | sort)
    run_ok hy3_sft "$CFG" early_stopping_patience=2 max_steps=40
    said "is finished ($last steps, then early stopping)"
    [ "$before" = "$(cd "$OUTPUT" && find . -type f -exec cksum {} + | sort)" ]
    run_ok hy3_sft "$CFG" early_stopping_patience=2 max_steps=50 # it ends at once
    said "early stopping after step $last of 50"
    cmp "$OUTPUT/model.safetensors" "$D/short/model.safetensors"
    run_ok hy3_sft "$CFG" early_stopping_patience=3 max_steps=50
    said "continuing after step $last"
    said "early stopping after step $((last + 2)) of 50: 3 evaluations"
    run_ok hy3_sft "$CFG" early_stopping_patience=1 early_stopping_threshold=100 max_steps=40 \
        output_dir="$D/threshold"
    said "early stopping after step 4 of 40"
}

@test "what evaluations have shown survives a stop, on another number of ranks too" {
    local chosen=("${BEST[@]}" early_stopping_patience=2 max_steps=40)
    run_ok hy3_sft "$CFG" "${chosen[@]}"
    best=$(lowest) last=$((best + 4))
    for step in 2 "$best" "$((best + 2))" "$last"; do
        rm -rf "$D/cut"
        cut_short "$OUTPUT" "$step" "$D/cut"
        run_ok hy3_sft "$CFG" "${chosen[@]}" output_dir="$D/cut"
        said "continuing after step $step"
        said "early stopping after step $last of 40"
        cmp "$OUTPUT/model.safetensors" "$D/cut/model.safetensors"
    done
    rm -rf "$D/cut"
    cut_short "$OUTPUT" "$((best + 2))" "$D/cut"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" "${chosen[@]}" per_device_train_batch_size=2 \
        output_dir="$D/cut"
    said "early stopping after step $last of 40"
    cmp "$OUTPUT/model.safetensors" "$D/cut/model.safetensors"
}

@test "the best checkpoint that is gone is told, and later ones are chosen from" {
    run_ok hy3_sft "$CFG" "${BEST[@]}"
    best=$(lowest)
    cut_short "$OUTPUT" $((best + 2)) "$D/cut"
    rm -r "$D/cut/checkpoint-$best"
    run_ok hy3_sft "$CFG" "${BEST[@]}" output_dir="$D/cut"
    said "warning: checkpoint-$best, the best so far, is not in"
    [ "$(checkpoints "$D/cut")" = "$(seq -s ' ' 2 2 10 | sed "s/$best //") " ]
    ! grep -q "the result is checkpoint-$best," "$ERR" || fail "$(shown)"
    cut_short "$OUTPUT" $((best + 2)) "$D/other" # other evaluation data
    head -n 4 "$D/eval.jsonl" >"$D/half.jsonl"
    run_ok hy3_sft "$CFG" "${BEST[@]}" output_dir="$D/other" eval_data_file="$D/half.jsonl"
    said "warning: the evaluation data is not that of the run so far"
}

@test "a stop in an evaluation: the next start makes up for it and chooses the same" {
    [ -e "$PRELOAD" ] || skip "tests/support/signals.so is not built"
    set_keys save_steps=6 eval_steps=6
    run_ok hy3_sft "$CFG" "${BEST[@]}" early_stopping_patience=1 max_steps=24
    mv "$OUTPUT" "$D/whole"
    # while the first samples of the evaluation of step 6 are read
    capture env LD_PRELOAD="$PRELOAD" HY3_SIGNAL="pread 0 1 eval.h5 15" \
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" \
        HY3_SIGNAL_AFTER=train_log.jsonl HY3_SIGNAL_MARK="$D/mark" \
        hy3_sft "$CFG" "${BEST[@]}" early_stopping_patience=1 max_steps=24
    [ -e "$D/mark" ] && [ "$status" -eq 75 ] || fail "$(shown)"
    said "stopped by SIGTERM after step 6 of 24"
    [ "$(checkpoints)" = "6 " ]
    [ -z "$(evaluated)" ]
    rm "$D/mark" # and while the next start makes up for it
    capture env LD_PRELOAD="$PRELOAD" HY3_SIGNAL="pread 0 1 eval.h5 15" \
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" \
        HY3_SIGNAL_AFTER=train_log.jsonl HY3_SIGNAL_MARK="$D/mark" \
        hy3_sft "$CFG" "${BEST[@]}" early_stopping_patience=1 max_steps=24
    [ -e "$D/mark" ] && [ "$status" -eq 75 ] || fail "$(shown)"
    said "stopped by SIGTERM after step 6 of 24"
    said "warning: the evaluation of step 6 was cut short again"
    run_ok hy3_sft "$CFG" "${BEST[@]}" early_stopping_patience=1 max_steps=24
    said "this evaluation had been cut short"
    [ "$(grep -c '^{"step": 6, "epoch": [0-9.]*, "eval_loss": [0-9.]*}$' \
        "$OUTPUT/train_log.jsonl")" -eq 1 ] || fail "$(cat "$OUTPUT/train_log.jsonl")"
    [ "$(checkpoints)" = "$(checkpoints "$D/whole")" ]
    cmp "$OUTPUT/model.safetensors" "$D/whole/model.safetensors"
}

@test "save and evaluate by epochs, of any number of steps" {
    set_keys per_device_train_batch_size=3 max_steps=-1 # 8 samples: 3 steps an epoch
    run_ok hy3_sft "$CFG" num_train_epochs=2.5 save_strategy=epoch eval_strategy=epoch \
        eval_steps=0 --dry-run
    said "checkpoints: every 3 steps and at the end; evaluation: every 3 steps and at the end"
    run_ok hy3_tokenize "$CFG" cache_dir="$D/cache"
    run_ok hy3_plan "$CFG" --ranks 1 cache_dir="$D/cache" num_train_epochs=2.5 \
        save_strategy=epoch eval_strategy=epoch
    grep -qE '^  checkpoints +3$' "$OUT" && grep -qE '^  evaluations +3$' "$OUT" || fail "$(shown)"
    run_ok hy3_sft "$CFG" num_train_epochs=2.5 save_strategy=epoch eval_strategy=epoch
    [ "$(checkpoints)" = "3 6 8 " ]
    [ "$(evaluated)" = "3 6 8 " ]
    run_ok hy3_sft "$CFG" num_train_epochs=1 save_strategy=no eval_strategy=no \
        output_dir="$D/none"
    OUTPUT=$D/none
    [ "$(checkpoints)" = "3 " ] && [ "$(evaluated)" = "3 " ]
}

@test "max_epochs ends a run within its schedule; without it the run goes on" {
    set_keys per_device_train_batch_size=3 max_steps=-1 lr_scheduler_type='"cosine"'
    run_ok hy3_sft "$CFG" num_train_epochs=2 save_strategy=epoch
    [ "$(checkpoints)" = "3 6 " ]
    mv "$OUTPUT" "$D/whole"
    run_ok hy3_sft "$CFG" num_train_epochs=2 max_epochs=1 save_strategy=epoch
    said "max_epochs ends the run after step 3 of the 6 that its learning rates are planned for"
    [ "$(checkpoints)" = "3 " ]
    rates() { sed 's/.*"learning_rate": \([^,]*\),.*/\1/' "$1/train_log.jsonl"; }
    diff <(rates "$OUTPUT") <(rates "$D/whole" | head -n 3)
    run_ok hy3_sft "$CFG" num_train_epochs=2 max_epochs=1 save_strategy=epoch # the same command
    said "is finished (3 steps)"
    run_fails 2 "num_train_epochs: 2 -> 4" hy3_sft "$CFG" num_train_epochs=4 max_epochs=1 \
        save_strategy=epoch
    run_ok hy3_sft "$CFG" num_train_epochs=2 save_strategy=epoch
    said "continuing after step 3"
    cmp "$OUTPUT/model.safetensors" "$D/whole/model.safetensors"
}

@test "save_strategy = best saves what is better than all before, and the end" {
    run_ok hy3_sft "$CFG" save_strategy=best
    best=$(lowest)
    [ "$(checkpoints)" = "$(seq -s ' ' 2 2 "$best") 10 " ]
    run_ok hy3_sft "$CFG" save_strategy=best save_total_limit=1 "${BEST[@]}" output_dir="$D/limit"
    [ "$(checkpoints "$D/limit")" = "$best 10 " ]
    said "the result is checkpoint-$best, the best"
    run_ok hy3_sft "$CFG" save_strategy=best save_only_model=true early_stopping_patience=1 \
        output_dir="$D/models"
    [ "$(checkpoints "$D/models")" = "$(seq -s ' ' 2 2 "$best") " ]
    [ ! -e "$D/models/checkpoint-$best/state.h5" ]
    cmp "$D/models/checkpoint-$best/model.safetensors" "$D/models/model.safetensors" && return 1
    run_ok hy3_sft "$CFG" save_strategy=best save_only_model=true early_stopping_patience=1 \
        output_dir="$D/models"
    said "is finished ($((best + 2)) steps, then early stopping)"
}

@test "checkpoints of weights alone: the best is kept over two stops" {
    [ -e "$PRELOAD" ] || skip "tests/support/signals.so is not built"
    local chosen=(save_strategy=best save_only_model=true save_total_limit=1) reads
    run_ok hy3_sft "$CFG" "${chosen[@]}"
    best=$(lowest)
    mv "$OUTPUT" "$D/whole"
    for reads in 80 8; do # of samples, 12 a step: behind the best, and a step later
        capture env LD_PRELOAD="$PRELOAD" HY3_SIGNAL="pread 0 $reads train.h5 15" \
            ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" \
            HY3_SIGNAL_AFTER=train_log.jsonl hy3_sft "$CFG" "${chosen[@]}"
        [ "$status" -eq 75 ] || fail "$(shown)"
        step=$(sed -n 's/.*stopped by SIGTERM after step \([0-9]*\) .*/\1/p' "$ERR")
        [ "$step" -gt "${last:-$best}" ] && [ "$step" -lt 10 ] || fail "stopped at step $step"
        last=$step
        [ "$(checkpoints)" = "$best $step " ] || fail "$(checkpoints)"
        [ -e "$OUTPUT/checkpoint-$step/state.h5" ]
        [ ! -e "$OUTPUT/checkpoint-$best/state.h5" ]
    done
    run_ok hy3_sft "$CFG" "${chosen[@]}"
    said "continuing after step $last"
    ! grep -q "the best so far, is not in" "$ERR" || fail "$(shown)"
    [ "$(checkpoints "$D/whole")" = "$best " ]
    [ "$(checkpoints)" = "$best $last " ]
    cmp "$OUTPUT/model.safetensors" "$D/whole/model.safetensors"
    cmp "$OUTPUT/checkpoint-$best/model.safetensors" "$D/whole/checkpoint-$best/model.safetensors"
}

@test "shares of all steps: a checkpoint without an evaluation is refused before any work" {
    run_ok hy3_sft "$CFG" "${BEST[@]}" save_steps=0.4 eval_steps=0.2
    [ "$(checkpoints)" = "4 8 10 " ]
    [ "$(evaluated)" = "2 4 6 8 10 " ]
    said "the result is checkpoint-"
    run_fails 2 "save_steps comes to 3 steps, which is no multiple of the 2 of eval_steps" \
        hy3_sft "$CFG" "${BEST[@]}" save_steps=0.3 eval_steps=0.2 output_dir="$D/other"
    [ ! -e "$D/other/train_log.jsonl" ]
}

@test "eval_dataset: several sets of dataset_info.json give one loss, that of their files" {
    head -n 3 "$D/eval.jsonl" >"$D/a.jsonl"
    tail -n 5 "$D/eval.jsonl" >"$D/b.jsonl"
    local columns='"formatting": "sharegpt", "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
        "assistant_tag": "assistant", "system_tag": "system"}'
    echo "{\"a\": {\"file_name\": \"a.jsonl\", $columns}," \
        "\"b\": {\"file_name\": \"b.jsonl\", $columns}}" >"$D/dataset_info.json"
    run_ok hy3_sft "$CFG" max_steps=2
    loss=$(sed -n 's/.*"eval_loss": //p' "$OUTPUT/train_log.jsonl")
    sed -i '/^eval_data_file/d' "$CFG"
    OUTPUT=$D/sets
    run_ok hy3_sft "$CFG" max_steps=2 output_dir="$OUTPUT" dataset_dir="$D" eval_dataset='[a, b]' \
        cache_dir="$D/cache"
    [ "$(sed -n 's/.*"eval_loss": //p' "$OUTPUT/train_log.jsonl")" = "$loss" ]
    run_ok hy3_tokenize "$CFG" dataset_dir="$D" eval_dataset=b cache_dir="$D/other"
    [ -e "$D/other/eval.h5" ]
    run_fails 2 "'c'" hy3_sft "$CFG" dataset_dir="$D" eval_dataset=c
}
