/* SPDX-License-Identifier: Apache-2.0 */
/* parcels.h - the cases of kernels.c of rows that travel to other ranks. */
#pragma once

#include "backend/arrays.h"
#include "backend/dims.h"
#include "backend/kernels.h"

/* k different experts a token, ascending. */
static int32_t *ascending(const struct dims *d)
{
    int32_t *ids = buffer((size_t)(d->T * d->k) * sizeof *ids);

    for (int64_t t = 0; t < d->T; t++)
        for (int64_t e = t % (d->E - d->k + 1), j = 0; j < d->k; e++, j++)
            ids[t * d->k + j] = (int32_t)e;
    return ids;
}

/* Rows that come from two ranks, whose tokens have chosen the same: those of both, by expert. */
static int64_t *first_of_blocks(const struct dims *d, const int64_t *starts, int64_t held)
{
    int64_t *first = buffer((size_t)(2 * held) * sizeof *first), at = 0;

    for (int64_t e = 0; e < held; e++) {
        first[2 * e] = at;
        first[2 * e + 1] = at + starts[e + 1] - starts[e];
        at = first[2 * e + 1] + starts[e + 1] - starts[e];
    }
    return first;
}

/* Between the parcels that came and the rows of experts. */
static void came_rows(const struct hy3_kernels *k, const struct dims *d,
                      const struct hy3_unlabel *u)
{
    struct hy3_permute p = {.T = u->N, .R = u->R, .H = d->H, .k = u->k, .dtype = d->dtype};
    struct hy3_unpermute w = {.T = u->N, .R = u->R, .H = d->H, .k = u->k, .dtype = d->dtype};

    w.position = p.position = u->position;
    w.y = p.dy = in(w.R * d->H, d->dtype);
    w.dout = in(w.T * d->H, d->dtype);
    for (int weighted = 0; weighted < 2; weighted++) {
        w.weights = weighted ? u->weights : NULL;
        w.out = out(w.T * d->H, d->dtype);
        w.dy = out(w.R * d->H, d->dtype);
        assert_ok(k->unpermute_forward(NULL, &w));
        assert_ok(k->unpermute_backward(NULL, &w));
    }
    p.dx = out(p.T * d->H, d->dtype);
    assert_ok(k->permute_backward(NULL, &p));
}

/* Labels of rows for a node of two ranks with `half` blocks each, the last ones of some rows empty:
 * passed on to its ranks. */
static void passed_on_case(const struct hy3_kernels *k, const struct dims *d)
{
    int64_t half = (d->E + 1) / 2, width = d->k < half ? d->k : half, n = d->T * d->k;
    struct hy3_row_label *came = buffer((size_t)n * sizeof *came);
    struct hy3_route_index index = {.T = d->T, .G = 2, .k = d->k, .width = half};
    struct hy3_relabel a = {.T = d->T, .k = d->k, .width = width, .blocks = half, .came = came};
    const int32_t *ids = ascending(d);

    for (int64_t i = 0; i < n; i++)
        came[i] = i % d->k > i / d->k % 3 ? (struct hy3_row_label){.block = -1}
                                          : (struct hy3_row_label){ids[i], (int32_t)i, (float)i};
    index.stride = sizeof *came / sizeof(int32_t);
    index.ids = &came->block;
    index.position = out_exact(n, sizeof(int32_t));
    index.token = out_exact(n, sizeof(int32_t));
    index.starts = out_exact(3, sizeof(int64_t));
    assert_ok(k->route_index(NULL, &index));
    a.parcel = index.position;
    a.labels = out_exact(index.starts[2] * width, sizeof *a.labels);
    a.slot = out_exact(n, sizeof(int32_t));
    assert_ok(k->relabel(NULL, &a));
}

/* To a group of two ranks, of which this is the second; all that is for the first one is then
 * taken for what both have sent it. */
static void parcels_case(const struct hy3_kernels *k, const struct dims *d)
{
    int64_t R = d->T * d->k, held = (d->E + 1) / 2, width = d->k < held ? d->k : held, N;
    struct hy3_route_index rows = {.T = d->T, .G = 2 * held, .k = d->k, .width = 1, .stride = 1};
    struct hy3_route_index parcels = {.T = d->T, .G = 2, .k = d->k, .width = held, .stride = 1};
    struct hy3_label l = {.T = d->T, .k = d->k, .width = width, .held = held};
    struct hy3_unlabel u = {.k = width, .blocks = 2 * held};
    struct hy3_row_label *came;

    rows.ids = parcels.ids = l.ids = ascending(d);
    rows.position = buffer((size_t)R * sizeof(int32_t));
    rows.token = buffer((size_t)R * sizeof(int32_t));
    rows.starts = buffer((size_t)(2 * held + 1) * sizeof(int64_t));
    parcels.position = out_exact(R, sizeof(int32_t));
    parcels.token = out_exact(R, sizeof(int32_t));
    parcels.starts = out_exact(3, sizeof(int64_t));
    assert_ok(k->route_index(NULL, &rows));
    assert_ok(k->route_index(NULL, &parcels));
    l.sources = 2;
    l.source = 1;
    l.position = rows.position;
    l.starts = rows.starts;
    l.weights = in(R, HY3_FP32);
    l.parcel = parcels.position;
    l.labels = out_exact(parcels.starts[2] * width, sizeof *l.labels);
    l.slot = out_exact(R, sizeof(int32_t));
    assert_ok(k->label(NULL, &l));
    N = parcels.starts[1];
    came = buffer((size_t)(2 * N * width) * sizeof *came);
    for (int64_t s = 0; s < 2 * N * width; s++) {
        came[s] = l.labels[s % (N * width)];
        came[s].block -= s < N * width && came[s].block >= 0;
    }
    u.N = 2 * N;
    u.R = 2 * rows.starts[held];
    u.labels = came;
    u.first = first_of_blocks(d, rows.starts, held);
    u.token = out_exact(u.R, sizeof(int32_t));
    u.slot = out_exact(u.R, sizeof(int32_t));
    u.position = out_exact(u.N * width, sizeof(int32_t));
    u.weights = out(u.N * width, HY3_FP32);
    assert_ok(k->unlabel(NULL, &u));
    came_rows(k, d, &u);
}
