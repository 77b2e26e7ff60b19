#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks the limits of the project. Prints each finding as "FILE:LINE: rule: what", then the sizes
# of the sources; the last line counts the findings. The exit status is 1 if there are any.
#   bash tests/lint/run.sh [SOURCE_DIR [RULE ...]]      (default: this tree, all rules)
# Rules, each a function below: columns functions files circles layers format spdx phrases
# promises.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-$here/../..}"
rules=("${@:2}")
all=(columns functions files circles layers format spdx phrases promises)
export LC_ALL=C

max_columns=100
max_function=60
max_file=600
# attention kernels of the GPU may be longer
exempt='^(src/)?cuda/(attention[.]cu|flash[^/]*[.]cuh)$'

# The files by kind. Not examined: builds, data, what autoreconf leaves, the reference generator.
c=()         # C, CUDA and C++
scripts=()   # other code
documents=() # Markdown
text=()      # what phrases are looked for in
while IFS= read -r file; do
    case $file in
    aclocal.m4 | config.h | m4/libtool.m4 | m4/lt*.m4 | tests/lint/phrases.txt) continue ;;
    tests/golden/*.md) documents+=("$file") && continue ;;
    tests/golden/* | etc/quickstart/*.json* | etc/quickstart/tokenizer/*) continue ;;
    # made by --write-reference, see tests/cli/reference.bats
    doc/config.md | doc/man/*) ;;
    *.md) documents+=("$file") ;;
    *.[ch] | *.cu | *.cuh | *.cpp) c+=("$file") ;;
    Makefile.inc | */Makefile.inc | tests/*.inc) scripts+=("$file") ;;
    *.inc) c+=("$file") ;;
    *.sh | *.bash | *.bats | *.tap | *.awk | *.py | *.sbatch) scripts+=("$file") ;;
    *.m4 | Makefile.am | configure.ac) scripts+=("$file") ;;
    *.cfg | *.txt | NEWS) ;;
    *)
        # shell programs without an extension
        first=
        [[ ${file##*/} == *.* ]] || IFS= read -r first <"$file" || true
        [[ $first == '#!/'*sh ]] || continue
        scripts+=("$file")
        ;;
    esac
    text+=("$file")
done < <(find . \( -path ./.git -o -path './build*' -o -path ./quickstart -o -name .deps \
    -o -name .libs -o -name autom4te.cache -o -name __pycache__ \) -prune -o -type f -print |
    sed 's|^\./||' | sort)
sources=() # C, CUDA and C++ of the program
for file in "${c[@]}"; do
    [[ $file != src/* && $file != cuda/* ]] || sources+=("$file")
done

columns() {
    awk -v limit=$max_columns -f "$here/columns.awk" "${c[@]}" "${scripts[@]}" </dev/null
    awk -v limit=$max_columns -v document=1 -f "$here/columns.awk" "${documents[@]}" </dev/null
}

functions() {
    awk -f "$here/functions.awk" "${c[@]}" </dev/null |
        awk -F '\t' -v limit=$max_function -v exempt="$exempt" '$3 > limit && $1 !~ exempt {
            printf "%s:%d: functions: %s has %d lines, at most %d\n", $1, $2, $4, $3, limit
        }'
}

files() {
    awk -v limit=$max_file -v exempt="$exempt" '
        FNR == limit + 1 && FILENAME !~ exempt {
            print FILENAME ":" FNR ": files: the file has more than " limit " lines"
        }' "${c[@]}" </dev/null
}

circles() {
    awk -f "$here/circles.awk" "${sources[@]}" </dev/null
}

layers() {
    awk -f "$here/layers.awk" src/layers.txt "${sources[@]}"
}

format() {
    local file
    if ! command -v clang-format >/dev/null; then
        echo ".clang-format:1: format: clang-format is missing, see batch/packages.sh"
        return
    fi
    for file in "${c[@]}"; do
        [[ $file == *.inc ]] || echo "$file"
    done | xargs -r clang-format --dry-run 2>&1 | sed -nE \
        's/^([^:]+:[0-9]+):[0-9]+: (warning|error): .*/\1: format: not as clang-format has it/p' |
        uniq
}

spdx() {
    awk '
        FNR == 1 { names[++n] = FILENAME }
        FNR <= 3 && /SPDX-License-Identifier: Apache-2[.]0/ { has[FILENAME] = 1 }
        FNR > 3 { nextfile }
        END {
            for (i = 1; i <= n; i++)
                if (!(names[i] in has))
                    print names[i] ":1: spdx: no SPDX-License-Identifier in the first three lines"
        }' "${c[@]}" "${scripts[@]}" </dev/null
}

phrases() {
    grep -v '^#' "$here/phrases.txt" |
        { grep -noiHIF -f - -- "${text[@]}" /dev/null || [ $? -eq 1 ]; } |
        sed -E "s/^([^:]+:[0-9]+):(.*)/\1: phrases: '\2'/"
}

promises() {
    awk -f "$here/promises.awk" "${documents[@]}" </dev/null
}

sizes() {
    awk -f "$here/functions.awk" "${sources[@]}" </dev/null | sort -t $'\t' -k 3,3nr | awk -F '\t' '
        { length_of[NR] = $3 }
        NR <= 5 { longest = longest sprintf("%7d %s:%d %s\n", $3, $1, $2, $4) }
        END {
            printf "%d functions, median %d lines; the longest:\n%s", NR,
                length_of[int(NR / 2) + 1], longest
        }'
    echo "lines without blank lines and comments:"
    bash "$here/lines.sh" .
}

for rule in "${rules[@]}"; do
    if [[ " ${all[*]} " != *" $rule "* ]]; then
        echo "run.sh: error: unknown rule '$rule', the rules are: ${all[*]}" >&2
        exit 2
    fi
done
selected=("${rules[@]}")
[ ${#rules[@]} -gt 0 ] || selected=("${all[@]}")
summary=
total=0
for rule in "${selected[@]}"; do
    found=$("$rule")
    [ -n "$found" ] || continue
    printf '%s\n' "$found"
    n=$(wc -l <<<"$found")
    summary+=", $rule $n"
    total=$((total + n))
done
[ ${#rules[@]} -gt 0 ] || sizes
if [ $total -gt 0 ]; then
    echo "lint: $total findings: ${summary#, }"
    exit 1
fi
echo "lint: no findings (${selected[*]})"
