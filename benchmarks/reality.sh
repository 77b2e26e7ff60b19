#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The timeline against this machine: hy3_plan --probe measures its CPUs, then eight layouts with
# ranks x threads up to the cores are trained, and one with twice as many (4 ranks on 2 cores).
# Probes and layouts take turns; medians over the rounds of predicted and measured seconds of a step
# are compared. Of a run the median of the second half of its steps is taken: in the first
# steps most numbers of rows that experts get are new, and products for them are made (cpu/gemm.c).
# The exit status is 1 if fewer than seven of the eight are within 15 %, or the last is not within
# 40 %; needs an idle machine, and some 10 minutes.
#   bash benchmarks/reality.sh BUILD_DIR [ROUNDS]
set -euo pipefail

build=$(cd "${1:?usage: benchmarks/reality.sh BUILD_DIR [ROUNDS]}" && pwd)
rounds=${2:-5}
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
cores=$(nproc)
[ "$cores" -ge 2 ] || { echo "needs two cores" >&2; exit 1; }
half=$((cores / 2))
cd "$work"

cat >shape.json <<'END'
{"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 8,
 "num_key_value_heads": 2, "head_dim": 64, "num_experts": 16, "num_experts_per_tok": 4,
 "num_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
 "num_nextn_predict_layers": 0, "max_position_embeddings": 4096, "vocab_size": 8192}
END
"$build/hy3_init" --shape shape.json --tokenizer "$top/etc/quickstart/tokenizer" \
    --output_dir model >init.log 2>&1
cat >run.cfg <<'END'
model_name_or_path = "model";
output_dir = "out";
overwrite_output_dir = true;
resume_from_checkpoint = "none";
save_only_model = true;
use_dummy_data = true;
max_samples = 256;
max_seq_length = 128;
per_device_train_batch_size = 2;
max_steps = 16;
plot_loss = false;
bf16 = false;
device = "cpu";
END

# RANKS THREADS key=value …
layouts=(
    "1 1 zero_stage=0"
    "1 1 per_device_train_batch_size=4 gradient_checkpointing=false"
    "1 $cores zero_stage=0"
    "1 $cores zero_stage=3 offload=full"
    "2 $half zero_stage=0 expert_parallel_size=1"
    "2 $half zero_stage=3 expert_parallel_size=1 gradient_accumulation_steps=2"
    "2 $half zero_stage=3 expert_parallel_size=2"
    "2 $half zero_stage=2 expert_parallel_size=2 per_device_train_batch_size=4"
    "4 $half zero_stage=3 expert_parallel_size=4"
)

# started RANKS THREADS PROGRAM ARGUMENTS
started() {
    OMP_NUM_THREADS=$2 mpiexec -n "$1" "$build/$3" run.cfg "${@:4}" >log 2>&1 ||
        { tail -5 log >&2; exit 1; }
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

# seconds of a step, from the log of the run
measured_step() {
    sed 's/.*"elapsed_seconds": \([0-9.]*\).*/\1/' out/train_log.jsonl |
        awk 'NR > 8 { print $1 - last } { last = $1 }' | median
}

for ((round = 1; round <= rounds; round++)); do
    printf '%s\n' "${layouts[@]}" | cut -d ' ' -f 1,2 | sort -u >probes
    while read -r ranks threads <&3; do
        started "$ranks" "$threads" hy3_plan --probe "$ranks-$threads.cfg"
    done 3<probes
    for i in "${!layouts[@]}"; do
        read -r ranks threads keys <<<"${layouts[i]}"
        # shellcheck disable=SC2086 # several arguments
        started "$ranks" "$threads" hy3_sft $keys rates="$ranks-$threads.cfg"
        sed -n 's/.*time: both *predicted *\([0-9.]*\) s.*/\1/p' log >>"predicted$i"
        measured_step >>"measured$i"
    done
    echo "round $round of $rounds" >&2
done

printf '%-8s %-74s %9s %9s %7s\n' "r x t" layout predicted measured ratio
for i in "${!layouts[@]}"; do
    read -r ranks threads keys <<<"${layouts[i]}"
    predicted=$(median <"predicted$i")
    measured=$(median <"measured$i")
    awk -v l="$ranks x $threads" -v k="$keys" -v p="$predicted" -v m="$measured" \
        'BEGIN { printf "%-8s %-74s %9.3f %9.3f %7.2f\n", l, k, p, m, m / p }'
done | tee table
awk 'NR <= 8 && $NF >= 0.85 && $NF <= 1.15 { near++ }
    NR == 9 { last = $NF }
    END {
        holds = last >= 0.6 && last <= 1.4
        printf "%d of 8 within 15 %%; 4 ranks %s 40 %%\n", near, holds ? "within" : "not within"
        exit !(near >= 7 && holds)
    }' table
