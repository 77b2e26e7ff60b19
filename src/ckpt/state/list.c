/* SPDX-License-Identifier: Apache-2.0 */
/* list.c - names of checkpoints. */
#include "ckpt/state/list.h"

#include "base/memory.h"
#include "base/path.h"
#include "base/planted.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

static const char prefix[] = "checkpoint-";

static int newest_first(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return (*x < *y) - (*x > *y);
}

int64_t hy3_checkpoint_step(const char *name)
{
    const char *number = name + sizeof prefix - 1;
    char *end;
    long long step;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || *number < '0' || *number > '9' ||
        (*number == '0' && number[1] != '\0')) /* a second name of the same step */
        return -1;
    errno = 0;
    step = strtoll(number, &end, 10);
    return *end == '\0' && errno == 0 ? step : -1;
}

hy3_status hy3_checkpoints_list(const char *directory, int64_t **steps, size_t *count)
{
    hy3_status status = HY3_OK;
    DIR *open = opendir(directory);
    const struct dirent *entry;
    char path[HY3_PATH_MAX];
    size_t capacity = 0;

    *steps = NULL;
    *count = 0;
    while (open && (entry = readdir(open))) {
        if (hy3_checkpoint_step(entry->d_name) < 0)
            continue;
        HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", directory, entry->d_name));
        if (hy3_is_planted(path))
            continue;
        HY3_TRY_DONE(hy3_grow(steps, &capacity, *count + 1, sizeof **steps));
        (*steps)[(*count)++] = hy3_checkpoint_step(entry->d_name);
    }
    if (*count > 0)
        qsort(*steps, *count, sizeof **steps, newest_first);
done:
    if (open)
        closedir(open);
    return status;
}

void hy3_checkpoints_describe(const char *directory, char *out, size_t size)
{
    int64_t *steps = NULL;
    size_t count = 0, used = 0;

    snprintf(out, size, "no checkpoint");
    if (hy3_checkpoints_list(directory, &steps, &count) == HY3_OK)
        for (size_t i = 0; i < count && used + 40 < size; i++)
            used += (size_t)snprintf(out + used, size - used, "%scheckpoint-%lld",
                                     i > 0 ? ", " : "", (long long)steps[i]);
    hy3_free(steps);
}

hy3_status hy3_checkpoint_check_name(const char *directory, int64_t step)
{
    char path[HY3_PATH_MAX], right[64], *real = NULL;
    const char *name;

    HY3_TRY(hy3_path_format(path, sizeof path, "%s", directory));
    while (path[1] != '\0' && hy3_ends_with(path, "/"))
        path[strlen(path) - 1] = '\0';
    name = hy3_path_name(path);
    if ((strcmp(name, ".") == 0 || strcmp(name, "..") == 0) && (real = realpath(path, NULL))) {
        snprintf(path, sizeof path, "%s", real);
        free(real);
        name = hy3_path_name(path);
    }
    snprintf(right, sizeof right, "%s%lld", prefix, (long long)step);
    if (strncmp(name, prefix, sizeof prefix - 1) == 0 &&
        strspn(name + sizeof prefix - 1, "0123456789") == strlen(name) - (sizeof prefix - 1) &&
        strcmp(name, right) != 0)
        HY3_FAIL(
            HY3_EFORMAT,
            "'%s' holds the state of step %lld, which belongs in '%s': it was moved or renamed",
            directory, (long long)step, right);
    return HY3_OK;
}
