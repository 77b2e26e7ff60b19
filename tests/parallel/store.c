/* SPDX-License-Identifier: Apache-2.0 */
/* store.c - units over ranks, for every stage and expert group: what is put comes back and is
 * gathered, gradients are summed, an update reaches everyone, every element is written by one
 * rank. */
#include "parallel/store.h"

#include "base/memory.h"
#include "comm/comm.h"
#include "support/test.h"

static const struct hy3_shape shape = {.layers = 3,
                                       .dense_layers = 1,
                                       .hidden = 12,
                                       .intermediate = 20,
                                       .heads = 3,
                                       .kv_heads = 1,
                                       .head_dim = 4,
                                       .vocab = 29,
                                       .experts = 12,
                                       .top_k = 2,
                                       .shared_experts = 1,
                                       .expert_intermediate = 7,
                                       .max_positions = 64,
                                       .router_scaling = 2.5,
                                       .rms_eps = 1e-5,
                                       .rope_theta = 1e4};

struct fixture {
    struct hy3_layout layout;
    struct hy3_params *params;
    const struct hy3_backend *backend;
    struct hy3_store *store;
};

/* How a store may be divided. */
struct division {
    int stage, group, zero; /* zero: ranks of a ZeRO group */
    bool whole_experts;
    double offload; /* share of the weights in host memory */
    int64_t persistence, prefetch, reuse;
};

static void open_fixture(struct fixture *f, hy3_dtype dtype, const struct division *d)
{
    struct hy3_store_options options = {.dtype = dtype,
                                        .grad_dtype = dtype,
                                        .with_grads = true,
                                        .zero_stage = d->stage,
                                        .whole_experts = d->whole_experts,
                                        .offload = {.ratio = d->offload},
                                        .persistence = d->persistence,
                                        .prefetch = d->prefetch,
                                        .reuse = d->reuse};
    int64_t held = shape.experts / d->group;

    assert_ok(hy3_layout_open(MPI_COMM_WORLD, d->group, shape.experts, d->zero, 1, &f->layout));
    assert_ok(hy3_params_create(&shape, f->layout.experts.rank * held, held, &f->params));
    assert_ok(hy3_backend_open(MPI_COMM_WORLD, "cpu", &f->backend));
    assert_ok(hy3_store_open(f->backend, &f->layout, f->params, &options, &f->store));
}

static void close_fixture(struct fixture *f)
{
    hy3_store_close(f->store);
    hy3_params_free(f->params);
    hy3_layout_close(&f->layout);
}

/* With every size of ZeRO groups; stage 0 has no slices. */
static void for_all_zero_groups(hy3_dtype dtype, struct division d,
                                void (*body)(struct fixture *f, const struct division *d))
{
    int size = hy3_size(MPI_COMM_WORLD);

    for (d.zero = d.stage == 0 ? size : 1; d.zero <= size; d.zero++) {
        struct fixture f;

        if (size % d.zero != 0)
            continue;
        open_fixture(&f, dtype, &d);
        body(&f, &d);
        close_fixture(&f);
    }
}

/* Runs `body` for every division that these ranks allow. */
static void for_all_divisions_in(hy3_dtype dtype,
                                 void (*body)(struct fixture *f, const struct division *d))
{
    int size = hy3_size(MPI_COMM_WORLD);
    static const struct division kinds[] = {
        {.stage = 0},
        {.stage = 1},
        {.stage = 2},
        {.stage = 3},
        {.stage = 3, .prefetch = 400, .reuse = 1000},
        {.stage = 3, .prefetch = 1, .offload = 1},
        {.stage = 3, .prefetch = 400, .offload = 0.4},
        {.stage = 3, .whole_experts = true, .persistence = 1000, .reuse = 1000000},
        {.stage = 3, .prefetch = 1000000, .reuse = 1000000},
    };

    for (int group = 1; group <= size; group++) {
        if (size % group != 0 || shape.experts % group != 0)
            continue;
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            struct division d = kinds[i];

            d.group = group;
            for_all_zero_groups(dtype, d, body);
        }
    }
}

static void for_all_divisions(void (*body)(struct fixture *f, const struct division *d))
{
    for_all_divisions_in(HY3_FP32, body);
}

