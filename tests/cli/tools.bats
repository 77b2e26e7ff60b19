#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# hy3_convert, hy3_merge and hy3_check as users run them, against the public tools' answers, and
# killed at any moment.

load helper

LIST="$HY3_BUILD/tests/support/list_tensors"

setup() {
    D=$BATS_TEST_TMPDIR
}

# "name dtype shape shard sha256" of every tensor of a directory, sorted.
sums() {
    "$LIST" --sums "$1" | sort
}

same_directories() {
    diff -r "$1" "$2" || fail "'$1' and '$2' differ"
}

@test "hy3_convert gives the public converter's tensors, shards and sizes" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer" --keep-residue
    diff <("$LIST" "$GOLDEN/outer_manifest.json" | sort) <(sums "$D/outer")
    for n in 1:264432 2:16 3:69664 4:16 5:235672; do
        [ "$(stat -c %s "$D/outer/model-0000${n%:*}-of-00005.safetensors")" -eq "${n#*:}" ]
    done
    cmp "$GOLDEN/inner/config.json" "$D/outer/config.json"
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/clean"
    [ ! -e "$D/clean/model-00002-of-00005.safetensors" ]
    [ ! -e "$D/clean/model-00004-of-00005.safetensors" ]
    cmp "$D/clean/model.safetensors.index.json" "$D/outer/model.safetensors.index.json"
    run_ok hy3_check "$D/outer" --all
    run_ok hy3_check "$D/clean" --all
}

@test "hy3_convert back is the identity on every tensor, MTP included" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    run_ok hy3_convert --to inner --input_dir "$D/outer" --output_dir "$D/inner"
    diff <(sums "$GOLDEN/inner" | cut -d' ' -f1,2,3,5) <(sums "$D/inner" | cut -d' ' -f1,2,3,5)
    run_ok hy3_convert --to outer --input_dir "$D/inner" --output_dir "$D/again"
    diff <(sums "$D/outer") <(sums "$D/again")
}

@test "the result does not depend on ranks and workers" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/one" --workers 1
    run_ok "$MPIEXEC" -n 3 hy3_convert --to outer --input_dir "$GOLDEN/inner" \
        --output_dir "$D/three" --workers 2
    same_directories "$D/one" "$D/three"
    run_ok hy3_merge --base_model_path "$GOLDEN/inner" \
        --adapter_model_path "$GOLDEN/adapter_experts/final" \
        --save_dtype bf16 --output_path "$D/merged"
    run_ok "$MPIEXEC" -n 3 hy3_merge --base_model_path "$GOLDEN/inner" \
        --adapter_model_path "$GOLDEN/adapter_experts/final" \
        --output_path "$D/merged3"
    same_directories "$D/merged" "$D/merged3"
}

@test "--max_shard_size cuts into shards of that size" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/cut" \
        --max_shard_size 100kB
    [ "$(find "$D/cut" -name '*.safetensors' | wc -l)" -ge 4 ]
    diff <(sums "$D/cut" | cut -d' ' -f1,2,3,5) \
        <("$LIST" "$GOLDEN/outer_manifest.json" | sort | cut -d' ' -f1,2,3,5)
    run_ok hy3_check "$D/cut" --all
}

@test "hy3_merge rounds as PEFT does: bf16 and fp16 bit for bit" {
    local adapter dtype
    for adapter in adapter adapter_experts; do
        for dtype in bf16 fp16; do
            run_ok hy3_merge --base_model_path "$GOLDEN/inner" \
                --adapter_model_path "$GOLDEN/$adapter/final" \
        --save_dtype $dtype --output_path "$D/$adapter-$dtype"
            # the public script leaves the MTP layer out, we carry it through
            diff <("$LIST" "$GOLDEN/merged_manifest.json" $adapter-$dtype | sort |
                cut -d' ' -f1,2,3,5) \
                <(sums "$D/$adapter-$dtype" | grep -v 'model\.layers\.3\.' | cut -d' ' -f1,2,3,5)
            diff <(sums "$GOLDEN/inner" | grep 'model\.layers\.3\.') \
                <(sums "$D/$adapter-$dtype" | grep 'model\.layers\.3\.')
            run_ok hy3_check "$D/$adapter-$dtype" --all
        done
    done
    grep -q '"dtype": "float16"' "$D/adapter-fp16/config.json"
}

