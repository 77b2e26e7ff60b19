/* SPDX-License-Identifier: Apache-2.0 */
/* examine.c - raw bytes in the order of the file; values are looked at by their bits. */
#include "ckpt/hf/examine.h"

#include "base/file.h"
#include "base/memory.h"
#include "ckpt/hf/checksums.h"
#include "ckpt/hf/scales.h"
#include "ckpt/hf/scan.h"
#include "comm/stop.h"

enum { PIECE = 8 << 20 }; /* bytes read at a time; a multiple of every element's size */

/* Whether one of the values of a tensor of scales is not above 0; NaN is told otherwise. */
static bool has_bad_scale(const struct hy3_shard_tensor *t, const void *data, int64_t bytes)
{
    char weight[HY3_PARAM_NAME];
    int64_t count = bytes / (int64_t)hy3_dtype_size(t->dtype);
    bool bad = false;

    if (!t->is_float || hy3_scale_parse(t->name, weight) != HY3_SCALE)
        return false;
    for (int64_t i = 0; i < count; i++) {
        float value;

        hy3_convert((const char *)data + (size_t)i * hy3_dtype_size(t->dtype), t->dtype, &value,
                    HY3_FP32, 1);
        bad |= value <= 0;
    }
    return bad;
}

/* Adds the values of a tensor to the digest. */
static hy3_status read_tensor(const struct hy3_examine *e, const struct hy3_shard_tensor *t,
                              struct hy3_digest *digest, char *buffer, int64_t *found)
{
    bool bad_scale = false;

    *found = HY3_ALL_ZERO;
    for (int64_t at = 0; at < t->bytes; at += PIECE) {
        int64_t bytes = t->bytes - at < PIECE ? t->bytes - at : PIECE, content;

        HY3_TRY(hy3_stop_check("reading the values"));
        if (hy3_shard_read_raw(e->shard, t, at, bytes, buffer) != HY3_OK) {
            *found |= HY3_UNREADABLE;
            return HY3_OK;
        }
        content = t->is_float || t->is_fp8
                      ? hy3_scan(buffer, t->dtype, bytes / (int64_t)hy3_dtype_size(t->dtype))
                      : HY3_FINITE;
        *found = content > *found ? content : *found;
        bad_scale |= has_bad_scale(t, buffer, bytes);
        hy3_digest_add(digest, buffer, (size_t)bytes);
        if (e->progress)
            e->progress(e->context, bytes);
    }
    *found |= bad_scale ? HY3_BAD_SCALE : 0;
    return HY3_OK;
}

static void compare(const struct hy3_examine *e, const struct hy3_shard_tensor *t, uint64_t xxh3,
                    int64_t *found)
{
    if (e->entry && !hy3_checksums_has(e->entry, t->name, xxh3))
        *found |= HY3_CHANGED;
}

hy3_status hy3_examine_tensor(const struct hy3_examine *e, const struct hy3_shard_tensor *tensor,
                              int64_t *found)
{
    hy3_status status = HY3_OK;
    struct hy3_digest *digest = NULL;
    char *buffer = NULL;

    HY3_TRY_DONE(hy3_digest_create(1, false, &digest));
    HY3_TRY_DONE(hy3_alloc(&buffer, PIECE, 1));
    digest->tensors[0].count = tensor->bytes;
    HY3_TRY_DONE(read_tensor(e, tensor, digest, buffer, found));
    if (*found & HY3_UNREADABLE)
        goto done;
    hy3_digest_end(digest);
    compare(e, tensor, digest->xxh3[0], found);
done:
    hy3_digest_free(digest);
    hy3_free(buffer);
    return status;
}

/* Adds what stands before the tensors. */
static hy3_status read_header(const struct hy3_examine *e, struct hy3_digest *digest, char *buffer)
{
    const char *path = hy3_shard_path(e->shard);
    int64_t bytes;

    if (digest->count > 0)
        bytes = digest->tensors[0].first;
    else
        HY3_TRY(hy3_file_size(path, &bytes));
    for (int64_t at = 0; at < bytes; at += PIECE) {
        size_t size = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;

        HY3_TRY(hy3_file_read_at(hy3_shard_fd(e->shard), buffer, size, at, path));
        hy3_digest_add(digest, buffer, size);
    }
    return HY3_OK;
}

static hy3_status read_all(const struct hy3_examine *e, struct hy3_digest *digest, char *buffer,
                           int64_t *tensors, int64_t *file)
{
    char sha256[HY3_SHA256_TEXT];

    *file = (e->entry ? HY3_FILE_CHANGED : 0) | (e->listed ? HY3_FILE_OTHER : 0);
    if (read_header(e, digest, buffer) != HY3_OK)
        return HY3_OK;
    for (int i = 0; i < digest->count; i++) {
        HY3_TRY(read_tensor(e, hy3_shard_tensor(e->shard, i), digest, buffer, &tensors[i]));
        if (tensors[i] & HY3_UNREADABLE)
            return HY3_OK;
    }
    hy3_digest_end(digest);
    for (int i = 0; i < digest->count; i++)
        compare(e, hy3_shard_tensor(e->shard, i), digest->xxh3[i], &tensors[i]);
    hy3_sha256_text(digest->sha256, sha256);
    if (e->entry && strcmp(sha256, json_string_value(json_object_get(e->entry, "sha256"))) == 0)
        *file &= ~HY3_FILE_CHANGED;
    if (e->listed && strcmp(sha256, json_string_value(json_object_get(e->listed, "sha256"))) == 0)
        *file &= ~HY3_FILE_OTHER;
    return HY3_OK;
}

hy3_status hy3_examine_shard(const struct hy3_examine *e, int64_t *tensors, int64_t *file)
{
    hy3_status status = HY3_OK;
    struct hy3_digest *digest = NULL;
    char *buffer = NULL;

    HY3_TRY_DONE(hy3_digest_create(hy3_shard_count(e->shard), true, &digest));
    HY3_TRY_DONE(hy3_alloc(&buffer, PIECE, 1));
    for (int i = 0; i < digest->count; i++) {
        const struct hy3_shard_tensor *t = hy3_shard_tensor(e->shard, i);

        digest->tensors[i] = (struct hy3_span){t->begin, t->bytes};
    }
    HY3_TRY_DONE(read_all(e, digest, buffer, tensors, file));
done:
    hy3_digest_free(digest);
    hy3_free(buffer);
    return status;
}
