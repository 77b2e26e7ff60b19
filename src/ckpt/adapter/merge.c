/* SPDX-License-Identifier: Apache-2.0 */
/* merge.c - selects the tensors that change, and changes their elements. */
#include "ckpt/adapter/merge.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/size.h"
#include "ckpt/adapter/adapter.h"
#include "ckpt/adapter/report.h"
#include "ckpt/hf/fingerprint.h"
#include "ckpt/hf/rewrite.h"
#include "ckpt/hf/scan.h"
#include "comm/agree.h"
#include "comm/comm.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

struct merge {
    const struct hy3_merge *options;
    struct hy3_hf_dir *base;
    struct hy3_params *params;
    struct hy3_adapter *adapter;
    struct hy3_hf_plan *plan;
    /* [params->count] of the current shard: factors, in our layout, and tensors that the adapter
     * has whole; NULL: not needed */
    float **factors;
    struct hy3_merge_change *changes; /* [plan->count] of the shards that this rank writes */
    struct hy3_shape shape;
    char settings[2 * HY3_PATH_MAX];
};

static const struct hy3_param *factor(const struct merge *m, const struct hy3_param *p,
                                      enum hy3_param_part part)
{
    return hy3_params_factor(m->params, part, p->kind, p->layer);
}

/* Whether the adapter has the tensor of the model whole. */
static bool is_whole(const struct merge *m, const struct hy3_param *p)
{
    return p->part == HY3_BASE && m->params->lora.saved[p->kind];
}

/* Whether the adapter changes a tensor of the model. */
static bool has_adapter(const struct merge *m, const struct hy3_param *p)
{
    return is_whole(m, p) || (p->layer >= 0 && factor(m, p, HY3_LORA_A));
}

/* Sets the place of an entry in the model, and its new dtype. */
static hy3_status plan_entry(const struct merge *m, struct hy3_hf_entry *entry)
{
    const struct hy3_shard_tensor *tensor = m->plan->pieces[entry->piece].tensor;
    struct hy3_place place;
    hy3_dtype dtype = m->options->dtype;

    hy3_name_locate(m->params, entry->name, &place);
    if (!place.param)
        return HY3_OK;
    if (!tensor->is_float)
        HY3_FAIL(HY3_EFORMAT, "tensor '%s' of '%s' is %s; F32, F16 or BF16 can be merged",
                 entry->name, m->options->base, tensor->dtype_name);
    if (entry->dims != place.dims || entry->bytes / entry->width != place.span.count)
        HY3_FAIL(HY3_EFORMAT, "tensor '%s' of '%s' does not have the shape that config.json says",
                 entry->name, m->options->base);
    if (hy3_hf_stays_wide(place.param, tensor))
        dtype = HY3_FP32;
    if (tensor->dtype == dtype && !has_adapter(m, place.param))
        return HY3_OK;
    entry->converts = true;
    entry->param = place.param;
    entry->span = place.span;
    entry->dtype = dtype;
    entry->dtype_name = hy3_shard_dtype_name(dtype);
    entry->width = (int)hy3_dtype_size(dtype);
    entry->bytes = entry->span.count * entry->width;
    return HY3_OK;
}

