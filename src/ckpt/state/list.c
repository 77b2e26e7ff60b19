/* SPDX-License-Identifier: Apache-2.0 */
/* list.c - names of checkpoints. */
#include "ckpt/state/list.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>

static int newest_first(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return (*x < *y) - (*x > *y);
}

int64_t hy3_checkpoint_step(const char *name)
{
    static const char prefix[] = "checkpoint-";
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
    size_t capacity = 0;

    *steps = NULL;
    *count = 0;
    while (open && (entry = readdir(open))) {
        if (hy3_checkpoint_step(entry->d_name) < 0)
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
