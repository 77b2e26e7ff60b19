/* SPDX-License-Identifier: Apache-2.0 */
/* random.h - counter-based random numbers on the device. */
#pragma once

#include "cuda/cuda.h"

extern "C" {
#include "base/random.h"
}

/* base/random.h's Philox 4x32-10, as used for dropout, noise and rounding; tests compare both. */
HY3_DEVICE void philox(uint32_t key0, uint32_t key1, uint64_t high, uint64_t low,
                       uint32_t (&out)[4])
{
    uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)};

    HY3_UNROLL
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xd2511f53u * c[0], q = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t next0 = (uint32_t)(q >> 32) ^ c[1] ^ key0,
                 next2 = (uint32_t)(p >> 32) ^ c[3] ^ key1;

        c[1] = (uint32_t)q;
        c[3] = (uint32_t)p;
        c[0] = next0;
        c[2] = next2;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    HY3_UNROLL
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}
