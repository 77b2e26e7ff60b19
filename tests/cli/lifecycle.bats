#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What the same command means again: nothing is lost, a run continues, a finished one is left alone.

load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    D=$BATS_TEST_TMPDIR
    make_config "$BATS_FILE_TMPDIR/model"
    cat >>"$CFG" <<END
cache_dir = "$BATS_FILE_TMPDIR/cache";
plot_loss = false;
save_steps = 2;
END
}

# Names, times and sums of all that lies in a directory.
state_of() {
    (cd "$1" && find . -type f | sort | xargs stat -c '%n %Y %i' && find . -type f | sort |
        xargs cksum)
}

said() {
    grep -q -- "$1" "$ERR" || fail "not said: $1" "$(shown)"
}

checkpoints() {
    ls "$OUTPUT" | sed -n 's/^checkpoint-//p' | sort -n | tr '\n' ' '
}

# stop_early COMMAND …: stopped by max_hours, of which a slow machine needs more to do a step:
# $HOURS
stop_early() {
    for HOURS in 0.0003 0.001 0.004 0.016; do
        capture "$@" max_hours=$HOURS
        [ "$status" -eq 75 ] || fail "$(shown)"
        [ "$(checkpoints)" = "" ] || break
    done
}

# A run that a signal ended after checkpoint-2 and before its last step of 4: made from one that
# ended, since a signal comes when it wants.
make_cut_short() {
    run_ok hy3_sft "$CFG" "$@"
    rm -r "$OUTPUT/checkpoint-4" "$OUTPUT/model.safetensors"
    sed -i -e 's/"state": "finished"/"state": "running"/' -e 's/"step": 4/"step": 2/' \
        "$OUTPUT/.hy3_run"
}

@test "whatever is wrong with a command, overwrite_output_dir leaves all that stood" {
    run_ok hy3_sft "$CFG" max_steps=6
    before=$(state_of "$OUTPUT")
    echo '{"messages": 7}' >"$D/bad.jsonl"
    mkdir "$D/empty"
    for mistake in train_data_file=nope.jsonl train_data_file="$D/bad.jsonl" \
        model_name_or_path="$D/nowhere" tokenizer_name_or_path="$D/empty" \
        adapter_name_or_path="$D/empty" resume_from_checkpoint="$D/nowhere" \
        resume_from_checkpoint="$D/empty" val_size=8 max_seq_length=100000 learning_rat=1; do
        capture hy3_sft "$CFG" overwrite_output_dir=true finetuning_type=lora "$mistake" seed=9
        [ "$status" -ne 0 ] || fail "$mistake is accepted"
        [ "$(state_of "$OUTPUT")" = "$before" ] || fail "$mistake changed the directory" "$(shown)"
    done
}

@test "a full disk is known before anything is set aside" {
    command -v unshare >/dev/null && unshare -rm true 2>/dev/null ||
        skip "no user namespaces to mount a small disk in"
    mkdir "$D/small"
    run_fails 1 "GB left, but a checkpoint takes" unshare -rm sh -c \
        "mount -t tmpfs -o size=1m none '$D/small' && hy3_sft '$CFG' output_dir='$D/small/out'"
}

@test "an unfinished run continues with overwrite_output_dir as without" {
    run_ok hy3_sft "$CFG" output_dir="$D/whole"
    for overwrite in true false; do
        rm -rf "$OUTPUT"
        make_cut_short overwrite_output_dir=$overwrite
        run_ok hy3_sft "$CFG" overwrite_output_dir=$overwrite
        said "continuing after step 2"
        cmp "$OUTPUT/model.safetensors" "$D/whole/model.safetensors"
        [ "$(wc -l <"$OUTPUT/train_log.jsonl")" -eq 4 ]
    done
}

@test "a shell loop of a run that is stopped again and again ends" {
    local steps hours=2 lives=0 # hours: 1e-4
    for steps in 300 3000 30000; do # as many as a fast machine needs to be stopped
        rm -rf "$OUTPUT"
        until hy3_sft "$CFG" overwrite_output_dir=true save_steps=100000 max_steps=$steps \
            max_hours="$(printf '0.%04d' $hours)" >"$D/log" 2>&1; do
            [ $((lives += 1)) -lt 100 ] || fail "it does not end" "$(tail -n 5 "$D/log")"
            # a slow one needs more to start, or to do more than a step
            { [ "$(checkpoints)" != "" ] && [ $((lives % 20)) -ne 0 ]; } || hours=$((2 * hours))
        done
        ! grep -q "continuing after step" "$D/log" || break
    done
    grep -q "continuing after step" "$D/log" || fail "each life started over"
    [ "$(checkpoints)" != "" ]
    [ "$(sed -n 's/^{"step": \([0-9]*\),.*/\1/p' "$OUTPUT/train_log.jsonl" | tail -n 1)" -eq \
        "$steps" ]
}

