/* SPDX-License-Identifier: Apache-2.0 */
/* moments.h - the two moments of an optimizer's ranges, one range after the other, each in its own
 * format.
 *
 * Files hold moments in fp32. What was read from here and is put back gives the same bits here:
 * bf16 numbers are exact in fp32, and codes of 8 bits come back by backend/moments.h, 1. */
#pragma once

#include "backend/moments.h"
#include "backend/placement.h"
#include "optim/range.h"

struct hy3_moments {
    const struct hy3_device *device;
    struct hy3_placement placement;
    const struct hy3_range *ranges; /* [count] */
    int count;
    size_t *at;        /* [count+1] bytes: where each range begins in m and v */
    int64_t *scale_at; /* [count+1] the same in the scales */
    char *m, *v;       /* placed */
    float *m_scale, *v_scale;

    /* A block of which only a part was put: its numbers, until the rest follows. So a block that
     * comes in parts is rounded once. */
    struct {
        int range;  /* -1: none */
        bool first; /* first moments */
        int64_t block;
        float x[HY3_MOMENT_BLOCK];
    } part;
};

/* Local. Zero moments. ranges: kept. The caller releases *out (hy3_moments_close), also after an
 * error. Errors: HY3_ENOMEM, HY3_EIO. */
hy3_status hy3_moments_open(const struct hy3_device *device, const struct hy3_placement *placement,
                            const struct hy3_range *ranges, int count, struct hy3_moments *out);
void hy3_moments_close(struct hy3_moments *moments);

size_t hy3_moments_bytes(const struct hy3_moments *moments);

/* Elements that are left free before a range's first one, so that blocks begin at aligned
 * places. */
int64_t hy3_moments_lead(const struct hy3_range *range);

/* Local. Sets format and moments of an update that begins with element `first` of a range. */
void hy3_moments_set(const struct hy3_moments *moments, int range, int64_t first,
                     struct hy3_adamw *update);

/* Elements from `first` on, at most `most`, that an update or a copy may take at a time: not a part
 * of a block where more follows. */
int64_t hy3_moments_piece(const struct hy3_range *range, int64_t first, int64_t most);

/* Local. Moments of a piece of a range, from or to fp32 in host memory. host: two buffers for as
 * many floats, of memory that is copied fast. hy3_moments_updated, after an update, ends what put
 * knows of parts of blocks. Synchronises. */
hy3_status hy3_moments_put(struct hy3_moments *moments, bool is_first, int range,
                           struct hy3_span piece, const float *values, void *const host[2]);
hy3_status hy3_moments_get(const struct hy3_moments *moments, bool is_first, int range,
                           struct hy3_span piece, float *values, void *const host[2]);
void hy3_moments_updated(struct hy3_moments *moments);
