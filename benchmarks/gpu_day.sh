#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a GPU is to tell on the day one can be had, in at most nine minutes, without a network, an
# MPI launcher or a compiler.
#   bash benchmarks/gpu_day.sh bundle BUILD FILE.tar.xz    where hy3 was built, with nvcc: programs
#                                                          and libraries, but for CUDA's
#   bash gpu_day.sh run OUTPUT [PART…]                     in the unpacked bundle, on the GPU
# Parts, in order of value; each has a limit, what is late is named, and the results of a part stand
# in OUTPUT/summary as soon as they are there:
#   check   every kernel against the reference (90 s)
#   steps   LoRA, attention-only, full and offload=param of three published layers, measured beside
#           what hy3_plan predicts (150 s)
#   30b     LoRA of the 30B model with random weights: tokens/s, memory beside the plan, USR1 and a
#           resume, whose adapter has the bits of a run that was not stopped (240 s)
#   bench   timings of the kernels (60 s)
# HY3_DAY_SMALL=1 is a rehearsal: the emulated GPU's module and a small model.
set -euo pipefail

usage() {
    sed -n 's/^#   bash/  bash/p' "$0" >&2
    exit 2
}

bundle() {
    local build source work file=$2 program library gpu
    build=$(cd "$1" && pwd)
    source=$(cd "$(dirname "$0")/.." && pwd)
    work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-day-XXXXXX")
    # shellcheck disable=SC2064 # now
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/gpu_day/{bin,lib,etc/devices,three,small,30b}
    gpu=$build/.libs/hy3_cuda.so
    [ -z "${HY3_DAY_SMALL:-}" ] || gpu=$build/.libs/hy3_cuda_emu.so
    [ -e "$gpu" ] || { echo "'$gpu' does not exist" >&2 && exit 1; }
    cp "$gpu" "$work/gpu_day/lib/hy3_cuda.so"
    for program in hy3_sft hy3_plan; do
        cp "$build/$program" "$work/gpu_day/bin"
    done
    if [ -z "${HY3_DAY_SMALL:-}" ]; then
        HY3_BUILD_ONLY=1 bash "$source/tests/gpu/check.sh" "$work/check" >"$work/log" 2>&1 ||
            { tail "$work/log" >&2 && exit 1; }
        cp "$work"/check/{kernels,bench} "$work/gpu_day/bin"
    fi
    strip "$work"/gpu_day/bin/* "$work/gpu_day/lib/hy3_cuda.so"
    # all but those of the C library, which belong to the system, and those of CUDA
    ldd "$build/hy3_sft" "$gpu" | awk '$3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|cuda|cudart|cublas|cublasLt|nccl))\.so' |
        while read -r library; do
            cp -L "$library" "$work/gpu_day/lib"
            strip --strip-unneeded "$work/gpu_day/lib/${library##*/}" 2>/dev/null || true
        done
    cp "$source/benchmarks/gpu_day.sh" "$work/gpu_day"
    cp "$source"/etc/devices/*.cfg "$work/gpu_day/etc/devices"
    sed '1a "model_type": "hy_v3",' "$source/benchmarks/shape_gpu.json" \
        >"$work/gpu_day/three/config.json"
    cp "$source/etc/hy_mt2_30b.json" "$work/gpu_day/30b/config.json"
    sed 's/"\(hidden_size\|moe_intermediate_size\|intermediate_size\)": [0-9]*/"\1": 64/
        s/"num_attention_heads": [0-9]*/"num_attention_heads": 4/
        s/"num_key_value_heads": [0-9]*/"num_key_value_heads": 2/
        s/"head_dim": [0-9]*/"head_dim": 16/; s/"vocab_size": [0-9]*/"vocab_size": 512/' \
        "$work/gpu_day/three/config.json" >"$work/gpu_day/small/config.json"
    XZ_OPT=-1 tar -C "$work" -cJf "$file" gpu_day
    echo "$file: $(stat -c %s "$file" | awk '{ printf "%.1f", 1e-6 * $1 }') MB"
}

# Where the libraries of CUDA are, that the module needs.
find_cuda() {
    local name at
    for _ in 1 2 3 4; do # one may need another
        name=$(ldd "$here/lib/hy3_cuda.so" | awk '/not found/ { print $1; exit }')
        [ -n "$name" ] || return 0
        at=$(find -L "${CUDA_HOME:-/usr/local/cuda}/lib64" /usr/local/cuda*/lib64 \
            /usr/lib/x86_64-linux-gnu /opt/*/.venv/lib/python3*/site-packages/nvidia \
            "$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia" \
            -name "$name" -print -quit 2>/dev/null || true)
        [ -n "$at" ] || { say "$name is not on this machine" && exit 1; }
        LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$(dirname "$at")
    done
}

say() {
    echo "$*" | tee -a "$out/summary"
}