@test "hy3_merge takes outer names as well" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    run_ok hy3_merge --base_model_path "$D/outer" \
        --adapter_model_path "$GOLDEN/adapter_experts/final" --output_path "$D/merged"
    run_ok hy3_convert --to inner --input_dir "$D/merged" --output_dir "$D/inner"
    diff <("$LIST" "$GOLDEN/merged_manifest.json" adapter_experts-bf16 | sort |
        cut -d' ' -f1,2,3,5) \
        <(sums "$D/inner" | grep -v 'model\.layers\.3\.' | cut -d' ' -f1,2,3,5)
}

# Kills COMMAND … at random moments of its life, then lets it end; its output must be that of an
# undisturbed run.
killed_at_random() { # OUTPUT UNDISTURBED COMMAND …
    local output=$1 undisturbed=$2 begin took
    shift 2
    begin=$(date +%s%N)
    ("$@" "$undisturbed" 2>/dev/null)
    took=$((($(date +%s%N) - begin) / 1000000))
    for i in $(seq "$([ -n "${HY3_LONG:-}" ] && echo 20 || echo 4)"); do
        [ $((i % 4)) -ne 1 ] || rm -rf "$output" # each beginning is killed up to four times
        "$@" "$output" 2>/dev/null 3>&- &
        sleep "$(printf '%d.%03d' 0 $((RANDOM % (took < 999 ? took + 1 : 999))))"
        kill -9 $! 2>/dev/null || true
        wait $! 2>/dev/null || true
        [ ! -e "$output/model.safetensors.index.json" ] ||
            hy3_check "$output" --spot-check 0 >/dev/null 2>&1 ||
            fail "an index stood over missing weights"
    done
    ("$@" "$output" 2>/dev/null)
    find "$output" -name '*.part' -exec false {} + || fail "temporary files were left"
    same_directories "$output" "$undisturbed"
}

big_model() {
    sed -e 's/"hidden_size": [0-9]*/"hidden_size": 256/' \
        -e 's/"vocab_size": [0-9]*/"vocab_size": 8000/' \
        "$QUICK/shape.json" >"$D/shape.json"
    hy3_init --shape "$D/shape.json" --tokenizer "$QUICK/tokenizer" --output_dir "$D/model" \
        --seed 3 \
        --max_shard_size 500kB >/dev/null 2>&1
}

@test "hy3_convert killed at random moments completes and equals an undisturbed run" {
    big_model
    to_outer() { exec hy3_convert --to outer --input_dir "$D/model" --workers 1 --output_dir "$1"; }
    killed_at_random "$D/killed" "$D/whole" to_outer
}

@test "hy3_merge killed at random moments completes and equals an undisturbed run" {
    big_model
    make_config "$D/model"
    run_ok hy3_sft "$CFG" finetuning_type=lora lora_rank=4 lora_target=all max_steps=2 \
        output_dir="$D/adapter" plot_loss=false
    to_merged() {
        exec hy3_merge --base_model_path "$D/model" --adapter_model_path "$D/adapter" --workers 1 \
            --output_path "$1"
    }
    killed_at_random "$D/killed" "$D/whole" to_merged
}

@test "the source is never touched" {
    cp -r "$GOLDEN/inner" "$D/source"
    chmod -R a-w "$D/source"
    find "$D/source" -printf '%p %s %T@\n' | sort >"$D/before"
    run_ok hy3_convert --to outer --input_dir "$D/source" --output_dir "$D/outer"
    run_fails 2 "lies in the source directory" hy3_convert --to outer --input_dir "$D/source" \
        --output_dir "$D/source"
    run_fails 2 "lies in the source directory" hy3_convert --to outer --input_dir "$D/source" \
        --output_dir "$D/source/new"
    ln -s "$D/source" "$D/link"
    run_fails 2 "lies in the source directory" hy3_convert --to outer --input_dir "$D/source" \
        --output_dir "$D/link"
    find "$D/source" -printf '%p %s %T@\n' | sort | cmp - "$D/before"
}

