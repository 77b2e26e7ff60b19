/* SPDX-License-Identifier: Apache-2.0 */
/* backend.c - the choice of a backend, and the argument checks of every kernel call.
 *
 * Arguments that contradict the comment of their struct are a bug of hy3 and end in HY3_BUG:
 * kernels may trust what they get. The checked table wraps the chosen one; both have the same
 * type. */
#include "backend/backend.h"

#include "backend/identity.h"
#include "backend/module.h"
#include "base/file.h"
#include "base/log.h"
#include "comm/agree.h"
#include "comm/wait.h"
#include "comm/watchdog.h"

#include <dlfcn.h>
#include <math.h>
#include <unistd.h>

static const struct hy3_backend *chosen;

static void need(bool fact, const char *op, const char *what)
{
    if (!fact)
        HY3_BUG("kernel %s: %s", op, what);
}

#define NEED(op, fact) need((fact), #op, #fact)

static bool is_dtype(hy3_dtype dtype)
{
    return dtype == HY3_FP32 || dtype == HY3_BF16;
}

/* starts[0] = 0, ascending */
static bool is_ascending(const int64_t *starts, int64_t n)
{
    if (!starts || starts[0] != 0)
        return false;
    for (int64_t i = 0; i < n; i++)
        if (starts[i + 1] < starts[i])
            return false;
    return true;
}

static void check_gemm(const struct hy3_gemm *a)
{
    NEED(gemm, a->M >= 0 && a->N >= 0 && a->K >= 0);
    NEED(gemm, is_dtype(a->dtype) && (a->c_dtype == a->dtype || a->c_dtype == HY3_FP32));
    NEED(gemm, a->M == 0 || a->N == 0 || (a->C && (a->K == 0 || (a->A && a->B))));
    NEED(gemm, a->form == HY3_NT || a->form == HY3_NN || a->form == HY3_TN);
    NEED(gemm, isfinite(a->alpha) && a->alpha != 0);
}

static void check_grouped_gemm(const struct hy3_grouped_gemm *a)
{
    NEED(grouped_gemm, a->groups >= 0 && is_ascending(a->starts, a->groups));
    NEED(grouped_gemm, is_dtype(a->dtype) && (a->c_dtype == a->dtype || a->c_dtype == HY3_FP32));
    NEED(grouped_gemm, a->N > 0 && (a->form == HY3_TN ? a->M > 0 : a->K > 0));
    NEED(grouped_gemm, isfinite(a->alpha) && a->alpha != 0);
    NEED(grouped_gemm, a->starts[a->groups] == 0 || (a->A && a->B && a->C));
}

static void check_embedding(const struct hy3_embedding *a)
{
    NEED(embedding, a->T >= 0 && a->H > 0 && a->V > 0 && is_dtype(a->dtype));
    NEED(embedding, a->T == 0 || a->ids);
}

static void check_rmsnorm(const struct hy3_rmsnorm *a)
{
    NEED(rmsnorm, a->T >= 0 && a->H > 0 && a->eps >= 0 && is_dtype(a->dtype));
    NEED(rmsnorm, a->T == 0 || (a->x && a->w && a->r));
}

static void check_rope(const struct hy3_rope *a)
{
    NEED(rope, a->T >= 0 && a->heads > 0 && a->D > 0 && a->D % 2 == 0 && is_dtype(a->dtype));
    NEED(rope, a->theta > 0 && (a->T == 0 || (a->x && a->w && a->r && a->positions)));
}

static void check_attention(const struct hy3_attention *a)
{
    NEED(attention, a->S >= 0 && a->K > 0 && a->Q > 0 && a->Q % a->K == 0 && a->D > 0);
    NEED(attention, is_dtype(a->dtype) && is_ascending(a->q_starts, a->S));
    NEED(attention, a->S == 0 || (a->kv_first && a->kv_end && a->kv_first[0] >= 0));
    for (int64_t s = 0; s < a->S; s++) {
        NEED(attention, a->kv_end[s] - a->kv_first[s] >= a->q_starts[s + 1] - a->q_starts[s]);
        NEED(attention, s == 0 || a->kv_end[s] >= a->kv_end[s - 1]);
        NEED(attention,
             s == 0 || a->kv_first[s] == a->kv_first[s - 1] || a->kv_first[s] >= a->kv_end[s - 1]);
        NEED(attention, s < 2 || a->kv_first[s] != a->kv_first[s - 2] ||
                            a->kv_first[s - 2] == a->kv_end[s - 2]);
    }
    NEED(attention, a->q_starts[a->S] == 0 || (a->q && a->k && a->v && a->o));
}

static void check_router(const struct hy3_router *a)
{
    NEED(router, a->T >= 0 && a->E > 0 && a->k > 0 && a->k <= a->E);
    NEED(router, a->T == 0 || (a->logits && a->bias && a->ids && a->weights));
}

static void check_permute(const struct hy3_permute *a)
{
    NEED(permute, a->T >= 0 && a->R >= 0 && a->H > 0 && a->k > 0 && is_dtype(a->dtype));
}

