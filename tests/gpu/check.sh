#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests the kernels on a GPU and times them: needs nvcc and gcc, no MPI, no Python, no configure.
#   bash tests/gpu/check.sh [BUILD_DIRECTORY]   (default: build-gpu; `make gpu-check` runs it, too)
# 1. every kernel against the reference
# 2. timings, as a share of the peak
# 3. the kernel tests under compute-sanitizer, where installed
# HY3_BUILD_ONLY=1 stops before 1, for a machine without a GPU (benchmarks/gpu_day.sh): for
# compute capability 9.0.
# HY3_EMULATED=1 runs it on the emulated GPU, to test this script without one (needs the CUDA
# headers). With HY3_SANITIZE=thread (or address,undefined) the emulated kernels are built with that
# sanitizer and not timed; HY3_SMALL=1 restricts the tests to small shapes.
set -eu

# before anything is compiled, which takes minutes
has_gpu() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU' || ls /dev/nvidia[0-9]* /dev/dxg >/dev/null 2>&1
}
[ -n "${HY3_EMULATED:-}${HY3_BUILD_ONLY:-}" ] || has_gpu || {
    echo "gpu-check: error: this machine has no NVIDIA GPU (nvidia-smi -L lists none, there is no" \
        "/dev/nvidia0); run it where there is one" >&2
    exit 1
}

source=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "${1:-build-gpu}"
build=$(cd "${1:-build-gpu}" && pwd)
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
include="-D_GNU_SOURCE -I$source/tests -I$source/src -I$source"
c_flags="-std=gnu17 -O2 -g -I$source/tests/gpu/shim $include"
kernels="adamw attention device elementwise embedding gemm loss permute rmsnorm rope router swiglu
    tiles"
tested="src/base/error src/base/memory src/base/printable src/base/random src/base/dtype
    src/backend/moments
    tests/backend/reference tests/backend/mirror tests/backend/kernels"

[ -x "$nvcc" ] || { echo "gpu-check: error: no nvcc found; set NVCC or add it to PATH"; exit 1; }
# shellcheck disable=SC2086 # lists of words
if [ -n "${HY3_EMULATED:-}" ]; then
    sanitize=${HY3_SANITIZE:+-fsanitize=$HY3_SANITIZE}
    c_flags="$c_flags $sanitize"
    cxx="g++ -std=gnu++17 -O2 $include -I$cuda/include"
    compile() { $cxx -g $sanitize -x c++ -c "$1" -o "$2"; }
    link() { g++ $sanitize "$@"; }
else
    arch=-arch=native # leaves out what only 9.0 has (wgmma)
    if [ -n "${HY3_BUILD_ONLY:-}" ] ||
        nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -q '^9\.0'; then
        arch="-gencode=arch=compute_90a,code=sm_90a"
    fi
    [ -z "${HY3_GPU_ARCH:-}" ] || arch=-arch=$HY3_GPU_ARCH
    compile() { "$nvcc" "$arch" -std=c++17 -O3 $include -c "$1" -o "$2"; }
    link() { "$nvcc" "$@" -lcublas -lcublasLt; }
fi

echo "building in $build"
objects=()
for name in $kernels; do
    compile "$source/cuda/$name.cu" "$build/$name.o" &
    objects+=("$build/$name.o")
    [ $((${#objects[@]} % 4)) -ne 0 ] || wait
done
compile "$source/tests/gpu/open.cu" "$build/open.o" &
compile "$source/tests/gpu/bench.cu" "$build/bench.o" &
objects+=("$build/open.o")
for file in $tested; do
    # shellcheck disable=SC2086 # a list of words
    gcc $c_flags -c "$source/$file.c" -o "$build/$(basename $file).o"
done
wait
for name in error memory printable random dtype moments; do objects+=("$build/$name.o"); done
if [ -n "${HY3_EMULATED:-}" ]; then
    for name in faults fibers runtime warp cublas; do
        $cxx -c "$source/cuda/emulation/$name.cpp" -o "$build/emu_$name.o"
        objects+=("$build/emu_$name.o")
    done
fi
link -o "$build/kernels" "$build"/{kernels,mirror,reference}.o "${objects[@]}" -lm
link -o "$build/bench" "$build/bench.o" "${objects[@]}" -lm
[ -z "${HY3_BUILD_ONLY:-}" ] || exit 0

failed=0
echo "== every kernel against the reference"
"$build/kernels" '*_on_gpu' || failed=1
echo "== timings"
if [ -n "${HY3_SANITIZE:-}" ]; then echo "skipped: sanitized"
elif [ -n "${HY3_EMULATED:-}" ]; then "$build/bench" 64
else "$build/bench" 4096 && "$build/bench" 32768
fi || failed=1
sanitizer=$(command -v compute-sanitizer || echo "$cuda/bin/compute-sanitizer")
# sanitized TOOL: runs the kernel tests under it; racecheck without the products of cuBLAS, which
# would take minutes each
sanitized() {
    local tests='*_on_gpu'
    [ "$1" != racecheck ] || tests='[!g]*_on_gpu'
    timeout "${HY3_SANITIZER_SECONDS:-900}" "$sanitizer" --tool "$1" --error-exitcode 9 \
        "$build/kernels" "$tests" >"$build/$1.log" 2>&1
}
if [ -x "$sanitizer" ] && [ -z "${HY3_EMULATED:-}" ]; then
    tools="memcheck racecheck synccheck initcheck"
    for tool in $tools; do
        (sanitized "$tool" && echo passed || echo FAILED) >"$build/$tool.verdict" &
    done
    wait
    for tool in $tools; do
        echo "== compute-sanitizer $tool: $(cat "$build/$tool.verdict")"
        grep -q passed "$build/$tool.verdict" || {
            failed=1
            tail -n 30 "$build/$tool.log"
        }
    done
else
    echo "== compute-sanitizer: skipped, not installed"
fi
[ $failed -eq 0 ] && echo "gpu-check: passed" || echo "gpu-check: FAILED"
exit $failed