@test "another source, other settings or foreign files are refused, a finished output is kept" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    grep -q "3 of 3 shards .* kept" "$ERR"
    run_fails 2 "not empty" hy3_convert --to outer --input_dir "$GOLDEN/inner" \
        --output_dir "$D/outer" --max_shard_size 1MB
    cp -r "$GOLDEN/inner" "$D/other"
    chmod -R u+w "$D/other"
    sed -i 's/"rope_theta": [0-9.]*/"rope_theta": 5.0/' "$D/other/config.json"
    run_fails 2 "not empty" hy3_convert --to outer --input_dir "$D/other" --output_dir "$D/outer"
    mkdir "$D/begun" && touch "$D/begun/.hy3_rewrite.json.part" # killed in its first moment
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/begun"
    same_directories "$D/begun" "$D/outer"
    mkdir "$D/mine" && touch "$D/mine/thesis.tex"
    run_fails 2 "not empty" hy3_convert --to outer --input_dir "$GOLDEN/inner" \
        --output_dir "$D/mine"
}

@test "a damaged half of an output is made again" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    cp -r "$D/outer" "$D/good"
    truncate -s 1000 "$D/outer/model-00003-of-00005.safetensors"
    rm "$D/outer/model-00001-of-00005.safetensors"
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    grep -q "1 of 3 shards .* kept" "$ERR"
    same_directories "$D/outer" "$D/good"
    rm "$D/outer/model-00001-of-00005.safetensors" "$D/outer/model.safetensors.index.json"
    run_fails 2 "not empty" hy3_convert --to outer --input_dir "$GOLDEN/inner" \
        --output_dir "$D/outer" # without a mark the shards may be of another model
    run_ok hy3_merge --base_model_path "$GOLDEN/inner" \
        --adapter_model_path "$GOLDEN/adapter/final" --output_path "$D/merged"
    cp -r "$D/merged" "$D/good-merged"
    rm "$D/merged/model-00001-of-00005.safetensors" "$D/merged/model.safetensors.index.json"
    run_ok hy3_merge --base_model_path "$GOLDEN/inner" \
        --adapter_model_path "$GOLDEN/adapter/final" --output_path "$D/merged"
    same_directories "$D/merged" "$D/good-merged"
}

# A base directory with everything that a run, a download and a user leave in one.
littered() {
    cp -r "$GOLDEN/inner" "$1"
    chmod -R u+w "$1"
    mkdir "$1/checkpoint-5" "$1/cache" "$1/.git"
    for name in train.h5 eval.h5 train_log.jsonl config.cfg loss.png train.rejected.jsonl .env \
        .hy3_rewrite.json .hy3_run adapter_model.safetensors notes.txt stray.py; do
        echo private >"$1/$name"
    done
    for name in generation_config.json tokenizer.json tokenizer_config.json vocab.json merges.txt \
        special_tokens_map.json hy.tiktoken chat_template.jinja LICENSE.txt NOTICE README.md; do
        echo '{}' >"$1/$name"
    done
    echo '{"auto_map": {"AutoTokenizer": ["tokenization_hy.HYTokenizer", null]}}' \
        >"$1/tokenizer_config.json"
    echo 'from .helpers_hy import text' >"$1/tokenization_hy.py"
    echo 'text = 1' >"$1/helpers_hy.py"
}

only_the_model() { # of the files in DIRECTORY, besides weights and index
    find "$1" -mindepth 1 ! -name 'model*.safetensors' ! -name '*.index.json' -printf '%P\n' |
        sort | diff - <(printf '%s\n' "${@:2}" LICENSE.txt NOTICE README.md chat_template.jinja \
            checksums.json config.json generation_config.json \
            helpers_hy.py hy.tiktoken merges.txt special_tokens_map.json \
            tokenization_hy.py tokenizer.json tokenizer_config.json vocab.json | sort)
}

