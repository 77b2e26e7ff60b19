/* SPDX-License-Identifier: Apache-2.0 */
/* mark.c - the mark as a JSON object. */
#include "train/mark.h"

#include "base/json.h"
#include "config/version.h"

#include <inttypes.h>

enum { LIMIT = 1 << 16 };

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static int64_t count_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

hy3_status hy3_mark_read(const char *directory, struct hy3_mark *mark, bool *found)
{
    char path[HY3_PATH_MAX];
    json_t *object = NULL;

    *mark = (struct hy3_mark){0};
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", directory, HY3_MARK_NAME));
    *found = hy3_path_exists(path) && hy3_json_read(path, LIMIT, &object) == HY3_OK;
    if (!*found)
        return HY3_OK;
    mark->is_finished = strcmp(text_of(object, "state"), "finished") == 0;
    mark->ends_early = json_is_true(json_object_get(object, "ends_early"));
    mark->step = count_of(object, "step");
    mark->total_steps = count_of(object, "total_steps");
    mark->samples = count_of(object, "samples");
    mark->global_batch = count_of(object, "global_batch");
    mark->data = strtoull(text_of(object, "data"), NULL, 16);
    mark->base = strtoull(text_of(object, "base"), NULL, 16);
    snprintf(mark->from, sizeof mark->from, "%s", text_of(object, "resume_from_checkpoint"));
    snprintf(mark->job, sizeof mark->job, "%s", text_of(object, "job"));
    mark->keeps_previous = json_is_true(json_object_get(object, "keeps_previous"));
    json_decref(object);
    return HY3_OK;
}

hy3_status hy3_mark_write(const char *directory, const struct hy3_mark *mark)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], data[20], base[20];
    json_t *object = NULL;

    snprintf(data, sizeof data, "%016" PRIx64, mark->data);
    snprintf(base, sizeof base, "%016" PRIx64, mark->base);
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", directory, HY3_MARK_NAME));
    object = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:s, s:b, s:b}", "program", "hy3_sft",
        "version", HY3_VERSION, "state", mark->is_finished ? "finished" : "running", "step",
        (json_int_t)mark->step, "total_steps", (json_int_t)mark->total_steps, "samples",
        (json_int_t)mark->samples, "global_batch", (json_int_t)mark->global_batch, "data", data,
        "base", base, "resume_from_checkpoint", mark->from, "job", mark->job, "keeps_previous",
        mark->keeps_previous, "ends_early", mark->ends_early);
    if (!object) /* a path that is no UTF-8 cannot stand in JSON */
        HY3_FAIL_DONE(HY3_EUSAGE, "resume_from_checkpoint '%s' is not valid UTF-8", mark->from);
    HY3_TRY_DONE(hy3_json_write(path, object));
done:
    json_decref(object);
    return status;
}
