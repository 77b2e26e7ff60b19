/* SPDX-License-Identifier: Apache-2.0 */
/* store_values.c - the weights of a store for readers and writers of files. */
#include "base/memory.h"
#include "parallel/store.h"

/* As hy3_convert, between fp32 and codes by their scales. */
static hy3_status narrow(const struct hy3_store *store, const struct hy3_param *param,
                         struct hy3_span span, const char *from, hy3_dtype dtype, char *to)
{
    hy3_status status = HY3_OK;
    float *wide = NULL;

    HY3_TRY_DONE(hy3_alloc(&wide, (size_t)span.count, sizeof *wide));
    hy3_convert(from, dtype, wide, HY3_FP32, (size_t)span.count);
    HY3_TRY_DONE(
        hy3_packed_encode(hy3_store_packed(store, param), param, span, wide, (hy3_fp8 *)to));
done:
    hy3_free(wide);
    return status;
}

hy3_status hy3_store_put(struct hy3_store *store, const struct hy3_param *param,
                         struct hy3_span span, const void *data, hy3_dtype dtype)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &hy3_store_backend(store)->device;
    hy3_dtype own = hy3_store_dtype_of(store, param);
    struct hy3_span kept = hy3_span_intersect(hy3_store_kept(store, param), span);
    const char *from = (const char *)data;
    char *converted = NULL;

    if (kept.count == 0)
        return HY3_OK;
    from += (size_t)(kept.first - span.first) * hy3_dtype_size(dtype);
    if (dtype != own) {
        HY3_TRY_DONE(hy3_alloc(&converted, (size_t)kept.count, hy3_dtype_size(own)));
        if (own == HY3_FP8)
            HY3_TRY_DONE(narrow(store, param, kept, from, dtype, converted));
        else
            hy3_convert(from, dtype, converted, own, (size_t)kept.count);
        from = converted;
    }
    HY3_TRY_DONE(device->copy(NULL, hy3_store_address(store, param, kept.first), from,
                              (size_t)kept.count * hy3_dtype_size(own)));
    HY3_TRY_DONE(device->synchronize(NULL));
done:
    hy3_free(converted);
    return status;
}

hy3_status hy3_store_get(const struct hy3_store *store, const struct hy3_param *param,
                         struct hy3_span span, float *data)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &hy3_store_backend(store)->device;
    hy3_dtype own = hy3_store_dtype_of(store, param);
    struct hy3_span kept = hy3_span_intersect(hy3_store_kept(store, param), span);
    char *raw = NULL;

    if (kept.count == 0)
        return HY3_OK;
    HY3_TRY_DONE(hy3_alloc(&raw, (size_t)kept.count, hy3_dtype_size(own)));
    HY3_TRY_DONE(device->copy(NULL, raw, hy3_store_address(store, param, kept.first),
                              (size_t)kept.count * hy3_dtype_size(own)));
    HY3_TRY_DONE(device->synchronize(NULL));
    data += kept.first - span.first;
    if (own == HY3_FP8)
        HY3_TRY_DONE(hy3_packed_decode(hy3_store_packed(store, param), param, kept,
                                       (const hy3_fp8 *)raw, data));
    else
        hy3_convert(raw, own, data, HY3_FP32, (size_t)kept.count);
done:
    hy3_free(raw);
    return status;
}

static hy3_status put_value(void *of, enum hy3_field field, const struct hy3_param *param,
                            struct hy3_span span, const float *in)
{
    HY3_ASSERT(field == HY3_MASTER);
    return hy3_store_put(of, param, span, in, HY3_FP32);
}

static hy3_status get_value(void *of, enum hy3_field field, const struct hy3_param *param,
                            struct hy3_span span, float *out)
{
    HY3_ASSERT(field == HY3_MASTER);
    return hy3_store_get(of, param, span, out);
}

static struct hy3_span share(void *of, const struct hy3_param *param)
{
    return hy3_store_share(of, param);
}

static struct hy3_span kept(void *of, const struct hy3_param *param)
{
    return hy3_store_kept(of, param);
}

struct hy3_values hy3_store_values(struct hy3_store *store)
{
    return (struct hy3_values){
        .of = store, .get = get_value, .put = put_value, .share = share, .kept = kept};
}
