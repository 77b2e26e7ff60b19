#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A schedule of faults: programs meet a signal or a failing call of the system at a counted place of
# every phase (tests/support/faulty.c); afterwards the same command must complete, the results be
# those of an undisturbed run, byte by byte, and nothing be missing that stood before.
#
#   bash tests/support/faults.sh [--seed N] [--count N]      N faults chosen by the seed
#   bash tests/support/faults.sh --every "SCENARIO PHASE KIND"  that fault at each call of a phase
#   bash tests/support/faults.sh --fault "SCENARIO KIND PLACE"  one of them, as a failure prints it
#   bash tests/support/faults.sh --phases                    the places of each phase
#   bash tests/support/faults.sh --cluster …                 each of them with tests/slurm/faults.sh
# HY3_BUILD is where the programs are, HY3_FAULTS_KEEP=1 keeps the directory.
set -u

: "${HY3_SOURCE:=$(cd "$(dirname "$0")/../.." && pwd)}"
: "${HY3_BUILD:=$HY3_SOURCE/build-tests}"
BATS_TEST_DIRNAME=$HY3_SOURCE/tests/cli
BATS_TEST_TMPDIR=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/hy3-faults-XXXXXX")" && pwd -P)
. "$HY3_SOURCE/tests/cli/helper.bash"
cd - >/dev/null || exit 1 # what libraries look for here is none of the programs' files
W=$BATS_TEST_TMPDIR SAVE_STEPS=2
PRELOAD=$HY3_BUILD/tests/support/.libs/faulty.so
export HY3_FAULT_ROOT=$W/ ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0"
[ -n "${HY3_FAULTS_KEEP:-}" ] || trap 'rm -rf "$W" "$W.log"' EXIT

seed=1 count=60 faults=() every='' cluster='' failed=0 done_faults=0 most=0 unmet=0 begun=0
declare -A met=()
while [ $# -gt 0 ]; do
    case $1 in
    --seed) seed=$2 ;;
    --count) count=$2 ;;
    --fault) faults+=("$2") ;;
    --every) every=$2 ;;
    --cluster) cluster=yes && set -- '' "$@" ;;
    --phases) count=0 && set -- '' "$@" ;;
    *) echo "faults.sh: unknown argument '$1'" >&2 && exit 2 ;;
    esac
    shift 2
done

# --- scenarios: the command that is disturbed, and what it must leave ---

SCENARIOS="sft async resume requeue over two tokenize merge convert export init" PHASES='.*'

# The command of SCENARIO in its LIFE (0, 1, …): $COMMAND.
command_of() {
    local out=output_dir=$W/run/out sft=(hy3_sft "$CFG")
    case $1 in
    sft | resume) COMMAND=("${sft[@]}" "$out") ;;
    async) COMMAND=("${sft[@]}" "$out" save_async=true) ;;
    over) COMMAND=("${sft[@]}" "$out" overwrite_output_dir=true) ;;
    requeue) COMMAND=(env SLURM_JOB_ID=7 SLURM_RESTART_COUNT=$(($2 + 1)) "${sft[@]}" "$out"
        overwrite_output_dir=true) ;;
    two) COMMAND=("$MPIEXEC" -n 2 "${sft[@]}" "$out" per_device_train_batch_size=1) ;;
    tokenize) COMMAND=(hy3_tokenize "$CFG" "$out" cache_dir="$W/run/out") ;;
    merge) COMMAND=(hy3_merge --base_model_path "$W/fixed/model" --adapter_model_path
        "$W/fixed/adapter" --output_path "$W/run/out") ;;
    convert) COMMAND=(hy3_convert --to outer --input_dir "$W/fixed/model" --output_dir
        "$W/run/out") ;;
    export) COMMAND=(hy3_export "$W/fixed/checkpoint-1" "$W/run/out") ;;
    init) COMMAND=(hy3_init --shape "$W/fixed/model.json" --tokenizer "$QUICK/tokenizer"
        --output_dir "$W/run/out" --seed 1) ;;
    node*) COMMAND=("$HY3_SOURCE/batch/hy3_sft.sbatch" "$CFG" "$out" ddp_timeout=60
        per_device_train_batch_size=1 save_async=$([ "$1" = node1 ] && echo true || echo false)) ;;
    esac
}

