#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checkpoints: the rates of writing and reading state.h5 beside dd of the same bytes to the same
# disk, and what asynchronous saving costs.
#   bash benchmarks/state.sh BUILD_DIRECTORY [RANKS] [ROUNDS]
#
# Writing is measured in pairs, since the disk changes from one second to the next, and so does
# memory: a virtual machine returns what is free for some seconds to its host, and files written
# into it then take up to five times as long (seen). So a run saves after every step, and after each
# save it is stopped while dd copies the file, which is still in memory, with conv=fsync. Both times
# last until the file is flushed and the one before is removed; that of the run includes what it
# does besides: collecting values, checksums, the mark, renaming. The first two pairs, with memory
# never used before, do not count. The ratio is the median of the pairs' ratios.
#
# Asynchronous saving is measured within one run: the time of 20 steps with one save among them,
# against 20 times their median.
set -eu

build=$(cd "${1:-build-tests}" && pwd)
ranks=${2:-2}
rounds=${3:-9}
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-state-XXXXXX")
trap 'pkill -KILL -f "^[^ ]*hy3_sft $work" || :; rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
"$build/hy3_init" --shape "$source/benchmarks/shape.json" \
    --tokenizer "$source/etc/quickstart/tokenizer" --output_dir "$work/model" 2>/dev/null
cat >"$work/run.cfg" <<END
model_name_or_path = "$work/model";
output_dir = "$work/out";
use_dummy_data = true;
max_samples = 64;
max_seq_length = 128;
save_total_limit = 1;
plot_loss = false;
bf16 = true;
END
run() { mpiexec -n "$ranks" "$build/hy3_sft" "$work/run.cfg" "$@" 2>&1; }
signal_ranks() { pkill -"$1" -f "^[^ ]*hy3_sft $work"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# "hy3 dd" in MB/s, one line per pair
pairs() {
    local at=0 file bytes begin ours peer
    : >"$work/log"
    run max_seq_length=16 save_steps=1 max_steps=100000 >"$work/log" &
    while [ "$at" -lt $((rounds + 2)) ]; do
        if [ "$(grep -c 'checkpoint-.* MB/s' "$work/log")" -eq "$at" ]; then
            sleep 0.02
            continue
        fi
        signal_ranks STOP
        file=$(ls "$work/out"/checkpoint-*[0-9]/state.h5)
        bytes=$(stat -c %s "$file")
        begin=$(date +%s.%N)
        dd if="$file" of="$work/dd$at" bs=16M conv=fsync status=none
        rm -f "$work/dd$((at - 1))"
        ours=$(sed -n 's/.*checkpoint-.* \([0-9]*\) MB\/s.*/\1/p' "$work/log" | tail -n 1)
        peer=$(echo "$bytes / 1000000 / ($(date +%s.%N) - $begin)" | bc)
        echo "$ours $peer"
        signal_ranks CONT
        at=$((at + 1))
    done
    signal_ranks TERM
    wait $! || :
    rm -f "$work"/dd[0-9]*
}

pairs | tail -n +3 | awk '{ printf "%d %d %.2f\n", $1, $2, $1 / $2 }' >"$work/pairs"
size=$(($(stat -c %s "$work/out"/checkpoint-*/state.h5) / 1000000))
ours=$(cut -d ' ' -f 1 "$work/pairs" | median)
peer=$(cut -d ' ' -f 2 "$work/pairs" | median)
ratio=$(cut -d ' ' -f 3 "$work/pairs" | median)
echo "state.h5 of $size MB, $ranks ranks, medians of $rounds"
echo "  write: $ours MB/s, dd conv=fsync of the same file: $peer MB/s, ratio $ratio"
echo "  pairs: $(awk '{ printf "%s%d/%d=%s", NR == 1 ? "" : ", ", $1, $2, $3 }' "$work/pairs")"
last=$(basename "$work"/out/checkpoint-*[0-9])
last=${last#checkpoint-}
for i in 1 2 3; do
    rm -rf "$work/out"/model*
    run max_seq_length=16 max_steps=$((last + i)) save_steps=100000 |
        sed -n 's/.*continuing.* \([0-9]*\) MB\/s.*/\1/p'
done | median | awk -v peer="$peer" '{
    printf "  read and checked: %d MB/s, ratio to dd %.2f\n", $1, $1 / peer
}'

# one rank with one thread: a core is free for the threads that save, as on a real node
ranks=1
rm -rf "$work/out"
run save_steps=20 max_steps=108 save_async=true >"$work/log"
sed -n 's/.*"elapsed_seconds": \([0-9.]*\).*/\1/p' "$work/out/train_log.jsonl" |
    awk 'NR > 8 { print int((NR - 9) / 20), $1 - last } { last = $1 }' | sort -k1,1n -k2,2g |
    awk '{ sum[$1] += $2; v[$1, n[$1]++] = $2 }
        END { for (i = 0; i < 5; i++) printf "%.1f\n", 100 * (sum[i] / (20 * v[i, 9]) - 1) }' \
        >"$work/cost"
echo "20 steps with one asynchronous save: $(median <"$work/cost") % longer than without," \
    "median of $(tr '\n' ' ' <"$work/cost")"
sed -n 's/.*\(checkpoint-.*\)/  \1/p' "$work/log"