static void check_unpermute(const struct hy3_unpermute *a)
{
    NEED(unpermute, a->T >= 0 && a->R >= 0 && a->H > 0 && a->k > 0 && is_dtype(a->dtype));
    NEED(unpermute, a->T == 0 || (a->position && (a->dout ? a->dy : a->y)));
}

static void check_swiglu(const struct hy3_swiglu *a)
{
    NEED(swiglu, a->N >= 0 && a->I > 0 && a->ld >= a->I && is_dtype(a->dtype));
    NEED(swiglu, a->N == 0 || (a->gate && a->up));
}

static void check_loss(const struct hy3_loss *a)
{
    NEED(loss, a->N >= 0 && a->V > 0 && is_dtype(a->dtype));
    NEED(loss, a->smoothing >= 0 && a->smoothing < 1);
    NEED(loss, a->N == 0 || (a->logits && a->targets && a->lse));
}

static void check_route_index(const struct hy3_route_index *a)
{
    NEED(route_index, a->T >= 0 && a->G > 0 && a->k > 0 && a->width > 0 && a->stride > 0);
    NEED(route_index, a->starts);
    NEED(route_index, a->T == 0 || (a->ids && a->position && a->token));
}

static void check_label(const struct hy3_label *a)
{
    NEED(label, a->T >= 0 && a->k > 0 && a->width > 0 && a->held > 0);
    NEED(label, a->source >= 0 && a->source < a->sources);
    NEED(label, a->T == 0 || (a->ids && a->position && a->starts && a->weights && a->parcel));
    NEED(label, a->T == 0 || (a->labels && a->slot));
}

static void check_relabel(const struct hy3_relabel *a)
{
    NEED(relabel, a->T >= 0 && a->k > 0 && a->width > 0 && a->blocks > 0);
    NEED(relabel, a->T == 0 || (a->came && a->parcel && a->labels && a->slot));
}

static void check_unlabel(const struct hy3_unlabel *a)
{
    NEED(unlabel, a->N >= 0 && a->R >= a->N && a->k > 0 && a->blocks > 0 && a->first);
    NEED(unlabel, a->N == 0 || (a->labels && a->token && a->slot && a->position && a->weights));
}

static void check_row_dot(const struct hy3_row_dot *a)
{
    NEED(row_dot, a->N >= 0 && a->C > 0 && is_dtype(a->dtype));
    NEED(row_dot, a->N == 0 || (a->a && a->b && a->y));
}

static void check_cast(const struct hy3_cast *a)
{
    NEED(cast, a->n >= 0 && is_dtype(a->x_dtype) && is_dtype(a->y_dtype));
    NEED(cast, a->n == 0 || (a->x && a->y));
}

static void check_add(const struct hy3_add *a)
{
    NEED(add, a->n >= 0 && is_dtype(a->x_dtype) && is_dtype(a->y_dtype));
    NEED(add, a->n == 0 || (a->x && a->y));
}

static void check_dropout(const struct hy3_dropout *a)
{
    NEED(dropout, a->N >= 0 && a->C > 0 && a->p >= 0 && a->p < 1 && is_dtype(a->dtype));
    NEED(dropout, a->N == 0 || (a->keys && a->x && a->y));
}

static void check_noise(const struct hy3_noise *a)
{
    NEED(noise, a->N >= 0 && a->C > 0 && is_dtype(a->dtype));
    NEED(noise, a->N == 0 || (a->keys && a->scale && a->y));
}

static void check_square_sum(const struct hy3_square_sum *a)
{
    NEED(square_sum, a->n >= 0 && is_dtype(a->dtype) && a->sum && (a->n == 0 || a->x));
}

static void check_adamw(const struct hy3_adamw *a)
{
    NEED(adamw, a->n >= 0 && a->step > 0 && is_dtype(a->dtype));
    NEED(adamw, a->n == 0 || (a->weight && a->m && a->v && a->grad));
    NEED(adamw, (a->dtype == HY3_FP32) == !a->low || a->n == 0);
    NEED(adamw, a->moments != HY3_MOMENTS_8BIT || (a->m_scale && a->v_scale) || a->n == 0);
    NEED(adamw, a->moments == HY3_MOMENTS_FP32 || a->first >= 0);
}

static void check_expand(const struct hy3_expand *a)
{
    NEED(expand, a->M >= 0 && a->N > 0 && a->K > 0 && a->rows > 0 && a->columns > 0);
    NEED(expand, is_dtype(a->dtype) && (a->M == 0 || (a->x && a->scales && a->y)));
    NEED(expand,
         a->stride >= hy3_blocks(a->N, a->rows) * hy3_blocks(a->K, a->columns) || a->M <= 1);
}

static void check_quantize(const struct hy3_quantize *a)
{
    NEED(quantize, a->N >= 0 && a->K > 0 && a->rows > 0 && a->columns > 0 && is_dtype(a->dtype));
    NEED(quantize, a->N == 0 || (a->x && a->y && a->scales));
}

#define X(op)                                                                              \
    static hy3_status checked_##op(struct hy3_stream *stream, const struct hy3_##op *args) \
    {                                                                                      \
        check_##op(args);                                                                  \
        return chosen->kernels.op(stream, args);                                           \
    }
