/* store.c - units over ranks: what is put comes back, gradients are summed, every element is written by one rank. */
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
                                       .experts = 5,
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

static void open_fixture(struct fixture *f, hy3_dtype dtype)
{
    assert_ok(hy3_layout_open(MPI_COMM_WORLD, 1, &f->layout));
    assert_ok(hy3_params_create(&shape, 0, shape.experts, &f->params));
    assert_ok(hy3_backend_open("cpu", &f->backend));
    assert_ok(hy3_store_open(f->backend, &f->layout, f->params, dtype, true, &f->store));
}

static void close_fixture(struct fixture *f)
{
    hy3_store_close(f->store);
    hy3_params_free(f->params);
    hy3_layout_close(&f->layout);
}

static void what_is_put_comes_back(void **state)
{
    struct fixture f;
    bool same = true;

    (void)state;
    open_fixture(&f, HY3_FP32);
    for (int i = 0; i < f.params->count; i++) {
        const struct hy3_param *p = &f.params->params[i];
        float *in, *out;

        assert_ok(hy3_alloc(&in, (size_t)p->count, sizeof *in));
        assert_ok(hy3_alloc(&out, (size_t)p->count, sizeof *out));
        for (int64_t j = 0; j < p->count; j++)
            in[j] = (float)(i * 1000 + j);
        assert_ok(hy3_store_put(f.store, p, 0, p->count, in, HY3_FP32));
        assert_ok(hy3_store_get(f.store, p, 0, p->count, out));
        same = same && memcmp(in, out, (size_t)p->count * sizeof *in) == 0;
        hy3_free(in);
        hy3_free(out);
    }
    assert_all(same);
    close_fixture(&f);
}

static void a_part_is_put_at_its_place(void **state)
{
    struct fixture f;
    const struct hy3_param *p;
    float in[5] = {1, 2, 3, 4, 5}, out[9];

    (void)state;
    open_fixture(&f, HY3_BF16);
    p = hy3_params_find(f.params, HY3_P_GATE_UP, 1);
    assert_ok(hy3_store_put(f.store, p, 100, 5, in, HY3_FP32));
    assert_ok(hy3_store_get(f.store, p, 98, 9, out));
    for (int i = 0; i < 9; i++)
        assert_true(out[i] == (i < 2 || i > 6 ? 0.0f : in[i - 2]));
    close_fixture(&f);
}

static void gradients_are_summed_over_the_ranks(void **state)
{
    struct fixture f;
    int rank = hy3_rank(MPI_COMM_WORLD), size = hy3_size(MPI_COMM_WORLD);
    bool right = true;

    (void)state;
    open_fixture(&f, HY3_FP32);
    for (int u = 0; u < f.params->units; u++) {
        struct hy3_slice slice = hy3_store_slice(f.store, u);

        for (int64_t j = 0; j < slice.count; j++)
            slice.grad[j] = (float)((rank + 1) * (j % 7));
        assert_ok(hy3_store_reduce(f.store, NULL, u));
        for (int64_t j = 0; j < slice.count; j++)
            right = right && slice.grad[j] == (float)(size * (size + 1) / 2 * (j % 7));
    }
    assert_all(right);
    assert_ok(hy3_store_zero_grads(f.store, NULL));
    for (int u = 0; u < f.params->units; u++)
        for (int64_t j = 0; j < hy3_store_slice(f.store, u).count; j++)
            right = right && hy3_store_slice(f.store, u).grad[j] == 0;
    assert_all(right);
    close_fixture(&f);
}

static void every_element_is_written_by_one_rank(void **state)
{
    struct fixture f;
    bool right = true;

    (void)state;
    open_fixture(&f, HY3_FP32);
    for (int i = 0; i < f.params->count; i++) {
        const struct hy3_param *p = &f.params->params[i];
        int64_t first, count, sum, firsts[64];

        hy3_store_share(f.store, p, &first, &count);
        sum = count;
        hy3_allreduce_int(MPI_COMM_WORLD, &sum, 1, MPI_SUM, "testing");
        hy3_allgather_int(MPI_COMM_WORLD, first, firsts, "testing");
        right = right && sum == p->count && firsts[0] == 0;
        /* a rank's range begins where the one before ends */
        hy3_allgather_int(MPI_COMM_WORLD, first + count, firsts, "testing");
        if (hy3_rank(MPI_COMM_WORLD) > 0)
            right = right && firsts[hy3_rank(MPI_COMM_WORLD) - 1] == first;
    }
    assert_all(right);
    close_fixture(&f);
}

static void a_group_that_does_not_divide_the_ranks_is_refused(void **state)
{
    struct hy3_layout layout;

    (void)state;
    assert_fails(HY3_EUSAGE, "does not divide",
                 hy3_layout_open(MPI_COMM_WORLD, hy3_size(MPI_COMM_WORLD) + 1, &layout));
    hy3_layout_close(&layout);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_comes_back),
        cmocka_unit_test(a_part_is_put_at_its_place),
        cmocka_unit_test(gradients_are_summed_over_the_ranks),
        cmocka_unit_test(every_element_is_written_by_one_rank),
        cmocka_unit_test(a_group_that_does_not_divide_the_ranks_is_refused),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
