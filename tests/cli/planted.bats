#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A second user plants links, pipes, sockets, directories and files under the names that the
# programs use, in directories that both may write. No file of anybody else is read, written or
# removed, and every program ends with success or one message.

load helper

KINDS="link dangling hard pipe socket directory file"
CONVERSATIONS=$QUICK/conversations.jsonl

setup_file() {
    [ "$(id -u)" -eq 0 ] && command -v setpriv perl >/dev/null || return 0
    export ROOT
    ROOT=$(mktemp -d /tmp/hy3-planted.XXXXXX) # the second user must be able to get there
    chmod 755 "$ROOT"
    make_model "$ROOT/model"
    BATS_TEST_TMPDIR=$ROOT make_run
    hy3_sft "$ROOT/run.cfg" output_dir="$ROOT/run" save_steps=2 finetuning_type=lora \
        >"$ROOT/log" 2>&1
}

teardown_file() {
    [ -z "${ROOT:-}" ] || rm -rf "$ROOT"
}

make_run() {
    make_config "$ROOT/model"
    echo 'plot_loss = false;' >>"$CFG"
}

# The owner's files that others must not get at are in $VICTIMS; the second user's in $SHARED.
setup() {
    [ "$(id -u)" -eq 0 ] || skip "only root can be two users"
    command -v setpriv perl >/dev/null || skip "no setpriv or perl"
    LIMIT=60 # a pipe nobody writes to, or the watched heartbeat of a lock, takes longer
    D=$(mktemp -d "$ROOT/test.XXXXXX")
    chmod 755 "$D"
    SHARED=$D/shared VICTIMS=$D/victims
    mkdir "$SHARED" "$VICTIMS" "$VICTIMS/directory"
    chmod 1777 "$SHARED"
    echo '{"step": 0, "loss": 1, "secret": "PRECIOUS"}' >"$VICTIMS/file"
    cp "$VICTIMS/file" "$VICTIMS/directory/file"
    chmod 644 "$VICTIMS/file"
}

other() {
    setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

# plant KIND NAME …: relative to the current directory, which the second user may write.
plant() {
    local kind=$1 name
    shift
    for name; do
        case $kind in
        link) other ln -s "$VICTIMS/file" "$name" ;;
        dangling) other ln -s "$VICTIMS/absent" "$name" ;;
        into) other ln -s "$VICTIMS/directory" "$name" ;;
        hard) ln "$VICTIMS/file" "$name" ;; # where the system lets others do it
        pipe) other mkfifo "$name" ;;
        socket) other perl -MIO::Socket::UNIX \
            -e 'IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die' "$name" ;;
        directory) other mkdir "$name" && other sh -c 'echo theirs >"$1/theirs"' sh "$name" ;;
        file) other sh -c 'echo theirs >"$1"' sh "$name" ;;
        esac
    done
}

# What must stay: the victims, and all that belongs to the second user.
state() {
    find "$VICTIMS" -type f -printf '%P %u %m %T@ ' -exec sha256sum {} \; -o -printf '%P %y\n' |
        sort
    find "$SHARED" -user 65534 -printf '%P %y %s\n' | sort
}

leaks() {
    find "$SHARED" -type f -links 1 ! -user 65534 -exec grep -l PRECIOUS {} + || true
    grep -l PRECIOUS "$OUT" "$ERR" || true
}

# harmless CODES COMMAND …: nobody's files have changed, and COMMAND has ended with one of CODES; if
# not with 0, with one message.
harmless() {
    local codes=$1 before messages
    shift
    before=$(state)
    capture "$@"
    [[ " $codes " == *" $status "* ]] || fail "status $status, not of: $codes" "$(shown "$@")" ||
        return 1
    messages=$(cat "$OUT" "$ERR" | grep -c '^hy3_[a-z]*: error: ') || true
    [ "$messages" -eq $((status != 0)) ] || fail "$messages messages" "$(shown "$@")" || return 1
    diff <(echo "$before") <(state) || fail "files have changed" "$(shown "$@")" || return 1
    [ -z "$(leaks)" ] || fail "the secret is in: $(leaks)" "$(shown "$@")"
}