is_training() {
    case $1 in sft | async | resume | requeue | over | two | node*) ;; *) return 1 ;; esac
}

is_on_cluster() {
    [ "${1#node}" != "$1" ]
}

saves_beside() {
    [ "$1" = async ] || [ "$1" = node1 ]
}

prepare() {
    mkdir -p "$W/fixed" "$W/run" "$W/template" "$W/whole"
    make_model "$W/fixed/model" >"$W.log" 2>&1 || fail "$(cat "$W.log")" || exit 1
    make_config "$W/fixed/model"
    head -n 3 "$W/train.jsonl" >"$W/fixed/eval.jsonl"
    mv "$W/train.jsonl" "$W/fixed/train.jsonl"
    sed -i "s|$W/train.jsonl|$W/fixed/train.jsonl|" "$CFG"
    cat >>"$CFG" <<END
eval_data_file = "$W/fixed/eval.jsonl"; eval_steps = 3; plot_loss = false;
save_steps = $SAVE_STEPS; save_total_limit = 2;
END
    set_keys max_steps=6
    {
        hy3_sft "$CFG" output_dir="$W/run/lora" finetuning_type=lora max_steps=1 lora_rank=4 &&
            mkdir "$W/fixed/adapter" && cp "$W"/run/lora/adapter_* "$W/fixed/adapter" &&
            hy3_sft "$CFG" output_dir="$W/run/out" max_steps=1 save_steps=1 learning_rate=3e-3
    } >"$W.log" 2>&1 || fail "$(cat "$W.log")" || exit 1
    cp -r "$W/run/out/checkpoint-1" "$W/fixed"
    mkdir "$W/template/over" && mv "$W/run/out" "$W/template/over/out"
    rm -rf "$W/run"
    mkdir "$W/run"
    # a run that was cut short when its second checkpoint began
    place=$(LIFE=0 PLACES=1 live sft && awk '/checkpoint-4.part/ { print $1; exit }' "$W/places")
    rm -rf "$W/run"
    mkdir "$W/run"
    FAULT="$place KILL" live sft
    for scenario in resume requeue; do
        mkdir "$W/template/$scenario" && cp -r "$W/run/out" "$W/template/$scenario"
        echo mine >"$W/template/$scenario/out/thesis.txt"
    done
    inputs >"$W/inputs"
}

inputs() {
    find "$W/fixed" -type f -printf '%p %s %T@\n' | sort
}

# One life of SCENARIO: its status in $STATUS, what it printed in $W.log. FAULT: what it meets;
# PLACES: its calls are listed in $W/places.
live() {
    local preload=() fault=${FAULT:-0 -} log=$W/hit
    command_of "$1" "${LIFE:-0}"
    ! is_on_cluster "$1" || { live_on_cluster "$1"; return; }
    rm -f "$W/hit"
    [ -z "${PLACES:-}" ] || { log=$W/places && rm -f "$log"; }
    if [ -n "${PLACES:-}${FAULT:-}" ]; then
        preload=(env LD_PRELOAD="$PRELOAD" HY3_FAULT="$fault" HY3_FAULT_LOG="$log")
        [ "$1" != two ] || preload+=(HY3_FAULT_RANK=1)
    fi
    STATUS=0
    { timeout -k 5 30 "${preload[@]}" "${COMMAND[@]}" >"$W.log" 2>&1 </dev/null || STATUS=$?; } \
        2>/dev/null # what the shell says of a killed program
}

