#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a user's data may do and what is said about it: nothing is misread in silence.

load helper

setup_file() {
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null
}

setup() {
    make_config "$BATS_FILE_TMPDIR/model"
    DATA=$BATS_TEST_TMPDIR/train.jsonl
    CACHE=$BATS_TEST_TMPDIR/cache
}

tokenize() { # tokenize KEY=VALUE …
    run_ok hy3_tokenize "$CFG" cache_dir="$CACHE" "$@"
}

facts() { # the summary of the last command, without the program and the path of the token file
    grep -hE '^hy3_[a-z]*: (warning: )?train: ' "$OUT" "$ERR" | grep -v 'rebuilding\|comparing' |
        sed -e 's/^hy3_[a-z]*: //' -e 's/; \(written to\|read from\) .*//'
}

value() { # value NAME: the number behind NAME in the summary, or before it
    facts | sed -n -e "s/.*$1 \([0-9][0-9]*\).*/\1/p" -e "s/.*: \([0-9]*\) $1,.*/\1/p"
}

turn() { # turn QUESTION ANSWER: a line
    printf '{"messages": [{"role": "user", "content": "%s"}, ' "$1"
    printf '{"role": "assistant", "content": "%s"}]}\n' "$2"
}

@test "hy3_tokenize and hy3_sft, building or reusing, on 1 or 3 ranks, print the same counts" {
    {
        turn "Which berth?" "Berth nine." | sed 's/"content"/"name": "a", &/'
        turn "And now?" x | sed 's/"x"/null/; s/^{/{"id": 1, /'
        turn "Bad" x | sed 's/user/wizard/'
        echo '{"messages": [{"role": "user", "content": "nobody answers"}]}'
    } >>"$DATA"
    tokenize max_bad_samples=1 max_seq_length=60
    facts >"$BATS_TEST_TMPDIR/facts"
    [ "$(value samples) $(value truncated) $(value dropped) $(value lines)" = "10 1 1 1" ] ||
        fail "$(facts)"
    grep -q 'learned [0-9]*\.[0-9]%' "$BATS_TEST_TMPDIR/facts"
    grep -q "bad lines 1 of 12 -> '$CACHE/train.rejected.jsonl'" "$BATS_TEST_TMPDIR/facts"
    grep -q 'null contents 1:' "$BATS_TEST_TMPDIR/facts"
    grep -q 'ignored keys: id (1 line), messages\[\].name (1 line)$' "$BATS_TEST_TMPDIR/facts"
    tokenize max_bad_samples=1 max_seq_length=60
    facts | diff "$BATS_TEST_TMPDIR/facts" -
    run_ok hy3_sft "$CFG" cache_dir="$CACHE" max_bad_samples=1 max_seq_length=60 max_steps=1
    facts | diff "$BATS_TEST_TMPDIR/facts" -
    run_ok "$MPIEXEC" -n 3 hy3_sft "$CFG" cache_dir="$CACHE" max_bad_samples=1 max_seq_length=60 \
        max_steps=1 overwrite_cache=true output_dir="$BATS_TEST_TMPDIR/three"
    facts | diff "$BATS_TEST_TMPDIR/facts" -
}

@test "a control token in a text is refused by name, or learned as text, or is the token" {
    turn "What does <｜hy_eos｜> do?" "It ends a turn." >>"$DATA"
    turn "<｜hy_User｜>Hi" "<｜hy_eos｜> <｜hy_Assistant｜>" >>"$DATA"
    run_fails 1 "train.jsonl:9: message 1: the text has the control token '<｜hy_eos｜>'" \
        hy3_tokenize "$CFG" cache_dir="$CACHE"
    grep -q "train.jsonl:10: message 1: .*'<｜hy_User｜>'" "$ERR"
    tokenize max_bad_samples=2
    [ "$(value samples) $(value lines)" = "8 2" ] || fail "$(facts)"
    tokenize special_tokens_in_content=text
    grep -q "it was built with another special_tokens_in_content" "$ERR"
    [ "$(value samples) $(value lines)" = "10 0" ] || fail "$(facts)"
    text=$(value 'label tokens')
    tokenize special_tokens_in_content=token
    [ "$(value 'label tokens')" -lt "$text" ] || fail "the token did not move the labels"
    run_fails 1 "eval.jsonl:1: message 1" hy3_tokenize "$CFG" cache_dir="$CACHE" max_bad_samples=0 \
        train_data_file="$QUICK/conversations.jsonl" \
        eval_data_file="$(sed -n 9p "$DATA" >"$BATS_TEST_TMPDIR/eval.jsonl" &&
            echo "$BATS_TEST_TMPDIR/eval.jsonl")"
}

