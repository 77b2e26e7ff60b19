# SPDX-License-Identifier: Apache-2.0
# What a signal does to every program in every phase of its work. The signals are sent by the
# process itself at a chosen file access (tests/support/signals.c), so that each phase is met.
load helper

PRELOAD=$HY3_BUILD/tests/support/.libs/signals.so

setup() {
    D=$BATS_TEST_TMPDIR
    M=$BATS_FILE_TMPDIR
    [ -e "$PRELOAD" ] || skip "tests/support/signals.so is not built"
    [ -d "$M/model" ] || make_model "$M/model" >/dev/null 2>&1
    make_config "$M/model"
    head -n 16 "$QUICK/conversations.jsonl" | tail -n 8 >"$M/eval.jsonl"
    cat >>"$CFG" <<END
plot_loss = false;
eval_data_file = "$M/eval.jsonl";
eval_steps = 2;
save_steps = 3;
END
    set_keys max_steps=6
}

# A checkpoint and an adapter for the programs that read one.
make_inputs() {
    [ ! -d "$M/adapter" ] || return 0
    run_ok hy3_sft "$CFG" max_steps=3 output_dir="$M/run"
    run_ok hy3_sft "$CFG" max_steps=1 finetuning_type=lora lora_target=all output_dir="$M/adapter"
}

# Calls VERB NAME WORDS CALL N FILE COMMAND … for each phase; WORDS: of the message after a request.
# The command writes to $OUTPUT.
phases() {
    local sft=(hy3_sft "$CFG") shard=model.safetensors tokens="while writing the token file"
    local init=(hy3_init --shape "$M/model.json" --tokenizer "$QUICK/tokenizer")
    local convert=(hy3_convert --to outer --input_dir "$M/model")
    local check="while checking a checkpoint"
    local merge=(hy3_merge --base_model_path "$M/model" --adapter_model_path "$M/adapter")
    local export=(hy3_export "$M/run/checkpoint-3" "$OUTPUT") steps="after step [0-9] of 6"
    local log=train_log.jsonl generate=(hy3_generate "$M/model" --prompt x --max_new_tokens 4)
    "$@" "hy3_sft: tokenizing" "while tokenizing" pread 1 train.jsonl "${sft[@]}"
    "$@" "hy3_sft: token file" "$tokens" open 1 train.h5. "${sft[@]}"
    "$@" "hy3_sft: loading" "while [a-z]* the weights" pread 5 $shard "${sft[@]}"
    AFTER=$log "$@" "hy3_sft: step" "after step 1 of 6" pread 2 train.h5 "${sft[@]}"
    AFTER=$log "$@" "hy3_sft: evaluation" "after step 2 of 6" pread 2 eval.h5 "${sft[@]}"
    "$@" "hy3_sft: saving" "after step 3 of 6" pwrite 3 state.h5 "${sft[@]}"
    "$@" "hy3_sft: async save" "$steps" pwrite 3 state.h5 "${sft[@]}" save_async=true
    "$@" "hy3_sft: resuming" "while [a-z]* a checkpoint" pread 3 state.h5 "${sft[@]}" \
        resume_from_checkpoint="$M/run/checkpoint-3"
    "$@" "hy3_sft: final write" "while writing" pwrite 1 $shard.part "${sft[@]}"
    "$@" "hy3_tokenize: tokenizing" "while tokenizing" pread 1 train.jsonl hy3_tokenize "$CFG"
    "$@" "hy3_tokenize: token file" "$tokens" open 1 train.h5. hy3_tokenize "$CFG"
    "$@" "hy3_init: writing" "while writing" pwrite 1 $shard.part "${init[@]}" \
        --output_dir "$OUTPUT"
    "$@" "hy3_convert: writing" "while writing" pwrite 1 $shard.part "${convert[@]}" \
        --output_dir "$OUTPUT"
    "$@" "hy3_merge: writing" "while writing" pwrite 1 $shard.part "${merge[@]}" \
        --output_path "$OUTPUT"
    "$@" "hy3_export: reading" "$check" pread 3 state.h5 "${export[@]}"
    "$@" "hy3_export: writing" "while writing" pwrite 1 $shard.part "${export[@]}"
    "$@" "hy3_check: reading" "while reading" pread 3 $shard hy3_check "$M/model" --all
    "$@" "hy3_generate: loading" "while [a-z]* the weights" pread 5 $shard "${generate[@]}"
    "$@" "hy3_generate: generating" "while generating text" open 1 eval.jsonl \
        hy3_generate "$M/model" --messages "$M/eval.jsonl" --max_new_tokens 4
    "$@" "hy3_plan: planning" "while planning" open 1 config.json hy3_plan "$CFG" --ranks 2
}

