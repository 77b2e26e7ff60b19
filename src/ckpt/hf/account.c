/* SPDX-License-Identifier: Apache-2.0 */
/* account.c - checks every tensor of every shard and collects eight kinds of findings. */
#include "ckpt/hf/account.h"

#include "base/memory.h"
#include "base/printable.h"
#include "ckpt/hf/scales.h"
#include "ckpt/hf/seen.h"

#include <stdarg.h>

enum { SHOWN = 8, LIST_MAX = 720 };

enum finding { MISSING, UNUSED, SHAPE, DTYPE, TWICE, MISPLACED, UNSCALED, UNSAVED, FINDINGS };

static const char *const headings[FINDINGS] = {
    "missing",
    "not part of the model",
    "with a wrong shape",
    "without a float dtype",
    "present twice",
    "not in the shard of the index",
    "F8_E4M3 without scales",
    ("F8_E4M3 in a multi-token-prediction layer, which the saved model could not have: train an "
     "adapter, or on the bf16 publication")};

/* What an entry of the index was seen to be. */
enum { FOUND = 1, CODES };

struct list {
    char text[LIST_MAX];
    int64_t count;
};

struct hy3_account {
    const struct hy3_hf_dir *dir;
    const struct hy3_store *store;
    const struct hy3_params *params;
    struct hy3_seen seen;
    unsigned char *found; /* [tensors of the index] FOUND, or CODES */
    struct list lists[FINDINGS];
    int64_t bytes, kept_bytes;
    bool saves; /* the model is to be written, with what it has of layers that are not trained */
};

__attribute__((format(printf, 3, 4))) static void report(struct hy3_account *account,
                                                         enum finding finding, const char *format,
                                                         ...)
{
    struct list *list = &account->lists[finding];
    size_t used = strlen(list->text);
    va_list args;

    if (++list->count > SHOWN)
        return;
    va_start(args, format);
    if (used > 0)
        snprintf(list->text + used, LIST_MAX - used, ", ");
    used = strlen(list->text);
    vsnprintf(list->text + used, LIST_MAX - used, format, args);
    va_end(args);
    hy3_make_printable(list->text, false);
}

hy3_status hy3_account_create(const struct hy3_hf_dir *dir, const struct hy3_store *store,
                              bool saves, struct hy3_account **out)
{
    hy3_status status = HY3_OK;
    struct hy3_account *account = NULL;
    const struct hy3_params *params;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&account, 1, sizeof *account));
    params = hy3_store_params(store);
    *account = (struct hy3_account){.dir = dir, .store = store, .params = params};
    account->saves = saves;
    HY3_TRY_DONE(hy3_alloc(&account->found, (size_t)hy3_hf_dir_tensors(dir), 1));
    HY3_TRY_DONE(hy3_seen_create(params, params->base_count, &account->seen));
    *out = HY3_TAKE(account);
done:
    hy3_account_free(account);
    return status;
}

void hy3_account_free(struct hy3_account *account)
{
    if (!account)
        return;
    hy3_seen_free(&account->seen);
    hy3_free(account->found);
    hy3_free(account);
}

static void enter_param(struct hy3_account *account, const struct hy3_place *place,
                        const struct hy3_shard_tensor *tensor)
{
    struct hy3_span kept;
    char is[96], must[96];

    if (hy3_seen_mark(&account->seen, place))
        report(account, TWICE, "%.96s", tensor->name);
    if (tensor->dims != place->dims ||
        memcmp(tensor->shape, place->shape, (size_t)place->dims * sizeof *place->shape) != 0) {
        hy3_shard_shape_text(tensor->shape, tensor->dims, is, sizeof is);
        hy3_shard_shape_text(place->shape, place->dims, must, sizeof must);
        report(account, SHAPE, "%.96s %s instead of %s", tensor->name, is, must);
        return;
    }
    if (!tensor->is_float && !(tensor->is_fp8 && place->dims > 1)) {
        report(account, DTYPE, "%.96s (%s)", tensor->name, tensor->dtype_name);
        return;
    }
    kept = hy3_span_intersect(hy3_store_kept(account->store, place->param), place->span);
    account->kept_bytes += kept.count * (int64_t)hy3_dtype_size(tensor->dtype);
}

/* Whether it is a scale of a tensor of the model; whether that tensor has scales is seen at the
 * end. */