@test "hy3_convert and hy3_merge publish the model and nothing of a run" {
    littered "$D/base"
    echo private >"$D/base/checksums.json" # of the base, which are not those of the result
    run_ok hy3_convert --to outer --input_dir "$D/base" --output_dir "$D/outer"
    grep -q "not copied .* adapter_model.safetensors, cache, .* and [0-9]* more" "$ERR"
    only_the_model "$D/outer"
    run_ok hy3_merge --base_model_path "$D/base" --adapter_model_path "$GOLDEN/adapter/final" \
        --output_path "$D/merged"
    only_the_model "$D/merged" merge_report.tsv
    (cd "$D/merged" && sha256sum -- *) | grep -v checksums.json >"$D/list"
    run_ok hy3_check "$D/merged" --all
    grep -q "checksums.json: $(wc -l <"$D/list") files as written" "$OUT"
    ! grep -rq private "$D/outer" "$D/merged"
}

@test "a run and hy3_export take the tokenizer's own files along, and the modules of auto_map" {
    make_model "$D/model" >/dev/null
    make_config "$D/model"
    sed -i '1s/{/{"auto_map": {"AutoTokenizer": ["tokenization_hy.HYTokenizer", null]},/' \
        "$D/model/tokenizer_config.json"
    sed -i '1s/{/{"auto_map": {"AutoConfig": "configuration_hy.HYConfig"},/' "$D/model/config.json"
    echo 'from .helpers_hy import text' >"$D/model/tokenization_hy.py"
    touch "$D"/model/{helpers_hy,configuration_hy,stray}.py "$D/model/hy.tiktoken"
    touch "$D/model/notes.txt"
    run_ok hy3_sft "$CFG" max_steps=1 save_steps=1 plot_loss=false
    run_ok hy3_export "$OUTPUT/checkpoint-1" "$D/exported"
    for directory in "$OUTPUT" "$D/exported"; do
        [ -e "$directory/tokenization_hy.py" ]
        [ -e "$directory/helpers_hy.py" ]
        [ -e "$directory/configuration_hy.py" ]
        [ -e "$directory/hy.tiktoken" ]
        [ ! -e "$directory/stray.py" ]
        [ ! -e "$directory/notes.txt" ]
        run_ok hy3_check "$directory" --all
        grep -q "checksums.json: [0-9]* files as written, byte by byte" "$OUT"
        grep -q '"helpers_hy.py": {' "$directory/checksums.json"
    done
    run_ok hy3_sft "$CFG" max_steps=1 seed=5 overwrite_output_dir=true plot_loss=false
}

@test "a complete result is recognised by its own mark, on any number of ranks, and left as it is" {
    local again
    for again in "hy3_convert --to outer --input_dir $GOLDEN/inner --output_dir $D/result" \
        "hy3_convert --to outer --max_shard_size 1GB --input_dir $GOLDEN/inner \
            --output_dir $D/result" \
        "hy3_merge --base_model_path $GOLDEN/inner --adapter_model_path $GOLDEN/adapter/final \
            --output_path $D/result"; do
        rm -rf "$D/result"
        run_ok $again
        [ -z "$(find "$D/result" -name '.*' -type f)" ]
        grep -aq '"hy3_program": *"hy3_[a-z]*"' "$D"/result/model*
        find "$D/result" -printf '%p %s %T@\n' | sort >"$D/before"
        run_ok "$MPIEXEC" -n 2 $again
        grep -q "shard.* kept: all is done already" "$ERR"
        find "$D/result" -printf '%p %s %T@\n' | sort | cmp - "$D/before"
    done
    run_fails 2 "not empty" hy3_merge --base_model_path "$GOLDEN/inner" \
        --adapter_model_path "$GOLDEN/adapter_experts/final" --output_path "$D/result"
}

