#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints hashes of what four training runs leave, so that two builds can be compared byte by byte.
#   bash tests/support/fingerprint.sh BUILD_DIRECTORY [WORK_DIRECTORY] >before.txt
# Run it before and after a change that must not change a number, then compare the two outputs with
# diff. A line is "RUN  FILE  SHA256"; a data set of a state.h5 is FILE:/GROUP/NAME. The runs:
#   model  the model that all runs start from, made by hy3_init
#   a      the quick start as shipped, 2 ranks
#   b      LoRA on all targets with dropout and evaluation, 4 ranks, ZeRO 3, expert groups of 2,
#          everything offloaded
#   c1     all weights in bf16, 2 ranks, ZeRO 1
#   c2     c1 continued from its checkpoint half way, 4 ranks, ZeRO 3, expert groups of 2
#   d      all weights in bf16 on the emulated GPU, 2 ranks
# Left out because they differ from run to run: tokens_per_second and elapsed_seconds of
# train_log.jsonl, and every attribute of state.h5 but step. The hashes hold for one machine type
# and one compiler. It needs mpiexec, h5dump (Debian: hdf5-tools), sha256sum and sed. It takes about
# two minutes on two cores. WORK_DIRECTORY keeps what the runs wrote; without it nothing is kept.
set -eu -o pipefail
shopt -s nullglob

die() {
    printf 'fingerprint.sh: error: %s\n' "$1" >&2
    exit 1
}

[ $# -eq 1 ] || [ $# -eq 2 ] || die "usage: fingerprint.sh BUILD_DIRECTORY [WORK_DIRECTORY]"
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(cd "$1" && pwd) || die "no directory '$1'"
for program in hy3_init hy3_sft; do
    [ -x "$build/$program" ] || die "'$build' has no program $program"
done
mpiexec=${MPIEXEC:-mpiexec}
for program in "${mpiexec%% *}" h5dump sha256sum sed timeout; do
    command -v "$program" >/dev/null || die "the program $program is missing"
done
# Settings of the environment must not reach the runs.
unset "${!HY3_@}"
export LC_ALL=C OMP_NUM_THREADS=1

if [ $# -eq 2 ]; then
    { mkdir -p "$2" && cd "$2"; } || die "cannot use '$2'"
    [ -z "$(ls -A)" ] || die "'$2' is not empty"
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
fi
# All paths in configurations are relative to here, whatever the name of this directory.
ln -s "$source/etc" etc

# logged NAME COMMAND …: the output goes to NAME.log, and is shown if the command fails
logged() {
    local name=$1 status=0
    shift
    timeout -k 5 600 "$@" >"$name.log" 2>&1 </dev/null || status=$?
    [ "$status" -eq 0 ] || {
        tail -n 40 "$name.log" >&2
        die "run $name ended with status $status"
    }
}

# train NAME RANKS CONFIG [key=value …]: writes into directory NAME
train() {
    local name=$1 ranks=$2 config=$3
    shift 3
    # shellcheck disable=SC2086 # the launcher may have arguments
    logged "$name" $mpiexec -n "$ranks" "$build/hy3_sft" "$config" output_dir="$name" \
        cache_dir="$name.cache" "$@"
}

# line NAME FILE: the hash of standard input
line() {
    local sum
    sum=$(sha256sum) || die "sha256sum failed for $2"
    printf '%s  %s  %s\n' "$1" "$2" "${sum%% *}"
}

# state NAME FILE: the values of each data set of a state.h5, and its step. The file itself has
# times in it.
state() {
    local name=$1 file=$2 sets set step
    sets=$(h5dump -n "$file" | sed -n 's/^ *dataset *//p') || die "h5dump cannot list $file"
    [ -n "$sets" ] || die "$file has no data sets"
    step=$(h5dump -a /step "$file" | sed -n 's/^ *(0): //p') || die "h5dump cannot read $file"
    [ -n "$step" ] || die "$file has no step"
    line "$name" "${file#"$name"/}:step" <<<"$step"
    while read -r set; do
        rm -f values
        h5dump -d "$set" -b LE -o values "$file" >h5dump.log 2>&1 ||
            die "h5dump cannot read $set in $file"
        [ -s values ] || die "$set in $file has no values"
        line "$name" "${file#"$name"/}:$set" <values
    done <<<"$sets"
}

# show NAME: the hashes of all that run NAME left; it must have weights, a log and a checkpoint
show() {
    local name=$1 file
    local weights=("$name"/*.safetensors) states=("$name"/checkpoint-*/state.h5)
    [ ${#weights[@]} -gt 0 ] || die "run $name left no weights"
    [ ${#states[@]} -gt 0 ] || die "run $name left no checkpoint"
    [ -s "$name/train_log.jsonl" ] || die "run $name left no log"
    for file in "$name"/{,checkpoint-*/}{*.safetensors,adapter_config.json}; do
        [ ! -e "$file" ] || line "$name" "${file#"$name"/}" <"$file"
    done
    sed -e 's/, "tokens_per_second": [^,}]*//' -e 's/, "elapsed_seconds": [^,}]*//' \
        "$name/train_log.jsonl" | line "$name" train_log.jsonl
    for file in "${states[@]}"; do state "$name" "$file"; done
}

logged model "$build/hy3_init" --shape etc/quickstart/shape.json \
    --tokenizer etc/quickstart/tokenizer --output_dir model
line model model.safetensors <model/model.safetensors

train a 2 etc/quickstart.cfg model_name_or_path=model device=cpu save_steps=400 save_total_limit=1
show a

# Keys that b, c1, c2 and d share. A threshold of 0 divides even the smallest units at ZeRO 3.
cat >common.cfg <<'END'
model_name_or_path = "model";
train_data_file = "etc/quickstart/conversations.jsonl";
max_seq_length = 512;
learning_rate = 1e-3;
stage3_param_persistence_threshold = 0;
plot_loss = false;
device = "cpu";
END

train b 4 common.cfg finetuning_type=lora lora_target=all lora_rank=8 lora_alpha=16 \
    lora_dropout=0.1 bf16=false zero_stage=3 expert_parallel_size=2 offload=full \
    per_device_train_batch_size=2 val_size=24 eval_steps=10 max_steps=30 save_steps=20
show b

# The global batch is 8 conversations in both: 2 x 2 x 2 ranks and 1 x 2 x 4 ranks. The second
# half crosses the end of an epoch (31 steps).
train c1 2 common.cfg bf16=true zero_stage=1 per_device_train_batch_size=2 \
    gradient_accumulation_steps=2 max_steps=40 save_steps=20
show c1
train c2 4 common.cfg bf16=true zero_stage=3 expert_parallel_size=2 per_device_train_batch_size=1 \
    gradient_accumulation_steps=2 max_steps=40 save_steps=20 \
    resume_from_checkpoint=c1/checkpoint-20
show c2

if [ -e "$build/.libs/hy3_cuda_emu.so" ]; then
    export HY3_CUDA_MODULE=$build/.libs/hy3_cuda_emu.so
    train d 2 common.cfg device=cuda bf16=true zero_stage=1 per_device_train_batch_size=1 \
        max_steps=4 save_steps=2
    grep -q ' on cuda;' d.log || die "run d did not compute on the emulated GPU"
    show d
else
    echo "d skipped: no emulated GPU"
fi
