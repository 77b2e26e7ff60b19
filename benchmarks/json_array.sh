#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A JSON array as one line beside the same conversations as JSONL: hy3_tokenize on 1 and 2 ranks,
# each form in turn. The conversations are the quick start's, numbered, until they are MEGABYTES.
# Prints the time of the array over that of the lines, also in CPU time (of the busiest rank, for a
# machine that others use), and the highest resident memory of a rank; fails if the tokens differ.
# Needs eight times the size of disk in TMPDIR.
#   bash benchmarks/json_array.sh BUILD_DIRECTORY [MEGABYTES [ROUNDS]]
set -euo pipefail
build=$(cd "${1:?usage: benchmarks/json_array.sh BUILD_DIRECTORY [MEGABYTES [ROUNDS]]}" && pwd)
megabytes=${2:-1000}
rounds=${3:-1}
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-array-XXXXXX")
trap 'rm -rf "$work"' EXIT
export HY3_LOG=quiet OMP_NUM_THREADS=1
cd "$work"

cat >peak.c <<'END'
#include <stdio.h>
#include <time.h>
/* at the end of each process: the seconds of its CPU, and its VmHWM in kB */
__attribute__((destructor)) static void tell(void)
{
    char line[256];
    long kb = 0;
    FILE *in = fopen("/proc/self/status", "r"), *out = fopen("peak", "a");

    while (in && fgets(line, sizeof line, in))
        sscanf(line, "VmHWM: %ld", &kb);
    if (in)
        fclose(in);
    if (out) {
        fprintf(out, "%.3f %ld\n", (double)clock() / CLOCKS_PER_SEC, kb);
        fclose(out);
    }
}
END
${CC:-cc} -shared -fPIC -o peak.so peak.c
"$build/hy3_init" --shape "$source/etc/quickstart/shape.json" \
    --tokenizer "$source/etc/quickstart/tokenizer" --output_dir model >/dev/null
LC_ALL=C awk -v bytes="${megabytes}e6" '{
        at = index($0, "\"content\": \"") + length("\"content\": \"")
        before[NR] = substr($0, 1, at - 1)
        behind[NR] = substr($0, at)
    }
    END {
        for (n = 0; size < bytes; n++) {
            text = before[n % NR + 1] n " " behind[n % NR + 1]
            size += length(text) + 1
            print text >"chat.jsonl"
            printf "%s%s", n ? ", " : "[", text >"chat.json"
        }
        printf "]" >"chat.json"
    }' "$source/etc/quickstart/conversations.jsonl"

# tokenize RANKS FILE: its $seconds, $cpu and $peak, tokens in FILE.cache/train.h5
tokenize() {
    local begin
    rm -rf peak "$2.cache"
    begin=$(date +%s.%N)
    mpiexec -n "$1" env LD_PRELOAD="$work/peak.so" "$build/hy3_tokenize" run.cfg \
        train_data_file="$2" cache_dir="$2.cache" >log 2>&1 || { cat log && exit 1; }
    seconds=$(awk -v t="$(date +%s.%N)" -v s="$begin" 'BEGIN { print t - s }')
    cpu=$(awk '{ cpu = $1 > cpu ? $1 : cpu } END { print cpu }' peak)
    peak=$(awk '{ kb = $2 > kb ? $2 : kb } END { printf "%.0f", kb * 1.024e-3 }' peak)
}

printf '%s\n' 'model_name_or_path = "model";' 'max_seq_length = 512;' >run.cfg
size() {
    h5dump -H -d "/$2" "$1.cache/train.h5" | grep DATASPACE
}

echo "== $(stat -c %s chat.jsonl | awk '{ printf "%.0f", $1 * 1e-6 }') MB of" \
    "$(wc -l <chat.jsonl) conversations (aims: at most 1.3 x the time, 100 MB a rank)"
for ranks in 1 2; do
    for _ in $(seq "$rounds"); do
        tokenize "$ranks" chat.jsonl
        lines="$seconds $cpu $peak"
        tokenize "$ranks" chat.json
        echo "$ranks $lines $seconds $cpu $peak"
    done | awk '{
        printf "  ranks %d: lines %.1f s, %d MB a rank; array %.1f s, %d MB: %.2f x the time, " \
            "%.2f x the CPU time of a rank\n", $1, $2, $4, $5, $7, $5 / $2, $6 / $3
        fflush()
    }'
    for set in tokens label_mask offsets; do
        # sizes first: h5diff compares what both have
        [ "$(size chat.jsonl "$set")" = "$(size chat.json "$set")" ]
        h5diff -q chat.jsonl.cache/train.h5 chat.json.cache/train.h5 "/$set"
    done
    echo "  ranks $ranks: the same tokens, labels and samples"
done
