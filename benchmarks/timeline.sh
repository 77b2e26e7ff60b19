#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Estimated seconds of a step on a cluster, a line of a table per run: what hy3_plan says of the
# published model on the configurations of etc, with even experts.
# usage: benchmarks/timeline.sh BUILD_DIR [RATES]
set -euo pipefail

source_dir=$(cd "$(dirname "$0")/.." && pwd)
build=${1:?usage: benchmarks/timeline.sh BUILD_DIR [RATES]}
rates=${2:-$source_dir/etc/devices/h100.cfg}

# row NAME CONFIG RANKS [key=value ...]
row() {
    local name=$1 config=$2 ranks=$3
    shift 3
    "$build/hy3_plan" "$source_dir/etc/$config" --shape "$source_dir/etc/hy3_295b.json" \
        --ranks "$ranks" --rates "$rates" --imbalance 1 "$@" | awk -v name="$name" '
        /device, peak/ { memory = $3 }
        / x .* update / { micro = $3; update = $7; step = $10 }
        /waiting for gathers/ { gathers = $(NF - 3) }
        /waiting for sums/ { sums = $(NF - 3) }
        /exchange with/ { exchange = $(NF - 3) }
        /waiting for copies/ { copies = $(NF - 3) }
        /tokens\/s per rank/ { tokens = $1 }
        END { printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", name, memory, micro,
                  update, step, gathers + sums, exchange, copies, tokens }'
}

echo "| run | GB | micro-batch | update | step | weights, gradients | exchange | copies" \
    "| tokens/s per GPU |"
echo "|---|---|---|---|---|---|---|---|---|"
row "LoRA, 8 GPUs of 80 GB, etc/lora.cfg, groups of 8" lora.cfg 8 --device-memory 80GB \
    expert_parallel_size=8
row "LoRA, 16, offload=none, groups of 8" lora.cfg 16 offload=none expert_parallel_size=8
row "full, 32, etc/full.cfg, groups of 8" full.cfg 32 expert_parallel_size=8
row "full, 32, offload=optimizer, groups of 8" full.cfg 32 offload=optimizer expert_parallel_size=8
row "the same, groups of 32" full.cfg 32 offload=optimizer expert_parallel_size=32
row "the same, auto (groups of 16)" full.cfg 32 offload=optimizer
row "the same, hierarchical_exchange" full.cfg 32 offload=optimizer hierarchical_exchange=true
row "full, 128, offload=none, batch 4, groups of 8" full.cfg 128 offload=none \
    per_device_train_batch_size=4 expert_parallel_size=8
row "LoRA, 64, offload=none, groups of 8" lora.cfg 64 offload=none expert_parallel_size=8
row "the same, 1024" lora.cfg 1024 offload=none expert_parallel_size=8
row "the same, 1024, zero_group_size=1024" lora.cfg 1024 offload=none expert_parallel_size=8 \
    zero_group_size=1024
row "full, 64, offload=optimizer, groups of 8" full.cfg 64 offload=optimizer expert_parallel_size=8
row "the same, 1024" full.cfg 1024 offload=optimizer expert_parallel_size=8
row "the same, 1024, zero_group_size=1024" full.cfg 1024 offload=optimizer \
    expert_parallel_size=8 zero_group_size=1024
