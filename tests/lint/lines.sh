#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Counts the lines of C, CUDA and C++ that are neither blank nor comment, a line for each folder of
# src, one for src itself (the programs), one for cuda, and their sum.
#   bash tests/lint/lines.sh [SOURCE_DIR]
# Runs on older trees too: src/cuda counts as cuda.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-$here/../..}"
folders=(src)
[ ! -d cuda ] || folders+=(cuda)
export LC_ALL=C
find "${folders[@]}" -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \
    -o -name '*.inc' ! -name Makefile.inc \) | sort | xargs awk -f "$here/lines.awk" | sort |
    awk '{ printf "%7d %s\n", $2, $1; sum += $2 } END { printf "%7d src and cuda\n", sum }'