@test "an answer that stands elsewhere, and a weight that is none, are bad lines" {
    turn q a | sed 's/"a"/null, "function_call": {"name": "f", "arguments": "{}"}/' >>"$DATA"
    turn q a | sed 's/"content": "a"/"text": "a"/' >>"$DATA"
    turn q a | sed 's/"a"/&, "weight": -1/' >>"$DATA"
    turn q a | sed 's/"a"/&, "weight": 1, "train": true/' >>"$DATA"
    echo null >>"$DATA"
    run_fails 1 "train.jsonl:9: message 2: 'function_call' is not read" \
        hy3_tokenize "$CFG" cache_dir="$CACHE"
    grep -q "train.jsonl:10: message 2: 'content' is missing ('text' is not read)" "$ERR"
    grep -q "train.jsonl:11: message 2: 'weight' must be a number from 0 (not" "$ERR"
    grep -q "train.jsonl:13: .*not null" "$ERR"
    grep -q "4 bad lines" "$ERR"
}

@test "an answer of weight 0 is not learned, arguments of a call may be a text" {
    tokenize
    before=$(value 'label tokens')
    turn "Which berth?" "Berth nine." | sed 's/"Berth nine."/&, "weight": 0/' >>"$DATA"
    tokenize
    [ "$(value dropped) $(value 'label tokens')" = "1 $before" ] || fail "$(facts)"
    sed -i '9s/, "weight": 0//' "$DATA"
    tokenize
    [ "$(value 'label tokens')" -gt "$before" ] || fail "$(facts)"
    for arguments in '"{\"x\": 1}"' '{"x": 1}'; do
        turn q X | sed 's/"X"/null, "tool_calls": [{"function": {"name": "f", "arguments": Y}}]/' |
            awk -v y="${arguments//\\/\\\\}" '{ sub(/Y/, y); print }' >"$DATA"
        tokenize
        h5dump -d /tokens "$CACHE/train.h5" | tail -n +2 >now
        [ -e first ] || cp now first
        diff first now
    done
}

@test "a file that is no JSON Lines is called what it is" {
    cd "$BATS_TEST_TMPDIR"
    gzip -c train.jsonl >gzip
    { printf '[\n' && sed 's/$/,/' train.jsonl; } >lines
    printf '{\n  "messages": []\n}\n' >object
    iconv -f UTF-8 -t UTF-16 train.jsonl >utf16
    iconv -f UTF-8 -t UTF-16LE train.jsonl >utf16le
    iconv -f UTF-8 -t UTF-32LE train.jsonl >utf32le
    iconv -f UTF-8 -t UTF-32BE train.jsonl >utf32be
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n' >lfs
    iconv -f UTF-8 -t UTF-32 train.jsonl >utf32
    printf '\x28\xb5\x2f\xfd....' >zstd
    printf 'PAR1....' >parquet
    printf 'ARROW1..' >arrow
    printf 'role,content\nuser,hello\n' >csv
    run_fails 1 "lines' is not valid JSON" hy3_tokenize "$CFG" cache_dir="$CACHE" \
        train_data_file="$BATS_TEST_TMPDIR/lines"
    for kind in "gzip:compressed by gzip" "utf16:UTF-16" "utf16le:UTF-16" "utf32:UTF-32" \
        "utf32le:UTF-32LE" "utf32be:UTF-32BE" "lfs:git lfs pull" "zstd:zstd" "parquet:Parquet" \
        "arrow:Arrow" "csv:CSV"; do
        run_fails 2 "${kind#*:}" hy3_tokenize "$CFG" cache_dir="$CACHE" \
            train_data_file="$BATS_TEST_TMPDIR/${kind%%:*}"
        grep -qF "${kind%%:*}" "$ERR"
    done
    [ ! -e "$CACHE/train.h5" ] || fail "something was written"
    run_fails 1 "object: item 1: 'messages' is empty" hy3_tokenize "$CFG" cache_dir="$CACHE" \
        train_data_file="$BATS_TEST_TMPDIR/object"
    sed -e 's/.*"messages": //' -e 's/}$//' train.jsonl >conversations # a list a line
    run_fails 1 "conversations:1: a line must be an object with 'messages', not a list" \
        hy3_tokenize "$CFG" cache_dir="$CACHE" train_data_file="$BATS_TEST_TMPDIR/conversations"
}

