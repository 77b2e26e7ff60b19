#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a run must not give away or take for something else: who may read its files, links out of a
# model's directory, the state of another step.

load helper

FILES=(cache cache/train.h5 cache/train.rejected.jsonl checkpoint-4 checkpoint-4/state.h5)

setup() {
    D=$BATS_TEST_TMPDIR
    [ -d "$BATS_FILE_TMPDIR/model" ] || make_model "$BATS_FILE_TMPDIR/model" >/dev/null 2>&1
    cp -r "$BATS_FILE_TMPDIR/model" "$D/model"
    make_config "$D/model"
    echo 'plot_loss = false;' >>"$CFG"
}

modes() {
    stat -c '%a %n' "$@" | sed "s|$OUTPUT/||" | paste -sd' '
}

@test "caches, rejected lines and checkpoints are their owner's alone" {
    umask 022
    run_ok "$MPIEXEC" -n 2 hy3_sft "$CFG" save_steps=4
    cd "$OUTPUT"
    [ "$(modes "${FILES[@]}")" = "700 cache 600 cache/train.h5 600 cache/train.rejected.jsonl \
700 checkpoint-4 600 checkpoint-4/state.h5" ]
    [ "$(modes . model.safetensors config.json train_log.jsonl)" = \
        "755 . 644 model.safetensors 644 config.json 644 train_log.jsonl" ] # what is published
    run_ok hy3_tokenize "$CFG" cache_dir="$D/tokens" eval_data_file="$D/train.jsonl"
    [ "$(find "$D/tokens" -perm /077)" = "" ]
}

@test "private_files = false leaves caches and checkpoints to umask" {
    umask 027
    run_ok hy3_sft "$CFG" save_steps=4 private_files=false
    cd "$OUTPUT"
    [ "$(modes "${FILES[@]}")" = "750 cache 640 cache/train.h5 640 cache/train.rejected.jsonl \
750 checkpoint-4 640 checkpoint-4/state.h5" ]
}