# Names that a run uses in output_dir.
run_names() {
    printf '%s\n' .hy3_lock .hy3_run .hy3_run.part config.cfg config.cfg.part train_log.jsonl \
        train_log.jsonl.part checkpoint-1 checkpoint-2.part checkpoint-4.part checkpoint-8 cache \
        previous previous.part .hy3_made_previous .hy3_removed_previous \
        .hy3_replaced_checkpoint-2 adapter_model.safetensors adapter_model.safetensors.part \
        adapter_config.json.part tokenizer.json.part
}

# over MODE NAME COMMAND …: for each kind, a file of NAME is planted in a fresh directory of MODE,
# which is named where COMMAND says %, and the program refuses.
over() {
    local mode=$1 name=$2 kind command
    shift 2
    for kind in $KINDS; do
        rm -rf "$SHARED/out"
        mkdir "$SHARED/out"
        [ ! -d "$D/base" ] || cp -a "$D/base/." "$SHARED/out"
        rm -rf "${SHARED:?}/out/$name"
        chmod "$mode" "$SHARED/out"
        cd "$SHARED/out"
        plant "$kind" "$name"
        cd "$D"
        command=("${@//%/$SHARED/out}")
        if [ "$kind" = hard ]; then
            harmless "0 2" "${command[@]}"
        else
            harmless 2 "${command[@]}"
            grep -qF "$name' belongs to the user 65534" "$ERR" || fail "$(shown "${command[@]}")"
        fi
    done
}

