#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What strangers' files may cost, and what checksums.json costs: a safetensors header of 95 MB, a
# split pattern that goes back over the whole line from each of its places, and hy3_convert with
# and without SHA-256 (a preloaded library in whose place it does nothing; XXH3 takes no time beside
# it), in turns. Prints figures only: nothing passes or fails.
#   bash benchmarks/files.sh BUILD_DIRECTORY [ROUNDS]
set -euo pipefail
build=$(cd "${1:-build}" && pwd)
rounds=${2:-5}
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-files-XXXXXX")
trap 'rm -rf "$work"' EXIT
export HY3_LOG=quiet OMP_NUM_THREADS=1
cd "$work"

# measure COMMAND …: its seconds, status and highest resident memory in kB
measure() {
    local begin now
    begin=$(date +%s.%N) peak=0 status=0
    "$@" >log 2>&1 </dev/null &
    while now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$!/status" 2>/dev/null) &&
        [ -n "$now" ]; do
        peak=$now
        sleep 0.02
    done
    wait $! || status=$?
    seconds=$(awk -v t="$(date +%s.%N)" -v s="$begin" 'BEGIN { printf "%.2f", t - s }')
}

echo "== a header of 95 MB (aim: at most 6 x its size of memory)"
"$build/hy3_init" --shape "$source/benchmarks/shape.json" \
    --tokenizer "$source/etc/quickstart/tokenizer" --output_dir model >/dev/null
mkdir header
cp model/*.json header && rm -f header/model.safetensors.index.json header/checksums.json
awk 'BEGIN {
    printf "{" >"json"
    for (n = 0; size < 95e6; n++) {
        unit = sprintf("%s\"%d\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[%d,%d]}", \
            n ? "," : "", n, 4 * n, 4 * n + 4)
        printf "%s", unit >"json"
        size += length(unit)
    }
    printf "}" >"json"
    print 4 * n >"bytes"
}'
size=$(stat -c %s json)
for shift in 0 8 16 24 32 40 48 56; do
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\x$(printf %02x $((size >> shift & 255)))"
done >header/model.safetensors
cat json >>header/model.safetensors
truncate -s "+$(cat bytes)" header/model.safetensors
measure "$build/hy3_check" model
base=$peak
measure "$build/hy3_check" header
awk -v s="$seconds" -v p="$peak" -v o="$base" -v b="$size" -v c="$status" 'BEGIN {
    printf "  %.0f MB: %.1f s, peak %.0f MB, %.1f x the header above the %.0f MB of a small one, " \
        "exit status %d\n", b * 1e-6, s, p * 1e-3, (p - o) * 1024 / b, o * 1e-3, c }'
rm -rf header json

echo "== a pattern of quadratic cost on one line of 1 MB"
mkdir pattern
cp model/* pattern
sed -i 's/"Regex":"\\\\p{N}{1,3}"/"Regex":"a+b"/' pattern/tokenizer.json
{
    printf '{"messages":[{"role":"user","content":"'
    head -c 1000000 /dev/zero | tr '\0' a
    printf ' cb"},{"role":"assistant","content":"x"}]}\n'
} >line.jsonl
cat >line.cfg <<END
model_name_or_path = "$work/pattern";
train_data_file = "$work/line.jsonl";
output_dir = "$work/out";
max_seq_length = 4096;
END
measure "$build/hy3_tokenize" line.cfg
printf '  %s s, exit status %d: %s\n' "$seconds" "$status" \
    "$(grep -o "the split pattern .*" log | cut -c 1-90)"

echo "== hy3_convert --to outer, with and without SHA-256 (benchmarks/shape.json)"
cat >none.c <<END
int EVP_DigestUpdate(void *context, const void *data, unsigned long size)
{
    (void)context, (void)data, (void)size;
    return 1;
}
END
${CC:-cc} -shared -fPIC -o none.so none.c
convert() { # [env …]
    rm -rf made
    sync
    measure "$@" "$build/hy3_convert" --to outer --input_dir model --output_dir made
    [ "$status" -eq 0 ] || { cat log && exit 1; }
}
bytes=$(du -sb model | cut -f1)
for _ in $(seq "$rounds"); do
    convert env
    with=$seconds
    convert env LD_PRELOAD="$work/none.so"
    echo "$with $seconds"
done | sort -n -k 1,1 | awk -v b="$bytes" '{
        with[NR] = $1
        without[NR] = $2
        ratio[NR] = $1 / $2
        printf "  %.0f MB/s with, %.0f MB/s without: %.2f x the time\n", b * 1e-6 / $1, \
            b * 1e-6 / $2, $1 / $2
    }
    END {
        for (i = 1; i <= NR; i++)
            for (j = i + 1; j <= NR; j++)
                if (ratio[j] < ratio[i]) { t = ratio[i]; ratio[i] = ratio[j]; ratio[j] = t }
        printf "  median: %.2f x the time\n", ratio[int((NR + 1) / 2)]
    }'
