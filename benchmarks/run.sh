#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures this machine: kernels, training in tokens/s and as a fraction of the matrix-product peak,
# tokenizing, loading and saving a model, hy3_convert and hy3_merge beside cp. Prints figures only:
# nothing passes or fails.
#   bash benchmarks/run.sh [BUILD_DIR]
# BUILD_DIR: a configured build tree (default: build; made if absent)
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$top/build}
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT

if [ ! -f "$build/Makefile" ]; then
    bash "$top/batch/packages.sh"
    (cd "$top" && autoreconf -fi >"$work/autoreconf.log" 2>&1)
    mkdir -p "$build"
    (cd "$build" && "$top/configure" >"$work/configure.log")
fi
if ! make -C "$build" -s -j"$(nproc)" bench >"$work/make.log" 2>&1; then
    tail -20 "$work/make.log"
    exit 1
fi
export HY3_LOG=quiet

echo "== machine: $(nproc) CPUs, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"

echo "== kernels (percent of a limit measured in the same run)"
"$build/benchmarks/kernels" | tee "$work/kernels.txt"
# the rate of a large bf16 product, GF/s: the last figure of the line that begins with "peak"
peak=$(awk '$1 == "peak" && $2 == "bf16" {print $3}' "$work/kernels.txt")

echo "== training (benchmarks/shape.json; 4 samples of 512 tokens per step, bf16)"
"$build/hy3_init" --shape "$top/benchmarks/shape.json" \
    --tokenizer "$top/etc/quickstart/tokenizer" --output_dir "$work/model" >/dev/null
cat >"$work/train.cfg" <<CFG
model_name_or_path = "$work/model";
output_dir = "$work/out";
use_dummy_data = true;
max_samples = 64;
max_seq_length = 512;
per_device_train_batch_size = 4;
max_steps = 8;
learning_rate = 1e-5;
bf16 = true;
plot_loss = false;
overwrite_output_dir = true;
resume_from_checkpoint = "none";
save_only_model = true;
CFG
# flops of a token: 6 for each parameter it passes through (embedding rows are only copied), and
# causal attention
awk_flops='
function get(key) { return value[key] }
{ gsub(/[",:]/, " "); if (NF >= 2) value[$1] = $2 }
END {
    H = get("hidden_size"); D = get("head_dim")
    Q = get("num_attention_heads") * D; K = get("num_key_value_heads") * D
    L = get("num_hidden_layers"); dense = get("first_k_dense_replace")
    I = get("moe_intermediate_size"); used = get("num_experts_per_tok") + get("num_shared_experts")
    active = get("vocab_size") * H + L * (2 * H * Q + 2 * H * K)
    active += dense * 3 * H * get("intermediate_size")
    active += (L - dense) * (3 * H * I * used + get("num_experts") * H)
    printf "%.0f", 6 * active + 6 * L * Q * 512
}'
flops=$(awk "$awk_flops" "$top/benchmarks/shape.json")
for checkpointing in true false; do
    "$build/hy3_sft" "$work/train.cfg" "gradient_checkpointing=$checkpointing"
    # the median of the steps after the first
    rate=$(tail -n +2 "$work/out/train_log.jsonl" |
        sed 's/.*"tokens_per_second": \([0-9.]*\).*/\1/' | sort -n |
        awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}')
    awk -v r="$rate" -v f="$flops" -v p="${peak:-0}" -v c="$checkpointing" 'BEGIN {
        g = r * f * 1e-9
        printf "  gradient_checkpointing=%-5s  %.0f tokens/s, %.1f GF/s of the model", c, r, g
        if (p > 0) printf " = %.0f %% of the bf16 product peak of %.0f GF/s", 100 * g / p, p
        printf "\n" }'
done

echo "== tokenizing (conversations of the quick start, repeated)"
for _ in $(seq 400); do cat "$top/etc/quickstart/conversations.jsonl"; done >"$work/text.jsonl"
bytes=$(stat -c %s "$work/text.jsonl")
for ranks in 1 2; do
    begin=$(date +%s.%N)
    OMP_NUM_THREADS=1 mpiexec -n $ranks "$build/hy3_tokenize" "$work/train.cfg" \
        use_dummy_data=false "train_data_file=$work/text.jsonl" "cache_dir=$work/cache$ranks" \
        max_seq_length=4096 >/dev/null
    awk -v b="$bytes" -v t="$(date +%s.%N)" -v s="$begin" -v n=$ranks \
        'BEGIN {
            b *= 1e-6
            printf "  %d rank(s): %.1f MB of JSONL, %.1f MB/s\n", n, b, b / (t - s)
        }'
done

echo "== loading and saving the model directory (the same model, bf16, 2 ranks)"
size=$(du -sb "$work/model" | cut -f1)
begin=$(date +%s.%N)
cp -r "$work/model" "$work/copy"
sync -f "$work/copy"
copy=$(awk -v b="$size" -v t="$(date +%s.%N)" -v s="$begin" \
    'BEGIN {printf "%.0f", b * 1e-6 / (t - s)}')
OMP_NUM_THREADS=1 mpiexec -n 2 "$build/benchmarks/checkpoint" "$work/model" "$work/written" |
    awk -v c="$copy" '{
        printf "  %s %d MB/s = %.2f x cp -r with sync (%d MB/s)\n", $1, $2, $2 / c, c
    }'

