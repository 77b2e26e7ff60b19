#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs cppcheck and clang-tidy (its checks: .clang-tidy) on the sources. The exit status is 1 if
# there are findings.
#   bash tests/lint/analyze.sh [SOURCE_DIR]
# LINT_CFLAGS: where the headers of the libraries are (default: what pkg-config says)
set -uo pipefail

cd "${1:-$(dirname "$0")/../..}" || exit 2
for tool in cppcheck clang-tidy pkg-config; do
    if ! command -v "$tool" >/dev/null; then
        echo "analyze.sh: error: $tool is missing, see batch/packages.sh"
        exit 2
    fi
done
libraries=(mpich hdf5-mpich libconfig jansson libpcre2-8 libxxhash libcrypto yaml-0.1)
if [ -z "${LINT_CFLAGS+set}" ]; then
    LINT_CFLAGS=$(pkg-config --cflags "${libraries[@]}") || exit 2
fi
read -ra library_flags <<<"$LINT_CFLAGS"
flags=(-std=gnu17 -D_GNU_SOURCE '-DPACKAGE_VERSION="0"' '-DHY3_SRCDIR="."' '-DHY3_DATADIR="."'
    '-DHY3_PKGLIBDIR="."' '-DHY3_MPIEXEC="mpiexec"'
    -include tests/support/analyzer.h -Wno-unknown-pragmas -Isrc)
folders=(src)
[ ! -d cuda ] || folders+=(cuda)
status=0

# readdirCalled: readdir_r is deprecated
cppcheck --quiet --error-exitcode=1 -j "$(nproc)" --enable=warning,performance,portability \
    --inline-suppr --suppress=readdirCalled --std=c11 --library=posix --library=openmp \
    --library=tests/support/cppcheck.cfg -Isrc -I. "${folders[@]}" 2>&1 || status=1

# a file at a time: the slowest takes a few seconds
clang_tidy=(clang-tidy --quiet "{}" -- "${flags[@]}" "${library_flags[@]}")
find src -name "*.c" | LC_ALL=C sort | xargs -I "{}" -P "$(nproc)" "${clang_tidy[@]}" 2>&1 |
    { grep -v ' warnings\? generated\.$' || true; } || status=1

[ $status -ne 0 ] || echo "cppcheck and clang-tidy: no findings"
exit $status