HY3_OPS(X)
#undef X

#define X(op)                                                              \
    static hy3_status checked_##op##_forward(struct hy3_stream *stream,    \
                                             const struct hy3_##op *args)  \
    {                                                                      \
        check_##op(args);                                                  \
        return chosen->kernels.op##_forward(stream, args);                 \
    }                                                                      \
    static hy3_status checked_##op##_backward(struct hy3_stream *stream,   \
                                              const struct hy3_##op *args) \
    {                                                                      \
        check_##op(args);                                                  \
        return chosen->kernels.op##_backward(stream, args);                \
    }
HY3_PAIRS(X)
#undef X

/* The checked table around the chosen one. */
static const struct hy3_backend *wrap(const struct hy3_backend *table)
{
    static struct hy3_backend checked;

    chosen = table;
    checked = *chosen;
#define X(op) checked.kernels.op = checked_##op;
    HY3_OPS(X)
#undef X
#define X(op)                                              \
    checked.kernels.op##_forward = checked_##op##_forward; \
    checked.kernels.op##_backward = checked_##op##_backward;
    HY3_PAIRS(X)
#undef X
    return &checked;
}

/* Where the library may be: named by the environment, beside a program that is not installed,
 * installed. */
static bool find_module(char path[HY3_PATH_MAX])
{
    const char *named = getenv("HY3_CUDA_MODULE");

    if (named)
        return hy3_path_format(path, HY3_PATH_MAX, "%s", named) == HY3_OK;
    if (hy3_path_beside_program(".libs/hy3_cuda.so", path) == HY3_OK && access(path, R_OK) == 0)
        return true;
    return hy3_path_format(path, HY3_PATH_MAX, "%s/hy3_cuda.so", HY3_PKGLIBDIR) == HY3_OK &&
           access(path, R_OK) == 0;
}

/* Without a driver the library is not opened, which takes long, since it loads cuBLAS and NCCL
 * along. */
static bool has_driver(void)
{
    void *driver =
        getenv("HY3_CUDA_MODULE") ? NULL : dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);

    if (driver)
        dlclose(driver);
    return driver || getenv("HY3_CUDA_MODULE");
}

static hy3_status open_module(int node_rank, const struct hy3_backend **out)
{
    struct hy3_module_host host = {.abi = HY3_BACKEND_ABI,
                                   .node_rank = node_rank,
                                   .fail = hy3_fail,
                                   .wait_on = hy3_wait_on,
                                   .watch = hy3_wait_watch,
                                   .enter = hy3_watchdog_enter,
                                   .leave = hy3_watchdog_leave,
                                   .cpu = hy3_cpu_backend("best")};
    hy3_module_open *open;
    char path[HY3_PATH_MAX];
    void *library, *symbol;

    if (!find_module(path))
        HY3_FAIL(HY3_EDEVICE,
                 "the GPU library hy3_cuda.so is not installed (configure --with-cuda builds it)");
    if (!has_driver())
        HY3_FAIL(HY3_EDEVICE, "no NVIDIA driver on this host (libcuda.so.1)");
    if (!(library = dlopen(path, RTLD_NOW | RTLD_LOCAL)))
        HY3_FAIL(HY3_EDEVICE, "the GPU library cannot be opened: %s", dlerror());
    if (!(symbol = dlsym(library, "hy3_cuda_open"))) {
        dlclose(library);
        HY3_FAIL(HY3_EDEVICE, "'%s' is not a GPU library of hy3", path);
    }
    memcpy(&open, &symbol, sizeof open); /* ISO C has no cast from an object to a function */
    hy3_watchdog_start();
    /* cppcheck-suppress resourceLeak ; the module stays open */
    return open(&host, out);
}

/* Opens the GPU of this rank, and compares it with those of others. */
static hy3_status open_gpu(MPI_Comm comm, const struct hy3_backend **out)
{
    hy3_status status = HY3_OK;
    MPI_Comm node;

    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    HY3_AGREE_DONE(comm, open_module(hy3_rank(node), out), "looking for GPUs");
    HY3_TRY_DONE(hy3_identity_compare(comm, node, &(*out)->device));
done:
    MPI_Comm_free(&node);
    return status;
}

hy3_status hy3_backend_open(MPI_Comm comm, const char *device, const struct hy3_backend **out)
{
    const struct hy3_backend *gpu = NULL;
    char why[HY3_ERROR_MAX];
    hy3_status status;

    if (strcmp(device, "cpu") == 0) {
        *out = wrap(hy3_cpu_backend("best"));
        return HY3_OK;
    }
    status = open_gpu(comm, &gpu);
    snprintf(why, sizeof why, "%s", hy3_error_text());
    if (status != HY3_OK && strcmp(device, "auto") != 0)
        HY3_FAIL(status, "device = \"%s\": %s", device, why);
    if (status != HY3_OK)
        hy3_log(HY3_LOG_INFO, "running on the CPU: %s", why);
    *out = wrap(status == HY3_OK ? gpu : hy3_cpu_backend("best"));
    return HY3_OK;
}
