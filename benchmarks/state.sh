#!/usr/bin/env bash
# Checkpoints: MB/s of writing and reading state.h5 beside dd of the same size to the same disk, and what asynchronous ones cost.
#   bash benchmarks/state.sh BUILD_DIRECTORY [RANKS]
set -eu

build=$(cd "${1:-build-tests}" && pwd)
ranks=${2:-2}
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-state-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
"$build/hy3_init" --shape "$source/benchmarks/shape.json" --tokenizer "$source/etc/quickstart/tokenizer" --output_dir "$work/model" 2>/dev/null
cat >"$work/run.cfg" <<END
model_name_or_path = "$work/model";
output_dir = "$work/out";
use_dummy_data = true;
max_samples = 64;
max_seq_length = 128;
save_total_limit = 1;
max_steps = 8;
save_steps = 4;
plot_loss = false;
bf16 = true;
END
run() { mpiexec -n "$ranks" "$build/hy3_sft" "$work/run.cfg" "$@" 2>&1; }
# the seconds of the steps after the second
steps() { sed -n 's/.*"elapsed_seconds": \([0-9.]*\).*/\1/p' "$work/out/train_log.jsonl" | awk 'NR == 2 { a = $1 } { b = $1 } END { print b - a }'; }

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# the one before is removed after the next is there, by us and by dd: both then write into the same kind of memory and disk
run max_steps=24 >"$work/log"
bytes=$(stat -c %s "$work/out"/checkpoint-24/state.h5)
ours=$(sed -n 's/.*checkpoint-.* \([0-9]*\) MB\/s.*/\1/p' "$work/log" | tail -n 5 | median)
for i in 0 1 2 3 4 5; do
    begin=$(date +%s.%N)
    dd if="$work/out/checkpoint-24/state.h5" of="$work/dd$i" bs=16M conv=fsync status=none
    echo "$bytes / 1000000 / ($(date +%s.%N) - $begin)" | bc
    rm -f "$work/dd$((i - 1))"
done | tail -n 5 >"$work/dd.txt"
rm -f "$work"/dd[0-9]
peer=$(median <"$work/dd.txt")
echo "state.h5 of $((bytes / 1000000)) MB, $ranks ranks, medians of five"
echo "  write: $ours MB/s, dd conv=fsync of the same file: $peer MB/s, ratio $(echo "scale=2; $ours / $peer" | bc)   ($(tr '\n' ' ' <"$work/dd.txt"))"
for i in 1 2 3; do
    rm -rf "$work/out"/model*
    run max_steps=$((24 + i)) save_steps=1000 | sed -n 's/.*continuing.* \([0-9]*\) MB\/s.*/\1/p'
done | median | awk -v peer="$peer" '{ printf "  read and checked: %d MB/s, ratio to that dd %.2f\n", $1, $1 / peer }'

# one rank with one thread: a core is free for the thread that saves, as on a node
ranks=1
for kind in none async none async; do
    rm -rf "$work/out"
    if [ "$kind" = none ]; then run save_steps=1000 max_steps=42 >/dev/null; else run save_steps=20 max_steps=42 save_async=true >"$work/log"; fi
    echo "40 steps, $kind: $(steps) s"
    [ "$kind" = none ] || sed -n 's/.*\(checkpoint-.*\)/  \1/p' "$work/log"
done
