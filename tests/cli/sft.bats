#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# hy3_sft as users run it: what it leaves behind, and what it says to wrong use.

load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    make_config "$BATS_FILE_TMPDIR/model"
}

# train_log.jsonl without what a clock decides
numbers() {
    sed -e 's/, *"tokens_per_second": *[^,}]*//' -e 's/, *"elapsed_seconds": *[^,}]*//' \
        "$1/train_log.jsonl"
}

@test "--help lists the keys of every group and --version the version, each with exit code 0" {
    run_ok hy3_sft --help
    for key in model_name_or_path lora_rank train_data_file max_seq_length learning_rate \
        save_steps zero_stage; do
        grep -q "$key" "$OUT" || fail "--help does not name $key"
    done
    run_ok hy3_sft --version
    grep -qE '[0-9]+\.[0-9]+\.[0-9]+' "$OUT"
}

@test "without arguments it is wrong use" {
    run_fails 2 "hy3_sft" hy3_sft
}

@test "a configuration file that is not there is named" {
    run_fails 2 "nowhere.cfg" hy3_sft "$BATS_TEST_TMPDIR/nowhere.cfg"
}

@test "an unknown key names file, line and the nearest known key" {
    echo 'learning_rat = 1e-4;' >>"$CFG"
    run_fails 2 "learning_rate" hy3_sft "$CFG"
    grep -q "run.cfg:$(wc -l <"$CFG")" "$ERR" || fail "no file and line" "$(cat "$ERR")"
    make_config "$BATS_FILE_TMPDIR/model"
    run_fails 2 "max_steps" hy3_sft "$CFG" max_step=3
}

@test "all errors of a file are reported together" {
    printf 'learning_rat = 1e-4;\nnum_train_epoch = 2;\nseed = "many";\n' >>"$CFG"
    run_fails 2 "learning_rate" hy3_sft "$CFG"
    grep -q num_train_epochs "$ERR"
    grep -q seed "$ERR"
}

@test "a syntax error names file and line, shows the line and says what to write" {
    echo 'seed = = 3;' >>"$CFG"
    run_fails 2 "run.cfg:$(wc -l <"$CFG"): syntax error in 'seed = = 3;': a setting is" \
        hy3_sft "$CFG"
    sed -i '$s/.*/save_format = inner;/' "$CFG"
    run_fails 2 "'save_format = inner;': texts stand in double quotes: save_format = \"inner\";" \
        hy3_sft "$CFG"
}

@test "a value out of range is refused" {
    run_fails 2 "per_device_train_batch_size" hy3_sft "$CFG" per_device_train_batch_size=0
    run_fails 2 "warmup_ratio" hy3_sft "$CFG" warmup_ratio=1.5
    run_fails 2 "lr_scheduler_type" hy3_sft "$CFG" lr_scheduler_type=cosinus
}

@test "one message from one rank on two ranks" {
    run_fails 2 "max_steps" "$MPIEXEC" -n 2 hy3_sft "$CFG" max_step=3
    run_fails 2 "nowhere.jsonl" "$MPIEXEC" -n 2 hy3_sft "$CFG" \
        train_data_file="$BATS_TEST_TMPDIR/nowhere.jsonl"
}

@test "a missing data file and a missing model are named" {
    run_fails 2 "nowhere.jsonl" hy3_sft "$CFG" train_data_file="$BATS_TEST_TMPDIR/nowhere.jsonl"
    run_fails 2 "no-model" hy3_sft "$CFG" model_name_or_path="$BATS_TEST_TMPDIR/no-model"
}

@test "an output_dir with somebody else's files is refused and left as it is" {
    mkdir -p "$OUTPUT"
    echo precious >"$OUTPUT/thesis.txt"
    run_fails 2 "$OUTPUT" hy3_sft "$CFG"
    [ "$(ls "$OUTPUT")" = thesis.txt ]
    [ "$(cat "$OUTPUT/thesis.txt")" = precious ]
}

@test "overwrite_output_dir deletes nobody else's file" {
    mkdir -p "$OUTPUT"
    echo precious >"$OUTPUT/thesis.txt"
    run_ok hy3_sft "$CFG" overwrite_output_dir=true
    [ "$(cat "$OUTPUT/thesis.txt")" = precious ]
}

