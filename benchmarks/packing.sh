#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What dealing and packing gain on uneven samples, on 2 ranks of one thread: four ways to train on
# the same samples take turns in one run, so that a busy machine slows them all.
#   bash benchmarks/packing.sh BUILD_DIR [ROUNDS]
set -euo pipefail

build=$(cd "${1:?usage: benchmarks/packing.sh BUILD_DIR [ROUNDS]}" && pwd)
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hy3-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
make -C "$build" -s benchmarks/packing
cat >"$work/shape.json" <<'END'
{"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 64, "num_experts": 8, "num_experts_per_tok": 2,
 "num_shared_experts": 1, "moe_intermediate_size": 128, "first_k_dense_replace": 1,
 "num_nextn_predict_layers": 0, "max_position_embeddings": 512, "vocab_size": 4096}
END
"$build/hy3_init" --shape "$work/shape.json" \
    --tokenizer "$top/etc/quickstart/tokenizer" --output_dir "$work/model" >/dev/null 2>&1
HY3_LOG=quiet OMP_NUM_THREADS=1 mpiexec -n 2 "$build/benchmarks/packing" "$work/model" "${2:-8}"