begin() {
    ! is_on_cluster "$1" || mend
    rm -rf "$W/run"
    if [ -d "$W/template/$1" ]; then cp -r "$W/template/$1" "$W/run"; else mkdir "$W/run"; fi
}

# The calls of the undisturbed run with their phases, "PLACE CALL PHASE"; what it left.
survey() {
    local scenario=$1
    [ ! -e "$W/whole/$scenario.places" ] || return 0
    begin "$scenario"
    LIFE=0 PLACES=1 live "$scenario"
    [ "$STATUS" -eq 0 ] || fail "$scenario undisturbed: exit $STATUS" "$(cat "$W.log")" || exit 1
    mv "$W/run" "$W/whole/$scenario"
    awk -v tool="$(is_training "$scenario" || echo "$scenario")" \
        -v save="$(saves_beside "$scenario" && echo async-)save" '
        $3 ~ /model\/model.safetensors/ { loads = 1 }
        loads && $2 ~ /pread/ && $3 ~ /train\.h5$/ { trains = 1 }
        {
            phase = "open"
            if (tool) phase = tool ($2 ~ /^(open|p?read)/ ? "-read" : "-write")
            else if ($3 ~ /hy3_lock/) phase = "lock"
            else if (match($3, /checkpoint-[0-9]*\.part/)) {
                name = substr($3, RSTART, RLENGTH)
                if (!first) first = name
                phase = name == first ? save : save "s"
            }
            else if ($3 ~ /checkpoint-/) phase = "checkpoints"
            else if ($3 ~ /eval\.h5$/ && trains) phase = "evaluate"
            else if (($3 ~ /train\.h5$/ && trains) || $3 ~ /train_log/) phase = "step"
            else if ($3 ~ /spool|train\.h5|eval\.h5|rejected|jsonl$/) phase = "tokenize"
            else if ($3 ~ /fixed/) phase = trains ? "final" : "load"
            else if (trains) phase = "final"
            print $1, $2, phase
        }' "$W/places" >"$W/whole/$scenario.places"
}

# --- what must hold ---

wrong() { # SCENARIO KIND PLACE; $WHY
    failed=$((failed + 1))
    printf 'not right: %s in %s at place %s (%s): %s\n' "$2" "$1" "$3" "$hit" "$WHY"
    printf '  repeat: HY3_BUILD=%s bash tests/support/faults.sh --fault "%s"\n' "$HY3_BUILD" \
        "$1 $2 $3"
    tail -n 4 "$W.log" | sed "s|$W/||g; s/^/    /"
    return 1
}

newest() { # complete checkpoint below DIR; 0: none
    find "$1" -path '*/checkpoint-*/state.h5' 2>/dev/null |
        sed -n 's|.*/checkpoint-\([0-9]*\)/state.h5|\1|p' | sort -n | tail -n 1 | grep . || echo 0
}

# Each of these says in $WHY what is not right.

# How the disturbed life ended.
ended_well() {
    local scenario=$1 kind=$2
    WHY="status $STATUS"
    case $STATUS in 124 | 134 | 135 | 136 | 139) return 1 ;; esac # a hang, a crash
    case $kind in
    KILL) return 0 ;;
    TERM | INT | USR1) ! is_training "$scenario" || [ "$STATUS" -eq 75 ] || [ "$STATUS" -eq 0 ] ;;
    NODE | LINK)
        WHY="more than one message"
        [ "$(grep -c '^hy3_[a-z]*: error: ' "$W.log")" -le 1 ]
        ;;
    HUP | SHORT) [ "$STATUS" -eq 0 ] ;;
    *)
        [ "$STATUS" -ne 0 ] || return 0
        [ "$STATUS" -le 3 ] || return 1
        WHY="not one message"
        [ "$(grep -c ': error: ' "$W.log")" -eq 1 ]
        ;;
    esac
}