@test "hy3_merge tells what became of each tensor, and of an adapter that changes nothing" {
    local names
    run_ok hy3_merge --base_model_path "$GOLDEN/inner" --save_dtype fp32 --verbose \
        --adapter_model_path "$GOLDEN/adapter/final" --output_path "$D/merged"
    cmp "$OUT" "$D/merged/merge_report.tsv"
    names=$(grep -ao 'lora_A\.weight"' "$GOLDEN/adapter/final/adapter_model.safetensors" | wc -l)
    [ "$(grep -c "$(printf '\tupdated\tyes\t')" "$OUT")" -eq "$names" ]
    [ "$(grep -vc "$(printf '\tunchanged\tno\t0$')" "$OUT")" -eq $((names + 1)) ]
    awk -F'\t' '$3 == "yes" && $4 > 1e-6 { bad = 1 } END { exit bad }' "$OUT"
    make_model "$D/model" >/dev/null
    make_config "$D/model"
    run_ok hy3_sft "$CFG" finetuning_type=lora lora_rank=4 learning_rate=0 max_steps=1
    run_ok hy3_merge --base_model_path "$D/model" --adapter_model_path "$OUTPUT" \
        --output_path "$D/same"
    grep -q "warning: .* B is zero for all 8 matrices: the adapter changes nothing" "$ERR"
    grep -q " 0 of [0-9]* tensors updated" "$ERR"
    run_ok hy3_merge --base_model_path "$D/model" --adapter_model_path "$OUTPUT" \
        --output_path "$D/same"
    grep -q "warning: .* B is zero for all 8" "$ERR"
}

@test "a disk that is too small is told before anything is written" {
    command -v unshare >/dev/null && unshare -rm true 2>/dev/null ||
        skip "no user namespaces to mount a small disk in"
    mkdir "$D/small"
    run_fails 1 "nothing was written" unshare -rm sh \
        -c "mount -t tmpfs -o size=300k none '$D/small' &&
        hy3_convert --to outer --input_dir '$GOLDEN/inner' --output_dir '$D/small/outer'"
}

# An adapter of two steps in $OUTPUT, with checkpoint-2.
make_adapter() {
    [ -d "$D/model" ] || make_model "$D/model" >/dev/null
    make_config "$D/model"
    run_ok hy3_sft "$CFG" finetuning_type=lora lora_rank=4 lora_alpha=8 max_steps=2 save_steps=2 \
        plot_loss=false "$@"
}

@test "hy3_init and hy3_export that a full disk ended are repeated in the same directory" {
    command -v unshare >/dev/null && unshare -rm true 2>/dev/null ||
        skip "no user namespaces to mount a small disk in"
    make_adapter finetuning_type=full
    mkdir "$D/small"
    for again in "hy3_export '$OUTPUT/checkpoint-2'" \
        "hy3_init --shape '$D/model.json' --tokenizer '$QUICK/tokenizer' --output_dir"; do
        run_ok unshare -rm sh -c "mount -t tmpfs -o size=1M none '$D/small' &&
            mkdir '$D/small/out' && head -c 700k /dev/zero >'$D/small/filling' &&
            ! $again '$D/small/out' && [ -e '$D/small/out/.hy3_unfinished' ] &&
            ! hy3_check '$D/small/out' && rm '$D/small/filling' &&
            mount -o remount,size=8M '$D/small' && $again '$D/small/out' &&
            hy3_check '$D/small/out' && [ ! -e '$D/small/out/.hy3_unfinished' ] &&
            ! $again '$D/small/out'"
        grep -q "is not empty" "$ERR"
    done
}

@test "a link in the output is not followed" {
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    echo precious >"$D/victim"
    rm "$D"/outer/model-0000[13]-of-00005.safetensors
    ln -s "$D/victim" "$D/outer/model-00001-of-00005.safetensors"
    ln -s "$D/victim" "$D/outer/model-00003-of-00005.safetensors.part"
    run_ok hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/outer"
    [ "$(cat "$D/victim")" = precious ]
    run_ok hy3_check "$D/outer" --all
    [ ! -L "$D/outer/model-00001-of-00005.safetensors" ]
}