static bool enter_scale(struct hy3_account *account, const struct hy3_shard_tensor *tensor)
{
    struct hy3_scales scales;
    struct hy3_place place;
    char weight[HY3_PARAM_NAME], is[96];
    enum hy3_scale_kind kind = hy3_scale_parse(tensor->name, weight);

    if (kind == HY3_NO_SCALE)
        return false;
    hy3_name_locate(account->params, weight, &place);
    if (!place.param || kind == HY3_IGNORED_SCALE)
        return place.param;
    hy3_shard_shape_text(tensor->shape, tensor->dims, is, sizeof is);
    if (!tensor->is_float)
        report(account, DTYPE, "%.96s (%s)", tensor->name, tensor->dtype_name);
    else if (!hy3_scales_shape(&place, &account->params->shape, tensor, &scales))
        report(account, SHAPE, "%.96s %s", tensor->name, is);
    return true;
}

void hy3_account_shard(struct hy3_account *account, const struct hy3_shard *shard, int number)
{
    for (int i = 0; i < hy3_shard_count(shard); i++) {
        const struct hy3_shard_tensor *tensor = hy3_shard_tensor(shard, i);
        int listed = hy3_hf_dir_find(account->dir, tensor->name), at = -1;
        struct hy3_place place;

        account->bytes += tensor->bytes;
        if (listed >= 0)
            hy3_hf_dir_tensor(account->dir, listed, &at);
        if (at != number) {
            report(account, MISPLACED, "%.96s in %.96s", tensor->name,
                   hy3_hf_dir_shard_name(account->dir, number));
            continue;
        }
        account->found[listed] = tensor->is_fp8 ? CODES : FOUND;
        hy3_name_locate(account->params, tensor->name, &place);
        if (place.param)
            enter_param(account, &place, tensor);
        else if (place.is_mtp && tensor->is_fp8 && account->saves)
            report(account, UNSAVED, "%.96s", tensor->name);
        else if (!place.is_mtp && !enter_scale(account, tensor))
            report(account, UNUSED, "%.96s", tensor->name);
    }
}

int64_t hy3_account_bytes(const struct hy3_account *account)
{
    return account->bytes;
}

int64_t hy3_account_kept_bytes(const struct hy3_account *account)
{
    return account->kept_bytes;
}

static void report_missing(void *context, const char *name)
{
    report(context, MISSING, "%s", name);
}

/* 8-bit tensors without scales, scales without 8-bit tensors. */
static void match_scales(struct hy3_account *account, int listed, const char *name,
                         const struct hy3_place *place)
{
    char weight[HY3_PARAM_NAME];
    int of;

    if (place->param && account->found[listed] == CODES && hy3_scale_find(account->dir, name) < 0)
        report(account, UNSCALED, "%.96s", name);
    if (place->param || place->is_mtp || hy3_scale_parse(name, weight) != HY3_SCALE)
        return;
    of = hy3_hf_dir_find(account->dir, weight);
    if (of < 0 || (account->found[of] != CODES && account->found[of] != 0))
        report(account, UNUSED, "%.96s", name);
}

hy3_status hy3_account_end(struct hy3_account *account)
{
    char text[HY3_ERROR_MAX] = "";
    size_t used = 0;

    hy3_seen_missing(&account->seen, hy3_hf_dir_names(account->dir), report_missing, account);
    for (int i = 0; i < hy3_hf_dir_tensors(account->dir); i++) {
        int shard;
        const char *name = hy3_hf_dir_tensor(account->dir, i, &shard);
        struct hy3_place place;

        hy3_name_locate(account->params, name, &place);
        if (!account->found[i] && !place.param)
            report(account, MISSING, "%.96s", name);
        match_scales(account, i, name, &place);
    }
    for (int i = 0; i < FINDINGS; i++) {
        const struct list *list = &account->lists[i];

        used = strlen(text);
        if (list->count > 0 && used < sizeof text)
            snprintf(text + used, sizeof text - used, "%s%lld %s: %s%s", used > 0 ? "; " : "",
                     (long long)list->count, headings[i], list->text,
                     list->count > SHOWN ? ", …" : "");
    }
    if (text[0] == '\0')
        return HY3_OK;
    HY3_FAIL(HY3_EFORMAT, "the tensors of '%.400s' do not match its config.json: %.3600s",
             hy3_hf_dir_path(account->dir), text);
}