static hy3_status describe(struct merge *m)
{
    char path[HY3_PATH_MAX];
    struct stat info;

    HY3_TRY(
        hy3_path_format(path, sizeof path, "%s/adapter_model.safetensors", m->options->adapter));
    if (stat(path, &info) != 0)
        HY3_FAIL(HY3_EIO, "cannot look at '%s'", path);
    snprintf(m->settings, sizeof m->settings, "merge %s of %lld bytes and %lld.%09ld s, as %s",
             path, (long long)info.st_size, (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
             hy3_dtype_name(m->options->dtype));
    return HY3_OK;
}

static hy3_status plan(struct merge *m)
{
    const struct hy3_merge *o = m->options;
    struct hy3_hf_rewrite_layout layout = {0};
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_hf_dir_expect_model(o->base));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", o->base));
    HY3_TRY(hy3_shape_open(path, &m->shape));
    HY3_TRY(hy3_params_create(&m->shape, 0, m->shape.experts, &m->params));
    HY3_TRY(hy3_adapter_open(o->adapter, m->params, &m->adapter));
    HY3_TRY(hy3_params_add_adapter(m->params, hy3_adapter_lora(m->adapter)));
    HY3_TRY(hy3_adapter_account(m->adapter, m->params));
    HY3_TRY(describe(m));
    HY3_TRY(hy3_hf_dir_open(o->base, &m->base));
    layout.names = hy3_hf_dir_names(m->base);
    HY3_TRY(hy3_hf_plan_rewrite(m->base, m->shape.experts, &layout, &m->plan));
    m->plan->bare = false;
    m->plan->total_bytes = 0;
    for (int i = 0; i < m->plan->count; i++) {
        HY3_TRY(plan_entry(m, &m->plan->entries[i]));
        m->plan->total_bytes += m->plan->entries[i].bytes;
    }
    HY3_TRY(hy3_alloc(&m->changes, (size_t)m->plan->count, sizeof *m->changes));
    return hy3_alloc(&m->factors, (size_t)m->params->count, sizeof *m->factors);
}

/* Marks the result by what it was made from: the base and the adapter. */
static hy3_status mark(MPI_Comm comm, struct merge *m)
{
    uint64_t base, adapter = 0;
    char text[HY3_SHARD_BASE];

    HY3_TRY(hy3_hf_fingerprint(comm, m->base, &m->shape, &base));
    snprintf(text, sizeof text, "%016llx", (unsigned long long)base);
    hy3_adapter_tell_base(m->adapter, m->options->base, text);
    HY3_AGREE(comm, hy3_rank(comm) == 0 ? hy3_adapter_fingerprint(m->adapter, &adapter) : HY3_OK,
              "reading the adapter");
    hy3_broadcast(comm, 0, &adapter, sizeof adapter, "reading the adapter");
    m->plan->program = "hy3_merge";
    snprintf(m->plan->source, sizeof m->plan->source, "%016llx",
             (unsigned long long)(base ^ adapter));
    return hy3_agree(comm, hy3_hf_plan_lay_out(m->plan), "planning the output");
}

/* Warns of factors that add nothing. */
static hy3_status tell_zeros(const struct merge *m)
{
    struct hy3_adapter_zeros z;

    HY3_TRY(hy3_adapter_zeros(m->adapter, m->params, &z));
    if (z.zeros == z.matrices)
        hy3_log(HY3_LOG_WARN,
                "'%s': B is zero for all %d matrices: the adapter changes nothing; was it trained?",
                hy3_adapter_path(m->adapter), z.matrices);
    else if (z.zeros > 0)
        hy3_log(HY3_LOG_WARN, "'%s': B is zero for %d of %d matrices, which do not change: %s%s",
                hy3_adapter_path(m->adapter), z.zeros, z.matrices, z.first,
                z.zeros > 1 ? ", …" : "");
    return HY3_OK;
}

static void free_factors(struct merge *m)
{
    for (int i = 0; m->factors && i < m->params->count; i++) {
        hy3_free(m->factors[i]);
        m->factors[i] = NULL;
    }
}

static hy3_status load(struct merge *m, const struct hy3_param *p)
{
    float **values = &m->factors[p - m->params->params];

    if (*values)
        return HY3_OK;
    HY3_TRY(hy3_alloc(values, (size_t)p->count, sizeof **values));
    return hy3_adapter_read(m->adapter, p, *values);
}

/* Loads what the adapter has for the tensors of a shard before it is written; frees that of the
 * last. */
static hy3_status load_factors(void *context, const struct hy3_hf_file *file)
{
    struct merge *m = context;

    free_factors(m);
    for (int i = file->first; i < file->end; i++) {
        const struct hy3_hf_entry *entry = &m->plan->entries[i];

        if (!entry->converts || !has_adapter(m, entry->param))
            continue;
        if (is_whole(m, entry->param)) {
            HY3_TRY(load(m, entry->param));
            continue;
        }
        for (int part = HY3_LORA_A; part <= HY3_LORA_B; part++)
            HY3_TRY(load(m, factor(m, entry->param, part)));
    }
    return HY3_OK;
}

