/* SPDX-License-Identifier: Apache-2.0 */
/* checksums.c - the document, made and read. */
#include "ckpt/hf/checksums.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/output.h"

#include <ctype.h>
#include <unistd.h>

enum { LIMIT = 64 << 20, LIST_LIMIT = 16 << 20, PIECE = 1 << 20, XXH3_TEXT = 17 };

hy3_status hy3_checksums_add(json_t *files, const char *name, int64_t size, const char *sha256)
{
    json_t *entry;

    if (!files)
        return HY3_OK;
    entry = json_pack("{s:s, s:I}", "sha256", sha256, "size", (json_int_t)size);
    if (!entry || json_object_set_new(files, name, entry) != 0)
        HY3_FAIL(HY3_EFORMAT, "the name of the file '%s' is not valid UTF-8", name);
    return HY3_OK;
}

hy3_status hy3_checksums_replace(json_t *files, const char *directory, const char *name,
                                 const void *data, size_t size)
{
    char path[HY3_PATH_MAX], sha256[HY3_SHA256_TEXT];

    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", directory, name));
    HY3_TRY(hy3_output_replace(path, data, size));
    if (!files)
        return HY3_OK;
    HY3_TRY(hy3_sha256_of(data, size, sha256));
    return hy3_checksums_add(files, name, (int64_t)size, sha256);
}

hy3_status hy3_checksums_copy(json_t *files, const char *source, const char *directory,
                              const char *name)
{
    hy3_status status = HY3_OK;
    char target[HY3_PATH_MAX], text[HY3_SHA256_TEXT];
    unsigned char digest[HY3_SHA256];
    struct hy3_sha256 *sha256 = NULL;
    int64_t size;

    HY3_TRY_DONE(hy3_path_format(target, sizeof target, "%s/%s", directory, name));
    if (!files) { /* nobody asks for the digest */
        status = hy3_path_is_same(source, target) ? HY3_OK : hy3_output_copy(source, target);
        goto done;
    }
    if (hy3_path_is_same(source, target)) {
        HY3_TRY_DONE(hy3_checksums_of(target, &size, text));
    } else {
        HY3_TRY_DONE(hy3_sha256_create(&sha256));
        HY3_TRY_DONE(hy3_output_copy_summed(source, target, sha256, &size));
        hy3_sha256_end(sha256, digest);
        hy3_sha256_text(digest, text);
    }
    HY3_TRY_DONE(hy3_checksums_add(files, name, size, text));
done:
    hy3_sha256_free(sha256);
    return status;
}

hy3_status hy3_checksums_of(const char *path, int64_t *size, char sha256[HY3_SHA256_TEXT])
{
    hy3_status status = HY3_OK;
    unsigned char digest[HY3_SHA256];
    struct hy3_sha256 *sum = NULL;
    char *piece = NULL;
    int fd = -1;

    HY3_TRY_DONE(hy3_alloc(&piece, PIECE, 1));
    HY3_TRY_DONE(hy3_sha256_create(&sum));
    HY3_TRY_DONE(hy3_file_open(path, &fd));
    HY3_TRY_DONE(hy3_file_size(path, size));
    for (int64_t at = 0; at < *size; at += PIECE) {
        size_t n = *size - at < PIECE ? (size_t)(*size - at) : PIECE;

        HY3_TRY_DONE(hy3_file_read_at(fd, piece, n, at, path));
        hy3_sha256_add(sum, piece, n);
    }
    hy3_sha256_end(sum, digest);
    hy3_sha256_text(digest, sha256);
done:
    if (fd >= 0)
        close(fd);
    hy3_sha256_free(sum);
    hy3_free(piece);
    return status;
}

hy3_status hy3_checksums_begin(const struct hy3_hf_plan *plan, const struct hy3_hf_file *file,
                               struct hy3_digest **out)
{
    HY3_TRY(hy3_digest_create(file->end - file->first, true, out));
    for (int i = file->first; i < file->end; i++)
        (*out)->tensors[i - file->first] =
            (struct hy3_span){plan->entries[i].begin, plan->entries[i].bytes};
    return HY3_OK;
}

