/* SPDX-License-Identifier: Apache-2.0 */
/* swift_data.c - what ms-swift calls a data set: a path, a subset, a number of samples. */
#include "base/expand.h"
#include "config/foreign/translation.h"

#include <strings.h>

/* "HF::ORG/NAME", "MS::ORG/NAME": of a hub, whatever lies here. */
static bool refuse_hub(struct hy3_translation *t, const struct hy3_setting *s, const char *text)
{
    bool is_hf = strncasecmp(text, "HF::", 4) == 0;

    if (!is_hf && strncasecmp(text, "MS::", 4) != 0)
        return false;
    hy3_problem(t->problems, s->where,
                "%s: '%.200s' is a data set of a hub; hy3 does not download: run '%s %.200s' and "
                "name its files",
                s->key, text,
                is_hf ? "hf download --repo-type dataset --local-dir data"
                      : "modelscope download --local_dir data --dataset",
                text + 4);
    return true;
}

/* "PATH:SUBSET#N" of ms-swift as "PATH#N", beside the file that names it if it is there; a local
 * file has no subsets. */
static hy3_status add_swift_path(struct hy3_translation *t, const struct hy3_setting *s,
                                 const char *text, struct hy3_list *paths)
{
    char path[HY3_PATH_MAX], found[HY3_PATH_MAX], whole[HY3_PATH_MAX];
    char *colon;
    int64_t count;

    HY3_TRY(hy3_path_split_count(text, path, &count));
    HY3_TRY(hy3_find_input(t, t->path, path, NULL, found));
    colon = strrchr(path, ':');
    if (colon && !strchr(colon, '/') && !hy3_path_exists(found)) {
        *colon = '\0';
        HY3_TRY(hy3_find_input(t, t->path, path, NULL, found));
        if (hy3_path_exists(found))
            HY3_TRY(hy3_note(t, "%s: the subset '%.64s' has no meaning for the local '%.200s'",
                             s->key, colon + 1, found));
        else
            *colon = ':';
    }
    if (!hy3_path_exists(found))
        HY3_TRY(hy3_path_format(found, sizeof found, "%s", path));
    if (count == 0)
        return hy3_list_add(paths, found, strlen(found));
    HY3_TRY(hy3_path_format(whole, sizeof whole, "%s#%lld", found, (long long)count));
    return hy3_list_add(paths, whole, strlen(whole));
}

hy3_status hy3_put_swift_data(struct hy3_translation *t, const struct hy3_setting *s,
                              const char *key)
{
    hy3_status status = HY3_OK;
    struct hy3_list texts = {0}, paths = {0};

    HY3_TRY_DONE(hy3_split_texts(s, &texts));
    for (int i = 0; i < texts.count; i++) {
        if (!refuse_hub(t, s, texts.items[i]))
            HY3_TRY_DONE(add_swift_path(t, s, texts.items[i], &paths));
    }
    status = hy3_put_list(t, s, key, &paths);
done:
    hy3_list_free(&texts);
    hy3_list_free(&paths);
    return status;
}
