# SPDX-License-Identifier: Apache-2.0
# The tables "you have … → type …" of README.md and doc/migration.md: every command in them is read
# from the document and run as it stands there.

load helper

# The first command of each row: what stands between backquotes behind the second bar.
commands() {
    awk -F ' [|] ' '/^[|] you have [|] type [|]$/ { on = 1; getline; next }
        on && !/^[|]/ { exit }
        on { n = split($2, part, "`"); print n < 3 ? "no command: " $0 : part[2] }' \
        "$HY3_SOURCE/$1"
}

# A directory with all that the commands name: a model, data in two forms, a configuration of
# LLaMA-Factory and one of hy3, a DeepSpeed JSON and an adapter.
setup_file() {
    local d=$BATS_FILE_TMPDIR/files
    mkdir -p "$d/data" "$BATS_FILE_TMPDIR/bin"
    # Slurm's launcher, on two ranks here
    printf '#!/bin/sh\nexec %s -n 2 "$@"\n' "$MPIEXEC" >"$BATS_FILE_TMPDIR/bin/srun"
    chmod +x "$BATS_FILE_TMPDIR/bin/srun"
    cd "$d"
    make_model model >/dev/null
    sed -i 's/\("max_position_embeddings": \)512/\14096/' model/config.json # the longest default
    head -n 4 "$QUICK/conversations.jsonl" >chat.jsonl
    echo '{"mine": {"file_name": "mine.json"}}' >data/dataset_info.json
    echo '[{"instruction": "Add.", "input": "3 and 4", "output": "7"},
        {"instruction": "Name a planet.", "output": "Saturn"}]' >data/mine.json
    echo '{"zero_optimization": {"stage": 3}, "train_batch_size": "auto"}' >z3.json
    cat >run.yaml <<END
model_name_or_path: model
stage: sft
finetuning_type: lora
lora_rank: 4
lora_target: q_proj, v_proj
dataset: mine
template: hy_v3
cutoff_len: 256
output_dir: output
per_device_train_batch_size: 1
max_steps: 2
learning_rate: 1.0e-4
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr: 1.0e-5}
END
    printf '%s\n' 'model_name_or_path = "model";' 'output_dir = "output";' 'max_steps = 2;' >run.cfg
    hy3_sft run.yaml output_dir=made >/dev/null 2>&1
    mv made "$BATS_FILE_TMPDIR/made"
    mkdir adapter
    cp "$BATS_FILE_TMPDIR"/made/adapter_* adapter
}

# has LINE …: the configuration that the run has written has them.
has() {
    for line in "$@"; do
        grep -qF -- "$line" output/config.cfg || fail "no '$line'" "$(cat output/config.cfg)"
    done
}

# What the row is for has happened; a row that is not here has no files.
check() {
    case $1 in
    'srun hy3_sft run.yaml') has 'dataset = ["mine"];' 'zero_stage = 3;' 'lora_rank = 4;' ;;
    'srun hy3_sft --model_name_or_path '*)
        has 'train_data_file = ["chat.jsonl"];' 'zero_stage = 3;' 'finetuning_type = "full";'
        ;;
    *' deepspeed=z3.json') has 'zero_stage = 3;' 'lora_rank = 4;' ;;
    *' dataset=mine') has 'dataset = ["mine"];' 'finetuning_type = "full";' ;;
    *' adapter_name_or_path=adapter')
        has 'adapter_name_or_path = "adapter";'
        ! cmp -s output/adapter_model.safetensors adapter/adapter_model.safetensors
        ;;
    *' >run.cfg') grep -qF 'lora_rank = 4;' run.cfg ;;
    *' learning_rate=2e-5 lr_scheduler_kwargs.min_lr=1e-6')
        has 'learning_rate = 2e-05;' 'min_lr = 1e-06;'
        ;;
    *) fail "this test has no files for: $1" ;;
    esac
}

# run_table DOCUMENT: each command in a directory of its own, then with --print-config.
run_table() {
    local list command number=0
    list=$(commands "$1")
    while read -r command; do
        number=$((number + 1))
        cp -r "$BATS_FILE_TMPDIR/files" "$BATS_TEST_TMPDIR/$number"
        cd "$BATS_TEST_TMPDIR/$number"
        PATH=$BATS_FILE_TMPDIR/bin:$PATH run_ok bash -c "$command"
        check "$command"
        case $command in *--print-config*) continue ;; esac
        [ -s output/model.safetensors ] || [ -s output/adapter_model.safetensors ]
        mv output first
        PATH=$BATS_FILE_TMPDIR/bin:$PATH run_ok bash -c "$command --print-config"
        [ ! -e output ]
        diff <(grep -v '^#' first/config.cfg) <(grep -v '^#' "$OUT")
    done <<<"$list"
    [ $number -eq 5 ] || fail "$number commands in the table of $1, not 5"
}

@test "the five commands of README.md run as they stand" {
    run_table README.md
}

@test "the five commands of doc/migration.md run as they stand" {
    run_table doc/migration.md
}