static void format_xxh3(uint64_t value, char text[XXH3_TEXT])
{
    snprintf(text, XXH3_TEXT, "%016llx", (unsigned long long)value);
}

hy3_status hy3_checksums_shard(const struct hy3_hf_plan *plan, const struct hy3_hf_file *file,
                               const uint64_t *xxh3, const unsigned char *sha256, json_t **out)
{
    json_t *tensors = json_object();
    char digest[HY3_SHA256_TEXT], text[XXH3_TEXT];
    bool is_whole = tensors != NULL;

    *out = NULL;
    hy3_sha256_text(sha256, digest);
    for (int i = file->first; i < file->end; i++) {
        format_xxh3(xxh3[i - file->first], text);
        is_whole &= json_object_set_new(tensors, plan->entries[i].name, json_string(text)) == 0;
    }
    if (!is_whole) {
        json_decref(tensors);
        HY3_FAIL(HY3_ENOMEM, "no memory for the checksums of '%s'", file->name);
    }
    *out = json_pack("{s:s, s:I, s:o}", "sha256", digest, "size", (json_int_t)file->bytes,
                     "tensors", tensors);
    if (!*out)
        HY3_FAIL(HY3_ENOMEM, "no memory for the checksums of '%s'", file->name);
    return HY3_OK;
}

bool hy3_checksums_has(const json_t *entry, const char *tensor, uint64_t xxh3)
{
    const char *listed =
        json_string_value(json_object_get(json_object_get(entry, "tensors"), tensor));
    char text[XXH3_TEXT];

    format_xxh3(xxh3, text);
    return listed && strcmp(listed, text) == 0;
}

hy3_status hy3_checksums_write(const char *directory, json_t *files)
{
    hy3_status status = HY3_OK;
    json_t *document = json_pack("{s:O, s:i}", "files", files, "version", 1);
    char path[HY3_PATH_MAX], *text = NULL;
    size_t size;

    text = document ? json_dumps(document, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    if (!text)
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for '%s'", HY3_CHECKSUMS);
    size = strlen(text);
    text[size] = '\n'; /* in place of the NUL: only `size + 1` bytes are written */
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", directory, HY3_CHECKSUMS));
    HY3_TRY_DONE(hy3_output_replace(path, text, size + 1));
done:
    json_decref(document);
    free(text);
    return status;
}

/* Only these keys: one that damage has changed must not be taken for another's. */
static hy3_status check_keys(const json_t *object, const char *const *keys, const char *where)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value)
    {
        size_t i = 0;

        while (keys[i] && strcmp(keys[i], key) != 0)
            i++;
        if (!keys[i])
            HY3_FAIL(HY3_EFORMAT, "%s: the key '%s' is unknown", where, key);
    }
    return HY3_OK;
}

static hy3_status check_tensors(const json_t *tensors, const char *where)
{
    const char *name, *text;
    json_t *value;

    if (!json_is_object(tensors))
        HY3_FAIL(HY3_EFORMAT, "%s: 'tensors' must be an object", where);
    json_object_foreach((json_t *)tensors, name, value)
    {
        text = json_string_value(value);
        if (!text || strlen(text) != XXH3_TEXT - 1 ||
            strspn(text, "0123456789abcdef") != XXH3_TEXT - 1)
            HY3_FAIL(HY3_EFORMAT, "%s: the checksum of tensor '%s' is not a text of 16 digits",
                     where, name);
    }
    return HY3_OK;
}

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && strlen(name) < 256 && !strchr(name, '/') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static hy3_status check_entry(const json_t *entry, const char *name, const char *path)
{
    static const char *const keys[] = {"sha256", "size", "tensors", NULL};
    const json_t *tensors = json_object_get(entry, "tensors");
    char where[HY3_PATH_MAX + 300];
    const char *sha256;
    int64_t size;

    if (!is_plain_name(name) || strcmp(name, HY3_CHECKSUMS) == 0)
        HY3_FAIL(HY3_EFORMAT, "%s: '%.300s' is not the name of a file beside it", path, name);
    snprintf(where, sizeof where, "%s: file '%s'", path, name);
    if (!json_is_object(entry))
        HY3_FAIL(HY3_EFORMAT, "%s: its entry is not an object", where);
    HY3_TRY(check_keys(entry, keys, where));
    HY3_TRY(hy3_json_int(entry, "size", where, 0, INT64_MAX, &size));
    HY3_TRY(hy3_json_text(entry, "sha256", where, &sha256));
    if (!hy3_sha256_is_text(sha256))
        HY3_FAIL(HY3_EFORMAT, "%s: 'sha256' is not a text of 64 digits", where);
    return tensors || hy3_ends_with(name, ".safetensors") ? check_tensors(tensors, where) : HY3_OK;
}