@test "users of a group share a cache with private_files = false, and are told without" {
    [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null || skip "only root can be two users"
    local shared=(setpriv --reuid 65534 --regid 65533 --groups 65533 --bounding-set -all) private
    W=$(mktemp -d /tmp/hy3-private.XXXXXX) # where the other user can get to
    mkdir "$W/bin" "$W/cache"
    cp "$HY3_BUILD/hy3_tokenize" "$W/bin"
    cp -r "$D/model" "$D/train.jsonl" "$CFG" "$W"
    sed -i -e "s|$D/|$W/|" -e /^output_dir/d "$W/run.cfg"
    chmod -R go+rX "$W"
    chgrp 65533 "$W/cache"
    chmod 2775 "$W/cache"
    umask 002
    for private in true false; do
        rm -f "$W"/cache/*
        run_ok hy3_tokenize "$W/run.cfg" cache_dir="$W/cache" private_files=$private
        if [ $private = true ]; then
            run_fails 2 "may not be read" "${shared[@]}" "$W/bin/hy3_tokenize" "$W/run.cfg" \
                cache_dir="$W/cache"
            grep -q "private_files = false" "$ERR"
        else
            run_ok "${shared[@]}" "$W/bin/hy3_tokenize" "$W/run.cfg" cache_dir="$W/cache" \
                private_files=false
            grep -q "existing file reused" "$OUT"
        fi
    done
    rm -r "$W"
}

@test "only links within a model's directory are copied into what is published" {
    echo PRECIOUS >"$D/secret"
    ln -s "$D/secret" "$D/model/README.md"
    ln -s ../secret "$D/model/LICENSE"
    mkdir "$D/model/texts"
    echo notice >"$D/model/texts/notice"
    ln -s texts/notice "$D/model/NOTICE"
    mv "$D/model/model.safetensors" "$D/disk" # weights may lie anywhere
    ln -s "$D/disk" "$D/model/model.safetensors"
    run_ok hy3_convert --to outer --input_dir "$D/model" --output_dir "$D/converted"
    [ "$(cat "$D/converted/NOTICE")" = notice ]
    [ ! -e "$D/converted/README.md" ]
    [ ! -e "$D/converted/LICENSE" ]
    grep -q "'$D/model/README.md' is not copied: it is a link to '$D/secret', outside" "$ERR"
    run_ok hy3_sft "$CFG" max_steps=1
    ! grep -r PRECIOUS "$D/converted" "$OUTPUT"
}

@test "a directory of links to a model elsewhere is that model" {
    mkdir "$D/links"
    for file in "$D"/model/*; do
        ln -s "$file" "$D/links"
    done
    echo PRECIOUS >"$D/model/secret"
    rm -f "$D/links/LICENSE"
    ln -s "$D/model/secret" "$D/links/LICENSE" # another name: not that model's licence
    run_ok hy3_sft "$CFG" max_steps=1 model_name_or_path="$D/links"
    cmp "$OUTPUT/tokenizer.json" "$D/model/tokenizer.json"
    [ ! -e "$OUTPUT/LICENSE" ]
}

@test "a tokenizer or config.json outside of its directory is refused before any work" {
    mv "$D/model/tokenizer.json" "$D/elsewhere"
    ln -s ../elsewhere "$D/model/tokenizer.json"
    local why="'$D/model/tokenizer.json' is a link to '$D/elsewhere', outside"
    run_fails 1 "$why" hy3_sft "$CFG"
    [ ! -e "$OUTPUT/checkpoint-4" ]
    run_fails 1 "$why" hy3_convert --to outer --input_dir "$D/model" --output_dir "$D/converted"
    [ ! -e "$D/converted" ]
    run_fails 1 "$why" hy3_init --shape "$BATS_FILE_TMPDIR/model.json" --tokenizer "$D/model" \
        --output_dir "$D/new"
    run_ok hy3_tokenize "$CFG" cache_dir="$D/tokens" # reading it gives nothing away
    rm "$D/model/tokenizer.json"
    mv "$D/elsewhere" "$D/model/tokenizer.json"
    mv "$D/model/config.json" "$D/elsewhere"
    ln -s ../elsewhere "$D/model/config.json"
    run_fails 1 "'$D/model/config.json' is a link" hy3_convert --to outer --input_dir "$D/model" \
        --output_dir "$D/converted"
    run_ok hy3_sft "$CFG" max_steps=1 # which writes its own
}

@test "a snapshot in the hub's cache is copied by its links into the blobs" {
    local hub=$D/hub/models--tencent--Hy3 file
    mkdir -p "$hub/blobs" "$hub/snapshots/0123abcd"
    for file in "$D"/model/*; do
        mv "$file" "$hub/blobs/$(basename "$file").hash"
        ln -s "../../blobs/$(basename "$file").hash" "$hub/snapshots/0123abcd/$(basename "$file")"
    done
    run_ok hy3_convert --to outer --input_dir "$hub/snapshots/0123abcd" --output_dir "$D/converted"
    cmp "$D/converted/tokenizer.json" "$hub/blobs/tokenizer.json.hash"
    [ -f "$D/converted/config.json" ]
    [ ! -L "$D/converted/config.json" ]
    mkdir "$hub/blobs-of-others"
    mv "$hub/blobs/tokenizer.json.hash" "$hub/blobs-of-others/hash"
    ln -sf ../../blobs-of-others/hash "$hub/snapshots/0123abcd/tokenizer.json"
    run_fails 1 "tokenizer.json' is a link" hy3_convert --to outer --output_dir "$D/again" \
        --input_dir "$hub/snapshots/0123abcd"
}

@test "a pipe, device or socket in the place of any input file is refused" {
    local file
    mkfifo "$D/pipe"
    for file in model/config.json model/model.safetensors model/tokenizer.json \
        model/tokenizer_config.json train.jsonl run.cfg; do
        mv "$D/$file" "$D/kept"
        for kind in "$D/pipe" /dev/zero; do
            ln -sf "$kind" "$D/$file"
            LIMIT=60 capture hy3_sft "$CFG"
            [[ $status =~ ^[12]$ ]] || fail "$file" "$(shown hy3_sft)"
            [ "$(grep -c "^hy3_sft: error: " "$ERR")" -eq 1 ] || fail "$(shown hy3_sft)"
        done
        rm "$D/$file"
        mv "$D/kept" "$D/$file"
    done
    run_ok hy3_sft "$CFG" save_steps=2
    for file in checkpoint-4/state.h5 cache/train.h5; do
        rm "$OUTPUT/$file"
        mkfifo "$OUTPUT/$file"
    done
    LIMIT=60 run_ok hy3_sft "$CFG" max_steps=5
    grep -q "skipping checkpoint: '$OUTPUT/checkpoint-4/state.h5' is a pipe" "$ERR"
}

@test "the state of another step is skipped, and refused where it is named" {
    run_ok hy3_sft "$CFG" save_steps=2
    cp -r "$OUTPUT/checkpoint-4" "$D/checkpoint-4"
    cp "$OUTPUT/checkpoint-2/state.h5" "$OUTPUT/checkpoint-4/state.h5"
    local why="holds the state of step 2, which belongs in 'checkpoint-2'"
    run_fails 1 "$why" hy3_sft "$CFG" max_steps=6 resume_from_checkpoint="$OUTPUT/checkpoint-4"
    run_fails 1 "$why" hy3_export "$OUTPUT/checkpoint-4/" "$D/exported"
    cd "$OUTPUT/checkpoint-4"
    run_fails 1 "$why" hy3_check .
    cd "$OUTPUT"
    run_fails 1 "$why" hy3_check checkpoint-4//
    run_ok hy3_sft "$CFG" max_steps=6
    grep -q "skipping checkpoint: .*$why" "$ERR"
    grep -q "continuing after step 2" "$ERR"
    run_ok hy3_check "$D/checkpoint-4"
    mv "$D/checkpoint-4" "$D/best" # a name that says nothing
    run_ok hy3_export "$D/best" "$D/exported"
}

@test "names of checkpoints that do not print back are refused and not counted" {
    local name
    run_ok hy3_sft "$CFG" save_steps=4
    for name in checkpoint-004 checkpoint-99999999999999999999 checkpoint-9223372036854775808; do
        cp -r "$OUTPUT/checkpoint-4" "$OUTPUT/$name"
        run_fails 1 "belongs in 'checkpoint-4'" hy3_check "$OUTPUT/$name"
        run_fails 1 "belongs in 'checkpoint-4'" hy3_export "$OUTPUT/$name" "$D/exported"
    done
    run_ok hy3_sft "$CFG" max_steps=5 save_total_limit=1
    grep -q "continuing after step 4 from '$OUTPUT/checkpoint-4'" "$ERR"
    [ -d "$OUTPUT/checkpoint-99999999999999999999" ] && [ ! -d "$OUTPUT/checkpoint-4" ]
}

@test "a log and a mark with anything in them do no harm" {
    local mark
    run_ok hy3_sft "$CFG" save_steps=4
    {
        printf '{"step": 3, "loss"\n{"step": "3"}\n{"step": 99999999999999999999}\n[[\n\n'
        printf '{"step": 5, "loss": 1}\n{"step": 1e3, "loss": 1}\n\0\xff\x1b[2J\n'
        printf '{"a": %s' "$(printf '[%.0s' $(seq 5000))"
    } >>"$OUTPUT/train_log.jsonl"
    run_ok hy3_sft "$CFG" max_steps=6
    [ "$(sed 's/, .*//' "$OUTPUT/train_log.jsonl" | paste -sd' ')" = \
        '{"step": 1 {"step": 2 {"step": 3 {"step": 4 {"step": 5 {"step": 6' ]
    for mark in '' '{' '[]' '{"step": -5, "total_steps": -7, "state": 3, "data": [], "job": {}}' \
        '{"step": 9223372036854775807, "state": "finished", "data": "zz"}'; do
        printf '%s' "$mark" >"$OUTPUT/.hy3_run"
        capture hy3_sft "$CFG" max_steps=7
        [ "$status" -eq 0 ] || run_fails 2 "results of another run" hy3_sft "$CFG" max_steps=7
        hy3_check "$OUTPUT/checkpoint-6"
    done
}

@test "the scripts follow no link and give no name to another program" {
    command -v gnuplot >/dev/null || skip "no gnuplot"
    local r kind step name='|touch "$PWNED";'
    cd "$D"
    for kind in strong weak; do
        for r in 1 2; do
            mkdir -p "$name/ranks-$r/$kind"
            for step in 1 2 3 4; do
                echo "{\"step\": $step, \"tokens_per_second\": $((r * 100 + step)).0}"
            done >"$name/ranks-$r/$kind/train_log.jsonl"
        done
    done
    echo kept >"$D/victim"
    ln -s "$D/victim" "$name/scaling.txt.part"
    ln -s "$D/victim" "$name/scaling.png"
    PWNED=$D/pwned run_ok bash "$HY3_SOURCE/batch/scaling.sbatch" collect "$name"
    [ ! -e "$D/pwned" ]
    [ "$(cat "$D/victim")" = kept ]
    [ -s "$name/scaling.png" ] && [ ! -L "$name/scaling.png" ]
}