@test "a finished run: the same command says so, touches nothing and succeeds; none starts over" {
    run_ok hy3_sft "$CFG"
    before=$(state_of "$OUTPUT")
    for overwrite in true false; do
        run_ok hy3_sft "$CFG" overwrite_output_dir=$overwrite save_steps=3 profile=true
        said "is finished (4 steps)"
        [ "$(state_of "$OUTPUT")" = "$before" ] || fail "$(shown)"
    done
    run_ok hy3_sft "$CFG" resume_from_checkpoint=none
    said "the earlier run is set aside"
    [ "$(state_of "$OUTPUT")" != "$before" ]
    [ ! -e "$OUTPUT/previous" ]
}

@test "the end of a run is a checkpoint, from which more steps go on; not with save_only_model" {
    run_ok hy3_sft "$CFG" max_steps=3
    [ "$(checkpoints)" = "2 3 " ]
    run_ok hy3_sft "$CFG" max_steps=5
    said "max_steps: 3 -> 5"
    said "continuing after step 3"
    [ "$(checkpoints)" = "2 3 4 5 " ]
    run_ok hy3_sft "$CFG" output_dir="$D/models" max_steps=3 save_only_model=true
    [ "$(ls -d "$D"/models/checkpoint-*)" = "$D/models/checkpoint-2" ]
    run_fails 2 "saved models only" hy3_sft "$CFG" output_dir="$D/models" max_steps=5 \
        save_only_model=true
    run_fails 2 "saved models only" hy3_sft "$CFG" output_dir="$D/models" max_steps=5
}

@test "fewer steps than were done: a warning, success, and the model stays" {
    run_ok hy3_sft "$CFG"
    before=$(state_of "$OUTPUT")
    run_ok hy3_sft "$CFG" max_steps=3
    said "warning: the run in .* has done 4 steps, more than the 3"
    [ "$(state_of "$OUTPUT")" = "$before" ]
}

@test "settings that may change continue, others are refused, overwrite sets the old run aside" {
    make_cut_short
    run_ok hy3_sft "$CFG" learning_rate=5e-4 per_device_train_batch_size=1 \
        gradient_accumulation_steps=2
    said "learning_rate: 0.001 -> 0.0005"
    said "continuing after step 2"
    rm -rf "$OUTPUT"
    make_cut_short
    before=$(state_of "$OUTPUT")
    head -n 7 "$D/train.jsonl" >"$D/other.jsonl"
    run_fails 2 "seed: 42 -> 7" hy3_sft "$CFG" seed=7
    run_fails 2 "global batch: 2 -> 1 samples" hy3_sft "$CFG" per_device_train_batch_size=1
    tokens=$(cksum <"$BATS_FILE_TMPDIR/cache/train.h5")
    run_fails 2 "training data: 8 samples -> 7 samples" hy3_sft "$CFG" \
        train_data_file="$D/other.jsonl"
    [ "$(cksum <"$BATS_FILE_TMPDIR/cache/train.h5")" = "$tokens" ] # hours of work stay
    run_fails 2 "unfinished run" hy3_sft "$CFG" resume_from_checkpoint=none
    [ "$(state_of "$OUTPUT")" = "$before" ]
    run_ok hy3_sft "$CFG" seed=7 overwrite_output_dir=true
    said "the earlier run is set aside in .*previous. (checkpoint-2)"
    ! grep -q "continuing" "$ERR" || fail "$(shown)"
    [ ! -e "$OUTPUT/previous" ]
}

@test "a copy of the base model elsewhere is the same base, other weights in its place are not" {
    cp -r "$BATS_FILE_TMPDIR/model" "$D/staged"
    make_cut_short
    run_ok hy3_sft "$CFG" model_name_or_path="$D/staged"
    said "continuing after step 2"
    run_ok hy3_sft "$CFG"
    said "is finished (4 steps)"
    run_ok hy3_init --shape "$BATS_FILE_TMPDIR/model.json" --tokenizer "$QUICK/tokenizer" \
        --output_dir "$D/other" --seed 2
    run_fails 2 "the base '$D/other' has other weights" hy3_sft "$CFG" \
        model_name_or_path="$D/other"
}

