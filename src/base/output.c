/* SPDX-License-Identifier: Apache-2.0 */
/* output.c - the steps of base/file.h under the two names of a file. */
#include "base/output.h"

#include "base/memory.h"

#include <unistd.h>

hy3_status hy3_output_name(const char *path, const char *unique, struct hy3_output *out)
{
    hy3_status status = hy3_path_format(out->part, sizeof out->part, "%s%s%s.part", path,
                                        unique ? "." : "", unique ? unique : "");

    out->fd = -1;
    out->is_private = false;
    if (status != HY3_OK)
        out->part[0] = '\0';
    else
        snprintf(out->path, sizeof out->path, "%s", path);
    return status;
}

hy3_status hy3_output_create(struct hy3_output *out)
{
    return out->is_private ? hy3_file_create_private(out->part, &out->fd)
                           : hy3_file_create(out->part, &out->fd);
}

hy3_status hy3_output_open(struct hy3_output *out)
{
    return hy3_file_reopen(out->part, &out->fd);
}

void hy3_output_close(struct hy3_output *out)
{
    if (out->fd >= 0)
        close(out->fd);
    out->fd = -1;
}

hy3_status hy3_output_claim(const struct hy3_output *out, int64_t bytes)
{
    return hy3_file_claim(out->fd, bytes, out->part);
}

hy3_status hy3_output_flush(struct hy3_output *out)
{
    hy3_status status = hy3_file_flush(out->fd, out->part);

    hy3_output_close(out);
    return status;
}

hy3_status hy3_output_publish(struct hy3_output *out)
{
    if (out->fd >= 0)
        HY3_TRY(hy3_output_flush(out));
    HY3_TRY(hy3_file_rename(out->part, out->path));
    out->part[0] = '\0';
    return HY3_OK;
}

void hy3_output_discard(struct hy3_output *out)
{
    if (out->part[0] == '\0')
        return;
    hy3_output_close(out);
    unlink(out->part);
    out->part[0] = '\0';
}

hy3_status hy3_output_replace(const char *path, const void *data, size_t size)
{
    hy3_status status = HY3_OK;
    struct hy3_output out;

    HY3_TRY_DONE(hy3_output_name(path, NULL, &out));
    HY3_TRY_DONE(hy3_output_create(&out));
    HY3_TRY_DONE(hy3_file_write_at(out.fd, data, size, 0, out.part));
    HY3_TRY_DONE(hy3_output_publish(&out));
done:
    hy3_output_discard(&out);
    return status;
}

hy3_status hy3_output_copy(const char *from, const char *to)
{
    int64_t bytes;

    return hy3_output_copy_summed(from, to, NULL, &bytes);
}

hy3_status hy3_output_copy_summed(const char *from, const char *to, struct hy3_sha256 *sha256,
                                  int64_t *bytes)
{
    enum { PIECE = 1 << 20 };

    hy3_status status = HY3_OK;
    struct hy3_output out = {0};
    char *piece = NULL;
    int in = -1;

    HY3_TRY_DONE(hy3_alloc(&piece, PIECE, 1));
    HY3_TRY_DONE(hy3_file_open(from, &in));
    HY3_TRY_DONE(hy3_file_size(from, bytes));
    HY3_TRY_DONE(hy3_output_name(to, NULL, &out));
    HY3_TRY_DONE(hy3_output_create(&out));
    for (int64_t at = 0; at < *bytes; at += PIECE) {
        size_t size = *bytes - at < PIECE ? (size_t)(*bytes - at) : PIECE;

        HY3_TRY_DONE(hy3_file_read_at(in, piece, size, at, from));
        if (sha256)
            hy3_sha256_add(sha256, piece, size);
        HY3_TRY_DONE(hy3_file_write_at(out.fd, piece, size, at, out.part));
    }
    HY3_TRY_DONE(hy3_output_publish(&out));
done:
    if (in >= 0)
        close(in);
    hy3_output_discard(&out);
    hy3_free(piece);
    return status;
}
