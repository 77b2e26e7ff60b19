# SPDX-License-Identifier: Apache-2.0
# Loaded by every .bats file: programs are run as users run them.
#   HY3_BUILD  where the programs were built
#   HY3_SOURCE the source tree
#   MPIEXEC    the launcher

: "${HY3_SOURCE:=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)}"
: "${HY3_BUILD:=$HY3_SOURCE/build-tests}"
: "${MPIEXEC:=mpiexec}"
export PATH="$HY3_BUILD:$HY3_BUILD/src:$PATH" OMP_NUM_THREADS=1
QUICK=$HY3_SOURCE/etc/quickstart
GOLDEN=$HY3_SOURCE/tests/golden/a
# what a test writes by a relative name is the test's own
[ -z "${BATS_TEST_TMPDIR:-}" ] || cd "$BATS_TEST_TMPDIR" || exit 1

fail() {
    printf '%s\n' "$@" >&2
    return 1
}

# Runs a command; its status, standard output and standard error are in $status, $OUT and $ERR
# (files).
capture() {
    OUT=$BATS_TEST_TMPDIR/out ERR=$BATS_TEST_TMPDIR/err status=0
    timeout -k 5 "${LIMIT:-120}" "$@" >"$OUT" 2>"$ERR" </dev/null || status=$?
}

shown() {
    printf 'command: %s\nstatus: %s\nstandard output:\n%s\nstandard error:\n%s\n' "$*" "$status" \
        "$(tail -n 20 "$OUT")" "$(tail -n 20 "$ERR")"
}

run_ok() {
    capture "$@"
    [ "$status" -eq 0 ] || fail "$(shown "$@")"
}

# A run of two steps on the GPU in $CFG, with the model of the file's tests; $EMULATED is the
# emulated GPU.
make_gpu_config() {
    [ -d "$BATS_FILE_TMPDIR/model" ] || make_model "$BATS_FILE_TMPDIR/model" >/dev/null 2>&1
    make_config "$BATS_FILE_TMPDIR/model"
    cat >>"$CFG" <<END
cache_dir = "$BATS_FILE_TMPDIR/cache";
plot_loss = false;
device = "cuda";
END
    set_keys bf16=true max_steps=2 per_device_train_batch_size=1
    EMULATED=$HY3_BUILD/.libs/hy3_cuda_emu.so
}

# What follows runs on the emulated GPU.
on_emulated_gpu() {
    [ -e "$EMULATED" ] || skip \
        "the emulated GPU is not built: no CUDA headers (configure --enable-cuda-emulation)"
    export HY3_CUDA_MODULE=$EMULATED
}

# run_fails CODE WORDS COMMAND …: ends with CODE and exactly one error message, which contains
# WORDS. So a crash, a second message and a message from more than one rank are failures of the
# test.
run_fails() {
    local code=$1 words=$2 messages
    shift 2
    capture "$@"
    [ "$status" -eq "$code" ] || fail "exit status $status, not $code" "$(shown "$@")" || return 1
    messages=$(cat "$OUT" "$ERR" | grep -c '^hy3_[a-z]*: error: ') || true
    [ "$messages" -eq 1 ] || fail "$messages error messages, not one" "$(shown "$@")" || return 1
    sed -n -e 's/^hy3_[a-z]*: error: //' -e 't found' -e b -e ': found' -e 'p; n; b found' "$ERR" |
        grep -qF -- "$words" ||
        fail "the message does not say: $words" "$(shown "$@")"
}

# A model of 2 layers for the tokenizer of the quick start, in DIRECTORY.
make_model() {
    local directory=$1
    local sizes=()
    for size in hidden_size=32 intermediate_size=48 num_hidden_layers=2 num_attention_heads=2 \
        num_key_value_heads=1 head_dim=16 num_experts=4 moe_intermediate_size=16 \
        expert_hidden_dim=16; do
        sizes+=(-e "s/\(\"${size%=*}\":\) [0-9]*/\1 ${size#*=}/")
    done
    sed "${sizes[@]}" "$QUICK/shape.json" >"$directory.json"
    hy3_init --shape "$directory.json" --tokenizer "$QUICK/tokenizer" --output_dir "$directory" \
        --seed 1
}

# set_keys KEY=VALUE …: replaces values of $CFG.
set_keys() {
    for pair in "$@"; do
        sed -i "s/^${pair%%=*} =.*/${pair%%=*} = ${pair#*=};/" "$CFG"
    done
}

# A configuration of four steps on eight conversations: $CFG, writing below the test's own
# directory.
make_config() {
    local model=$1
    CFG=$BATS_TEST_TMPDIR/run.cfg
    OUTPUT=$BATS_TEST_TMPDIR/output
    head -n 8 "$QUICK/conversations.jsonl" >"$BATS_TEST_TMPDIR/train.jsonl"
    cat >"$CFG" <<END
model_name_or_path = "$model";
train_data_file = "$BATS_TEST_TMPDIR/train.jsonl";
output_dir = "$OUTPUT";
max_seq_length = 512;
per_device_train_batch_size = 2;
max_steps = 4;
learning_rate = 1e-3;
lr_scheduler_type = "constant";
bf16 = false;
zero_stage = 0;
END
}

# The entries of the golden bad inputs of one kind: "expect file line" a line ("-" where there is no
# line).
bad_inputs() {
    local head='^{"file": "\([^"]*\)", "kind": "'"$1"'", "expect": "\([a-z]*\)".*'
    sed -n -e 's/'"$head"'"line": \([0-9]*\),.*/\2 \1 \3/p; t' -e 's/'"$head"'/\2 \1 -/p' \
        "$GOLDEN/bad_inputs.json"
}

# try_bad EXPECT WORDS COMMAND …: one hostile input; counts and lists the wrong answers in $WRONG.
try_bad() {
    local expect=$1 words=$2 reason
    shift 2
    case $expect in
    reject) reason=$(run_fails 1 "$words" "$@" 2>&1) || WRONG="$WRONG$reason"$'\n' ;;
    accept) reason=$(run_ok "$@" 2>&1) || WRONG="$WRONG$reason"$'\n' ;;
    either) reason=$(run_ok "$@" 2>&1) || reason=$(run_fails 1 "" "$@" 2>&1) ||
        WRONG="$WRONG$reason"$'\n' ;;
    esac
}