@test "the model of another configuration is not overwritten unasked" {
    run_ok hy3_sft "$CFG"
    before=$(cat "$OUTPUT"/*.safetensors | cksum)
    run_fails 2 "overwrite_output_dir" hy3_sft "$CFG" learning_rate=2e-3
    [ "$(cat "$OUTPUT"/*.safetensors | cksum)" = "$before" ]
    run_ok hy3_sft "$CFG" learning_rate=2e-3 overwrite_output_dir=true
    [ "$(cat "$OUTPUT"/*.safetensors | cksum)" != "$before" ]
}

@test "a sequence longer than the model's positions is refused" {
    run_fails 2 "max_position_embeddings" hy3_sft "$CFG" max_seq_length=513
}

@test "a tokenizer larger than the model's vocabulary is refused" {
    cp -r "$BATS_FILE_TMPDIR/model" "$BATS_TEST_TMPDIR/small"
    sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 2500/' "$BATS_TEST_TMPDIR/small/config.json"
    run_fails 2 "2512" hy3_sft "$CFG" model_name_or_path="$BATS_TEST_TMPDIR/small"
    grep -q 2500 "$ERR"
}

@test "data that leaves no sample is an error" {
    echo '{"messages":[{"role":"user","content":"nobody answers"}]}' \
        >"$BATS_TEST_TMPDIR/train.jsonl"
    run_fails 1 "sample" hy3_sft "$CFG"
}

@test "single ranks inside a Slurm step of four tasks are refused by the first alone" {
    run_fails 2 "4 tasks" env -u PMI_SIZE SLURM_NTASKS=4 SLURM_PROCID=0 hy3_sft "$CFG"
    grep -q -- "--mpi" "$ERR"
    capture env -u PMI_SIZE SLURM_NTASKS=4 SLURM_PROCID=1 hy3_sft "$CFG"
    [ "$status" -eq 2 ]
    [ ! -s "$ERR" ] || fail "a second task speaks too" "$(cat "$ERR")"
}

@test "ways to train that hy3 does not have are refused with a clear message" {
    run_fails 2 "finetuning_type" hy3_sft "$CFG" finetuning_type=oft
}

@test "packed rows and steps are printed at the start, and hy3_plan knows them beforehand" {
    set_keys max_seq_length=100
    echo 'packing = true; packing_length = 150; val_size = 4; device = "cpu";' >>"$CFG"
    run_ok hy3_plan "$CFG" --ranks 2
    grep -q "its counts are known when it is tokenized" "$OUT" || fail "$(shown)"
    run_ok hy3_tokenize "$CFG"
    run_ok hy3_plan "$CFG" --ranks 2
    cp "$OUT" planned
    HY3_LOG=info run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" --dry-run
    rows=$(sed -n 's/.*train: [0-9]* samples packed into \([0-9]*\) rows of 150 .*/\1/p' "$ERR")
    steps=$(sed -n 's/.*; \([0-9]*\) steps*, \([0-9]*\) per epoch.*/\1 \2/p' "$ERR")
    [ "${rows:-0}" -gt 1 ] || fail "$(shown)"
    grep -q "eval: 4 samples packed into" "$ERR" || fail "$(shown)"
    grep -q "slowest rank of each micro-batch" "$ERR" || fail "$(shown)"
    grep -qE "^  packed rows of 150 tokens +$rows  " planned || fail "$(cat planned)"
    [ "$(awk '$1 == "steps" { print $NF }' planned | tac | xargs)" = "$steps" ] ||
        fail "$steps" "$(cat planned)"
}

@test "a run leaves log, configuration, plot, tokenizer and weights" {
    run_ok hy3_sft "$CFG"
    for file in train_log.jsonl config.cfg config.json tokenizer.json tokenizer_config.json; do
        [ -s "$OUTPUT/$file" ] || fail "no $file: $(ls "$OUTPUT")"
    done
    ls "$OUTPUT"/*.safetensors
    [ "$(wc -l <"$OUTPUT/train_log.jsonl")" -eq 4 ]
    for key in step epoch loss grad_norm learning_rate num_tokens tokens_per_second \
        elapsed_seconds; do
        [ "$(grep -c "\"$key\":" "$OUTPUT/train_log.jsonl")" -eq 4 ] || fail "log without $key"
    done
    [ -z "$(find "$OUTPUT" -name '*.tmp*')" ]
}

@test "loss.png is a picture" {
    command -v gnuplot >/dev/null || skip "gnuplot is not installed"
    run_ok hy3_sft "$CFG"
    [ "$(head -c 4 "$OUTPUT/loss.png" | od -An -c | tr -d ' ')" = '211PNG' ]
}

@test "no name of a directory is a command of gnuplot or of a shell" {
    command -v gnuplot >/dev/null || skip "gnuplot is not installed"
    cd "$BATS_TEST_TMPDIR"
    for name in '| touch PWNED; #' '`touch PWNED`' "'; system('touch PWNED') #"; do
        run_ok hy3_sft "$CFG" output_dir="$name"
        [ ! -e PWNED ] || fail "$name was run"
        [ -s "$name/loss.png" ] || fail "no picture in '$name'"
    done
}

@test "control characters of a file do not reach the terminal" {
    printf '{"messages": [{"role": "\\u001b]0;owned\\u0007\\u009b2J", "content": "x"}]}\n' \
        >"$BATS_TEST_TMPDIR/train.jsonl"
    run_fails 1 "role" hy3_sft "$CFG"
    [ "$(LC_ALL=C tr -d '\11\12\40-\176' <"$ERR" | wc -c)" -eq 0 ] || fail "$(cat -v "$ERR")"
}

@test "without gnuplot there is one warning and the run is done" {
    mkdir "$BATS_TEST_TMPDIR/bin"
    ln -s "$(command -v hy3_sft)" "$BATS_TEST_TMPDIR/bin/hy3_sft"
    run_ok env PATH="$BATS_TEST_TMPDIR/bin" "$BATS_TEST_TMPDIR/bin/hy3_sft" "$CFG"
    [ "$(grep -c 'warning:.*gnuplot' "$ERR")" -eq 1 ]
    [ ! -e "$OUTPUT/loss.png" ]
}

@test "the same configuration twice gives the same bytes" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$BATS_TEST_TMPDIR/again"
    cmp <(numbers "$OUTPUT") <(numbers "$BATS_TEST_TMPDIR/again")
    for file in "$OUTPUT"/*.safetensors "$OUTPUT"/*.json; do
        cmp "$file" "$BATS_TEST_TMPDIR/again/$(basename "$file")"
    done
}

@test "another seed gives another run" {
    run_ok hy3_sft "$CFG"
    run_ok hy3_sft "$CFG" output_dir="$BATS_TEST_TMPDIR/again" seed=7
    ! cmp -s <(numbers "$OUTPUT") <(numbers "$BATS_TEST_TMPDIR/again")
}

@test "config.cfg of a run can be run again and gives the same numbers" {
    run_ok hy3_sft "$CFG"
    run_ok hy3_sft "$OUTPUT/config.cfg" output_dir="$BATS_TEST_TMPDIR/again"
    cmp <(numbers "$OUTPUT") <(numbers "$BATS_TEST_TMPDIR/again")
}

@test "in a batch log progress is lines, on a terminal one line redrawn" {
    run_ok hy3_sft "$CFG"
    ! grep -q $'\r' "$ERR" "$OUT" || fail "carriage returns in a batch log"
    command -v script >/dev/null || skip "script is not installed"
    run_ok script -qec "hy3_sft '$CFG' output_dir='$BATS_TEST_TMPDIR/tty'" \
        "$BATS_TEST_TMPDIR/typescript"
    [ "$(tr -cd '\r' <"$BATS_TEST_TMPDIR/typescript" | wc -c)" \
        -gt "$(wc -l <"$BATS_TEST_TMPDIR/typescript")" ]
}

# The values of a key of train_log.jsonl, to six digits, one a line.
logged() {
    sed -n 's/.*"'"$1"'": *\([0-9.]\{7\}\).*/\1/p' "$2/train_log.jsonl"
}

@test "eval_loss is the mean over all labels whatever the ranks, at eval_steps and at the end" {
    run_ok hy3_sft "$CFG" eval_data_file="$BATS_TEST_TMPDIR/train.jsonl" eval_steps=2 max_steps=3 \
        learning_rate=0 \
        per_device_train_batch_size=8
    [ "$(logged eval_loss "$OUTPUT" | wc -l)" -eq 2 ]
    [ "$(logged eval_loss "$OUTPUT" | sort -u)" = "$(logged loss "$OUTPUT" | sort -u)" ]
    run_ok "$MPIEXEC" -n 3 hy3_sft "$CFG" eval_data_file="$BATS_TEST_TMPDIR/train.jsonl" \
        max_steps=1 learning_rate=0 \
        output_dir="$BATS_TEST_TMPDIR/three"
    [ "$(logged eval_loss "$BATS_TEST_TMPDIR/three")" \
        = "$(logged eval_loss "$OUTPUT" | tail -n 1)" ]
}

@test "val_size holds samples out: a number or a share, never all" {
    run_ok hy3_sft "$CFG" val_size=3 num_train_epochs=1 max_steps=-1
    grep -q '3 per epoch' "$ERR" "$OUT"
    [ "$(logged eval_loss "$OUTPUT" | wc -l)" -eq 1 ]
    run_ok hy3_sft "$CFG" val_size=0.5 num_train_epochs=1 max_steps=-1 \
        output_dir="$BATS_TEST_TMPDIR/half"
    grep -q '2 per epoch' "$ERR" "$OUT"
    run_fails 2 "val_size holds out all 8 samples" hy3_sft "$CFG" val_size=8 \
        output_dir="$BATS_TEST_TMPDIR/all"
}

@test "a learning rate of zero leaves the loss of a step where it was" {
    run_ok hy3_sft "$CFG" learning_rate=0 per_device_train_batch_size=8 max_steps=2
    losses=$(sed -n 's/.*"loss": *\([0-9.]\{6\}\).*/\1/p' "$OUTPUT/train_log.jsonl" | sort -u)
    [ "$(wc -l <<<"$losses")" -eq 1 ]
}

@test "profile logs the seconds of each kind of operation, and changes no number" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$OUTPUT-a" plot_loss=false
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$OUTPUT-b" plot_loss=false profile=true
    cmp "$OUTPUT-a/model.safetensors" "$OUTPUT-b/model.safetensors"
    for line in 'gemm +[1-9][0-9]* calls .* TFLOP/s$' 'attention backward +[1-9]' \
        'all-to-all +[1-9]' 'everything else'; do
        grep -qE "profile: $line" "$ERR" || fail "no line '$line'" "$(shown)"
    done
}

