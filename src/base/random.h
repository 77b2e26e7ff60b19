/* SPDX-License-Identifier: Apache-2.0 */
/* random.h - counter-based random numbers: a value depends on the place it is used at, never on the
 * rank.
 *
 * Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key
 * is (seed, purpose); the counter is up to 128 bits that name the place: step, sample, position. So
 * dropout, order and initial weights do not depend on the number of ranks, and a resumed run needs
 * no saved state. */
#pragma once

#include <stdint.h>

enum hy3_random_purpose { /* never renumber: a resumed run draws the same numbers */
                          HY3_RANDOM_ORDER = 1,
                          HY3_RANDOM_WEIGHT = 2,
                          HY3_RANDOM_DROPOUT = 3,
                          HY3_RANDOM_ADAPTER = 4,
                          HY3_RANDOM_SAMPLING = 5,
                          HY3_RANDOM_DUMMY = 6,
                          HY3_RANDOM_SPLIT = 7,
                          HY3_RANDOM_ROWS = 8,
                          HY3_RANDOM_NOISE = 9,
                          HY3_RANDOM_MOMENT = 10,
};

/* The key of a seed and a purpose, which is mixed into the upper word: seeds below 2^32 stay
 * distinct keys. */
static inline void hy3_random_key(uint64_t seed, enum hy3_random_purpose purpose, uint32_t key[2])
{
    key[0] = (uint32_t)seed;
    key[1] = (uint32_t)(seed >> 32) ^ ((uint32_t)purpose * 0x9e3779b1u);
}

/* Four 32-bit words for the key (seed, purpose) and the counter (high, low). */
void hy3_random(uint64_t seed, enum hy3_random_purpose purpose, uint64_t high, uint64_t low,
                uint32_t out[4]);

/* Local. 64 bits that nobody can foresee, another number at each call: for what must not be guessed
 * (the hash tables of strangers' keys, names of locks), never for what a result depends on. */
uint64_t hy3_random_secret(void);

/* Uniform in [0, 1), 24 bits, from one word. */
float hy3_random_uniform(uint32_t word);

/* Two independent normal deviates from two words (Box-Muller), in fp64 arithmetic. */
void hy3_random_normal(uint32_t a, uint32_t b, double out[2]);

/* Place `i` (0 <= i < n) of a pseudo-random permutation of n things, in O(1) time and memory: a
 * six-round Feistel network on the smallest even number of bits that holds n, walked until it lands
 * below n (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). */
uint64_t hy3_random_permute(uint64_t seed, enum hy3_random_purpose purpose, uint64_t which,
                            uint64_t n, uint64_t i);