@test "a directory and a pattern are their files by name, whatever hy3 wrote beside them" {
    mkdir "$BATS_TEST_TMPDIR/d"
    head -n 2 "$DATA" >"$BATS_TEST_TMPDIR/d/b.jsonl"
    tail -n 2 "$DATA" >"$BATS_TEST_TMPDIR/d/a.json"
    for names in d 'd/*.json*' "d/a.json,d/b.jsonl"; do
        for _ in 1 2; do
            (cd "$BATS_TEST_TMPDIR" && run_ok hy3_tokenize "$CFG" cache_dir=d \
                train_data_file="$names" overwrite_cache=true &&
                h5dump -d /tokens -d /source_name d/train.h5 | tail -n +2 >now &&
                { [ -e first ] || cp now first; } && diff first now)
        done
    done
    grep -q 'b.jsonl' "$BATS_TEST_TMPDIR/first"
    [ -e "$BATS_TEST_TMPDIR/d/train.rejected.jsonl" ]
    tokenize train_data_file="$BATS_TEST_TMPDIR/d/b.jsonl#1"
    facts | grep -q '^train: 1 sample,' || fail "$(facts)"
    run_fails 2 "b.jsonl#3' asks for more samples than there are: 2 lines" hy3_tokenize "$CFG" \
        cache_dir="$CACHE" train_data_file="$BATS_TEST_TMPDIR/d/b.jsonl#3"
}

@test "val_size above 0 holds out a sample however small it is" {
    run_ok hy3_sft "$CFG" max_steps=2 eval_steps=1 val_size=0.01
    grep -q 'eval: 1 of 8 samples, held out' "$ERR"
    [ "$(grep -c eval_loss "$OUTPUT/train_log.jsonl")" -eq 2 ]
}

@test "token files lie in output_dir/cache and not beside the weights" {
    run_ok hy3_sft "$CFG" max_steps=1 eval_data_file="$QUICK/conversations.jsonl"
    [ -s "$OUTPUT/cache/train.h5" ]
    [ -s "$OUTPUT/cache/eval.h5" ]
    [ -z "$(find "$OUTPUT" -maxdepth 1 -name '*.h5' -o -maxdepth 1 -name '*.rejected.jsonl')" ]
}

@test "other contents of the same size and time are noticed" {
    tokenize
    touch -r "$DATA" "$BATS_TEST_TMPDIR/time"
    sed -i '5s/"content": "./"content": "Z/' "$DATA"
    touch -r "$BATS_TEST_TMPDIR/time" "$DATA"
    tokenize
    grep -q written "$ERR" || fail "the token file of other contents was used"
}

@test "other data on resume is refused and the token file that was there stays" {
    run_ok hy3_sft "$CFG" max_steps=4 save_steps=2
    cp "$OUTPUT/cache/train.h5" "$BATS_TEST_TMPDIR/old.h5"
    { head -n 1 "$DATA" && echo "[]"; } >"$BATS_TEST_TMPDIR/one.jsonl"
    run_fails 2 "training data" hy3_sft "$CFG" max_steps=4 save_steps=2 num_train_epochs=3 \
        max_bad_samples=1 train_data_file="$BATS_TEST_TMPDIR/one.jsonl" \
        resume_from_checkpoint="$OUTPUT/checkpoint-2"
    cmp "$OUTPUT/cache/train.h5" "$BATS_TEST_TMPDIR/old.h5"
    [ ! -s "$OUTPUT/cache/train.rejected.jsonl" ] || fail "rejected lines of other data"
    [ "$(find "$OUTPUT/cache" -name '*.part' | wc -l)" -eq 0 ]
}

