/* SPDX-License-Identifier: Apache-2.0 */
/* verify.c - file by file. */
#include "ckpt/hf/verify.h"

#include "base/file.h"
#include "ckpt/hf/checksums.h"
#include "ckpt/hf/examine.h"
#include "ckpt/hf/scan.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

static void tell(const struct hy3_verify *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void tell(const struct hy3_verify *v, const char *format, ...)
{
    char text[HY3_ERROR_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    v->tell(v->context, text);
}

hy3_status hy3_verify_open(struct hy3_verify *v)
{
    hy3_status status;

    if (v->path)
        HY3_TRY(hy3_checksums_read_list(v->path, &v->list));
    status = hy3_checksums_read(v->directory, &v->sums);
    if (status == HY3_ENOMEM)
        return status;
    if (status != HY3_OK)
        tell(v, "%s", hy3_error_text());
    return HY3_OK;
}

void hy3_verify_close(struct hy3_verify *v)
{
    json_decref(v->sums);
    json_decref(v->list);
    v->sums = v->list = NULL;
}

/* Whether the entry has this digest; there may be none. */
static bool agrees(const json_t *entry, const char *sha256)
{
    return !entry || strcmp(json_string_value(json_object_get(entry, "sha256")), sha256) == 0;
}

/* Compares one file with what is listed of it. */
static hy3_status compare(const struct hy3_verify *v, const char *name, bool reads)
{
    const json_t *own = json_object_get(v->sums, name), *listed = json_object_get(v->list, name);
    const json_t *size = json_object_get(own, "size");
    char path[HY3_PATH_MAX], sha256[HY3_SHA256_TEXT];
    int64_t bytes;

    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", v->directory, name));
    if (!hy3_path_exists(path)) {
        tell(v, "%s: missing, but listed in '%s'", name, own ? HY3_CHECKSUMS : v->path);
        return HY3_OK;
    }
    HY3_TRY(hy3_file_size(path, &bytes));
    if (own && bytes != json_integer_value(size)) {
        tell(v, "%s: %lld bytes long, %s says %lld", name, (long long)bytes, HY3_CHECKSUMS,
             (long long)json_integer_value(size));
        own = NULL;
    }
    if (!reads || hy3_path_is_same(path, v->path)) /* no list has its own digest */
        return HY3_OK;
    HY3_TRY(hy3_checksums_of(path, &bytes, sha256));
    if (!agrees(own, sha256))
        tell(v, "%s: its SHA-256 is not the one in %s", name, HY3_CHECKSUMS);
    if (!agrees(listed, sha256))
        tell(v, "%s: its SHA-256 is not the one in '%s'", name, v->path);
    return HY3_OK;
}

static hy3_status compare_all(const struct hy3_verify *v, const json_t *files, const json_t *but,
                              bool all, const json_t *read)
{
    const char *name;
    json_t *entry;

    json_object_foreach((json_t *)files, name, entry)
    {
        bool reads = !hy3_ends_with(name, ".safetensors") || (all && !json_object_get(read, name));
        hy3_status status;

        if (json_object_get(but, name))
            continue;
        status = compare(v, name, reads);
        if (status == HY3_ENOMEM)
            return status;
        if (status != HY3_OK)
            tell(v, "%s", hy3_error_text());
    }
    return HY3_OK;
}

/* Files, but hidden ones, that the user's list lacks; the list itself may lie beside them. */
static hy3_status find_unlisted(const struct hy3_verify *v)
{
    struct dirent **names = NULL;
    int count = scandir(v->directory, &names, NULL, alphasort);

    if (count < 0)
        HY3_FAIL(HY3_EIO, "cannot open the directory '%s': %s", v->directory, strerror(errno));
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        char path[HY3_PATH_MAX];
        struct stat info;

        if (name[0] != '.' && !json_object_get(v->list, name) &&
            hy3_path_format(path, sizeof path, "%s/%s", v->directory, name) == HY3_OK &&
            stat(path, &info) == 0 && S_ISREG(info.st_mode) && !hy3_path_is_same(path, v->path))
            tell(v, "%s: not listed in '%s'", name, v->path);
        free(names[i]);
    }
    free(names);
    return HY3_OK;
}

hy3_status hy3_verify_files(const struct hy3_verify *v, bool all, const json_t *read)
{
    HY3_TRY(compare_all(v, v->sums, NULL, all, read));
    HY3_TRY(compare_all(v, v->list, v->sums, all, read));
    return v->list ? find_unlisted(v) : HY3_OK;
}

void hy3_verify_names(const struct hy3_verify *v, const char *file, const struct hy3_shard *shard)
{
    json_t *tensors = json_object_get(json_object_get(v->sums, file), "tensors"), *value;
    const char *name;

    json_object_foreach(tensors, name, value)
    {
        if (!hy3_shard_find(shard, name))
            tell(v, "%s: %s: listed in %s, missing in the shard", file, name, HY3_CHECKSUMS);
    }
    for (int i = 0; tensors && i < hy3_shard_count(shard); i++)
        if (!json_object_get(tensors, hy3_shard_tensor(shard, i)->name))
            tell(v, "%s: %s: not listed in %s", file, hy3_shard_tensor(shard, i)->name,
                 HY3_CHECKSUMS);
}

void hy3_verify_tell(const struct hy3_verify *v, const char *file, const struct hy3_shard *shard,
                     const int64_t *tensors, int64_t found)
{
    bool is_named = false; /* a tensor that explains the file's SHA-256 */

    for (int i = 0; i < hy3_shard_count(shard); i++) {
        const char *name = hy3_shard_tensor(shard, i)->name;

        if ((tensors[i] & HY3_CONTENT) == HY3_NOT_FINITE)
            tell(v, "%s: %s: contains NaN or infinity", file, name);
        if (tensors[i] & HY3_BAD_SCALE)
            tell(v, "%s: %s: a scale is not above 0", file, name);
        if (tensors[i] & HY3_UNREADABLE)
            tell(v, "%s: %s: cannot be read", file, name);
        if (tensors[i] & HY3_CHANGED)
            tell(v, "%s: %s: its values are not those of %s", file, name, HY3_CHECKSUMS);
        is_named |= (tensors[i] & (HY3_CHANGED | HY3_UNREADABLE)) != 0;
    }
    if ((found & HY3_FILE_CHANGED) && !is_named)
        tell(v, "%s: its SHA-256 is not the one in %s", file, HY3_CHECKSUMS);
    if (found & HY3_FILE_OTHER)
        tell(v, "%s: its SHA-256 is not the one in '%s'", file, v->path);
}