static float number(int param, int64_t element)
{
    return (float)(param * 10000 + element);
}

static void put_numbers(struct fixture *f)
{
    for (int i = 0; i < f->params->count; i++) {
        const struct hy3_param *p = &f->params->params[i];
        float *in;

        assert_ok(hy3_alloc(&in, (size_t)p->count, sizeof *in));
        for (int64_t j = 0; j < p->count; j++)
            in[j] = number(i, j);
        assert_ok(hy3_store_put(f->store, p, (struct hy3_span){0, p->count}, in, HY3_FP32));
        hy3_free(in);
    }
}

static void check_what_is_kept(struct fixture *f, const struct division *d)
{
    bool right = true;

    (void)d;
    put_numbers(f);
    for (int i = 0; i < f->params->count; i++) {
        const struct hy3_param *p = &f->params->params[i];
        struct hy3_span kept;
        float *out;

        assert_ok(hy3_alloc(&out, (size_t)p->count, sizeof *out));
        for (int64_t j = 0; j < p->count; j++)
            out[j] = -1;
        assert_ok(hy3_store_get(f->store, p, (struct hy3_span){0, p->count}, out));
        kept = hy3_store_kept(f->store, p);
        for (int64_t j = 0; j < p->count; j++)
            right =
                right && out[j] == (j >= kept.first && j < hy3_span_end(kept) ? number(i, j) : -1);
        hy3_free(out);
    }
    assert_all(right);
}

static void what_is_put_comes_back(void **state)
{
    (void)state;
    for_all_divisions(check_what_is_kept);
}

/* Whether the held part of all parameters of a gathered unit is number(i, j) times `factor`. */
static bool is_whole(struct fixture *f, int unit, float factor)
{
    bool right = true;

    for (int i = f->params->unit[unit].first; i < f->params->unit[unit].end; i++) {
        const struct hy3_param *p = &f->params->params[i];
        const float *w = hy3_store_weight(f->store, p); /* CPU backend */

        for (int64_t j = 0; j < p->held && p->unit >= 0; j++)
            right = right && w[j] == factor * number(i, p->first + j);
    }
    return right;
}

/* There and back, as a pass does. */
static bool walk(struct fixture *f, float factor)
{
    int order[64] = {0}, count = 0, units = f->params->units;
    bool right = true;

    for (int u = 0; u < 2 * units; u++)
        order[count++] = u < units ? u : 2 * units - 1 - u;
    hy3_store_schedule(f->store, order, count);
    for (int i = 0; i < count; i++) {
        assert_ok(hy3_store_gather(f->store, NULL, order[i]));
        right = right && is_whole(f, order[i], factor);
        hy3_store_release(f->store, order[i]);
    }
    return right;
}

static void check_gathering_and_update(struct fixture *f, const struct division *d)
{
    bool right;

    (void)d;
    put_numbers(f);
    right = walk(f, 1);
    for (int i = 0; i < f->params->count; i++) {
        struct hy3_owned own;

        if (f->params->params[i].unit < 0)
            continue;
        own = hy3_store_owned(f->store, &f->params->params[i]);
        for (int64_t j = 0; j < own.span.count; j++)
            ((float *)own.weight)[j] *= 3;
    }
    hy3_store_updated(f->store);
    right = right && walk(f, 3) && walk(f, 3);
    assert_all(right);
}

static void units_are_whole_when_gathered_and_know_updates(void **state)
{
    (void)state;
    for_all_divisions(check_gathering_and_update);
}