# sends SIGNALS CALL N FILE COMMAND …: as capture, and whether the phase was met.
sends() {
    local signals=$1 call=$2 n=$3 file=$4
    shift 4
    rm -f "$D/mark"
    LIMIT=10 capture env ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" \
        LD_PRELOAD="$PRELOAD" HY3_SIGNAL="$call ${RANK:-0} $n $file $signals" \
        HY3_SIGNAL_AFTER="${AFTER:-}" HY3_SIGNAL_MARK="$D/mark" "$@"
    [ -e "$D/mark" ] || fail "never met: $call $n $file" "$(shown "$@")"
}

# One of the requests in turn, or each of them: code 75, no error message, and the same command
# completes.
stops() {
    local name=$1 words=$2 signal first
    shift 2
    TURN=$(((${TURN:-0} + 1) % 3))
    for signal in INT TERM USR1; do
        case ${HY3_LONG:-}$TURN$signal in 0INT | 1TERM | 2USR1 | 1[012]*) ;; *) continue ;; esac
        rm -rf "$OUTPUT"
        sends "$(kill -l "$signal")" "$@" || return 1
        [ "$status" -eq 75 ] || fail "$name, SIG$signal: status $status" "$(shown "$@")" || return 1
        ! grep "error:" "$ERR" || return 1
        grep -q "stopped by SIG$signal $words" "$ERR" || fail "$(shown "$@")" || return 1
        first=$(find "$OUTPUT" -name '*.part' -o -name '.hy3-spool*' 2>/dev/null) ||
            true
        [ -z "$first" ] || fail "$name, SIG$signal leaves" "$first" || return 1
        printf '%-36s %-5s 75, %s\n' "$name" "$signal" \
            "$(sed -n 's/.*: stopped by/stopped by/p' "$ERR")" >>"$M/table"
        first=$(shown "$@")
        capture "${@:4}"
        [ "$status" -eq 0 ] || fail "$name after SIG$signal: the same command" "$(shown "$@")" \
            "$first" || return 1
    done
}

goes_on() {
    local name=$1
    shift 2
    rm -rf "$OUTPUT"
    sends "1,13,12,28" "$@" || return 1
    [ "$status" -eq 0 ] || fail "$name: status $status" "$(shown "$@")" || return 1
    printf '%-36s HUP PIPE USR2 WINCH: 0\n' "$name" >>"$M/table"
}

@test "SIGINT, SIGTERM and SIGUSR1 end every phase with 75, and the same command completes it" {
    make_inputs
    : >"$M/table"
    phases stops
    sed 's/^/# /' "$M/table" >&3
}

@test "SIGHUP, SIGPIPE, SIGUSR2 and SIGWINCH end nothing" {
    make_inputs
    : >"$M/table"
    phases goes_on
    sed 's/^/# /' "$M/table" >&3
}

@test "a request that reaches one rank only ends all of them" {
    local before=$SECONDS
    for phase in "pread 5 model.safetensors" "pread 14 train.h5" "pread 20 eval.h5"; do
        rm -rf "$OUTPUT"
        # shellcheck disable=SC2086 # three words
        RANK=1 sends 15 $phase "$MPIEXEC" -n 2 hy3_sft "$CFG" zero_stage=3
        [ "$status" -eq 75 ] || fail "status $status" "$(shown "$phase")"
        [ "$(grep -c "stopped by" "$ERR")" -eq 1 ] || fail "$(shown "$phase")"
    done
    RANK=1 sends 15 pread 3 model-0000 "$MPIEXEC" -n 2 hy3_check "$GOLDEN/inner" --all
    [ "$status" -eq 75 ] || fail "status $status" "$(shown hy3_check)"
    [ $((SECONDS - before)) -le 40 ]
}

@test "without a launcher SIGUSR1 ends a run with a checkpoint and 75, also right after the start" {
    for n in 0 0.1 1; do
        rm -rf "$OUTPUT"
        hy3_sft "$CFG" max_steps=100000 save_steps=100000 >"$D/log" 2>&1 3>&- &
        sleep "$n"
        kill -USR1 $!
        status=0
        wait $! || status=$?
        # 138: before the program's first instruction
        [ "$status" -eq 75 ] || { [ "$status" -eq 138 ] && [ ! -s "$D/log" ]; } ||
            fail "$n: $status" "$(tail "$D/log")"
    done
}

