/* SPDX-License-Identifier: Apache-2.0 */
/* zigzag.h - how P ranks share T tokens whose attention is causal: of 2 P chunks of the same size
 * rank r has chunk r and chunk 2 P - 1 - r, so that all have as many tokens, and of a long sample
 * as many pairs of queries and keys. Source: Dubey et al. 2024 (Llama 3), section 3.3.2. */
#pragma once

#include <stdint.h>

/* First token of a chunk; of chunk 2 P, the end. */
static inline int64_t hy3_zigzag_first(int64_t T, int P, int chunk)
{
    const int64_t chunks = 2 * (int64_t)P;

    return T / chunks * chunk + T % chunks * chunk / chunks;
}

static inline int64_t hy3_zigzag_tokens(int64_t T, int P, int chunk)
{
    return hy3_zigzag_first(T, P, chunk + 1) - hy3_zigzag_first(T, P, chunk);
}

/* The chunks of a rank: half 0, then half 1. */
static inline int hy3_zigzag_chunk(int P, int rank, int half)
{
    return half == 0 ? rank : 2 * P - 1 - rank;
}

/* Most tokens of a rank. */
static inline int64_t hy3_zigzag_most(int64_t T, int P)
{
    const int64_t chunks = 2 * (int64_t)P;

    return P > 1 ? 2 * ((T + chunks - 1) / chunks) : T;
}
