/* SPDX-License-Identifier: Apache-2.0 */
/* store_values.c - the weights of a store for readers and writers of files. */
#include "parallel/store.h"

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
