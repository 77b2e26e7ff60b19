#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A GPU's training speed: tokens/s of hy3_sft, bf16 with gradient checkpointing, on a model of three
# of the published layers (with the 24 experts that each of eight ranks holds), and of transformers
# on the same model where python3 has it with torch.
#   bash benchmarks/gpu.sh BUILD_DIRECTORY [TOKENS [SHAPE]]
# Defaults: 4096 tokens per step, benchmarks/shape_gpu.json (4.6 GB on disk).
set -eu

build=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/.." && pwd)
tokens=${2:-4096}
shape=${3:-$source/benchmarks/shape_gpu.json}
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-gpu-XXXXXX")
trap 'rm -rf "$work"' EXIT

"$build/hy3_init" --names outer --shape "$shape" \
    --tokenizer "$source/etc/quickstart/tokenizer" --output_dir "$work/model" 2>/dev/null
cat >"$work/run.cfg" <<END
model_name_or_path = "$work/model";
output_dir = "$work/out";
overwrite_output_dir = true;
resume_from_checkpoint = "none";
save_only_model = true;
use_dummy_data = true;
max_samples = 256;
max_seq_length = $tokens;
max_steps = 14;
learning_rate = 1e-5;
device = "cuda";
plot_loss = false;
END
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# the last eight of 14 steps: the first ones choose algorithms for new numbers of rows
for kind in lora full attention; do
    if ! "$build/hy3_sft" "$work/run.cfg" finetuning_type=$kind >"$work/log" 2>&1; then
        cat "$work/log"
        exit 1
    fi
    rate=$(tail -n 8 "$work/out/train_log.jsonl" |
        sed 's/.*"tokens_per_second": \([0-9.]*\).*/\1/' | median)
    echo "hy3_sft, $kind: $rate tokens/s"
    sed -n 's/.*\(device memory per rank: .*\)/  \1/p' "$work/log"
    rm -rf "$work/out"
done
if ! python3 -c 'import torch, transformers' 2>/dev/null; then
    echo "transformers: skipped, python3 has no torch and transformers"
    exit 0
fi
peer=$(python3 "$source/benchmarks/gpu_peer.py" "$work/model" "$tokens" | tee /dev/stderr |
    sed -n 's/.* \([0-9]*\) tokens\/s.*/\1/p' | tail -n 8 | median)
echo "attention-only: hy3_sft $rate tokens/s, transformers $peer tokens/s," \
    "ratio $(echo "scale=2; $rate / $peer" | bc)"
