/* SPDX-License-Identifier: Apache-2.0 */
/* random.c - Philox 4x32-10, uniform, normal, permutation; the secret. */
#include "base/random.h"

#include <math.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

void hy3_random(uint64_t seed, enum hy3_random_purpose purpose, uint64_t high, uint64_t low,
                uint32_t out[4])
{
    uint32_t key[2];
    uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)};

    hy3_random_key(seed, purpose, key);
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xd2511f53u * c[0], q = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t next[4] = {(uint32_t)(q >> 32) ^ c[1] ^ key[0], (uint32_t)q,
                            (uint32_t)(p >> 32) ^ c[3] ^ key[1], (uint32_t)p};

        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

uint64_t hy3_random_secret(void)
{
    uint64_t number;
    struct timespec now;

    if (getrandom(&number, sizeof number, GRND_NONBLOCK) != sizeof number) {
        clock_gettime(CLOCK_REALTIME, &now);
        number = ((uint64_t)now.tv_nsec << 32) ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid() << 20;
    }
    return number;
}

float hy3_random_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

void hy3_random_normal(uint32_t a, uint32_t b, double out[2])
{
    double radius = sqrt(-2 * log(((double)a + 0.5) * 0x1p-32));
    double angle = 2 * 3.14159265358979323846 * ((double)b + 0.5) * 0x1p-32;

    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

uint64_t hy3_random_permute(uint64_t seed, enum hy3_random_purpose purpose, uint64_t which,
                            uint64_t n, uint64_t i)
{
    unsigned half = 1;

    if (n < 2)
        return 0;
    while (half < 32 && (n - 1) >> (2 * half) != 0)
        half++;
    do {
        uint64_t mask = ((uint64_t)1 << half) - 1, left = i >> half, right = i & mask;

        for (uint64_t round = 0; round < 6; round++) {
            uint32_t word[4];
            uint64_t kept = right;

            hy3_random(seed, purpose, which, round << 32 | right, word);
            right = left ^ (word[0] & mask);
            left = kept;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
