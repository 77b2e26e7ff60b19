#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh checkout to a fine-tuned small model that answers a question: packages, build,
# hy3_init, hy3_sft on two ranks, hy3_generate. Can be repeated: it removes nothing that it did not
# make itself, and what hy3_sft finds in WORK_DIRECTORY/output it sets aside.
#   bash batch/quickstart.sh [WORK_DIRECTORY]       (default: ./quickstart)
# HY3_BIN=DIRECTORY uses the programs installed there instead of building them.
set -eu

work=${1:-quickstart}
case $work in
-*)
    sed -n '3,7s/^# //p' "$0"
    [ "$work" = --help ] && exit 0
    exit 2
    ;;
esac
source=$(cd "$(dirname "$0")/.." && pwd)
question="What is the lighthouse keeper's cat called?"
[ ! -e "$work" ] || [ -d "$work" ] || {
    echo "quickstart.sh: error: '$work' is a file, not a directory" >&2
    exit 2
}
mkdir -p "$work"
work=$(cd "$work" && pwd)

say() {
    printf '\n[%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

# logged STEP COMMAND …: the output goes to a file, which is shown only if the command fails
logged() {
    local step=$1
    shift
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        echo "quickstart.sh: error: $step failed; all of it is in '$log'" >&2
        exit 1
    fi
}

build() {
    local log=$source/build/quickstart.log
    mkdir -p "$source/build"
    rm -f "$log"
    (set -C && : >"$log") # through no link
    if [ ! -x "$source/configure" ] || [ "$source/configure.ac" -nt "$source/configure" ]; then
        logged autoreconf autoreconf -fi "$source"
    fi
    cd "$source/build"
    if [ ! -f Makefile ] || [ "$source/configure" -nt config.status ]; then
        logged configure "$source/configure"
    fi
    logged make make -j "$(nproc)"
    cd "$OLDPWD"
}

if [ -n "${HY3_BIN:-}" ]; then
    bin=$(cd "$HY3_BIN" && pwd)
else
    say "packages: installing what is missing"
    bash "$source/batch/packages.sh"
    say "build: $source/build"
    build
    bin=$source/build
fi
mpiexec=$(command -v mpiexec.mpich || command -v mpiexec)
# A signal to this script alone ends what it runs, too, which would go on training without it; the
# SIGINT of a terminal comes to all, and is waited for.
stop() {
    trap '' INT TERM HUP
    [ "$1" = INT ] || kill -TERM "$child" 2>/dev/null || true
    wait "$child" || true
    exit 75
}
run() {
    local code=0
    echo "\$ $*"
    "$@" </dev/null &
    child=$!
    trap 'stop INT' INT
    trap 'stop TERM' TERM HUP
    wait "$child" || code=$?
    trap - INT TERM HUP
    [ "$code" -eq 0 ] || exit "$code"
}

# The same model each time, so that one that is there can be compared with it and kept; one that
# hy3_init left unfinished is made again.
make_model() {
    local new=$work/model
    [ ! -e "$work/model" ] || [ -e "$work/model/.hy3_unfinished" ] ||
        new=$(mktemp -d "$work/model.XXXXXX")/model
    run "$bin/hy3_init" --shape "$source/etc/quickstart/shape.json" \
        --tokenizer "$source/etc/quickstart/tokenizer" --output_dir "$new"
    [ "$new" != "$work/model" ] || return 0
    if ! diff -r "$new" "$work/model" >/dev/null 2>&1; then
        rm -r "${new%/model}"
        echo "quickstart.sh: error: '$work/model' is not the model that this script makes;" \
            "move it elsewhere, or give another WORK_DIRECTORY" >&2
        exit 1
    fi
    rm -r "${new%/model}"
}

say "a small random Hy3"
make_model

say "fine-tuning on 2 ranks"
start=$SECONDS
run "$mpiexec" -n 2 "$bin/hy3_sft" "$source/etc/quickstart.cfg" model_name_or_path="$work/model" \
    train_data_file="$source/etc/quickstart/conversations.jsonl" output_dir="$work/output" \
    resume_from_checkpoint=none
took=$((SECONDS - start))
log=$work/output/train_log.jsonl

say "an answer to a training question"
run "$bin/hy3_generate" "$work/output" --prompt "$question"

loss() {
    sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' "$log" | sed -n "$1p"
}
say "done"
cat <<END
trained    in $took s, loss $(loss 1) -> $(loss '$') over $(wc -l <"$log") logged steps
output     $work/output: a Hugging Face directory (weights, config, tokenizer),
           train_log.jsonl, config.cfg, loss.png
ask        $bin/hy3_generate $work/output --prompt "Where can I buy bread?"
change     mpiexec -n 2 $bin/hy3_sft $work/output/config.cfg learning_rate=1e-3 \\
               output_dir=$work/other
your data  the same with train_data_file=YOURS.jsonl; every key: $bin/hy3_sft --help
END
