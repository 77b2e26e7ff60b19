#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# hy3_tokenize as users run it, and what is said to every hostile JSONL and tokenizer file of the
# golden case.

load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    make_config "$BATS_FILE_TMPDIR/model"
    CACHE=$BATS_TEST_TMPDIR/cache
}

tokenized() { # the token file of the cache
    find "$CACHE" -name '*.h5'
}

@test "--help, --version and wrong arguments" {
    run_ok hy3_tokenize --help
    run_ok hy3_tokenize --version
    run_fails 2 "" hy3_tokenize
    run_fails 2 "max_samples" hy3_tokenize "$CFG" max_sample=3
}

@test "it writes a token file and a summary" {
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    [ -s "$(tokenized)" ]
    cat "$OUT" "$ERR" | grep -qE '\b8\b.*samples|samples.*\b8\b'
}

@test "the token file does not depend on the number of ranks" {
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    cp "$(tokenized)" "$BATS_TEST_TMPDIR/one.h5"
    rm -r "$CACHE"
    run_ok "$MPIEXEC" -n 3 hy3_tokenize "$CFG" cache_dir="$CACHE"
    cmp "$BATS_TEST_TMPDIR/one.h5" "$(tokenized)"
}

@test "a second call uses the file again and a changed input rebuilds it" {
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    touch -d '1 hour ago' "$(tokenized)"
    before=$(stat -c %Y "$(tokenized)")
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    [ "$(stat -c %Y "$(tokenized)")" = "$before" ] || fail "rebuilt without need"
    sed -n 9p "$QUICK/conversations.jsonl" >>"$BATS_TEST_TMPDIR/train.jsonl"
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    [ "$(stat -c %Y "$(tokenized)")" != "$before" ] || fail "a stale file was used"
}

@test "a torn token file is rebuilt" {
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    cp "$(tokenized)" "$BATS_TEST_TMPDIR/good.h5"
    truncate -s 900 "$(tokenized)"
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    cmp "$BATS_TEST_TMPDIR/good.h5" "$(tokenized)"
}

@test "max_bad_samples lets a bad line pass and rejected.jsonl keeps it" {
    sed -i '3s/.*/{"messages":[}/' "$BATS_TEST_TMPDIR/train.jsonl"
    run_fails 1 "train.jsonl:3" hy3_tokenize "$CFG" cache_dir="$CACHE"
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE" max_bad_samples=1
    cat "$(find "$CACHE" -name '*rejected.jsonl')" | grep -q 3
}

@test "all bad lines are reported in one run" {
    sed -i -e '2s/.*/{}/' -e '5s/.*/[]/' "$BATS_TEST_TMPDIR/train.jsonl"
    run_fails 1 "train.jsonl:2" "$MPIEXEC" -n 2 hy3_tokenize "$CFG" cache_dir="$CACHE"
    grep -q "train.jsonl:5" "$ERR"
}

@test "every bad JSONL file is refused with file and line, every good one works" {
    WRONG=
    while read -r expect file line; do
        words=$file
        [ "$line" = - ] || words=$file:$line
        rm -rf "$CACHE"
        try_bad "$expect" "$words" hy3_tokenize "$CFG" cache_dir="$CACHE" \
            train_data_file="$GOLDEN/bad_inputs/$file"
    done < <(bad_inputs jsonl)
    [ -z "$WRONG" ] || fail "$WRONG"
}

@test "one broken line among ten thousand is found" {
    head -n 7345 < \
        <(yes '{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}') \
        >"$BATS_TEST_TMPDIR/train.jsonl"
    echo '{"messages":[}' >>"$BATS_TEST_TMPDIR/train.jsonl"
    head -n 2654 < \
        <(yes '{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}') \
        >>"$BATS_TEST_TMPDIR/train.jsonl"
    run_fails 1 "train.jsonl:7346" "$MPIEXEC" -n 2 hy3_tokenize "$CFG" cache_dir="$CACHE"
}