# part NAME SECONDS COMMAND…: as far as time is left. Fails where it was not asked for, too.
part() {
    local name=$1 limit=$2 left=$((540 - SECONDS)) status=0
    [[ " $parts " = *" ${name%%-*} "* ]] || return 1
    [ "$left" -ge 10 ] || { say "$name: skipped, no time is left" && return 1; }
    [ "$limit" -le "$left" ] || limit=$left
    timeout --signal=KILL "$limit" "${@:3}" >"$out/$name.log" 2>&1 || status=$?
    case $status in
    0) return 0 ;;
    137) say "$name: not finished within $limit s (see $name.log)" ;;
    *) say "$name: FAILED with $status: $(tail -n 1 "$out/$name.log")" ;;
    esac
    return 1
}

config() {
    cat >"$out/run.cfg" <<END
load_format = "dummy";
use_dummy_data = true;
max_samples = 256;
max_seq_length = $tokens;
learning_rate = 1e-5;
device = "cuda";
plot_loss = false;
overwrite_output_dir = true;
save_total_limit = 1;
zero_stage = 3;
END
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# of the last eight steps; the first ones choose algorithms for new numbers of rows
rate() {
    tail -n 8 "$1/train_log.jsonl" | sed 's/.*"tokens_per_second": \([0-9.]*\).*/\1/' | median
}

# What a log says of memory and of seconds.
findings() {
    sed -n 's/.*\(device memory per rank: .*\)/  \1/p
        s/.*time: \(micro-batches\|update\|both\|copies\) */  \1: /p' "$out/$1.log" |
        while read -r line; do say "  $line"; done
}

# steps NAME KEY=VALUE…: the steps of the model of three layers
steps() {
    part "steps-$1" "$limit" "$here/bin/hy3_sft" "$out/run.cfg" model_name_or_path="$model" \
        output_dir="$out/steps" resume_from_checkpoint=none save_only_model=true save_strategy=no \
        max_steps=14 "${@:2}" || return 0
    say "$1: $(rate "$out/steps") tokens/s"
    findings "steps-$1"
    rm -rf "$out/steps"
}

# train_30b OUTPUT: becomes the run of the 30B model
train_30b() {
    exec "$here/bin/hy3_sft" "$out/run.cfg" model_name_or_path="$large_model" output_dir="$1" \
        finetuning_type=lora lora_rank=64 max_steps=30 save_steps=1000
}

# The same run, stopped after eight steps and started again.
stopped_30b() {
    local pid status=0
    train_30b "$1" &
    pid=$!
    until [ -e "$1/train_log.jsonl" ] && [ "$(wc -l <"$1/train_log.jsonl")" -ge 8 ]; do
        kill -0 $pid 2>/dev/null || break
        sleep 0.05
    done
    kill -USR1 $pid 2>/dev/null || true
    wait $pid || status=$?
    [ "$status" -eq 75 ] || { echo "USR1: exit status $status, not 75" && return 1; }
    train_30b "$1"
}

run() {
    here=$(cd "$(dirname "$0")" && pwd)
    mkdir -p "$1"
    out=$(cd "$1" && pwd)
    parts=${*:2}
    parts=${parts:-check steps 30b bench}
    tokens=4096 model=$here/three large_model=$here/30b limit=60
    [ -z "${HY3_DAY_SMALL:-}" ] || { tokens=64 model=$here/small large_model=$here/small; }
    export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export HY3_CUDA_MODULE=$here/lib/hy3_cuda.so HY3_DATADIR=$here
    export here out tokens large_model
    export -f train_30b stopped_30b
    rm -rf "$out"/{whole,stopped,steps,*.log}
    : >"$out/summary"
    say "$(date -u +%F), $(nvidia-smi --query-gpu=name,memory.total,driver_version \
        --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"
    find_cuda
    config
    if [ ! -x "$here/bin/kernels" ]; then
        say "check, bench: skipped, not in a rehearsal"
    elif part check 90 "$here/bin/kernels" '*_on_gpu'; then
        say "check: $(grep -c '^ok' "$out/check.log") kernels equal the reference"
    fi
    steps lora finetuning_type=lora
    steps attention finetuning_type=attention
    steps full finetuning_type=full
    steps offload finetuning_type=lora offload=param
    steps profile finetuning_type=lora offload=param profile=true
    run_30b
    if [ -x "$here/bin/bench" ] && part bench 60 "$here/bin/bench" 4096; then
        cat "$out/bench.log"
    fi
    say "$SECONDS s in all"
}

run_30b() {
    # shellcheck disable=SC2016 # expanded there
    part 30b-whole 110 bash -c 'train_30b "$out/whole"' || return 0
    say "30b: $(rate "$out/whole") tokens/s (aim 12000)"
    findings 30b-whole
    # shellcheck disable=SC2016
    part 30b-stopped 130 bash -c 'stopped_30b "$out/stopped"' || return 0
    if cmp -s "$out"/{whole,stopped}/adapter_model.safetensors; then
        say "30b: after USR1 and a resume the adapter has the same bits"
    else
        say "30b: FAILED, after USR1 and a resume the adapter has other bits"
    fi
    rm -rf "$out/whole" "$out/stopped"
}

case ${1:-} in
bundle)
    [ $# -eq 3 ] || usage
    bundle "$2" "$3"
    ;;
run)
    [ $# -ge 2 ] || usage
    run "${@:2}"
    ;;
*) usage ;;
esac