@test "a run refuses what another user planted in its output directory" {
    local name n=0
    for name in $(run_names); do # each name with another kind, in both modes
        set -- $KINDS
        shift $((n++ % $#))
        KINDS=$1 over $((n % 2 ? 1777 : 777)) "$name" hy3_sft "$ROOT/run.cfg" output_dir=%
    done
    over 1777 checkpoint-2.part hy3_sft "$ROOT/run.cfg" output_dir=%
}

@test "a run that continues refuses what was planted since" {
    local name n=0
    cp -a "$ROOT/run" "$D/base"
    for name in $(run_names); do
        set -- $KINDS
        shift $((n++ % $#))
        KINDS=$1 over $((n % 2 ? 777 : 1777)) "$name" hy3_sft "$ROOT/run.cfg" output_dir=% \
            finetuning_type=lora max_steps=6
    done
}

@test "tokenizing refuses what was planted in its cache" {
    local name n=0
    for name in train.h5 train.rejected.jsonl .hy3_lock_of_train train.h5.1.part \
        train.rejected.jsonl.1.part; do
        set -- $KINDS
        shift $((n++ % $#))
        KINDS="$1 link" over $((n % 2 ? 777 : 1777)) "$name" hy3_tokenize "$ROOT/run.cfg" \
            cache_dir=%
    done
}

@test "hy3_convert, hy3_merge, hy3_export and hy3_init refuse planted outputs" {
    local small="link pipe directory" name
    for name in .hy3_rewrite.json model.safetensors.part; do
        KINDS=$small over 1777 "$name" hy3_convert --to outer --input_dir "$ROOT/model" \
            --output_dir %
        KINDS=$small over 777 "$name" hy3_merge --base_model_path "$ROOT/model" \
            --adapter_model_path "$ROOT/run" --output_path %
    done
    for name in .hy3_unfinished config.json.part; do
        KINDS=$small over 1777 "$name" hy3_export "$ROOT/run/checkpoint-4" %
        KINDS=$small over 777 "$name" hy3_init --shape "$ROOT/model.json" --tokenizer \
            "$QUICK/tokenizer" --output_dir % --overwrite
    done
}

@test "an output directory that another user planted in a shared parent is refused" {
    local kind commands command n=0
    cd "$SHARED"
    commands=("hy3_tokenize $ROOT/run.cfg cache_dir=$SHARED/out"
        "hy3_convert --to outer --input_dir $ROOT/model --output_dir $SHARED/out")
    for kind in into dangling pipe socket directory file; do
        rm -rf out
        chmod $((n++ % 2 ? 1777 : 777)) "$SHARED"
        plant $kind out
        for command in "hy3_sft $ROOT/run.cfg output_dir=$SHARED/out" "${commands[n % 2]}"; do
            harmless "1 2" $command
        done
        [ $kind = directory ] || harmless "1 2" hy3_sft "$ROOT/run.cfg" \
            output_dir="$SHARED/out/below"
    done
}

# Members of a group trust each other: nothing is refused, but what is created is new.
@test "links in a directory of one's group are not written through" {
    local kind
    for kind in link dangling hard; do
        rm -rf "$SHARED"
        mkdir "$SHARED"
        chgrp 65534 "$SHARED"
        chmod 2775 "$SHARED"
        cd "$SHARED"
        plant $kind config.cfg.part .hy3_run.part train_log.jsonl loss.png.part loss.png \
            adapter_model.safetensors adapter_model.safetensors.part adapter_config.json \
            tokenizer.json.part tokenizer.json checkpoint-2.part checkpoint-4.part \
            .hy3_made_previous .hy3_removed_previous
        find "$VICTIMS" -type f -exec sha256sum {} + >"$D/before"
        run_ok hy3_sft "$ROOT/run.cfg" output_dir="$SHARED" save_steps=2 plot_loss=true \
            finetuning_type=lora overwrite_output_dir=true resume_from_checkpoint=none ||
            run_fails 2 "made" hy3_sft "$ROOT/run.cfg" output_dir="$SHARED" save_steps=2
        sha256sum --quiet -c "$D/before"
        [ ! -e "$VICTIMS/absent" ]
    done
}

@test "what is planted while a run saves is neither followed nor removed" {
    local mode run
    for mode in 1777 777; do
        rm -rf "$SHARED/out"
        mkdir "$SHARED/out"
        chmod $mode "$SHARED/out"
        cd "$SHARED/out"
        find "$VICTIMS" -type f -exec sha256sum {} + >"$D/before"
        hy3_sft "$ROOT/run.cfg" output_dir="$SHARED/out" save_steps=2 max_steps=40 \
            save_total_limit=1 >"$D/log" 2>&1 3>&- &
        run=$!
        # all is checked, the run begins: it stands still while the other user plants
        for ((i = 0; i < 6000; i++)); do
            [ ! -e config.cfg ] || break
            kill -0 $run || break
            sleep 0.01
        done
        kill -STOP $run
        plant into checkpoint-{36,38,40} checkpoint-{36,38,40}.part
        plant link model.safetensors model.safetensors.part loss.png.part
        kill -CONT $run
        status=0
        wait $run || status=$?
        [ "$status" -eq 2 ] || fail "$(tail "$D/log")"
        [ "$(grep -c "^hy3_sft: error: .*belongs to the user 65534" "$D/log")" -eq 1 ]
        sha256sum --quiet -c "$D/before"
        [ "$(ls "$VICTIMS/directory")" = file ]
        [ "$(find . -user 65534 | wc -l)" -eq 9 ]
        hy3_check checkpoint-34
    done
}

@test "a shared directory without anything planted serves as any other" {
    mkdir -m 1777 "$SHARED/out"
    run_ok hy3_sft "$ROOT/run.cfg" output_dir="$SHARED/out" max_steps=2
    run_ok hy3_sft "$ROOT/run.cfg" output_dir="$SHARED/out" max_steps=3
    ! grep -q "may replace" "$ERR" || fail "$(shown)"
    chmod 777 "$SHARED/out"
    run_ok hy3_sft "$ROOT/run.cfg" output_dir="$SHARED/out" max_steps=3
    grep -q "everybody may replace what is written to '$SHARED/out'" "$ERR"
}
