#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What hy3_plan says of the configurations that are made for a number of GPUs, as comments in them:
# writes those, or with --check tells the difference and ends with 1 if there is one.
#   bash benchmarks/plans.sh BUILD_DIRECTORY [--check]
set -eu

build=$(cd "${1:?usage: bash benchmarks/plans.sh BUILD_DIRECTORY [--check]}" && pwd)
check=${2:-}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

row() { # CONFIGURATION GPUS key=value …
    "$build/hy3_plan" "etc/$1" --shape etc/hy3_295b.json --ranks "$2" --device-memory 80GB \
        --host-memory 2TB --rates etc/devices/h100.cfg "${@:3}" >"$work/out" || {
        cat "$work/out" >&2
        exit 1
    }
    echo "#   $2 GPUs${3:+, ${*:3}}"
    awk '/^ *device, peak/ { device = $3 " " $4 }
        /host memory per node/ { node = $5 " " $6 }
        /copies from and to host/ { copied = $(NF - 1) " " $NF }
        /^offload = auto/ { sub(/ \(.*/, ""); sub(/^offload = auto: /, ""); auto = $0 }
        $2 == "x" && /update/ { step = $0; sub(/^ */, "", step) }
        /tokens\/s per rank/ { tokens = $1 }
        END {
            print "#     GPU " device ", node " node ", copied a step " copied
            if (auto != "") print "#     " auto
            print "#     " step "; " tokens " tokens/s a GPU (H100)"
        }' "$work/out"
}

table() { # CONFIGURATION, the rows on standard input
    awk -v rows="$work/rows" '/^# end of plan/ {
            while ((getline line < rows) > 0) print line
            skip = 0
        }
        !skip { print }
        /^# plan$/ { skip = 1 }' "etc/$1" >"$work/new"
    if [ "$check" = --check ]; then
        diff "etc/$1" "$work/new" || failed=1
    else
        cat "$work/new" >"etc/$1"
    fi
}

{
    row lora_8x80.cfg 8
    row lora_8x80.cfg 8 base_dtype=fp8
    row lora_8x80.cfg 8 base_dtype=fp8 max_seq_length=32768 recompute=selective \
        offload_activations=true
} >"$work/rows"
table lora_8x80.cfg
row full_32x80.cfg 32 >"$work/rows"
table full_32x80.cfg
row full_64x80.cfg 64 >"$work/rows"
table full_64x80.cfg
{
    row long_262k.cfg 16
    row long_262k.cfg 64 finetuning_type=full optim=adamw_8bit
} >"$work/rows"
table long_262k.cfg
exit $failed