# flip FILE BYTE: changes the lowest bit of a byte.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\x$(printf %02x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

@test "hy3_check finds one flipped bit by checksums.json" {
    make_model "$D/model" >/dev/null
    local weights=$D/model/model.safetensors
    run_ok hy3_check "$D/model"
    grep -q "checksums.json: [0-9]* files there; .*, --all compares every byte" "$OUT"
    run_ok "$MPIEXEC" -n 2 hy3_check "$D/model" --all
    flip "$weights" $(($(stat -c %s "$weights") - 2))
    run_ok hy3_check "$D/model" --spot-check 0
    for ranks in 1 2; do
        run_fails 1 "1 finding" "$MPIEXEC" -n $ranks hy3_check "$D/model" --all
        grep -q "^model.safetensors: .*: its values are not those of checksums.json" "$OUT"
    done
    run_fails 1 "1 finding" hy3_check "$D/model" --spot-check 1000
    flip "$weights" $(($(stat -c %s "$weights") - 2))
    flip "$weights" 40 # in the header
    run_fails 1 "" hy3_check "$D/model" --all
    flip "$weights" 40
    flip "$D/model/tokenizer.json" 1000
    run_fails 1 "1 finding" hy3_check "$D/model"
    grep -q "^tokenizer.json: its SHA-256 is not the one in checksums.json" "$OUT"
    rm "$D/model/tokenizer.json"
    run_fails 1 "1 finding" hy3_check "$D/model"
    grep -q "^tokenizer.json: missing, but listed in 'checksums.json'" "$OUT"
    rm "$D/model/checksums.json"
    run_ok hy3_check "$D/model"
    grep -q "has no checksums.json" "$OUT"
}

