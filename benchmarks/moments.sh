#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What 8-bit and bf16 moments cost in loss: a small model, 500 steps on conversations of which none
# comes twice, three seeds. Prints the mean loss of the last fifth of the steps beside that with
# fp32 moments; fails if one is more than 0.01 or 0.5 % above, whichever is larger. A quarter of an
# hour on two cores.
#   bash benchmarks/moments.sh BUILD_DIR [STEPS]
set -euo pipefail

build=$(cd "${1:?usage: benchmarks/moments.sh BUILD_DIR [STEPS]}" && pwd)
steps=${2:-500}
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
batch=8
worst=0
: >"$work/run.cfg"

# corpus SEED COUNT: conversations whose answers follow from their questions, by a generator of its
# own, so that every awk writes the same
corpus() {
    awk -v seed="$1" -v count="$2" '
        function draw(n) {
            state = state * 16807 % 2147483647
            return int(state / 64) % n
        }
        function word(list, n) { return words[list, draw(n)] }
        BEGIN {
            state = 1000003 * seed
            lists["who"] = "Ada Boris Chen Dina Emil Fatou Goran Hana Igor Jun Kofi Lena Milo " \
                "Nia Omar Petra"
            lists["thing"] = "rope lantern kettle ledger compass drum violin ladder basket " \
                "anchor map key"
            lists["place"] = "harbour attic chapel market tower cellar bakery mill library garden"
            lists["day"] = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
            for (l in lists) {
                size[l] = split(lists[l], part, " ")
                for (i = 1; i <= size[l]; i++)
                    words[l, i - 1] = part[i]
            }
            for (i = 0; i < count; i++) {
                a = word("who", size["who"]); b = word("who", size["who"])
                t = word("thing", size["thing"]); u = word("thing", size["thing"])
                p = word("place", size["place"]); d = word("day", size["day"])
                n = draw(90) + 10; m = draw(90) + 10
                printf "{\"messages\": [{\"role\": \"user\", \"content\": \""
                printf "%s has %d %ss, %s has %d %ss. ", a, n, t, b, m, u
                printf "They meet in the %s on %s.\"}, ", p, d
                printf "{\"role\": \"assistant\", \"content\": \""
                printf "On %s, in the %s, %s trades a %s for a %s with %s: ", d, p, a, t, u, b
                printf "%d and %d are left, %d in all.\"}]}\n", n - 1, m - 1, n + m
            }
        }'
}

# loss SEED OPTIM: of the last fifth of the steps
loss() {
    OMP_NUM_THREADS=1 "$build/hy3_sft" "$work/run.cfg" \
        model_name_or_path="$work/model" train_data_file="$work/data-$1.jsonl" \
        output_dir="$work/out" overwrite_output_dir=true max_steps="$steps" seed="$1" \
        per_device_train_batch_size=$batch learning_rate=2e-3 warmup_steps=20 \
        max_seq_length=512 device=cpu \
        gradient_checkpointing=false plot_loss=false save_steps=0 zero_stage=0 \
        optim="$2" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    tail -n $((steps / 5)) "$work/out/train_log.jsonl" |
        sed 's/.*"loss": \([0-9.e+-]*\).*/\1/' |
        awk '{ sum += $1 } END { printf "%.6f", sum / NR }'
    rm -rf "$work/out"
}

for seed in 1 2 3; do
    "$build/hy3_init" --shape "$top/etc/quickstart/shape.json" --seed "$seed" \
        --tokenizer "$top/etc/quickstart/tokenizer" --output_dir "$work/model" >/dev/null 2>&1
    corpus "$seed" $((steps * batch)) >"$work/data-$seed.jsonl"
    [ "$seed" = 1 ] && printf '%-6s %10s %22s %22s\n' seed adamw adamw_8bit adamw_bf16
    plain=$(loss "$seed" adamw)
    coded=$(loss "$seed" adamw_8bit)
    short=$(loss "$seed" adamw_bf16)
    awk -v s="$seed" -v a="$plain" -v b="$coded" -v c="$short" 'BEGIN {
        printf "%-6s %10.4f %10.4f (%+.4f) %12.4f (%+.4f)\n", s, a, b, b - a, c, c - a
        most = 0.005 * a > 0.01 ? 0.005 * a : 0.01
        exit b - a > most || c - a > most }' || worst=1
    rm -rf "$work/model"
done
exit $worst