hy3_status hy3_checksums_read(const char *directory, json_t **files)
{
    static const char *const keys[] = {"files", "version", NULL};
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    json_t *document = NULL, *listed, *entry;
    const char *name;
    int64_t version;

    *files = NULL;
    if (!hy3_path_exists_in(directory, HY3_CHECKSUMS))
        return HY3_OK;
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", directory, HY3_CHECKSUMS));
    HY3_TRY_DONE(hy3_json_read(path, LIMIT, &document));
    HY3_TRY_DONE(check_keys(document, keys, path));
    HY3_TRY_DONE(hy3_json_int(document, "version", path, 1, 1, &version));
    listed = json_object_get(document, "files");
    if (!json_is_object(listed))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: 'files' must be an object", path);
    json_object_foreach(listed, name, entry)
    {
        HY3_TRY_DONE(check_entry(entry, name, path));
    }
    *files = json_incref(listed);
done:
    json_decref(document);
    return status;
}

/* One line, without its end, into `files`. */
static hy3_status read_line(char *line, const char *where, json_t *files)
{
    const size_t digits = HY3_SHA256_TEXT - 1;
    char *name = line + digits + 2;

    for (size_t i = 0; i < digits && line[i]; i++)
        line[i] = (char)tolower((unsigned char)line[i]);
    if (strlen(line) <= digits + 2 || strspn(line, "0123456789abcdef") != digits ||
        line[digits] != ' ' || (line[digits + 1] != ' ' && line[digits + 1] != '*'))
        HY3_FAIL(HY3_EFORMAT, "%s: not of the form 'DIGEST  NAME' that sha256sum writes", where);
    line[digits] = '\0';
    if (strncmp(name, "./", 2) == 0)
        name += 2;
    if (!is_plain_name(name))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: '%.300s' is not the name of a file in the directory; make the list there: "
                 "cd DIR && sha256sum *",
                 where, name);
    if (json_object_get(files, name))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' is listed twice", where, name);
    if (json_object_set_new(files, name, json_pack("{s:s}", "sha256", line)) != 0)
        HY3_FAIL(HY3_EFORMAT, "%s: the name is not valid UTF-8", where);
    return HY3_OK;
}

hy3_status hy3_checksums_read_list(const char *path, json_t **files)
{
    hy3_status status = HY3_OK;
    json_t *list = json_object();
    char *text = NULL, *next, where[HY3_PATH_MAX + 32];
    size_t size;
    int64_t number = 0;

    *files = NULL;
    HY3_TRY_DONE(hy3_file_read(path, LIST_LIMIT, &text, &size));
    if (memchr(text, '\0', size))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: not a text file", path);
    next = text;
    for (char *line; (line = strsep(&next, "\n"));) {
        size_t length = strlen(line);

        number++;
        if (length > 0 && line[length - 1] == '\r')
            line[length - 1] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        snprintf(where, sizeof where, "%s:%lld", path, (long long)number);
        HY3_TRY_DONE(read_line(line, where, list));
    }
    if (json_object_size(list) == 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: no file is listed", path);
    *files = HY3_TAKE(list);
done:
    json_decref(list);
    hy3_free(text);
    return status;
}