# Whether the run that started over has a checkpoint: then the old one may go.
has_own_checkpoint() {
    local state
    for state in "$W"/run/out/checkpoint-*/state.h5; do
        [ -e "$state" ] || continue
        cmp -s "$state" "$W/template/over/out/checkpoint-1/state.h5" || return 0
    done
    return 1
}

# What stood before the disturbed life.
stands() {
    local scenario=$1 before after
    before=$(newest "$W/template/$scenario") after=$(newest "$W/run")
    WHY="checkpoint-$before is gone"
    [ "$after" -ge "$before" ] || return 1
    WHY="an input has changed"
    inputs | cmp -s - "$W/inputs" || return 1
    keeps_others "$scenario" || return 1
    WHY="the old model is gone"
    [ "$scenario" != over ] || has_own_checkpoint || find "$W/run" -name model.safetensors \
        -exec cmp -s {} "$W/template/over/out/model.safetensors" \; -print | grep -q .
}

keeps_others() {
    WHY="somebody else's file is gone"
    [ ! -e "$W/template/$1/out/thesis.txt" ] || [ -e "$W/run/out/thesis.txt" ]
}

same_results() {
    local scenario=$1 file
    for file in $(cd "$W/whole/$scenario/out" && find . -maxdepth 1 -type f \
        ! -name 'train_log.jsonl' ! -name '.hy3*'); do
        WHY=$(cmp "$W/whole/$scenario/out/$file" "$W/run/out/$file" 2>&1) || return 1
    done
    is_training "$scenario" || return 0
    WHY="the logs differ"
    diff <(sed 's/, "tokens_per_second.*//' "$W/whole/$scenario/out/train_log.jsonl") \
        <(sed 's/, "tokens_per_second.*//' "$W/run/out/train_log.jsonl") >/dev/null
}

last_step() {
    sed -n 's/.*"step": \([0-9]*\),.*/\1/p' "$W/run/out/train_log.jsonl" 2>/dev/null | tail -n 1 |
        grep . || echo 0
}

# No more steps are repeated than those since the last checkpoint, and none after a stop (which may
# come before the first step of that life: then those of the life before count).
repeats_few() {
    local scenario=$1 reached=$2 status=$3 from repeated bound=$SAVE_STEPS
    from=$(sed -n 's/.*continuing after step \([0-9]*\) .*/\1/p' "$W.log")
    ! grep -q "is finished" "$W.log" || return 0
    ! saves_beside "$scenario" || bound=$((2 * SAVE_STEPS))
    [ "$status" -ne 75 ] || [ "$reached" -eq "$begun" ] || bound=0
    repeated=$((reached - ${from:-0}))
    [ "$repeated" -le "$most" ] || most=$repeated
    WHY="steps $((${from:-0} + 1)) to $reached are repeated, at most $bound may be"
    [ "$repeated" -le "$bound" ]
}

# try_fault SCENARIO KIND PLACE
try_fault() {
    local scenario=$1 kind=$2 place=$3 status reached life=1
    survey "$scenario"
    begin "$scenario"
    begun=$(last_step)
    LIFE=0 FAULT="$place $kind" live "$scenario"
    status=$STATUS
    [ -e "$W/hit" ] || { unmet=$((unmet + 1)) && return 0; }
    done_faults=$((done_faults + 1))
    met["$scenario $kind"]=$((${met["$scenario $kind"]:-0} + 1))
    hit=$(sed "s|$W/||; s/^[0-9]* //" "$W/hit")
    ended_well "$scenario" "$kind" && stands "$scenario" || wrong "$@" || return
    reached=$(last_step)
    while [ "$STATUS" -ne 0 ] && [ "$life" -lt 4 ]; do
        LIFE=$life live "$scenario"
        WHY="then the same command ended with $STATUS"
        [ "$STATUS" -eq 0 ] || wrong "$@" || return
        ! is_training "$scenario" || repeats_few "$scenario" "$reached" "$status" ||
            wrong "$@" || return
        life=$((life + 1))
    done
    same_results "$scenario" && keeps_others "$scenario" || wrong "$@"
}

