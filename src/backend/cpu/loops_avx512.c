/* SPDX-License-Identifier: Apache-2.0 */
/* loops_avx512.c - the vector loops for avx512. */
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")
#define HY3_ISA   "avx512"
#define HY3_LOOPS hy3_loops_avx512
#include "backend/cpu/loops.inc"