/* y [n] = scale (b [rank] times a [rank,n]). With AVX2 where the CPU has it; without fused
 * multiply-add, so that the bits are the same everywhere. */
__attribute__((target_clones("avx2", "default"))) static void combine_rows(const float *b,
                                                                           const float *restrict a,
                                                                           int64_t rank, int64_t n,
                                                                           float scale,
                                                                           float *restrict y)
{
    memset(y, 0, (size_t)n * sizeof *y);
    for (int64_t k = 0; k < rank; k++)
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            y[j] += b[k] * a[k * n + j];
    for (int64_t j = 0; j < n; j++)
        y[j] *= scale;
}

/* delta = scale B[row,:] A; of experts the matrices of expert row / out. */
static void delta_row(const struct merge *m, const struct hy3_param *p, int64_t row, float *delta)
{
    const struct hy3_param *pa = factor(m, p, HY3_LORA_A), *pb = factor(m, p, HY3_LORA_B);
    const struct hy3_lora *lora = &m->params->lora;
    int64_t rank = lora->rank, in = p->shape[p->dims - 1], out = p->shape[p->dims - 2];
    const float *b = m->factors[pb - m->params->params] + row * rank;
    const float *a = m->factors[pa - m->params->params] + row / out * rank * in;

    combine_rows(b, a, rank, in, hy3_lora_scale(lora), delta);
}

static void round_to(hy3_dtype dtype, float *values, int64_t count, void *narrow)
{
    if (dtype == HY3_FP32)
        return;
    hy3_convert(values, HY3_FP32, narrow, dtype, (size_t)count);
    hy3_convert(narrow, dtype, values, HY3_FP32, (size_t)count);
}

/* Working memory for some elements of a tensor. */
struct elements {
    float *values; /* [count] */
    float *before; /* [count] the base's, as they would be written */
    double *exact; /* [count] W + scale B A, not rounded */
    float *row;    /* [2,in] */
};

static hy3_status allocate(struct elements *e, int64_t count, int64_t in)
{
    HY3_TRY(hy3_alloc(&e->values, (size_t)count, sizeof *e->values));
    HY3_TRY(hy3_alloc(&e->before, (size_t)count, sizeof *e->before));
    HY3_TRY(hy3_alloc(&e->exact, (size_t)count, sizeof *e->exact));
    return hy3_alloc(&e->row, (size_t)in, 2 * sizeof *e->row);
}

static void release(struct elements *e)
{
    hy3_free(e->values);
    hy3_free(e->before);
    hy3_free(e->exact);
    hy3_free(e->row);
}

/* values, elements of the span of the parameter, += the adapter's. */
static void add_delta(const struct merge *m, const struct hy3_param *p, struct hy3_span span,
                      struct elements *e)
{
    int64_t in = p->shape[p->dims - 1];

    for (int64_t at = 0; at < span.count;) {
        int64_t column = (span.first + at) % in;
        struct hy3_span piece = hy3_span_piece(span, at, in - column);

        delta_row(m, p, piece.first / in, e->row);
        for (int64_t j = 0; j < piece.count; j++)
            e->exact[at + j] += (double)e->row[column + j];
        if (p->dims == 3)
            round_to(m->options->dtype, e->row, in, e->row + in);
        for (int64_t j = 0; j < piece.count; j++)
            e->values[at + j] += e->row[column + j];
        at += piece.count;
    }
}

/* values and exact, elements of the span of the parameter, = the adapter's. */
static void replace(const struct merge *m, const struct hy3_param *p, struct hy3_span span,
                    struct elements *e)
{
    const float *whole = m->factors[p - m->params->params] + span.first;

    for (int64_t i = 0; i < span.count; i++)
        e->exact[i] = (double)(e->values[i] = whole[i]);
}

/* Notes what became of the elements; `to`: as written. */
static void note_change(struct hy3_merge_change *change, const struct elements *e,
                        const struct hy3_hf_entry *entry, int64_t count, const void *to)
{
    hy3_convert(to, entry->dtype, e->values, HY3_FP32, (size_t)count);
    for (int64_t i = 0; i < count; i++) {
        double error = fabs((double)e->values[i] - e->exact[i]);

        change->largest = error > change->largest ? error : change->largest;
        change->updated |= e->values[i] != e->before[i];
    }
}

