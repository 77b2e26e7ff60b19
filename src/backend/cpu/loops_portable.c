/* SPDX-License-Identifier: Apache-2.0 */
/* loops_portable.c - the vector loops for any x86-64 (and any other) machine. */
#define HY3_ISA   "portable"
#define HY3_LOOPS hy3_loops_portable
#include "backend/cpu/loops.inc"