/* Two micro-batches; what a rank adds depends on the rank and the element. */
static void check_gradients(struct fixture *f, const struct division *d)
{
    int size = f->layout.world.size, rank = f->layout.world.rank;
    bool right = true;

    for (int round = 0; round < 2; round++) {
        assert_ok(hy3_store_zero_grads(f->store, NULL));
        for (int micro = 0; micro < 2; micro++) {
            for (int u = 0; u < f->params->units; u++) {
                assert_ok(hy3_store_open_grads(f->store, NULL, u));
                for (int i = f->params->unit[u].first; i < f->params->unit[u].end; i++) {
                    const struct hy3_param *p = &f->params->params[i];
                    float *grad = hy3_store_grad(f->store, p);

                    for (int64_t j = 0; grad && j < p->held; j++)
                        grad[j] += (float)((rank + 1) * (micro + 1) * ((p->first + j) % 7));
                }
                assert_ok(hy3_store_reduce(f->store, NULL, u, micro == 1));
            }
            assert_ok(hy3_store_finish(f->store, NULL));
        }
    }
    for (int i = 0; i < f->params->count; i++) {
        const struct hy3_param *p = &f->params->params[i];
        struct hy3_owned own;
        int64_t ranks = 0;

        if (p->unit < 0)
            continue;
        own = hy3_store_owned(f->store, p);
        for (int r = 0; r < size; r++) /* dense: all; experts: those with the same experts */
            if (!f->params->unit[p->unit].expert || r % d->group == rank % d->group)
                ranks += r + 1;
        for (int64_t j = 0; j < own.span.count; j++)
            right = right && own.grad[j] == (float)(3 * ranks * ((own.span.first + j) % 7));
    }
    assert_all(right);
}

static void gradients_are_summed_over_ranks_and_micro_batches(void **state)
{
    (void)state;
    for_all_divisions(check_gradients);
    for_all_divisions_in(HY3_BF16, check_gradients); /* the sums are exact in it */
}

/* Whether the ranks of a group have the same numbers. */
static bool are_the_same(const struct hy3_group *group, const float *values, int64_t count)
{
    bool same = true;

    for (int64_t i = 0; i < count; i++) {
        int64_t bits[2] = {0};

        memcpy(bits, &values[i], sizeof values[i]);
        bits[1] = -bits[0];
        hy3_allreduce_int(group->comm, bits, 2, MPI_MIN, "testing");
        same = same && bits[0] == -bits[1];
    }
    return same;
}

/* Sums that are rounded: who has the same slice is to make the same update. */
static void check_peers_of(struct fixture *f, enum hy3_param_kind kind,
                           const struct hy3_group *peers)
{
    const struct hy3_param *p = hy3_params_find(f->params, kind, 1);
    bool same;
    struct hy3_owned own;
    float *grad;

    assert_ok(hy3_store_zero_grads(f->store, NULL));
    assert_ok(hy3_store_open_grads(f->store, NULL, p->unit));
    grad = hy3_store_grad(f->store, p);
    for (int64_t j = 0; j < p->held; j++)
        grad[j] += 1.0f / (float)(3 + 7 * j + 1000 * f->layout.world.rank);
    assert_ok(hy3_store_reduce(f->store, NULL, p->unit, true));
    assert_ok(hy3_store_finish(f->store, NULL));
    own = hy3_store_owned(f->store, p);
    same = are_the_same(peers, own.grad, own.span.count);
    assert_all(same);
}

static void check_peers(struct fixture *f, const struct division *d)
{
    (void)d;
    check_peers_of(f, HY3_P_Q, &f->layout.peers);
    check_peers_of(f, HY3_P_GATE_UP, &f->layout.replica_peers);
}

static void peers_have_the_same_bits_of_a_gradient(void **state)
{
    (void)state;
    for_all_divisions(check_peers);
}

static void check_shares(struct fixture *f, const struct division *d)
{
    bool right = true;

    (void)d;
    for (int i = 0; i < f->params->count; i++) {
        const struct hy3_param *p = &f->params->params[i];
        int64_t *times;
        struct hy3_owned own = {.span = {0, INT64_MAX}};
        struct hy3_span share, common;

        share = hy3_store_share(f->store, p);
        if (p->unit >= 0)
            own = hy3_store_owned(f->store, p);
        common = hy3_span_intersect(share, own.span);
        right = right && common.count == share.count;
        assert_ok(hy3_alloc(&times, (size_t)p->count, sizeof *times));
        for (int64_t j = share.first; j < hy3_span_end(share); j++)
            times[j]++;
        hy3_allreduce_int(MPI_COMM_WORLD, times, (int)p->count, MPI_SUM, "testing");
        for (int64_t j = 0; j < p->count; j++)
            right = right && times[j] == 1;
        hy3_free(times);
    }
    assert_all(right);
}

static void every_element_is_written_by_one_rank_that_owns_it(void **state)
{
    (void)state;
    for_all_divisions(check_shares);
}

