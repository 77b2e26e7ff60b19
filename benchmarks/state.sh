#!/usr/bin/env bash
# Checkpoints: MB/s of writing and reading state.h5 beside dd of the same size to the same disk, and what an asynchronous one costs a step.
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

echo "ranks $ranks"
for round in 1 2; do
    rm -rf "$work/out"
    run | sed -n 's/.*\(checkpoint-.*\)/  \1/p'
    bytes=$(stat -c %s "$work/out"/checkpoint-8/state.h5)
    rm -f "$work/dd"
    begin=$(date +%s.%N)
    dd if=/dev/zero of="$work/dd" bs=16M count=$((bytes / 16777216)) conv=fsync status=none
    end=$(date +%s.%N)
    echo "  dd conv=fsync of $((bytes / 1000000)) MB: $(echo "$bytes / 1000000 / ($end - $begin)" | bc) MB/s"
    begin=$(date +%s.%N)
    dd if="$work/dd" of=/dev/null bs=16M status=none
    end=$(date +%s.%N)
    echo "  dd reading: $(echo "$bytes / 1000000 / ($end - $begin)" | bc) MB/s"
    rm -f "$work/dd"
    rm -rf "$work/out"/model*
    run max_steps=9 | sed -n 's/.*\(continuing.*\)/  \1/p'
done
rm -rf "$work/out"
run save_steps=1000 max_steps=26 >/dev/null
none=$(steps)
rm -rf "$work/out"
run save_steps=1000 max_steps=26 >/dev/null
again=$(steps)
rm -rf "$work/out"
run save_steps=8 max_steps=26 save_async=true >/dev/null
async=$(steps)
echo "24 steps without checkpoints: $none s and $again s; with three asynchronous ones: $async s"
