# SPDX-License-Identifier: Apache-2.0
# hy3 under a real Slurm of four nodes on this machine: the batch files as they are.
load ../cli/helper

setup_file() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null &&
        command -v munged >/dev/null || return 0
    [ "$(id -u)" -eq 0 ] || return 0
    export CLUSTER
    CLUSTER=$(mktemp -d /tmp/hy3-slurm-XXXXXX)
    bash "$HY3_SOURCE/tests/slurm/cluster.sh" up "$CLUSTER" >"$CLUSTER.log" 2>&1 || return 0
    export SLURM_CONF=$CLUSTER/etc/slurm.conf
    make_model "$BATS_FILE_TMPDIR/model" >/dev/null 2>&1
}

teardown_file() {
    [ -z "${CLUSTER:-}" ] || bash "$HY3_SOURCE/tests/slurm/cluster.sh" down "$CLUSTER" \
        >/dev/null 2>&1
    [ -z "${CLUSTER:-}" ] || rm -rf "$CLUSTER" "$CLUSTER.log"
}

setup() {
    D=$BATS_TEST_TMPDIR
    [ "$(id -u)" -eq 0 ] || skip "a private Slurm needs root"
    [ -n "${SLURM_CONF:-}" ] || skip \
        "no Slurm: slurmctld, slurmd and munge are not installed, or did not start"
    make_config "$BATS_FILE_TMPDIR/model"
    set_keys per_device_train_batch_size=1 zero_stage=3
    echo "plot_loss = false; cache_dir = \"$BATS_FILE_TMPDIR/cache\";" >>"$CFG"
    cd "$D"
}

# Submits and waits for the end, however often the job is requeued: its id in $JOB, its state in
# $STATE.
submit() { # LIMIT_SECONDS sbatch-arguments …
    local limit=$((SECONDS + $1))
    shift
    JOB=$(timeout 20 sbatch --parsable --export=ALL "$@")
    while [ $SECONDS -lt $limit ]; do
        STATE=$(timeout 20 scontrol show job "$JOB" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' |
            sort -u | tr '\n' ' ')
        STATE=${STATE% } # several where the tasks of an array differ
        case $STATE in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) return 0 ;; esac
        [ -z "${WHILE:-}" ] || $WHILE
        sleep 0.2
    done
    fail "job $JOB is still $STATE" "$(tail -n 30 ./*.log)"
}

undisturbed() {
    run_ok "$MPIEXEC" -n 4 hy3_sft "$CFG" output_dir="$D/whole" "$@"
}

@test "sbatch batch/hy3_sft.sbatch on two nodes with two ranks each ends COMPLETED" {
    submit 60 --nodes=2 --ntasks-per-node=2 --time=5 "$HY3_SOURCE/batch/hy3_sft.sbatch" "$CFG" \
        expert_parallel_size=2
    [ "$STATE" = COMPLETED ] || fail "$STATE" "$(cat ./*.log)"
    hy3_check "$OUTPUT"
    undisturbed expert_parallel_size=2
    cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
}