@test "what was set aside stays until the new run's first checkpoint, even over more attempts" {
    run_ok hy3_sft "$CFG"
    cp "$OUTPUT/model.safetensors" "$D/old"
    for seed in 7 8; do
        timeout -s KILL 20 hy3_sft "$CFG" seed=$seed overwrite_output_dir=true max_steps=100000 \
            save_steps=100000 >"$D/log" 2>&1 3>&- &
        for _ in $(seq 400); do
            ! grep -qs '"step": 6,' "$OUTPUT/train_log.jsonl" || break
            sleep 0.05
        done
        kill -KILL "$(pgrep -f "^hy3_sft $CFG seed=$seed")"
        wait $! || true
        cmp "$OUTPUT/previous/model.safetensors" "$D/old"
        [ -e "$OUTPUT/previous/checkpoint-4/state.h5" ]
        [ ! -e "$OUTPUT/model.safetensors" ] # no stale model beside the new run's log
    done
    run_ok hy3_sft "$CFG" seed=8 overwrite_output_dir=true
    [ ! -e "$OUTPUT/previous" ]
}

# The marks of a run with other settings that was stopped before its first checkpoint: made from
# one, since a signal comes when it wants.
make_stopped_early() {
    rm -rf "$D/other"
    run_ok hy3_sft "$CFG" output_dir="$D/other" save_steps=100 "$@"
    mkdir "$OUTPUT/previous"
    (cd "$OUTPUT" && mv checkpoint-* config.cfg train_log.jsonl .hy3_run previous/ &&
        { [ ! -e model.safetensors ] || mv model.safetensors previous/; })
    cp "$D/other/config.cfg" "$D/other/train_log.jsonl" "$OUTPUT"
    sed -e 's/"state": "finished"/"state": "running"/' -e 's/"step": 4/"step": 0/' \
        "$D/other/.hy3_run" >"$OUTPUT/.hy3_run"
}

@test "a run that was set aside for one without a checkpoint is brought back by its command" {
    run_ok hy3_sft "$CFG" output_dir="$D/whole"
    make_cut_short
    make_stopped_early seed=7
    before=$(state_of "$OUTPUT")
    run_ok hy3_sft "$CFG" --dry-run
    said "it would continue after step 2 of 4"
    [ "$(state_of "$OUTPUT")" = "$before" ]
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" overwrite_output_dir=true per_device_train_batch_size=1
    said "it is brought back and goes on"
    said "continuing after step 2"
    [ "$(wc -l <"$OUTPUT/train_log.jsonl")" -eq 4 ]
    grep -q '"finished"' "$OUTPUT/.hy3_run"
    [ ! -e "$OUTPUT/previous" ]
    make_stopped_early seed=8 # finished: nothing to do once it is back
    run_ok hy3_sft "$CFG" per_device_train_batch_size=1 gradient_accumulation_steps=2
    said "it is brought back and goes on"
    said "is finished (4 steps)"
    [ "$(checkpoints)" = "2 4 " ]
    [ -e "$OUTPUT/model.safetensors" ]
    [ ! -e "$OUTPUT/previous" ]
    make_stopped_early seed=9 # the other's command: the set aside one stays until a checkpoint
    run_ok hy3_sft "$CFG" seed=9
    said "holds an earlier run, which goes when this one's first checkpoint"
    [ ! -e "$OUTPUT/previous" ]
}

@test "the checkpoint that a run wrote last survives any limit; an abandoned branch is set aside" {
    run_ok hy3_sft "$CFG" max_steps=8
    timeout -s KILL 60 hy3_sft "$CFG" max_steps=100000 save_steps=1 save_total_limit=1 \
        resume_from_checkpoint="$OUTPUT/checkpoint-2" >"$D/log" 2>&1 3>&- &
    for _ in $(seq 400); do
        ! grep -q 'checkpoint-5:' "$D/log" || break
        sleep 0.05
    done
    pkill -TERM -f "^hy3_sft $CFG max_steps=100000"
    status=0
    wait $! || status=$?
    [ "$status" -eq 75 ] || fail "$(tail -n 5 "$D/log")"
    grep -q "set aside in .*previous. (.*checkpoint-8" "$D/log" || fail "$(tail -n 30 "$D/log")"
    newest=$(sed -n 's/.*checkpoint-\([0-9]*\): .* MB in.*/\1/p' "$D/log" | tail -n 1)
    [ "$(checkpoints)" = "$newest " ] || fail "$newest was written, there is $(checkpoints)"
    [ -e "$OUTPUT/previous/checkpoint-8/state.h5" ]
    # a requeue with the same words: its own newest counts
    run_ok hy3_sft "$CFG" max_steps=$((newest + 2)) save_total_limit=1 \
        resume_from_checkpoint="$OUTPUT/checkpoint-2"
    said "continuing after step $newest"
    [ ! -e "$OUTPUT/previous" ]
}