# How many faults were met: a line a scenario, a column a kind.
tally() {
    local scenario kind kinds
    mapfile -t kinds < <(printf '%s\n' "${!met[@]}" | sed 's/.* //' | sort -u)
    printf '%-9s' '' && printf '%8s' "${kinds[@]}" && echo
    for scenario in $SCENARIOS; do
        printf '%-9s' "$scenario"
        for kind in "${kinds[@]}"; do printf '%8d' "${met["$scenario $kind"]:-0}"; done
        echo
    done
}

# --- the schedule ---

draw() { # 0 .. $1 - 1, in $DRAWN
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    DRAWN=$((seed / 65536 % $1))
}

KINDS=(KILL TERM INT USR1 KILL SHORT ENOSPC ENOSPC+ EROFS EROFS+ EDQUOT EIO EIO+ EINTR HUP)

# The places of a phase that a kind applies to.
places_of() {
    local calls=. # all
    case $3 in
    SHORT) calls='^(read|write|pread|pwrite)(64)?$' ;;
    ENOSPC* | EROFS* | EDQUOT*)
        calls='^(create|p?write|f(sync|datasync|truncate|allocate|flush|close)'
        calls+='|mk(dir|stemp)|rename|link)'
        ;;
    HUP) is_training "$1" || calls='^none$' ;;
    esac
    awk -v phase="$2" -v calls="$calls" '$3 == phase && $2 ~ calls { print $1 }' \
        "$W/whole/$1.places"
}

run_schedule() {
    local phases=() scenario phase kind places n=0 misses=0
    for scenario in $SCENARIOS; do
        survey "$scenario"
        for phase in $(cut -d' ' -f3 "$W/whole/$scenario.places" | sort -u | grep -xE "$PHASES"); do
            phases+=("$scenario $phase")
        done
    done
    echo "faults: seed $seed, $count faults over ${#phases[@]} phases: ${phases[*]/%/,}"
    while [ "$n" -lt "$count" ]; do
        read -r scenario phase <<<"${phases[$(((n + misses) % ${#phases[@]}))]}"
        draw ${#KINDS[@]}
        kind=${KINDS[DRAWN]}
        mapfile -t places < <(places_of "$scenario" "$phase" "$kind")
        if [ ${#places[@]} -eq 0 ]; then
            misses=$((misses + 1))
            [ -d "$W/whole" ] || fail "'$W' was removed" || exit 1
            continue
        fi
        draw ${#places[@]}
        try_fault "$scenario" "$kind" "${places[DRAWN]}"
        n=$((n + 1))
    done
}

[ -e "$PRELOAD" ] || { echo "faults.sh: '$PRELOAD' is not built" >&2 && exit 77; }
prepare
[ -z "$cluster" ] || { . "$HY3_SOURCE/tests/slurm/faults.sh" && cluster_up; }
if [ ${#faults[@]} -gt 0 ]; then
    for fault in "${faults[@]}"; do
        read -r scenario kind place <<<"$fault"
        try_fault "$scenario" "$kind" "$place"
    done
elif [ -n "$every" ]; then
    read -r scenario phase kind <<<"$every"
    survey "$scenario"
    for place in $(places_of "$scenario" "$phase" "$kind"); do
        try_fault "$scenario" "$kind" "$place"
    done
elif [ "$count" -eq 0 ]; then
    for scenario in $SCENARIOS; do
        survey "$scenario"
        cut -d' ' -f3 "$W/whole/$scenario.places" | sort | uniq -c | sed "s/^/$scenario/"
    done
else
    run_schedule
fi
tally
echo "faults: $done_faults met, $unmet not reached, $failed not right; at most $most steps repeated"
[ "$failed" -eq 0 ] && [ $((done_faults + unmet)) -gt 0 ]