static hy3_status change(void *context, int index, struct hy3_span span, const void *from, void *to)
{
    hy3_status status = HY3_OK;
    const struct merge *m = context;
    const struct hy3_hf_entry *entry = &m->plan->entries[index];
    const struct hy3_param *p = entry->param;
    hy3_dtype dtype = m->plan->pieces[entry->piece].tensor->dtype;
    struct elements e = {0};
    int64_t bad;

    HY3_TRY_DONE(allocate(&e, span.count, p->shape[p->dims - 1]));
    hy3_convert(from, dtype, e.values, HY3_FP32, (size_t)span.count);
    for (int64_t i = 0; i < span.count; i++)
        e.exact[i] = (double)e.values[i];
    if (dtype != entry->dtype)
        round_to(entry->dtype, e.values, span.count, to);
    memcpy(e.before, e.values, (size_t)span.count * sizeof *e.values);
    if ((m->changes[index].has_adapter = has_adapter(m, p)))
        (is_whole(m, p) ? replace : add_delta)(
            m, p, (struct hy3_span){entry->span.first + span.first, span.count}, &e);
    hy3_convert(e.values, HY3_FP32, to, entry->dtype, (size_t)span.count);
    if ((bad = hy3_scan_not_finite(to, entry->dtype, span.count)) >= 0)
        HY3_FAIL_DONE(HY3_EDIVERGED,
                      "element %lld of tensor '%s' is NaN or infinite as %s; try another "
                      "--save_dtype, or check the base with hy3_check",
                      (long long)(span.first + bad), entry->name, hy3_dtype_name(entry->dtype));
    note_change(&m->changes[index], &e, entry, span.count, to);
done:
    release(&e);
    return status;
}

static hy3_status describe_file(void *context, const struct hy3_hf_file *file, char **text)
{
    const struct merge *m = context;

    return hy3_merge_report_format(m->plan, file, m->changes, text);
}

hy3_status hy3_merge(MPI_Comm comm, const struct hy3_merge *options)
{
    hy3_status status = HY3_OK;
    struct merge m = {.options = options};
    struct hy3_hf_writer_options config = {.output = options->output, .dtype = options->dtype};
    char size[HY3_SIZE_TEXT];
    int merged = 0;

    HY3_AGREE_DONE(comm, plan(&m), "reading the model and the adapter");
    HY3_TRY_DONE(mark(comm, &m));
    HY3_AGREE_DONE(comm, hy3_rank(comm) == 0 ? tell_zeros(&m) : HY3_OK, "reading the adapter");
    config.base = m.base;
    HY3_TRY_DONE(hy3_hf_rewrite(comm,
                                &(struct hy3_hf_rewrite){.base = m.base,
                                                         .output = options->output,
                                                         .settings = m.settings,
                                                         .verb = "merging",
                                                         .workers = options->workers,
                                                         .begin = load_factors,
                                                         .change = change,
                                                         .context = &m,
                                                         .config = &config,
                                                         .report = HY3_MERGE_REPORT,
                                                         .describe = describe_file},
                                m.plan));
    for (int i = 0; i < m.params->count; i++)
        merged += hy3_param_is_adapters(m.params, &m.params->params[i]);
    hy3_log(HY3_LOG_INFO, "%d tensor%s of the adapter merged, %s in '%s'", merged, hy3_s(merged),
            hy3_size_text((double)m.plan->total_bytes, size), options->output);
    if (hy3_rank(comm) == 0)
        status = hy3_merge_report_tell(options->output, options->verbose ? stdout : NULL);
    status = hy3_agree(comm, status, "reading the report");
done:
    free_factors(&m);
    hy3_free(m.factors);
    hy3_free(m.changes);
    hy3_hf_plan_free(m.plan);
    hy3_adapter_close(m.adapter);
    hy3_hf_dir_close(m.base);
    hy3_params_free(m.params);
    return status;
}
