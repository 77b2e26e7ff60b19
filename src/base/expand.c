/* SPDX-License-Identifier: Apache-2.0 */
/* expand.c - listings and patterns, in one order everywhere. */
#include "base/expand.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>

enum { DIGITS_MAX = 15 }; /* of a number behind '#' */

bool hy3_path_is_pattern(const char *path)
{
    return strpbrk(path, "*?[") && !hy3_path_exists(path);
}

static hy3_status add(struct hy3_paths *paths, const char *path)
{
    size_t count = (size_t)paths->count;

    HY3_TRY(hy3_grow(&paths->items, &paths->capacity, count + 1, sizeof *paths->items));
    HY3_TRY(hy3_strdup(path, &paths->items[count]));
    paths->count++;
    return HY3_OK;
}

void hy3_paths_free(struct hy3_paths *paths)
{
    for (int i = 0; i < paths->count; i++)
        hy3_free(paths->items[i]);
    hy3_free(paths->items);
    *paths = (struct hy3_paths){0};
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static hy3_status list_directory(const char *directory, bool (*is_skipped)(const char *name),
                                 struct hy3_paths *out)
{
    hy3_status status = HY3_OK;
    DIR *open = opendir(directory);
    const struct dirent *entry;
    char path[HY3_PATH_MAX];
    const char *slash = hy3_ends_with(directory, "/") ? "" : "/";

    if (!open)
        HY3_FAIL(HY3_EIO, "cannot read the directory '%s': %s", directory, strerror(errno));
    while ((errno = 0, entry = readdir(open))) {
        if (entry->d_name[0] == '.' || (is_skipped && is_skipped(entry->d_name)))
            continue;
        HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s%s%s", directory, slash, entry->d_name));
        HY3_TRY_DONE(add(out, path));
    }
    if (errno != 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot read the directory '%s': %s", directory, strerror(errno));
    if (out->count == 0)
        HY3_FAIL_DONE(HY3_EUSAGE, "the directory '%s' has no files", directory);
done:
    closedir(open);
    return status;
}

static hy3_status match(const char *pattern, bool (*is_skipped)(const char *name),
                        struct hy3_paths *out)
{
    hy3_status status = HY3_OK;
    glob_t found = {0};
    int result = glob(pattern, GLOB_NOSORT, NULL, &found);

    if (result == GLOB_NOSPACE)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
    if (result != 0 && result != GLOB_NOMATCH)
        HY3_FAIL_DONE(HY3_EIO, "cannot read the directories of '%s': %s", pattern, strerror(errno));
    for (size_t i = 0; result == 0 && i < found.gl_pathc; i++)
        if (!is_skipped || !is_skipped(hy3_path_name(found.gl_pathv[i])))
            HY3_TRY_DONE(add(out, found.gl_pathv[i]));
    if (out->count == 0)
        HY3_FAIL_DONE(HY3_EUSAGE, "no file matches '%s'", pattern);
done:
    globfree(&found);
    return status;
}

hy3_status hy3_path_expand(const char *path, bool (*is_skipped)(const char *name),
                           struct hy3_paths *out)
{
    hy3_status status;

    *out = (struct hy3_paths){0};
    if (hy3_path_is_pattern(path))
        status = match(path, is_skipped, out);
    else if (hy3_path_is_directory(path))
        status = list_directory(path, is_skipped, out);
    else
        status = add(out, path);
    if (status != HY3_OK)
        hy3_paths_free(out);
    else
        qsort(out->items, (size_t)out->count, sizeof *out->items, by_bytes);
    return status;
}

hy3_status hy3_path_split_count(const char *path, char out[HY3_PATH_MAX], int64_t *count)
{
    const char *mark = strrchr(path, '#');
    size_t digits = mark ? strspn(mark + 1, "0123456789") : 0;

    *count = 0;
    HY3_TRY(hy3_path_format(out, HY3_PATH_MAX, "%s", path));
    if (digits == 0 || digits > DIGITS_MAX || mark[1 + digits] != '\0' || mark == path ||
        hy3_path_exists(path))
        return HY3_OK;
    *count = strtoll(mark + 1, NULL, 10);
    if (*count > 0)
        out[mark - path] = '\0';
    return HY3_OK;
}
