/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - reads a directory into the store, in two passes: all headers are checked before any
 * weight is read. */
#include "ckpt/hf/load.h"

#include "base/log.h"
#include "base/memory.h"
#include "ckpt/hf/account.h"
#include "ckpt/hf/scan.h"
#include "comm/agree.h"
#include "comm/stop.h"

enum { PIECE_BYTES = 32 << 20 }; /* of one read */

/* Of one rank. */
struct load {
    const struct hy3_hf_dir *dir;
    struct hy3_store *store;
    const struct hy3_values *masters; /* NULL: none */
    char *piece;                      /* [PIECE_BYTES] */
    float *wide;                      /* [PIECE_BYTES / 2] of an fp16 file */
    int64_t done, total;              /* bytes */
    double start;
};

/* A piece of a tensor into the store, and its masters where the store would round it. */
static hy3_status put(struct load *load, const struct hy3_param *param, struct hy3_span piece,
                      hy3_dtype dtype)
{
    const float *values = (const float *)(const void *)load->piece;

    HY3_TRY(hy3_store_put(load->store, param, piece, load->piece, dtype));
    if (!load->masters || !param->trainable || dtype == HY3_BF16 ||
        hy3_store_dtype_of(load->store, param) == HY3_FP32)
        return HY3_OK;
    if (dtype == HY3_FP16) {
        if (!load->wide)
            HY3_TRY(hy3_alloc(&load->wide, PIECE_BYTES / 2, sizeof *load->wide));
        hy3_convert(load->piece, dtype, load->wide, HY3_FP32, (size_t)piece.count);
        values = load->wide;
    }
    return load->masters->put(load->masters->of, HY3_MASTER, param, piece, values);
}

static hy3_status load_tensor(struct load *load, const struct hy3_shard *shard,
                              const struct hy3_shard_tensor *tensor)
{
    int64_t size = (int64_t)hy3_dtype_size(tensor->dtype), most = PIECE_BYTES / size;
    struct hy3_span kept;
    struct hy3_place place;

    hy3_name_locate(hy3_store_params(load->store), tensor->name, &place);
    if (!place.param)
        return HY3_OK;
    kept = hy3_span_intersect(hy3_store_kept(load->store, place.param), place.span);
    for (int64_t i = 0; i < kept.count; i += most) {
        struct hy3_span piece = hy3_span_piece(kept, i, most);
        int64_t from = piece.first - place.span.first, bytes = piece.count * size, bad;

        HY3_TRY(hy3_stop_check("loading the weights"));
        HY3_TRY(hy3_shard_read_raw(shard, tensor, from * size, bytes, load->piece));
        if ((bad = hy3_scan_not_finite(load->piece, tensor->dtype, piece.count)) >= 0)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: element %lld of tensor '%s' is NaN or infinite; the file is damaged",
                     hy3_shard_path(shard), (long long)(from + bad), tensor->name);
        HY3_TRY(put(load, place.param, piece, tensor->dtype));
        load->done += bytes;
        hy3_log_progress_bytes("loading", load->done, load->total, load->start);
    }
    return HY3_OK;
}

static hy3_status load_all(struct load *load)
{
    hy3_status status = HY3_OK;
    struct hy3_shard *shard = NULL;

    HY3_TRY_DONE(hy3_alloc(&load->piece, PIECE_BYTES, 1));
    load->start = hy3_seconds();
    for (int s = 0; s < hy3_hf_dir_shards(load->dir); s++) {
        HY3_TRY_DONE(hy3_hf_dir_open_shard(load->dir, s, &shard));
        for (int i = 0; i < hy3_shard_count(shard); i++)
            HY3_TRY_DONE(load_tensor(load, shard, hy3_shard_tensor(shard, i)));
        hy3_shard_close(shard);
        shard = NULL;
    }
done:
    hy3_shard_close(shard);
    hy3_free(load->piece);
    hy3_free(load->wide);
    return status;
}

static hy3_status account_all(struct load *load)
{
    hy3_status status = HY3_OK;
    struct hy3_account *account = NULL;
    struct hy3_shard *shard = NULL;
    int64_t listed = hy3_hf_dir_total_bytes(load->dir);

    HY3_TRY_DONE(hy3_account_create(load->dir, load->store, &account));
    for (int s = 0; s < hy3_hf_dir_shards(load->dir); s++) {
        HY3_TRY_DONE(hy3_stop_check("checking the weights"));
        HY3_TRY_DONE(hy3_hf_dir_open_shard(load->dir, s, &shard));
        hy3_account_shard(account, shard, s);
        hy3_shard_close(shard);
        shard = NULL;
    }
    HY3_TRY_DONE(hy3_account_end(account));
    load->total = hy3_account_kept_bytes(account);
    if (listed >= 0 && listed != hy3_account_bytes(account))
        hy3_log(HY3_LOG_WARN, "the index of '%s' says %lld bytes of weights, its shards hold %lld",
                hy3_hf_dir_path(load->dir), (long long)listed,
                (long long)hy3_account_bytes(account));
done:
    hy3_account_free(account);
    return status;
}

hy3_status hy3_hf_load(MPI_Comm comm, const struct hy3_hf_dir *dir, struct hy3_store *store,
                       const struct hy3_values *masters)
{
    struct load load = {.dir = dir, .store = store, .masters = masters};

    HY3_AGREE(comm, account_all(&load), "checking the weights");
    HY3_AGREE(comm, load_all(&load), "loading the weights");
    if (masters) /* other ranks round the weights in the way of masters */
        hy3_store_updated(store);
    return HY3_OK;
}