@test "hy3_check --sha256 compares a directory with a published list" {
    make_model "$D/model" >/dev/null
    (cd "$D/model" && sha256sum -- *) >"$D/list"
    run_ok hy3_check "$D/model" --sha256 "$D/list"
    grep -q "'$D/list': every SHA-256 agrees" "$OUT"
    (cd "$D/model" && sha256sum -b ./*) >"$D/model/SHA256SUMS" # beside the files
    run_ok "$MPIEXEC" -n 2 hy3_check "$D/model" --sha256 "$D/model/SHA256SUMS"
    rm "$D/model/SHA256SUMS"
    sed -e '/config.json$/s/^./x/' -e 's/^x\(.\)\(.\)/0\2\1/' "$D/list" >"$D/wrong"
    sed -i -e '/tokenizer_config.json/d' -e 's/tokenizer.json/tokenizer.jsox/' "$D/wrong"
    run_fails 1 "findings" hy3_check "$D/model" --sha256 "$D/wrong"
    grep -q "^config.json: its SHA-256 is not the one in '$D/wrong'" "$OUT"
    grep -q "^tokenizer.jsox: missing, but listed in '$D/wrong'" "$OUT"
    grep -q "^tokenizer.json: not listed in '$D/wrong'" "$OUT"
    grep -q "^tokenizer_config.json: not listed in '$D/wrong'" "$OUT"
    flip "$D/model/model.safetensors" $(($(stat -c %s "$D/model/model.safetensors") - 2))
    run_fails 1 "2 findings" hy3_check "$D/model" --sha256 "$D/list"
    grep -q "^model.safetensors: its SHA-256 is not the one in '$D/list'" "$OUT"
    sha256sum "$D"/model/* >"$D/paths"
    run_fails 1 "make the list there: cd DIR && sha256sum" hy3_check "$D/model" \
        --sha256 "$D/paths"
    run_fails 2 "" hy3_check "$D/model" --sha256 "$D/none"
    make_adapter
    (cd "$OUTPUT" && sha256sum -- *.*) >"$D/adapter"
    run_ok hy3_check "$OUTPUT" --sha256 "$D/adapter"
    sed -i '/adapter_model/d' "$D/adapter"
    run_fails 1 "1 finding" hy3_check "$OUTPUT" --sha256 "$D/adapter"
    grep -q "^adapter_model.safetensors: not listed" "$OUT"
}

@test "hy3_check knows adapters: keys, shapes against the base, values, factors of zeros" {
    make_adapter
    run_ok hy3_check "$OUTPUT"
    grep -q "is a valid adapter: r = 4, alpha = 8, 16 tensors; it fits its base '$D/model'" "$OUT"
    run_ok "$MPIEXEC" -n 2 hy3_check "$OUTPUT"
    [ "$(grep -c "valid adapter" "$OUT")" -eq 1 ]
    grep -q "checksums.json: [0-9]* files as written, byte by byte" "$OUT"
    sed 's/"r": 4/"r": 8/' "$OUTPUT/adapter_config.json" >"$D/config"
    cp -r "$OUTPUT" "$D/bad"
    rm "$D/bad/checksums.json" # it would find each of these too
    cp "$D/config" "$D/bad/adapter_config.json"
    run_fails 1 "16 findings" hy3_check "$D/bad"
    grep -q "must be \[8, 32\] for this model and r = 8" "$OUT"
    sed 's/"use_dora": false/"use_dora": true/' "$OUTPUT/adapter_config.json" \
        >"$D/bad/adapter_config.json"
    run_fails 1 "1 finding" hy3_check "$D/bad"
    grep -q "'use_dora' is set" "$OUT"
    cp "$OUTPUT/adapter_config.json" "$D/bad"
    printf '\377\377\377\377' | dd of="$D/bad/adapter_model.safetensors" bs=1 conv=notrunc \
        seek=$(($(stat -c %s "$D/bad/adapter_model.safetensors") - 4)) 2>/dev/null
    run_fails 1 "1 finding" hy3_check "$D/bad"
    grep -q "lora_B.weight: contains NaN" "$OUT"
    mv "$D/bad/adapter_model.safetensors" "$D/bad/adapter_model.bin"
    run_fails 1 "finding" hy3_check "$D/bad"
    grep -q "adapter_model.bin' is a file of Python's pickle" "$OUT"
    run_fails 1 "safe_serialization=True" hy3_merge --base_model_path "$D/model" \
        --adapter_model_path "$D/bad" --output_path "$D/none"
    mv "$D/model" "$D/moved"
    run_ok hy3_check "$OUTPUT"
    grep -q "its base '$D/model' is not here" "$OUT"
    mv "$D/moved" "$D/model"
    rm -rf "$OUTPUT"
    make_adapter learning_rate=0
    run_ok hy3_check "$OUTPUT"
    grep -q "warning: .*B is zero for 8 of 8 matrices.*: was it trained?" "$ERR"
}

@test "a directory of another kind than is wanted is called by its name, with what to do" {
    make_adapter
    run_ok hy3_check "$OUTPUT/checkpoint-2" --all
    grep -q "complete training checkpoint of step 2 of 2, .* hy3_export $OUTPUT/checkpoint-2" "$OUT"
    for program in "hy3_generate $OUTPUT/checkpoint-2 --prompt x" \
        "hy3_merge --base_model_path $OUTPUT/checkpoint-2 --adapter_model_path $OUTPUT \
            --output_path $D/none" \
        "hy3_convert --to outer --input_dir $OUTPUT/checkpoint-2 --output_dir $D/none" \
        "hy3_sft $CFG output_dir=$D/none model_name_or_path=$OUTPUT/checkpoint-2"; do
        run_fails 1 "is a training checkpoint; make a model of it: hy3_export" $program
    done
    run_fails 1 "is a model, not an adapter" hy3_merge --base_model_path "$D/model" \
        --adapter_model_path "$D/model" --output_path "$D/none"
    run_fails 1 "is an adapter; a model is expected here" hy3_generate "$OUTPUT" --prompt x
    run_fails 1 "it has no state.h5, but a model" hy3_export "$D/model" "$D/none"
    run_fails 1 "it has no state.h5, but '$OUTPUT/checkpoint-2'" hy3_export "$OUTPUT" "$D/none"
    run_fails 2 "nowhere' does not exist" hy3_export "$D/nowhere" "$D/none"
    run_fails 1 "it has no state.h5" hy3_export "$QUICK/tokenizer" "$D/none"
    truncate -s 5000 "$OUTPUT/checkpoint-2/state.h5"
    run_fails 1 "state.h5" hy3_check "$OUTPUT/checkpoint-2"
    ! grep -q "errno =\|H5\|eof\|unable to" "$ERR" || fail "$(shown)"
    echo no hdf5 >"$OUTPUT/checkpoint-2/state.h5"
    run_fails 1 "state.h5" hy3_export "$OUTPUT/checkpoint-2" "$D/none"
    ! grep -q "errno =\|H5\|eof\|unable to" "$ERR"
}

@test "hy3_check on several ranks finds what one finds" {
    cp -r "$GOLDEN/inner" "$D/model"
    chmod -R u+w "$D/model"
    rm "$D/model/model-00004-of-00005.safetensors"
    cp "$GOLDEN/inner/model-00002-of-00005.safetensors" "$D/model/model-00004-of-00005.safetensors"
    run_fails 1 "finding" hy3_check "$D/model" --all
    cp "$OUT" "$D/one"
    run_fails 1 "finding" "$MPIEXEC" -n 3 hy3_check "$D/model" --all
    cmp "$OUT" "$D/one"
}

@test "wrong use of the tools" {
    for program in hy3_convert hy3_merge hy3_check; do
        run_ok $program --help
        run_ok $program --version
        run_fails 2 "" $program
    done
    run_fails 2 "'to' is both; it must be one of inner, outer" hy3_convert --to both \
        --input_dir "$GOLDEN/inner" --output_dir "$D/x"
    run_fails 2 "inner names already" hy3_convert --to inner --input_dir "$GOLDEN/inner" \
        --output_dir "$D/x"
    run_fails 2 "--input_dir: '/no/such' does not exist: there is no directory '/no'" \
        hy3_convert --to outer --input_dir /no/such --output_dir "$D/x"
    run_fails 2 "--workers" hy3_convert --to outer --input_dir "$GOLDEN/inner" --output_dir "$D/x" \
        --workers 0
    run_fails 2 "'save_dtype' is int8; it must be one of" hy3_merge --save_dtype int8 \
        --base_model_path "$GOLDEN/inner" --adapter_model_path "$GOLDEN/adapter/final" \
        --output_path "$D/x"
    run_fails 2 "--adapter_model_path: '/none' does not exist" hy3_merge \
        --base_model_path "$GOLDEN/inner" --adapter_model_path /none --output_path "$D/x"
    run_fails 2 "DIR: '/no/such' does not exist" hy3_check /no/such
    [ ! -e "$D/x" ]
}

@test "the tools refuse every bad config, index and safetensors file, and write nothing" {
    local kind expect file line model WRONG=
    for kind in config index safetensors; do
        while read -r expect file line; do
            model=$D/$file
            mkdir "$model"
            cp "$GOLDEN"/inner/* "$model"
            case $kind in
            config) cp "$GOLDEN/bad_inputs/$file" "$model/config.json" ;;
            index) cp "$GOLDEN/bad_inputs/$file" "$model/model.safetensors.index.json" ;;
            safetensors) cp "$GOLDEN/bad_inputs/$file" "$model/model-00002-of-00005.safetensors" ;;
            esac
            # put into a checkpoint, an acceptable file alone is damage too: its tensors are missing
            try_bad reject "" hy3_convert --to outer --input_dir "$model" --output_dir "$D/new"
            try_bad reject "" hy3_merge --base_model_path "$model" \
                --adapter_model_path "$GOLDEN/adapter/final" --output_path "$D/new"
            try_bad reject "finding" hy3_check "$model"
            [ ! -e "$D/new" ] || fail "$file: something was written"
            rm -rf "$model"
        done < <(bad_inputs $kind)
    done
    [ -z "$WRONG" ] || fail "$WRONG"
}
