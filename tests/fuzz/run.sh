#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fuzzes every reader of files: builds tests/fuzz/fuzz_*.c with libFuzzer, ASan and UBSan and runs
# each for SECONDS.
#   tests/fuzz/run.sh [SECONDS [NAME …]]      60 seconds each by default; NAME: safetensors, config
# …
# Exit status 1: a finding, kept in the directory that is named. Skipped with its reason where clang
# has no libFuzzer.
# CLANG: another compiler than clang-14 or clang. FUZZ_DIR: where builds, corpora and findings go.
seconds=${1:-60}
[ $# -gt 0 ] && shift
source=$(cd "$(dirname "$0")/../.." && pwd)
golden=$source/tests/golden/a
work=${FUZZ_DIR:-$(mktemp -d)}
packages="mpich yaml-0.1 jansson libpcre2-8 libxxhash libcrypto libconfig hdf5-mpich"
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=undefined"

for clang in ${CLANG:-clang-14 clang} ""; do
    command -v "$clang" >/dev/null 2>&1 && break
done
if [ -z "$clang" ]; then
    echo "fuzzing skipped: there is no clang-14 (Debian package clang-14)"
    exit 0
fi
mkdir -p "$work"
echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d[0] + (int)n & 0; }' \
    >"$work/probe.c"
if ! "$clang" -w -fsanitize=fuzzer "$work/probe.c" -o "$work/probe" 2>/dev/null; then
    echo "fuzzing skipped: $clang has no libFuzzer (package libclang-rt-14-dev or libfuzzer-14-dev)"
    exit 0
fi

# the library, once: only what a fuzzer refers to is linked
cflags="-std=gnu17 -D_GNU_SOURCE -g -O1 -w -I$source/src $(pkg-config --cflags $packages)"
[ -n "$(echo 'int main(void){return 0;}' | "$clang" -fopenmp -x c - -o "$work/probe" 2>&1)" ] ||
    cflags="$cflags -fopenmp"
rm -rf "$work/objects" && mkdir -p "$work/objects"
# shellcheck disable=SC2016 # expanded by the inner shell
find "$source/src" -mindepth 2 -name '*.c' ! -path '*/cpu/*' -print0 |
    CC="$clang $cflags $sanitize -fsanitize=fuzzer-no-link" OBJECTS=$work/objects \
        xargs -0 -P "$(nproc)" -I {} sh -c '
        exec $CC "-DPACKAGE_VERSION=\"fuzz\"" "-DHY3_DATADIR=\"\"" "-DHY3_PKGLIBDIR=\"\"" \
            "-DHY3_MPIEXEC=\"mpiexec\"" \
            -c "$1" -o "$OBJECTS/$(echo "${1#*/src/}" | tr / -).o"' sh {} || exit 1
rm -f "$work/libfuzz.a" && ar rcs "$work/libfuzz.a" "$work/objects"/*.o || exit 1

# the words that a fuzzer puts in, of the documents that list them
words() {
    case $1 in
    yaml | deepspeed | flags) grep -o '`[A-Za-z0-9_.]\+`' "$source/doc/migration.md" ;;
    dataset_info) grep -o '"[A-Za-z_]\+"' "$source/src/data/dataset_info.c" ;;
    esac | tr '`' '"' | sort -u
}

# the files a fuzzer starts from
seeds() {
    to=$work/corpus-$1
    mkdir -p "$to"
    # the files of that name of the cases of other tools
    cases() {
        find "$source/tests/migration" -name "$1" -exec cp --backup=numbered -t "$to" '{}' ';'
    }
    case $1 in
    safetensors) cp "$golden"/bad_inputs/*.safetensors \
        "$golden/inner/model-00002-of-00005.safetensors" "$to" ;;
    adapter) cp "$golden/adapter_experts/final/adapter_config.json" "$to" ;;
    index) cp "$golden"/bad_inputs/index_*.json "$golden/inner/model.safetensors.index.json" \
        "$to" ;;
    config) cp "$golden"/bad_inputs/config_*.json "$golden/inner/config.json" "$to" ;;
    tokenizer*) cp "$golden"/bad_inputs/tokenizer_*.json "$to" ;;
    jsonl) split -l 1 -a 5 "$golden/dataset.jsonl" "$to/line-" &&
        cp "$golden"/bad_inputs/*.jsonl "$to" ;;
    yaml) cases run.yaml ;;
    deepspeed) cases 'z*.json' ;;
    dataset_info) cases dataset_info.json ;;
    flags) tr ' ' '\n' <"$source/tests/migration/flags_train_sh/arguments" \
        >"$to/train_sh" ;;
    esac
    for seed in "$source/tests/fuzz/seeds/$1"[.-]*; do
        [ ! -e "$seed" ] || cp "$seed" "$to"
    done
}

# fuzz NAME: builds and runs a fuzzer; status 1: a finding
fuzz() {
    # shellcheck disable=SC2046,SC2086
    "$clang" $cflags $sanitize -fsanitize=fuzzer "$source/tests/fuzz/fuzz_$1.c" \
        "$work/libfuzz.a" $(pkg-config --libs $packages) -lm -o "$work/fuzz_$1" || return 1
    seeds "$1"
    words "$1" >"$work/words-$1"
    words=
    [ ! -s "$work/words-$1" ] || words=-dict=words-$1
    echo "fuzzing $1 for $seconds s"
    # shellcheck disable=SC2086 # none, or one
    if (cd "$work" && HY3_SOURCE=$source ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1 \
        LSAN_OPTIONS=suppressions="$source/tests/support/lsan.txt" \
        "./fuzz_$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=65536 \
        $words -artifact_prefix="$work/finding-$1-" -print_final_stats=1 "corpus-$1" \
        >"log-$1" 2>&1); then
        sed -n 's/^stat::number_of_executed_units: */  runs: /p' "$work/log-$1"
    else
        echo "  FINDING, see $work/log-$1:"
        grep -E 'ERROR|SUMMARY|runtime error|Test unit written' "$work/log-$1" | head -n 5
        return 1
    fi
}

# as many at a time as there are cores
failed=0
running=
number=0
finish() {
    for name in $running; do
        wait "${name#*:}" || failed=1
        cat "$work/said-${name%:*}"
    done
    running=
}
for file in "$source"/tests/fuzz/fuzz_*.c; do
    name=$(basename "$file" .c)
    name=${name#fuzz_}
    [ $# -eq 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
    fuzz "$name" >"$work/said-$name" 2>&1 &
    running="$running $name:$!"
    number=$((number + 1))
    [ $((number % $(nproc))) -ne 0 ] || finish
done
finish
[ "$failed" -eq 0 ] && [ -z "$FUZZ_DIR" ] && rm -rf "$work"
exit $failed
