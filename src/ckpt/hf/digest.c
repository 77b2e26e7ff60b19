/* SPDX-License-Identifier: Apache-2.0 */
/* digest.c - cuts what passes by at the ends of the tensors. */
#include "ckpt/hf/digest.h"

#include "base/memory.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

hy3_status hy3_digest_create(int count, bool with_sha256, struct hy3_digest **out)
{
    hy3_status status = HY3_OK;
    struct hy3_digest *d = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&d, 1, sizeof *d));
    d->count = count;
    HY3_TRY_DONE(hy3_alloc(&d->tensors, (size_t)count, sizeof *d->tensors));
    HY3_TRY_DONE(hy3_alloc(&d->xxh3, (size_t)count, sizeof *d->xxh3));
    if (!(d->one = XXH3_createState()))
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for a checksum");
    XXH3_64bits_reset(d->one);
    if (with_sha256)
        HY3_TRY_DONE(hy3_sha256_create(&d->all));
    *out = HY3_TAKE(d);
done:
    hy3_digest_free(d);
    return status;
}

void hy3_digest_free(struct hy3_digest *d)
{
    if (!d)
        return;
    hy3_sha256_free(d->all);
    XXH3_freeState(d->one);
    hy3_free(d->tensors);
    hy3_free(d->xxh3);
    hy3_free(d);
}

/* Ends the tensors that have no byte left. */
static void end_tensors(struct hy3_digest *d)
{
    while (d->tensor < d->count && d->at >= hy3_span_end(d->tensors[d->tensor])) {
        d->xxh3[d->tensor++] = XXH3_64bits_digest(d->one);
        XXH3_64bits_reset(d->one);
    }
}

void hy3_digest_add(struct hy3_digest *d, const void *data, size_t size)
{
    struct hy3_span rest = {d->at, (int64_t)size};
    const char *from = data;

    if (d->all)
        hy3_sha256_add(d->all, data, size);
    for (end_tensors(d); d->tensor < d->count; end_tensors(d)) {
        struct hy3_span part = hy3_span_intersect(
            (struct hy3_span){d->at, hy3_span_end(rest) - d->at}, d->tensors[d->tensor]);

        if (part.count == 0)
            break;
        XXH3_64bits_update(d->one, from + (part.first - rest.first), (size_t)part.count);
        d->at = hy3_span_end(part);
    }
    d->at = hy3_span_end(rest);
}

void hy3_digest_end(struct hy3_digest *d)
{
    end_tensors(d);
    if (d->all)
        hy3_sha256_end(d->all, d->sha256);
}