static void check_memory(struct fixture *f, const struct division *d)
{
    struct hy3_store_memory memory = hy3_store_memory(f->store);
    size_t whole = 0, share = 0;

    for (int u = 0; u < f->params->units; u++) {
        const struct hy3_unit *unit = &f->params->unit[u];

        whole += (size_t)unit->count * sizeof(float);
        share += (size_t)unit->count * sizeof(float) /
                 (size_t)(unit->expert ? f->layout.replicas.size : d->zero);
    }
    if (d->stage == 3 && !d->whole_experts && d->persistence == 0)
        assert_true(memory.weights <= share + (size_t)f->params->units * HY3_PARAM_ALIGN * 4 +
                                          (size_t)f->params->buffer_count * 4);
    if (d->stage == 0)
        assert_true(memory.weights >= whole && memory.grads >= whole);
    assert_true(memory.host == 0 || d->offload);
}

static void slices_take_a_share_of_the_memory(void **state)
{
    (void)state;
    for_all_divisions(check_memory);
}

/* Whether the gathered routers are the numbers times `factor`, with all bits. */
static bool are_routers_exact(struct fixture *f, float factor)
{
    bool right = true;

    for (int u = 0; u < f->params->units; u++)
        assert_ok(hy3_store_gather(f->store, NULL, u));
    for (int i = 0; i < f->params->count; i++) {
        const struct hy3_param *p = &f->params->params[i];
        const float *w = hy3_store_weight(f->store, p);

        right = right && (hy3_store_dtype_of(f->store, p) == HY3_FP32) ==
                             (p->kind == HY3_P_ROUTER || p->kind == HY3_P_ROUTER_BIAS);
        for (int64_t j = 0; p->kind == HY3_P_ROUTER && j < p->held; j++)
            right = right && w[j] == factor * number(i, j);
    }
    for (int u = 0; u < f->params->units; u++)
        hy3_store_release(f->store, u);
    return right;
}

static void check_routers(struct fixture *f, const struct division *d)
{
    bool right;

    (void)d;
    hy3_store_schedule(f->store, NULL, 0);
    put_numbers(f); /* of up to 18 bits */
    right = are_routers_exact(f, 1);
    for (int i = 0; i < f->params->count; i++) {
        struct hy3_owned own;

        if (f->params->params[i].kind != HY3_P_ROUTER)
            continue;
        own = hy3_store_owned(f->store, &f->params->params[i]);
        right = right && (own.span.count == 0 || own.dtype == HY3_FP32);
        for (int64_t j = 0; j < own.span.count; j++)
            ((float *)own.weight)[j] *= 3;
    }
    hy3_store_updated(f->store);
    assert_all(right && are_routers_exact(f, 3));
}

static void routers_are_fp32_in_a_bf16_store(void **state)
{
    (void)state;
    for_all_divisions_in(HY3_BF16, check_routers);
}

static void a_part_is_put_at_its_place(void **state)
{
    const struct division d = {.group = 1};
    struct fixture f;
    const struct hy3_param *p;
    float in[5] = {1, 2, 3, 4, 5}, out[9];

    (void)state;
    open_fixture(&f, HY3_BF16, &d);
    p = hy3_params_find(f.params, HY3_P_GATE_UP, 1);
    assert_ok(hy3_store_put(f.store, p, (struct hy3_span){100, 5}, in, HY3_FP32));
    assert_ok(hy3_store_get(f.store, p, (struct hy3_span){98, 9}, out));
    for (int i = 0; i < 9; i++)
        assert_true(out[i] == (i < 2 || i > 6 ? 0.0f : in[i - 2]));
    close_fixture(&f);
}

