#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Memory: what hy3_plan predicts for nine layouts beside the measured growth of the ranks, and how
# the weights of a rank shrink with the number of ranks at ZeRO 3. The exit status is 1 if a
# prediction is off by more than 5 %. Needs about 12 GB of memory and some minutes.
#   bash benchmarks/memory.sh BUILD_DIRECTORY
set -eu

build=$(cd "${1:-build-tests}" && pwd)
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
cat >"$work/shape.json" <<'END'
{"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 5, "num_attention_heads": 8,
 "num_key_value_heads": 2, "head_dim": 128, "num_experts": 16, "num_experts_per_tok": 2,
 "num_shared_experts": 1, "moe_intermediate_size": 768, "first_k_dense_replace": 1,
 "num_nextn_predict_layers": 0, "vocab_size": 4096, "max_position_embeddings": 4096}
END
"$build/hy3_init" --shape "$work/shape.json" --tokenizer "$source/etc/quickstart/tokenizer" \
    --output_dir "$work/model" 2>/dev/null
cat >"$work/run.cfg" <<END
model_name_or_path = "$work/model";
output_dir = "$work/out";
overwrite_output_dir = true;
resume_from_checkpoint = "none";
use_dummy_data = true;
max_samples = 64;
max_seq_length = 128;
max_steps = 2;
save_steps = 100;
plot_loss = false;
device = "cpu";
stage3_param_persistence_threshold = 0;
END

planned() { # RANKS key=value …: megabytes per rank
    local ranks=$1
    shift
    "$build/hy3_plan" "$work/run.cfg" "$@" --ranks "$ranks" --ranks-per-node "$ranks" |
        awk 'function mb() { return $NF == "GB" ? 1000 * $(NF - 1) : $(NF - 1) }
            /device, peak/ { device = mb() }
            /host, peak/ { printf "%.1f", device + mb() }'
}

failed=0
printf '%-7s %-88s %10s %10s %7s\n' ranks layout 'planned MB' 'used MB' ratio
compare() { # RANKS key=value …
    local ranks=$1 plan used ratio
    shift
    plan=$(planned "$ranks" "$@")
    used=$(mpiexec -n "$ranks" "$build/hy3_sft" "$work/run.cfg" "$@" 2>&1 |
        sed -n 's/.*peak host memory growth per rank: \([0-9.]*\) MB.*/\1/p')
    ratio=$(echo "scale=3; $used / $plan" | bc)
    printf '%-7s %-88s %10s %10s %7s\n' "$ranks" "$*" "$plan" "$used" "$ratio"
    [ "$(echo "$used / $plan < 1.05 && $used / $plan > 0.95" | bc -l)" = 1 ] || failed=1
}
compare 1 bf16=false zero_stage=0
compare 2 bf16=true zero_stage=2 expert_parallel_size=2
compare 2 bf16=false zero_stage=3 expert_parallel_size=1
compare 4 bf16=true zero_stage=3 expert_parallel_size=4 offload=full stage3_max_reuse_distance=0
compare 4 bf16=false zero_stage=1 expert_parallel_size=1 gradient_checkpointing=false
compare 2 bf16=true zero_stage=0 expert_parallel_size=2 save_async=true
compare 4 bf16=true zero_stage=3 expert_parallel_size=2 sequence_parallel_size=4 max_seq_length=1024
compare 2 bf16=true zero_stage=2 expert_parallel_size=2 optim=adamw_8bit
compare 2 bf16=true zero_stage=2 expert_parallel_size=2 optim=adamw_bf16 offload=optimizer

printf '\nweights per rank at ZeRO 3\n%-7s %12s %14s\n' ranks 'weights MB' 'times ranks'
for ranks in 1 2 4 8 16 32; do
    "$build/hy3_plan" "$work/run.cfg" zero_stage=3 expert_parallel_size=1 --ranks "$ranks" |
        awk -v r="$ranks" '$1 == "weights" { mb = $3 == "GB" ? 1000 * $2 : $2
            printf "%-7d %12.1f %14.1f\n", r, mb, r * mb }'
done
exit $failed
