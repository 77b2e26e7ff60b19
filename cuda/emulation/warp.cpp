/* SPDX-License-Identifier: Apache-2.0 */
/* warp.cpp - what the operations of a warp compute: shuffles, votes, tensor-core products,
 * ldmatrix. */
#include "cuda/emulation/emu.h"

#include <string.h>

const char *const hy3_emu_op_names[] = {"syncwarp", "shfl", "vote", "mma", "ldmatrix"};

namespace
{

float bf16(uint32_t word, int high)
{
    uint32_t bits = high ? word & 0xffff0000u : word << 16;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

void fire_shuffle(void *const slots[], unsigned mask)
{
    uint64_t in[HY3_EMU_WARP];

    for (int l = 0; l < HY3_EMU_WARP; l++)
        if (mask >> l & 1)
            in[l] = ((hy3_emu_shuffle_slot *)slots[l])->value;
    for (int l = 0; l < HY3_EMU_WARP; l++) {
        hy3_emu_shuffle_slot *s = (hy3_emu_shuffle_slot *)slots[l];
        int base, from;

        if (!(mask >> l & 1))
            continue;
        base = l & ~(s->width - 1);
        from = s->kind == 0   ? base + (s->arg & (s->width - 1))
               : s->kind == 1 ? l - s->arg
               : s->kind == 2 ? l + s->arg
                              : l ^ s->arg;
        if (from < base || from >= base + s->width)
            from = l;
        if (!(mask >> from & 1))
            hy3_emu_stop("shfl: lane %d reads lane %d, which is not in mask %08x", l, from, mask);
        s->value = in[from];
    }
}

void fire_vote(void *const slots[], unsigned mask)
{
    unsigned out = 0;

    for (int l = 0; l < HY3_EMU_WARP; l++)
        if (mask >> l & 1)
            out |= (unsigned)!!((hy3_emu_vote_slot *)slots[l])->predicate << l;
    for (int l = 0; l < HY3_EMU_WARP; l++)
        if (mask >> l & 1)
            ((hy3_emu_vote_slot *)slots[l])->out = out;
}

/* The fragments of mma.m16n8k16 .bf16: PTX ISA, "Matrix Fragments for mma.m16n8k16". */
void fire_mma(void *const slots[])
{
    float A[16][16], B[16][8], D[16][8];

    for (int l = 0; l < HY3_EMU_WARP; l++) {
        const hy3_emu_mma_slot *m = (hy3_emu_mma_slot *)slots[l];
        int row = l >> 2, pair = (l & 3) * 2;

        for (int i = 0; i < 8; i++)
            A[row + (i >> 1 & 1) * 8][pair + (i & 1) + (i >> 2) * 8] = bf16(m->a[i >> 1], i & 1);
        for (int i = 0; i < 4; i++)
            B[pair + (i & 1) + (i >> 1) * 8][row] = bf16(m->b[i >> 1], i & 1);
        for (int i = 0; i < 4; i++)
            D[row + (i >> 1) * 8][pair + (i & 1)] = m->c[i];
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                D[i][j] += A[i][k] * B[k][j];
    for (int l = 0; l < HY3_EMU_WARP; l++)
        for (int i = 0; i < 4; i++)
            ((hy3_emu_mma_slot *)slots[l])->c[i] =
                D[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
}

/* Matrix q of an .x4: PTX ISA, "Warp-level matrix load instruction: ldmatrix". */
void fire_ldmatrix_part(void *const slots[], int q)
{
    for (int r = 0; r < 8; r++) {
        const hy3_emu_ldmatrix_slot *a = (hy3_emu_ldmatrix_slot *)slots[q * 8 + r];

        if ((uintptr_t)a->address & 15)
            hy3_emu_stop("ldmatrix: the address of lane %d is not 16-byte aligned", q * 8 + r);
    }
    for (int l = 0; l < HY3_EMU_WARP; l++) {
        const hy3_emu_ldmatrix_slot *d = (hy3_emu_ldmatrix_slot *)slots[l];
        uint16_t pair[2];

        for (int e = 0; e < 2; e++) {
            int row = d->trans ? (l & 3) * 2 + e : l >> 2,
                column = d->trans ? l >> 2 : (l & 3) * 2 + e;

            memcpy(&pair[e], ((hy3_emu_ldmatrix_slot *)slots[q * 8 + row])->row + 2 * column, 2);
        }
        memcpy(&d->out[q], pair, sizeof pair);
    }
}

} // namespace

void hy3_emu_fire(int op, void *const slots[], unsigned mask)
{
    switch (op) {
    case HY3_WARP_SHUFFLE:
        fire_shuffle(slots, mask);
        break;
    case HY3_WARP_VOTE:
        fire_vote(slots, mask);
        break;
    case HY3_WARP_MMA:
        fire_mma(slots);
        break;
    case HY3_WARP_LDMATRIX:
        for (int q = 0; q < 4; q++)
            fire_ldmatrix_part(slots, q);
        break;
    default:
        break;
    }
}