@test "the warning before the time limit: checkpoint, code 75, requeue, resumed, the same weights" {
    sed -i 's/^max_steps.*/max_steps = 1000000;/' "$CFG"
    echo "gradient_accumulation_steps = 16; expert_parallel_size = 2;" >>"$CFG"
    WHILE=set_end
    # a limit of a minute is warned of at once; the second life ends twenty steps after the first
    set_end() {
        local done
        done=$(sed -n 's/.*stopped by SIGUSR1 after step \([0-9]*\) of.*/\1/p' ./*.log 2>/dev/null |
            head -n 1)
        [ -z "$done" ] || sed -i "s/^max_steps.*/max_steps = $((done + 20));/" "$CFG"
    }
    submit 150 --nodes=2 --ntasks-per-node=2 --time=1 --signal=USR1@30 \
        "$HY3_SOURCE/batch/hy3_sft.sbatch" "$CFG" save_steps=100000
    [ "$STATE" = COMPLETED ] || fail "$STATE" "$(cat ./*.log)"
    grep -q "stopped by SIGUSR1" ./*.log
    grep -q "continuing after step" ./*.log
    undisturbed
    cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
}

@test "a node dies: the job is requeued and ends with the weights of an undisturbed run" {
    sed -i 's/^max_steps.*/max_steps = 150;/' "$CFG"
    echo "gradient_accumulation_steps = 16; expert_parallel_size = 2;" >>"$CFG"
    WHILE=kill_and_mend
    kill_and_mend() {
        if [ ! -e killed ] && ls -d "$OUTPUT"/checkpoint-*[0-9] >/dev/null 2>&1; then
            touch killed
            bash "$HY3_SOURCE/tests/slurm/cluster.sh" kill-node "$CLUSTER" n2 >/dev/null 2>&1
        elif [ -e killed ] && [ ! -e mended ] && [ "$STATE" = PENDING ]; then
            touch mended
            bash "$HY3_SOURCE/tests/slurm/cluster.sh" start-node "$CLUSTER" n2 >/dev/null 2>&1
        fi
    }
    submit 200 --nodes=2 --ntasks-per-node=2 --time=10 --nodelist=n1,n2 \
        "$HY3_SOURCE/batch/hy3_sft.sbatch" "$CFG" save_steps=15 save_total_limit=2
    [ "$STATE" = COMPLETED ] || fail "$STATE" "$(tail -n 30 ./*.log)"
    grep -q "continuing after step" ./*.log || fail "$(tail -n 30 ./*.log)"
    undisturbed
    cmp "$D/whole/model.safetensors" "$OUTPUT/model.safetensors"
}

@test "the batch files for tokenizing, converting and merging" {
    run_ok hy3_sft "$CFG" finetuning_type=lora lora_rank=4 lora_target=all max_steps=2 \
        output_dir="$D/adapter"
    submit 60 --ntasks-per-node=2 --time=5 "$HY3_SOURCE/batch/tokenize.sbatch" "$CFG" \
        cache_dir="$D/tokens"
    [ "$STATE" = COMPLETED ] || fail "$STATE" "$(cat ./*.log)"
    [ -s "$D/tokens/train.h5" ]
    submit 60 --ntasks-per-node=2 --time=5 "$HY3_SOURCE/batch/convert.sbatch" outer \
        "$BATS_FILE_TMPDIR/model" "$D/outer"
    [ "$STATE" = COMPLETED ] || fail "$STATE" "$(cat ./*.log)"
    submit 60 --ntasks-per-node=2 --time=5 "$HY3_SOURCE/batch/merge.sbatch" "$D/outer" \
        "$D/adapter" "$D/merged" fp32
    [ "$STATE" = COMPLETED ] || fail "$STATE" "$(cat ./*.log)"
    run_ok hy3_check "$D/merged" --all
}

@test "srun without --mpi=pmi2 says how to launch, once" {
    capture srun --mpi=none -n 4 hy3_sft "$CFG"
    [ "$status" -eq 2 ] || fail "exit $status" "$(shown)"
    [ "$(cat "$OUT" "$ERR" | grep -c "the launcher started 4 tasks but MPI sees 1")" -eq 1 ] ||
        fail "$(shown)"
}

@test "srun -n 1, with and without pmi2: each request ends a run with a checkpoint and 75" {
    for mpi in pmi2 ${HY3_LONG:+none}; do
        for signal in USR1 ${HY3_LONG:+TERM INT}; do
            rm -rf "$OUTPUT"
            srun -n 1 --mpi=$mpi hy3_sft "$CFG" max_steps=100000 save_steps=100000 >log 2>&1 3>&- &
            for _ in $(seq 200); do
                ! grep -q '"step": 2,' "$OUTPUT/train_log.jsonl" 2>/dev/null || break
                sleep 0.1
            done
            timeout 20 scancel --signal=$signal "$(timeout 20 squeue -h -o %i | head -n 1).0"
            status=0
            wait $! || status=$?
            [ "$status" -eq 75 ] || fail "$mpi, $signal: $status" "$(tail log)"
            grep -q "stopped by SIG$signal after step" log
        done
    done
}

@test "the scaling array runs, and its collector prints the table and draws the plot" {
    [ -n "${HY3_LONG:-}" ] || skip "make check-long"
    command -v gnuplot >/dev/null || skip "no gnuplot"
    submit 90 --nodes=1 --ntasks-per-node=4 --time=5 --array=1,2,4 \
        "$HY3_SOURCE/batch/scaling.sbatch" "$CFG" "$D/scaling"
    submit 30 --nodes=1 --ntasks-per-node=1 --time=5 "$HY3_SOURCE/batch/scaling.sbatch" collect \
        "$D/scaling"
    [ "$STATE" = COMPLETED ] || fail "$STATE" "$(cat ./*.log)"
    [ "$(grep -c '^[124] ' "$D/scaling/scaling.txt")" -eq 3 ] ||
        fail "$(cat "$D/scaling/scaling.txt")"
    [ -s "$D/scaling/scaling.png" ]
}
