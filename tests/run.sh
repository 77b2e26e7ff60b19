#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds hy3 and runs every test; the last line is "N passed, N failed, N skipped".
#   bash tests/run.sh [BUILD_DIRECTORY]             (default: build-tests in the source tree)
# HY3_CONFIGURE adds arguments of configure, e.g. --enable-sanitizers; HY3_JOBS is how many tests
# run at once (default 2).
set -u

source=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$source/build-tests}
log=

# ends the run where no test could be run
give_up() {
    [ -z "$log" ] || tail -n 60 "$log"
    echo "tests/run.sh: error: $1"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

# logged STEP COMMAND …: quiet unless it fails
logged() {
    local step=$1 begin=$SECONDS
    shift
    log=$build/$step.log
    "$@" >"$log" 2>&1 </dev/null || give_up "$step failed, all of it is in '$log'"
    echo "$step: $((SECONDS - begin)) s"
    log=
}

bash "$source/batch/packages.sh" tests || give_up "packages are missing"
{ mkdir -p "$build" && cd "$build"; } || give_up "cannot use '$build'"
build=$PWD
if [ ! -x "$source/configure" ] || [ "$source/configure.ac" -nt "$source/configure" ]; then
    logged autoreconf autoreconf -fi "$source"
fi
# shellcheck disable=SC2086 # a list of words
logged configure "$source/configure" --enable-developer --enable-cuda-emulation=check \
    ${HY3_CONFIGURE:-}
logged make make -j "$(nproc)"
logged make-tests make -j "$(nproc)" check TESTS=

# a result of an earlier run must not be counted
find . -name '*.trs' -exec rm -f {} +
begin=$SECONDS
make -j "${HY3_JOBS:-2}" check >check.log 2>&1 </dev/null
status=$?
echo "make check: $((SECONDS - begin)) s"

# The TAP driver leaves a line ":test-result: PASS" a fact in the .trs file, and its name in the
# .log beside it.
find . -name '*.trs' | sort | xargs -r grep -H '^:test-result:' | sed 's|^\./||' >results.txt
count() {
    grep -cE ":test-result: $1\$" results.txt
}
passed=$(count PASS)
skipped=$(count SKIP)
failed=$(($(wc -l <results.txt) - passed - skipped))
# facts RESULT: the lines of the logs about such facts
facts() {
    grep -E ":test-result: ($1)" results.txt | sed 's/\.trs:.*/.log/' | sort -u |
        xargs -r grep -hE "^($1): " | sed 's/^/  /'
}

# slowest COMMAND …: ten of the lines "SECONDS name" that the command writes
slowest() {
    "$@" | sort -rn | head -n 10 | sed 's/^/  /'
}

seconds_of_files() {
    sed 's/\.trs:.*/.log/' results.txt | sort -u | xargs -r grep -H '^# took ' |
        sed -n 's/^\(.*\)\.log:# took \([0-9.]*\)$/\2 \1/p'
}

# of the facts of .bats files; the others tell no times
seconds_of_facts() {
    sed 's/\.trs:.*/.log/' results.txt | sort -u |
        xargs -r grep -hE '^(PASS|FAIL): .* in [0-9]+ms' |
        sed -nE 's/^[A-Z]*: (.*) in ([0-9]+)ms.*/\2 \1/p' |
        awk '{ $1 = sprintf("%.1f", $1 / 1000); print }'
}

echo "the slowest, in seconds:"
slowest seconds_of_files
slowest seconds_of_facts
if [ "$skipped" -gt 0 ]; then
    echo "skipped:"
    facts SKIP
fi
if [ "$failed" -gt 0 ]; then
    grep -vE ':test-result: (PASS|SKIP)$' results.txt | sed 's/\.trs:.*/.log/' | sort -u |
        while read -r test_log; do
            echo "--- $test_log (its end)"
            tail -n 60 "$test_log"
        done
    echo "failed:"
    facts 'FAIL|ERROR|XPASS|XFAIL'
elif [ "$status" -ne 0 ]; then
    tail -n 60 check.log
    echo "tests/run.sh: error: make check ended with status $status though no test failed"
    failed=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
