/* SPDX-License-Identifier: Apache-2.0 */
/* scan.c - by bits: NaN and infinity have all bits of the exponent set. Loops without branches. */
#include "ckpt/hf/scan.h"

static enum hy3_content scan_wide(const uint32_t *bits, int64_t count)
{
    uint32_t any = 0, bad = 0;

    for (int64_t i = 0; i < count; i++) {
        any |= bits[i] & 0x7fffffff;
        bad |= (bits[i] & 0x7f800000) == 0x7f800000;
    }
    return bad ? HY3_NOT_FINITE : any ? HY3_FINITE : HY3_ALL_ZERO;
}

static enum hy3_content scan_narrow(const uint16_t *bits, int64_t count, uint16_t exponent)
{
    uint16_t any = 0, bad = 0;

    for (int64_t i = 0; i < count; i++) {
        any |= bits[i] & 0x7fff;
        bad |= (bits[i] & exponent) == exponent;
    }
    return bad ? HY3_NOT_FINITE : any ? HY3_FINITE : HY3_ALL_ZERO;
}

static enum hy3_content scan_codes(const hy3_fp8 *codes, int64_t count)
{
    unsigned any = 0, bad = 0;

    for (int64_t i = 0; i < count; i++) {
        any |= codes[i] & 0x7f;
        bad |= hy3_fp8_is_nan(codes[i]);
    }
    return bad ? HY3_NOT_FINITE : any ? HY3_FINITE : HY3_ALL_ZERO;
}

enum hy3_content hy3_scan(const void *data, hy3_dtype dtype, int64_t count)
{
    if (dtype == HY3_FP8)
        return scan_codes(data, count);
    if (dtype == HY3_FP32)
        return scan_wide(data, count);
    return scan_narrow(data, count, dtype == HY3_BF16 ? 0x7f80 : 0x7c00);
}

int64_t hy3_scan_not_finite(const void *data, hy3_dtype dtype, int64_t count)
{
    enum { BLOCK = 4096 };

    const char *at = data;
    size_t size = hy3_dtype_size(dtype);

    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t n = BLOCK < count - i ? BLOCK : count - i;

        if (hy3_scan(at + (size_t)i * size, dtype, n) != HY3_NOT_FINITE)
            continue;
        while (hy3_scan(at + (size_t)i * size, dtype, 1) != HY3_NOT_FINITE)
            i++;
        return i;
    }
    return -1;
}