@test "a checkpoint elsewhere: beyond the wanted steps nothing is done; what differs is told" {
    local elsewhere=("$CFG" output_dir="$D/new" resume_from_checkpoint="$OUTPUT/checkpoint-4")
    run_ok hy3_sft "$CFG"
    run_ok hy3_sft "${elsewhere[@]}" max_steps=3
    said "warning: '$OUTPUT/checkpoint-4' has done 4 steps, more than the 3"
    [ ! -e "$D/new/model.safetensors" ]
    run_ok hy3_sft "${elsewhere[@]}" max_steps=5 adam_beta1=0.5
    said "warning: settings that differ from those of '$OUTPUT/checkpoint-4/state.h5'"
    said "adam_beta1: 0.9 -> 0.5 (another run)"
    said "done: 5 steps"
}

@test "resume_from_checkpoint = true and false; a wrong name lists what is there" {
    make_cut_short
    run_ok hy3_sft "$CFG" resume_from_checkpoint=true
    said "continuing after step 2"
    echo 'resume_from_checkpoint = false;' >>"$CFG"
    run_ok hy3_sft "$CFG"
    said "the earlier run is set aside"
    run_fails 2 "output_dir '$OUTPUT' holds checkpoint-4, checkpoint-2" hy3_sft "$CFG" \
        resume_from_checkpoint="$OUTPUT/checkpoint-3"
    ! grep -q "errno" "$ERR" || fail "$(shown)"
    run_fails 2 "is no checkpoint, but holds checkpoint-4" hy3_sft "$CFG" \
        resume_from_checkpoint="$OUTPUT"
    run_ok hy3_sft "$CFG" output_dir="$D/models" save_only_model=true
    run_fails 2 "has no state.h5" hy3_sft "$CFG" \
        resume_from_checkpoint="$D/models/checkpoint-2"
}

@test "a requeued job that started over continues what it began; the next job starts over again" {
    run_ok hy3_sft "$CFG"
    restart=("$CFG" seed=5 resume_from_checkpoint=none overwrite_output_dir=true max_steps=100000)
    stop_early env SLURM_JOB_ID=7 hy3_sft "${restart[@]}"
    capture env SLURM_JOB_ID=7 SLURM_RESTART_COUNT=1 hy3_sft "${restart[@]}" max_hours=$HOURS
    said "continuing after step"
    capture env SLURM_JOB_ID=8 SLURM_RESTART_COUNT=1 hy3_sft "${restart[@]}" max_hours=$HOURS
    said "the earlier run is set aside"
}

@test "with save_only_model a stopped run can be continued all the same" {
    set_keys max_steps=100000
    stop_early hy3_sft "$CFG" save_only_model=true save_steps=100000
    capture hy3_sft "$CFG" save_only_model=true save_steps=100000 max_hours=$HOURS
    said "continuing after step"
}

@test "what a run reads and somebody else's model are no output directory" {
    cp -r "$BATS_FILE_TMPDIR/model" "$OUTPUT"
    before=$(state_of "$OUTPUT")
    run_fails 2 "no run of hy3_sft made" hy3_sft "$CFG" overwrite_output_dir=true
    for key in model_name_or_path tokenizer_name_or_path; do
        run_fails 2 "$key '$OUTPUT/.' lies in output_dir" hy3_sft "$CFG" \
            overwrite_output_dir=true $key="$OUTPUT/."
    done
    [ "$(state_of "$OUTPUT")" = "$before" ]
    rm -r "$OUTPUT"
    run_ok hy3_sft "$CFG" save_only_model=true
    before=$(state_of "$OUTPUT")
    run_fails 2 "lies in output_dir" hy3_sft "$CFG" overwrite_output_dir=true \
        model_name_or_path="$OUTPUT/checkpoint-2"
    [ "$(state_of "$OUTPUT")" = "$before" ]
}

@test "--dry-run opens everything, says what would happen, and changes nothing" {
    run_ok hy3_sft "$CFG" --dry-run
    said "it would start after step 0 of 4, on 8 samples"
    [ ! -e "$OUTPUT" ]
    make_cut_short
    before=$(state_of "$OUTPUT")
    run_ok hy3_sft "$CFG" --dry-run
    said "it would continue after step 2 of 4"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" --dry-run overwrite_output_dir=true seed=3
    said "it would set the earlier run aside"
    run_fails 2 "nope.jsonl" hy3_sft "$CFG" --dry-run train_data_file=nope.jsonl
    [ "$(state_of "$OUTPUT")" = "$before" ]
}