@test "the first SIGINT lets the step end, the second ends at once with 130" {
    local pause
    for pause in 0 1 5 20; do # a slow machine may not have begun the step yet
        rm -rf "$OUTPUT"
        # as a terminal starts it: a shell's background job ignores SIGINT
        env --default-signal=INT hy3_sft "$CFG" gradient_accumulation_steps=1000000 \
            >"$D/log" 2>&1 3>&- &
        for _ in $(seq 400); do
            ! grep -q "run: 1 rank" "$D/log" || break
            sleep 0.05
        done
        sleep "$pause"
        kill -INT $!
        kill -INT $! # timeout and some launchers send it twice at once: that is one request
        sleep 0.5
        ! kill -INT $! || break
        grep -q "stopped by SIGINT after step 0 of" "$D/log" ||
            fail "it did not wait for the step" "$(tail "$D/log")"
    done
    status=0
    wait $! || status=$?
    [ "$status" -eq 130 ] || fail "$status" "$(tail "$D/log")"
    grep -q "SIGINT: ending after this step, with a checkpoint; Ctrl-C again ends at once" "$D/log"
}

@test "a run goes on when nobody reads its messages, and no data file gets a closed descriptor" {
    set_keys max_steps=3
    run_ok hy3_sft "$CFG" output_dir="$D/whole"
    hy3_sft "$CFG" 2>&1 | head -n 1
    cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
    rm -rf "$OUTPUT"
    hy3_sft "$CFG" <&- >&- 2>&-
    cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
    run_ok hy3_tokenize "$CFG" output_dir="$D/tokens"
    hy3_tokenize "$CFG" output_dir="$D/closed" <&- >&- 2>&-
    run_ok hy3_tokenize "$CFG" output_dir="$D/closed"
    [ "$(grep -c reused "$OUT")" -eq 2 ]
    hy3_check "$OUTPUT" --all >&-
    run_fails 1 "cannot write to standard output" sh -c 'exec "$@" >/dev/full' x \
        hy3_check "$OUTPUT"
    run_fails 1 "cannot write" sh -c 'exec "$@" >/dev/full' x \
        hy3_generate "$OUTPUT" --prompt x
    hy3_generate "$OUTPUT" --prompt x | true
    hy3_plan --help | head -n 1
    [ "${PIPESTATUS[0]}" -eq 0 ]
}

@test "a request after a save that failed saves once more, or says from where it goes on" {
    cat >>"$CFG" <<END
save_failure = "continue";
END
    set_keys save_steps=1
    AFTER=train_log.jsonl sends 15 pread 2 train.h5 sh -c 'ulimit -f 20000; exec "$@"' x \
        hy3_sft "$CFG"
    [ "$status" -eq 75 ] || fail "$(shown hy3_sft)"
    [ -d "$OUTPUT/checkpoint-1" ]
    rm -rf "$OUTPUT"
    AFTER=train_log.jsonl sends 15 pread 2 train.h5 env HY3_FAIL="pwrite 0 1 state.h5" PMI_RANK=0 \
        LD_PRELOAD="$HY3_BUILD/tests/support/.libs/failing.so $PRELOAD" hy3_sft "$CFG"
    [ "$status" -eq 75 ] || fail "$(shown hy3_sft)"
    grep -q "could not be saved; the same command continues from the checkpoint before" "$ERR" ||
        fail "$(shown hy3_sft)"
}

@test "max_hours leaves an evaluation that does not fit, with a checkpoint and 75" {
    yes "$(cat "$M/eval.jsonl")" | head -n 16000 >"$D/long.jsonl" || true
    sed -i "s|^eval_data_file.*|eval_data_file = \"$D/long.jsonl\";|" "$CFG"
    set_keys eval_steps=1 per_device_train_batch_size=1
    echo "cache_dir = \"$D/cache\";" >>"$CFG"
    run_ok hy3_tokenize "$CFG"
    local before=$SECONDS
    capture hy3_sft "$CFG" max_hours=0.0006 # 2.2 s
    [ "$status" -eq 75 ] || fail "$(shown max_hours)"
    grep -q "stopped by max_hours after step 1 of 6" "$ERR" || fail "$(shown max_hours)"
    [ -d "$OUTPUT/checkpoint-1" ]
    ! grep -q eval_loss "$OUTPUT/train_log.jsonl" || fail "it was evaluated"
    [ $((SECONDS - before)) -lt 10 ]
}

@test "a limit on CPU time ends a run with a checkpoint and 75" {
    capture sh -c 'ulimit -S -t 2; exec "$@"' x hy3_sft "$CFG" max_steps=1000000 save_steps=1000000
    [ "$status" -eq 75 ] || fail "$(shown hy3_sft)"
    grep -q "stopped by SIGXCPU after step" "$ERR" || fail "$(shown hy3_sft)"
}