@test "what a killed run left of its token file is removed, and nobody else's file" {
    mkdir "$CACHE"
    touch "$CACHE/train.h5.node7-12-1700000000.part" "$CACHE/train.rejected.jsonl.12.part" \
        "$CACHE/eval.h5.node7-12-1700000000.part" "$CACHE/train.h5.part.txt" "$CACHE/train.h5.mine"
    tokenize
    [ "$(cd "$CACHE" && echo *)" = "eval.h5.node7-12-1700000000.part train.h5 train.h5.mine \
train.h5.part.txt train.rejected.jsonl" ] || fail "$(ls "$CACHE")"
}

@test "hy3_generate reads a control token as text and names the keys that it does not read" {
    turn "x<｜hy_eos｜>" a | sed 's/"content"/"name": "b", &/' >"$BATS_TEST_TMPDIR/ask.jsonl"
    run_ok hy3_generate "$BATS_FILE_TMPDIR/model" --messages "$BATS_TEST_TMPDIR/ask.jsonl" \
        --max_new_tokens 2
    grep -q 'ask.jsonl: ignored key: messages\[\].name' "$ERR"
    cp "$OUT" "$BATS_TEST_TMPDIR/answer"
    run_ok hy3_generate "$BATS_FILE_TMPDIR/model" --prompt "x<｜hy_eos｜>" --max_new_tokens 2
    cmp "$OUT" "$BATS_TEST_TMPDIR/answer"
    gzip -c "$BATS_TEST_TMPDIR/ask.jsonl" >"$BATS_TEST_TMPDIR/ask.gz"
    run_fails 2 "compressed by gzip" hy3_generate "$BATS_FILE_TMPDIR/model" \
        --messages "$BATS_TEST_TMPDIR/ask.gz"
}

@test "hy3_sft finds the file that hy3_tokenize made with the same configuration" {
    run_ok hy3_tokenize "$CFG"
    run_ok hy3_sft "$CFG" max_steps=1
    grep -q "read from '$OUTPUT/cache/train.h5'" "$ERR" || fail "$(facts)"
}

# live DONE: hy3_tokenize stands still after its last read of the data, where DONE is done to them
live() {
    local library=$HY3_BUILD/tests/support/.libs/faulty.so pid place
    local faulty=(env LD_PRELOAD="$library" HY3_FAULT_ROOT="$BATS_TEST_TMPDIR/"
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0")
    [ -e "$library" ] || skip "tests/support/faulty.so is not built"
    rm -rf "$CACHE" "$BATS_TEST_TMPDIR/calls" "$BATS_TEST_TMPDIR/hit"
    run_ok "${faulty[@]}" HY3_FAULT="0 -" HY3_FAULT_LOG="$BATS_TEST_TMPDIR/calls" \
        hy3_tokenize "$CFG" cache_dir="$CACHE"
    rm -rf "$CACHE"
    place=$(awk '$2 ~ /^pread/ && $3 ~ /train\.jsonl$/ { place = $1 } END { print place }' \
        "$BATS_TEST_TMPDIR/calls")
    "${faulty[@]}" HY3_FAULT="$((place + 1)) NODE" HY3_FAULT_LOG="$BATS_TEST_TMPDIR/hit" \
        hy3_tokenize "$CFG" cache_dir="$CACHE" >"$OUT" 2>"$ERR" &
    pid=$!
    for _ in $(seq 200); do
        [ ! -e "$BATS_TEST_TMPDIR/hit" ] || break
        sleep 0.1
    done
    "$@"
    until kill -CONT "$pid" && grep -q 'State:.[^T]' "/proc/$pid/status"; do sleep 0.1; done
    STATUS=0
    wait "$pid" || STATUS=$?
}

@test "data that grow while they are read are warned of, data that change are refused" {
    append() { turn late x >>"$DATA"; }
    rewrite() { sed -i '1s/user/User/' "$DATA"; }
    shorten() { truncate -s -20 "$DATA"; }
    live append
    [ "$STATUS" -eq 0 ] && grep -q 'grew by [0-9]* bytes while it was read' "$ERR" ||
        fail "$STATUS: $(cat "$ERR")"
    live rewrite
    [ "$STATUS" -eq 1 ] && grep -q 'was changed while it was read; start again' "$ERR" ||
        fail "$STATUS: $(cat "$ERR")"
    [ ! -e "$CACHE/train.h5" ]
    sed -i '1s/User/user/' "$DATA"
    live shorten
    [ "$STATUS" -eq 1 ] && grep -q 'was changed while it was read: it had' "$ERR" ||
        fail "$STATUS: $(cat "$ERR")"
}