@test "every bad tokenizer.json is refused by name, every good one works" {
    WRONG=
    while read -r expect file _; do
        rm -rf "$CACHE" "$BATS_TEST_TMPDIR/tokenizer"
        cp -r "$GOLDEN/tokenizer" "$BATS_TEST_TMPDIR/tokenizer"
        chmod -R u+w "$BATS_TEST_TMPDIR/tokenizer"
        cp "$GOLDEN/bad_inputs/$file" "$BATS_TEST_TMPDIR/tokenizer/tokenizer.json"
        try_bad "$expect" tokenizer.json hy3_tokenize "$CFG" cache_dir="$CACHE" \
            tokenizer_name_or_path="$BATS_TEST_TMPDIR/tokenizer"
    done < <(bad_inputs tokenizer)
    [ -z "$WRONG" ] || fail "$WRONG"
}

@test "a pattern that takes too many steps is named, with the line it was stopped on" {
    local hostile=$BATS_TEST_TMPDIR/hostile data=$BATS_TEST_TMPDIR/train.jsonl
    cp -r "$QUICK/tokenizer" "$hostile"
    local split='{"type":"Split","pattern":{"Regex":"(a+)+b"},"behavior":"Isolated"}'
    sed -i 's/"pretokenizers": *\[/&'"$split"',/' "$hostile/tokenizer.json"
    { printf '{"messages":[{"role":"user","content":"%030000d cb"},' 0 | tr 0 a
      echo '{"role":"assistant","content":"yes"}]}'; } >>"$data"
    run_fails 1 "$data:9: " hy3_tokenize "$CFG" cache_dir="$CACHE" tokenizer_name_or_path="$hostile"
    grep -qF "hostile/tokenizer.json: the split pattern '(a+)+b' takes too many steps" "$ERR"
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE" tokenizer_name_or_path="$hostile" \
        max_bad_samples=1
}

# Some 10 MB: fewer are not worth keeping.
make_large() {
    for _ in {1..12}; do cat "$QUICK/conversations.jsonl"; done >"$BATS_TEST_TMPDIR/some"
    for i in {1..400}; do
        sed "s/\"content\": \"/&$i /" "$BATS_TEST_TMPDIR/some"
        [ "$(stat -c %s "$BATS_TEST_TMPDIR/train.jsonl")" -lt 10000000 ] || break
    done >"$BATS_TEST_TMPDIR/train.jsonl"
}

parts() { # bytes of the parts in the cache
    cat "$CACHE"/train.parts.* 2>/dev/null | wc -c
}

@test "killed halfway it goes on from its finished pieces, on any ranks, to the same bytes" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    local pid
    make_large
    run_ok "$MPIEXEC" -n 2 hy3_tokenize "$CFG" cache_dir="$CACHE"
    ! grep -q 'taken over' "$ERR" || fail "$(shown)"
    mv "$CACHE/train.h5" "$BATS_TEST_TMPDIR/calm.h5"
    for ranks in 1 3; do
        hy3_tokenize "$CFG" cache_dir="$CACHE" >/dev/null 2>&1 &
        pid=$!
        for _ in {1..600}; do
            [ "$(parts)" -lt 2000000 ] || break
            sleep 0.05
        done
        kill -9 $pid
        wait $pid || true
        [ "$(parts)" -gt 0 ] || fail "no parts were kept"
        if [ $ranks -eq 3 ]; then # hy3_sft takes them over as well
            capture "$MPIEXEC" -n 3 hy3_sft "$CFG" cache_dir="$CACHE" max_steps=1
        else
            run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
        fi
        grep -q 'pieces ([0-9.]*%) were tokenized by a run that was ended; they are taken' "$ERR" ||
            fail "$(cat "$ERR")"
        cmp "$BATS_TEST_TMPDIR/calm.h5" "$CACHE/train.h5"
        [ "$(parts)" -eq 0 ]
        rm "$CACHE/train.h5"
    done
}

@test "a stop signal ends it within seconds, and what is finished is kept" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    local pid begin
    make_large
    hy3_tokenize "$CFG" cache_dir="$CACHE" >/dev/null 2>&1 &
    pid=$!
    for _ in {1..600}; do
        [ "$(parts)" -lt 1000000 ] || break
        sleep 0.05
    done
    begin=$SECONDS
    kill -TERM $pid
    wait $pid && fail "it ended well"
    [ $((SECONDS - begin)) -le 5 ]
    [ "$(parts)" -gt 0 ]
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE"
    grep -q 'taken over' "$ERR"
}
