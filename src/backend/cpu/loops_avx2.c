/* SPDX-License-Identifier: Apache-2.0 */
/* loops_avx2.c - the vector loops for avx2. */
#pragma GCC target("avx2,fma,f16c")
#define HY3_ISA   "avx2"
#define HY3_LOOPS hy3_loops_avx2
#include "backend/cpu/loops.inc"
