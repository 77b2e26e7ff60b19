/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - reads a directory into the store, in two passes: all headers are checked before any
 * weight is read. */
#include "ckpt/hf/load.h"

#include "base/log.h"
#include "base/memory.h"
#include "ckpt/hf/account.h"
#include "ckpt/hf/quantize.h"
#include "ckpt/hf/scales.h"
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
    float *wide;                      /* [PIECE_BYTES / 2] of an fp16 or 8-bit file */
    struct hy3_scale_reader scales;
    struct hy3_quantizer quantizer;
    int64_t done, total; /* bytes */
    double start;
};

static hy3_status need_wide(struct load *load)
{
    return load->wide ? HY3_OK : hy3_alloc(&load->wide, PIECE_BYTES / 2, sizeof *load->wide);
}

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
        HY3_TRY(need_wide(load));
        hy3_convert(load->piece, dtype, load->wide, HY3_FP32, (size_t)piece.count);
        values = load->wide;
    }
    return load->masters->put(load->masters->of, HY3_MASTER, param, piece, values);
}

/* A piece of codes as what the store computes with, in their place. */
static hy3_status expand(struct load *load, const struct hy3_scales *scales, struct hy3_span span,
                         hy3_dtype dtype)
{
    HY3_TRY(need_wide(load));
    hy3_scales_expand(scales, span, (const hy3_fp8 *)load->piece, load->wide);
    hy3_convert(load->wide, HY3_FP32, load->piece, dtype, (size_t)span.count);
    return HY3_OK;
}

/* The pieces of a tensor that the store keeps. */
static hy3_status load_pieces(struct load *load, const struct hy3_shard *shard,
                              const struct hy3_shard_tensor *tensor, const struct hy3_place *place,
                              const struct hy3_scales *scales)
{
    int64_t size = (int64_t)hy3_dtype_size(tensor->dtype),
            most = PIECE_BYTES / (tensor->is_fp8 ? 4 : size);
    hy3_dtype dtype =
        tensor->is_fp8 ? hy3_store_dtype_of(load->store, place->param) : tensor->dtype;
    struct hy3_span kept =
        hy3_span_intersect(hy3_store_kept(load->store, place->param), place->span);

    for (int64_t i = 0; i < kept.count; i += most) {
        struct hy3_span piece = hy3_span_piece(kept, i, most);
        int64_t from = piece.first - place->span.first, bytes = piece.count * size, bad;

        HY3_TRY(hy3_stop_check("loading the weights"));
        HY3_TRY(hy3_shard_read_raw(shard, tensor, from * size, bytes, load->piece));
        if ((bad = hy3_scan_not_finite(load->piece, tensor->dtype, piece.count)) >= 0)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: element %lld of tensor '%s' is NaN or infinite; the file is damaged",
                     hy3_shard_path(shard), (long long)(from + bad), tensor->name);
        if (tensor->is_fp8 && dtype != HY3_FP8)
            HY3_TRY(expand(load, scales, (struct hy3_span){from, piece.count}, dtype));
        HY3_TRY(put(load, place->param, piece, dtype));
        load->done += bytes;
        hy3_log_progress_bytes("loading", load->done, load->total, load->start);
    }
    return HY3_OK;
}

static hy3_status load_tensor(struct load *load, const struct hy3_shard *shard,
                              const struct hy3_shard_tensor *tensor)
{
    hy3_status status = HY3_OK;
    const struct hy3_params *params = hy3_store_params(load->store);
    struct hy3_scales scales = {0};
    struct hy3_packed *packed;
    struct hy3_place place;

    hy3_name_locate(params, tensor->name, &place);
    if (!place.param)
        return HY3_OK;
    if (tensor->is_fp8)
        HY3_TRY_DONE(
            hy3_scales_read(&load->scales, shard, tensor, &place, &params->shape, &scales));
    packed = hy3_store_packed(load->store, place.param);
    if (packed && !tensor->is_fp8)
        return hy3_quantize_tensor(&load->quantizer, shard, tensor, &place);
    if (packed)
        HY3_TRY_DONE(hy3_packed_put_scales(
            packed, place.param,
            &(struct hy3_matrix_scales){.matrices = hy3_place_matrices(&place, scales.M),
                                        .rows = scales.rows,
                                        .columns = scales.columns,
                                        .stride = scales.stride,
                                        .values = scales.values}));
    HY3_TRY_DONE(load_pieces(load, shard, tensor, &place, &scales));
done:
    hy3_scales_free(&scales);
    return status;
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
    hy3_scale_reader_close(&load->scales);
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
    bool saves = load->masters && hy3_store_params(load->store)->lora.rank == 0;

    HY3_TRY_DONE(hy3_account_create(load->dir, load->store, saves, &account));
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
    struct load load = {.dir = dir,
                        .store = store,
                        .masters = masters,
                        .scales = {.dir = dir},
                        .quantizer = {.store = store}};
    hy3_status status = HY3_OK;

    HY3_AGREE(comm, account_all(&load), "checking the weights");
    HY3_AGREE_DONE(comm, load_all(&load), "loading the weights");
    HY3_TRY_DONE(hy3_quantize_end(comm, &load.quantizer));
    if (masters) /* other ranks round the weights in the way of masters */
        hy3_store_updated(store);
done:
    hy3_quantizer_close(&load.quantizer);
    return status;
}
