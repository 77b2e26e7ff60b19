#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a base in 8 bits costs in loss: LoRA on all modules of a small model that was trained before,
# 300 steps on conversations of which none comes twice, three seeds. Prints the mean loss of the
# last third of the steps on the base in 8 bits beside that in bf16; fails if one is more than 0.01
# or 0.5 % above, whichever is larger. Some minutes on two idle cores.
#   bash benchmarks/base_dtype.sh BUILD_DIR [STEPS]
set -euo pipefail

build=$(cd "${1:?usage: benchmarks/base_dtype.sh BUILD_DIR [STEPS]}" && pwd)
steps=${2:-300}
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
batch=4
worst=0
: >"$work/run.cfg"

# corpus SEED COUNT STYLE: conversations whose answers follow from their questions; the second style
# has other questions and answers of the same words
corpus() {
    awk -v seed="$1" -v count="$2" -v style="$3" '
        function draw(n) {
            state = state * 16807 % 2147483647
            return int(state / 64) % n
        }
        function word(list) { return words[list, draw(size[list])] }
        BEGIN {
            state = 1000003 * seed
            lists["who"] = "Ada Boris Chen Dina Emil Fatou Goran Hana Igor Jun Kofi Lena Milo Nia"
            lists["thing"] = "rope lantern kettle ledger compass drum violin ladder basket anchor"
            lists["place"] = "harbour attic chapel market tower cellar bakery mill library garden"
            for (l in lists) {
                size[l] = split(lists[l], part, " ")
                for (i = 1; i <= size[l]; i++)
                    words[l, i - 1] = part[i]
            }
            line = "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}, " \
                   "{\"role\": \"assistant\", \"content\": \"%s\"}]}\n"
            for (i = 0; i < count; i++) {
                a = word("who"); b = word("who"); t = word("thing"); p = word("place")
                q = word("place"); n = draw(90) + 10; m = draw(90) + 10
                if (style == 1) {
                    asked = sprintf("%s has %d %ss, %s has %d. They meet in the %s.",
                        a, n, t, b, m, p)
                    told = sprintf("In the %s %s and %s count the %ss: %d in all.",
                        p, a, b, t, n + m)
                } else {
                    asked = sprintf("Who carries the %s from the %s to the %s, %s or %s?",
                        t, p, q, a, b)
                    told = sprintf("%s takes the %s to the %s; %s stays in the %s.",
                        b, t, q, a, p)
                }
                printf line, asked, told
            }
        }'
}

train() { # MODEL DATA OUTPUT key=value …
    local model=$1 data=$2 output=$3
    shift 3
    OMP_NUM_THREADS=1 "$build/hy3_sft" "$work/run.cfg" model_name_or_path="$model" \
        train_data_file="$data" output_dir="$output" per_device_train_batch_size=$batch \
        warmup_steps=20 max_seq_length=512 device=cpu plot_loss=false save_steps=0 \
        gradient_checkpointing=false "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

# loss SEED DTYPE: of the last third of the steps
loss() {
    train "$work/base" "$work/data" "$work/out" overwrite_output_dir=true max_steps="$steps" \
        seed="$1" finetuning_type=lora lora_target=all lora_rank=8 lora_alpha=16 \
        learning_rate=2e-3 base_dtype="$2"
    tail -n $((steps / 3)) "$work/out/train_log.jsonl" |
        sed 's/.*"loss": \([0-9.e+-]*\).*/\1/' |
        awk '{ sum += $1 } END { printf "%.6f", sum / NR }'
}

"$build/hy3_init" --shape "$top/etc/quickstart/shape.json" \
    --tokenizer "$top/etc/quickstart/tokenizer" --output_dir "$work/model" >/dev/null 2>&1
corpus 99 $((steps * batch)) 1 >"$work/before"
train "$work/model" "$work/before" "$work/base" max_steps="$steps" learning_rate=2e-3
printf '%-6s %10s %22s\n' seed bf16 fp8
for seed in 1 2 3; do
    corpus "$seed" $((steps * batch)) 2 >"$work/data"
    plain=$(loss "$seed" bf16)
    coded=$(loss "$seed" fp8)
    [ "$seed" = 1 ] && grep -h "relative RMS error" "$work/log" >"$work/errors"
    awk -v s="$seed" -v a="$plain" -v b="$coded" 'BEGIN {
        printf "%-6s %10.4f %10.4f (%+.4f)\n", s, a, b, b - a
        most = 0.005 * a > 0.01 ? 0.005 * a : 0.01
        exit b - a > most }' || worst=1
    echo "$plain" >>"$work/spread"
done
sort -g "$work/spread" | awk '{ x[NR] = $1 } END { printf "spread of bf16: %.4f\n", x[NR] - x[1] }'
sed 's/.*quantized/quantized/' "$work/errors"
exit $worst