echo "== hy3_convert and hy3_merge (benchmarks/shape_tools.json; 2.6 GB in 6 shards;" \
    "aim: 1.3 x the time of cp -r with sync)"
rm -rf "$work/model" "$work/copy" "$work/written"
"$build/hy3_init" --shape "$top/benchmarks/shape_tools.json" \
    --tokenizer "$top/etc/quickstart/tokenizer" --output_dir "$work/model" \
    --max_shard_size 500MB >/dev/null
for target in q_proj,k_proj,v_proj,o_proj all; do
    "$build/hy3_sft" "$work/train.cfg" finetuning_type=lora lora_rank=16 lora_target=$target \
        max_samples=4 max_seq_length=32 max_steps=1 "output_dir=$work/adapter-${target%%,*}"
done
group=$((2 * 64 * 2 * 1024 * 1024 * 2 / 1000)) # two fused gate_up_proj in bf16, kB

# timed NAME COMMAND …: seconds, rate and peak memory of COMMAND, which writes $work/made; a copy is
# timed just before it
timed() {
    local name=$1 copy begin
    shift
    rm -rf "$work/made" "$work/copy"
    sync
    begin=$(date +%s.%N)
    cp -r "$work/model" "$work/copy"
    sync -f "$work/copy"
    copy=$(awk -v t="$(date +%s.%N)" -v s="$begin" 'BEGIN {print t - s}')
    rm -rf "$work/copy"
    sync
    begin=$(date +%s.%N)
    "$@" >/dev/null &
    wait_peak $!
    awk -v t="$(date +%s.%N)" -v s="$begin" -v c="$copy" -v n="$name" -v p="$peak_kb" -v g=$group \
        -v b="$(du -sb "$work/model" | cut -f1)" 'BEGIN {
            t -= s
            printf "  %-28s %.1f s, %.0f MB/s, %.2f x the time of cp (%.1f s); ", \
                n, t, b * 1e-6 / t, t / c, c
            printf "peak %.0f MB of memory, two fused expert tensors are %.0f MB\n", \
                p * 1e-3, g * 1e-3
        }'
}

# waits for process $1; its highest resident memory in kB goes to $peak_kb
wait_peak() {
    peak_kb=0
    while [ -r "/proc/$1/status" ]; do
        now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null || true)
        [ -z "$now" ] || peak_kb=$now
        kill -0 "$1" 2>/dev/null || break
        sleep 0.02
    done
    wait "$1"
}

for _ in 1 2; do # the disk's own rate varies
    timed "hy3_convert --to outer" "$build/hy3_convert" --to outer --input_dir "$work/model" \
        --output_dir "$work/made"
    timed "hy3_merge, attention" "$build/hy3_merge" --base_model_path "$work/model" \
        --adapter_model_path "$work/adapter-q_proj" --output_path "$work/made"
    timed "hy3_merge, all targets" "$build/hy3_merge" --base_model_path "$work/model" \
        --adapter_model_path "$work/adapter-all" --output_path "$work/made"
done