static void a_group_that_does_not_divide_is_refused(void **state)
{
    struct hy3_layout layout;
    int size = hy3_size(MPI_COMM_WORLD);

    (void)state;
    assert_fails(HY3_EUSAGE, "does not divide the",
                 hy3_layout_open(MPI_COMM_WORLD, size + 1, 12, 0, 1, &layout));
    hy3_layout_close(&layout);
    if (size > 1) {
        assert_fails(HY3_EUSAGE, "experts",
                     hy3_layout_open(MPI_COMM_WORLD, size, 13, 0, 1, &layout));
        hy3_layout_close(&layout);
    }
    assert_fails(HY3_EUSAGE, "sequence_parallel_size",
                 hy3_layout_open(MPI_COMM_WORLD, 1, 12, 0, size + 1, &layout));
    hy3_layout_close(&layout);
    assert_fails(HY3_EUSAGE, "does not divide the 8 ranks of a node",
                 hy3_sequence_group_check(3, 24, 8));
    assert_fails(HY3_EUSAGE, "1 where nodes differ", hy3_sequence_group_check(2, 24, 1));
    assert_ok(hy3_sequence_group_check(2, 2, 8));
    assert_fails(HY3_EUSAGE, "zero_group_size",
                 hy3_layout_open(MPI_COMM_WORLD, 1, 12, size + 1, 1, &layout));
    hy3_layout_close(&layout);
}

static void the_largest_group_inside_a_node_is_chosen(void **state)
{
    (void)state;
    assert_int_equal(hy3_expert_group_size(192, 32, 8), 8);
    assert_int_equal(hy3_expert_group_size(192, 4, 8), 4);
    assert_int_equal(hy3_expert_group_size(192, 12, 6), 6);
    assert_int_equal(hy3_expert_group_size(192, 7, 7), 1);
    assert_int_equal(hy3_expert_group_size(7, 7, 7), 7);
    assert_int_equal(hy3_expert_group_size(8, 12, 4), 4);
    assert_int_equal(hy3_expert_group_size(192, 8, 1), 1);
    assert_int_equal(hy3_expert_group_size(0, 8, 8), 1);
}

static int zero_group(int ranks, int per_node)
{
    int size;

    assert_ok(hy3_zero_group_size(0, ranks, per_node, &size));
    return size;
}

static void slices_are_over_at_most_64_ranks_in_whole_nodes(void **state)
{
    int size;

    (void)state;
    assert_int_equal(zero_group(4, 4), 4);
    assert_int_equal(zero_group(60, 8), 60);
    assert_int_equal(zero_group(64, 8), 64);
    assert_int_equal(zero_group(1024, 8), 64);
    assert_int_equal(zero_group(1024, 1), 64);
    assert_int_equal(zero_group(96, 8), 48);
    assert_int_equal(zero_group(120, 8), 40);
    assert_int_equal(zero_group(72, 8), 36); /* no whole nodes */
    assert_int_equal(zero_group(128, 128), 64);
    assert_int_equal(zero_group(67, 1), 67); /* nothing divides it */
    assert_int_equal(zero_group(1072, 8), 1072);
    assert_ok(hy3_zero_group_size(16, 1024, 8, &size));
    assert_int_equal(size, 16);
    assert_int_equal(hy3_replica_group_size(64, 8), 8);
    assert_int_equal(hy3_replica_group_size(64, 128), 64);
    assert_int_equal(hy3_replica_group_size(64, 88), 44);
    assert_int_equal(hy3_replica_group_size(64, 8 * 67), 8 * 67); /* nothing divides it */
    assert_int_equal(hy3_replica_group_size(1, 4), 1);
    assert_fails(HY3_EUSAGE,
                 "zero_group_size = 5 does not divide the 12 ranks; these do: 1, 2, 3, "
                 "4, 6, 12",
                 hy3_zero_group_size(5, 12, 4, &size));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_comes_back),
        cmocka_unit_test(units_are_whole_when_gathered_and_know_updates),
        cmocka_unit_test(gradients_are_summed_over_ranks_and_micro_batches),
        cmocka_unit_test(peers_have_the_same_bits_of_a_gradient),
        cmocka_unit_test(every_element_is_written_by_one_rank_that_owns_it),
        cmocka_unit_test(slices_take_a_share_of_the_memory),
        cmocka_unit_test(routers_are_fp32_in_a_bf16_store),
        cmocka_unit_test(a_part_is_put_at_its_place),
        cmocka_unit_test(a_group_that_does_not_divide_is_refused),
        cmocka_unit_test(the_largest_group_inside_a_node_is_chosen),
        cmocka_unit_test(slices_are_over_at_most_64_ranks_in_whole_nodes),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