@test "with rates a run logs predicted and measured seconds, and changes no number" {
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$OUTPUT-a" plot_loss=false \
        expert_parallel_size=2
    ! grep -q "time: " "$ERR" || fail "seconds without rates"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$OUTPUT-b" plot_loss=false rates=h100 \
        expert_parallel_size=2
    grep -qE "time: update +predicted +[0-9.]+ s, measured +[0-9.]+ s" "$ERR" || fail "$(shown)"
    grep -A 1 "time: both" "$ERR" | grep -q "done: " || fail "before the result" "$(shown)"
    ! grep -q "time: products" "$ERR" || fail "kinds of operations that were not timed"
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" output_dir="$OUTPUT-c" plot_loss=false profile=true \
        rates="$HY3_SOURCE/etc/devices/h100.cfg" expert_parallel_size=2 eval_steps=1 \
        eval_data_file="$QUICK/conversations.jsonl"
    for kind in micro-batches update both products attention "element-wise kernels" AdamW \
        "gathers and sums" exchange; do
        [ "$(grep -cE "time: $kind +predicted" "$ERR")" -eq 1 ] || fail "$kind" "$(shown)"
    done
    awk '/time: .* measured/ { seconds = $0; sub(/.*measured */, "", seconds) }
        /time: (micro-batches|update) / { step += seconds }
        /time: (products|attention|element|AdamW|copies|gathers|exchange)/ { kinds += seconds }
        END { exit !(kinds > 0 && kinds <= step + 0.001) }' "$ERR" ||
        fail "operations outside of steps are counted" "$(shown)"
    cmp "$OUTPUT-a/model.safetensors" "$OUTPUT-b/model.safetensors"
    cmp "$OUTPUT-a/model.safetensors" "$OUTPUT-c/model.safetensors"
    run_fails 2 "no rates of the device 'abacus'" hy3_sft "$CFG" output_dir="$OUTPUT-d" rates=abacus
    [ ! -e "$OUTPUT-d" ]
}
