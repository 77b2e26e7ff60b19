/* SPDX-License-Identifier: Apache-2.0 */
/* timeline.c - the clocks of a plan, against sums made by hand from round rates. */
#include "backend/dry/dry.h"
#include "backend/profile.h"
#include "support/test.h"

/* One second is 10 units of anything. */
static struct hy3_rates rates = {.peak = 10,
                                 .product_bf16 = 10,
                                 .product_fp32 = 5,
                                 .grouped_bf16 = 10,
                                 .grouped_weights_bf16 = 10,
                                 .attention_forward = 10,
                                 .attention_backward = 10,
                                 .attention_forward_long = 20,
                                 .attention_backward_long = 20,
                                 .memory = 1e12,
                                 .host_copy = 10,
                                 .host_memory = 10,
                                 .launch = 1e-6,
                                 .kernel = 1e-7,
                                 .wait = 1e-6,
                                 .node_link = 10,
                                 .network = 5,
                                 .node_latency = 1e-6,
                                 .network_latency = 1e-6,
                                 .overlap = true};

/* 8 ranks on 2 nodes, expert groups of 2, ZeRO groups of 4. */
static struct hy3_timeline_options options = {.rates = &rates, .ranks_per_node = 4, .imbalance = 1};

static const struct hy3_group world = {MPI_COMM_NULL, 0, 8, 1};
static const struct hy3_group replicas = {MPI_COMM_NULL, 0, 4, 2};
static const struct hy3_group experts = {MPI_COMM_NULL, 0, 2, 1};
static const struct hy3_group zero = {MPI_COMM_NULL, 0, 4, 1};
static const struct hy3_group peers = {MPI_COMM_NULL, 0, 2, 4};

static void assert_seconds(double is, double expected)
{
    if (is < expected - 1e-3 || is > expected + 1e-3)
        fail_msg("%.6f seconds, expected %.6f", is, expected);
}

static void work(struct hy3_stream *stream, double seconds)
{
    hy3_timeline_work(stream, "work", (struct hy3_cost){HY3_PRODUCTS, seconds, 10 * seconds, 1});
}

static void streams_run_side_by_side_and_events_order_them(void **state)
{
    const struct hy3_backend *b = hy3_dry_backend(&options);
    struct hy3_stream *one, *two;
    struct hy3_event *event;
    struct hy3_timing t;

    assert_ok(b->device.stream_create(&one));
    assert_ok(b->device.stream_create(&two));
    assert_ok(b->device.event_create(&event));
    work(one, 3);
    work(two, 5);
    t = hy3_timeline_lap();
    assert_seconds(t.seconds, 5);
    work(two, 5);
    assert_ok(b->device.event_record(event, two));
    work(one, 3);
    assert_ok(b->device.event_wait(event, one));
    work(one, 4); /* 3, then waits until 5 */
    t = hy3_timeline_lap();
    assert_seconds(t.seconds, 9);
    assert_seconds(t.busy[HY3_PRODUCTS], 7);
    assert_seconds(t.copies, 2);
    assert_seconds(t.flops, 120);
    assert_int_equal(t.launches, 3);
    b->device.event_free(event);
    b->device.stream_free(one);
    b->device.stream_free(two);
}

/* Of a gather of 8 numbers a rank beside so many seconds of work. */
static struct hy3_timing gather_beside(const struct hy3_backend *b, const struct hy3_group *group,
                                       double seconds)
{
    struct hy3_transfer transfer = {.event = NULL};
    float data[32];

    assert_ok(b->collectives.all_gather(NULL, group, data, 8, HY3_FP32, &transfer));
    work(NULL, seconds);
    assert_ok(b->collectives.finish(NULL, &transfer, "test"));
    return hy3_timeline_lap();
}

static void a_gather_is_hidden_as_far_as_there_is_work(void **state)
{
    const struct hy3_backend *b = hy3_dry_backend(&options);
    struct hy3_timing t;

    /* replicas are two ranks apart: two of four in a node, so 2 x 5 a second: 128 x 3/4 / 10 */
    t = gather_beside(b, &replicas, 4);
    assert_seconds(t.seconds, 9.6);
    assert_seconds(t.gathers, 5.6);
    assert_seconds(t.links, 9.6);
    /* the world: four adapters give 20, the links of a node 10; 256 x 7/8 / 10 */
    t = gather_beside(b, &world, 30);
    assert_seconds(t.seconds, 30);
    assert_seconds(t.gathers, 0);
    assert_seconds(t.links, 22.4);
    /* a ZeRO group fills a node: 128 x 3/4 / 10; its peers are on nodes of their own: 64 / 2 / 5 */
    t = gather_beside(b, &zero, 30);
    assert_seconds(t.links, 9.6);
    t = gather_beside(b, &peers, 30);
    assert_seconds(t.links, 6.4);
}

static void sums_are_told_apart_from_gathers(void **state)
{
    const struct hy3_backend *b = hy3_dry_backend(&options);
    struct hy3_transfer transfer = {.event = NULL};
    struct hy3_timing t;
    float data[32], own[8];

    assert_ok(b->collectives.reduce_scatter(NULL, &replicas, data, own, 8, HY3_FP32, &transfer));
    assert_ok(b->collectives.finish(NULL, &transfer, "test"));
    assert_ok(b->collectives.all_reduce(NULL, &replicas, data, 32, &transfer));
    assert_ok(b->collectives.finish(NULL, &transfer, "test")); /* twice the same */
    t = hy3_timeline_lap();
    assert_seconds(t.sums, 3 * 9.6);
    assert_seconds(t.gathers, 0);
    assert_seconds(t.seconds, 3 * 9.6);
}

static void the_exchange_takes_the_imbalance_and_the_slower_link(void **state)
{
    const struct hy3_group all = {MPI_COMM_NULL, 0, 8, 1};
    struct hy3_timeline_options o = options;
    const struct hy3_backend *b;
    int64_t counts[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    struct hy3_all_to_all rows = {.parts = {{10, counts, NULL}}, .send_count = counts};

    o.imbalance = 1.5;
    b = hy3_dry_backend(&o);
    assert_ok(
        b->collectives.all_to_all(NULL, &experts, &rows, "test")); /* one other, in the node */
    assert_seconds(hy3_timeline_lap().exchange, 1.5);
    assert_ok(
        b->collectives.all_to_all(NULL, &all, &rows, "test")); /* four in the other node, 5/s */
    assert_seconds(hy3_timeline_lap().exchange, 1.5 * 4 * 10 / 5);
}

static void copies_and_products_take_their_rates(void **state)
{
    const struct hy3_backend *b = hy3_dry_backend(&options);
    struct hy3_gemm gemm = {.M = 10, .N = 5, .K = 1, .dtype = HY3_BF16, .c_dtype = HY3_BF16};
    void *device, *host;
    char pageable[20];
    struct hy3_timing t;

    assert_ok(b->device.alloc(100, &device));
    assert_ok(b->device.alloc_host(100, &host));
    assert_ok(b->kernels.gemm(NULL, &gemm));
    gemm.dtype = HY3_FP32;
    assert_ok(b->kernels.gemm(NULL, &gemm));
    t = hy3_timeline_lap();
    assert_seconds(t.busy[HY3_PRODUCTS], 10 + 20);
    assert_seconds(t.flops, 200);
    assert_ok(b->device.copy(NULL, device, host, 50));
    work(NULL, 1);
    t = hy3_timeline_lap();
    assert_seconds(t.busy[HY3_COPY], 5);
    assert_seconds(t.seconds, 6);
    /* to memory that is not pinned: the host waits, so the next kernel is launched late */
    assert_ok(b->device.copy(NULL, pageable, device, 20));
    t = hy3_timeline_lap();
    assert_seconds(t.seconds, 2);
    b->device.free(device);
    b->device.free_host(host);
}

static void without_overlap_the_host_does_all_one_after_the_other(void **state)
{
    struct hy3_rates cpu = rates;
    struct hy3_timeline_options o = options;
    struct hy3_transfer transfer = {.event = NULL};
    const struct hy3_backend *b;
    struct hy3_timing t;
    float data[32];

    cpu.overlap = false;
    o.rates = &cpu;
    b = hy3_dry_backend(&o);
    assert_ok(b->collectives.all_gather(NULL, &replicas, data, 8, HY3_FP32, &transfer));
    work(NULL, 30);
    assert_ok(b->collectives.finish(NULL, &transfer, "test"));
    t = hy3_timeline_lap();
    assert_seconds(t.seconds, 39.6);
    assert_seconds(t.gathers, 9.6);
}

static void without_rates_no_time_passes(void **state)
{
    const struct hy3_backend *b = hy3_dry_backend(&(struct hy3_timeline_options){.rates = NULL});
    struct hy3_gemm gemm = {.M = 10, .N = 5, .K = 1, .dtype = HY3_BF16, .c_dtype = HY3_BF16};
    struct hy3_transfer transfer = {.event = NULL};
    float data[32];

    assert_ok(b->kernels.gemm(NULL, &gemm));
    assert_ok(b->collectives.all_gather(NULL, &world, data, 8, HY3_FP32, &transfer));
    assert_ok(b->collectives.finish(NULL, &transfer, "test"));
    assert_seconds(hy3_timeline_lap().seconds, 0);
}

/* Also where a plan is made within a run whose own operations are timed. */
static void memory_of_the_host_can_be_used_however_large(void **state)
{
    const size_t bytes = (size_t)1 << 40;
    const struct hy3_backend *b = hy3_dry_backend(&options);
    void *host;
    char *bytes_of;

    assert_ok(b->device.alloc_host(bytes, &host));
    bytes_of = host;
    bytes_of[0] = bytes_of[bytes - 1] = 1;
    assert_int_equal(bytes_of[0] + bytes_of[bytes / 2] + bytes_of[bytes - 1], 2);
    assert_true(hy3_dry_counts().host == bytes);
    b->device.free_host(host);
    (void)state;
}

static void a_profile_on_the_clocks_counts_what_each_kind_takes(void **state)
{
    struct hy3_gemm gemm = {.M = 10, .N = 5, .K = 1, .dtype = HY3_BF16, .c_dtype = HY3_BF16};
    const int64_t starts[] = {0, 2, 5};
    struct hy3_grouped_gemm grouped = {.form = HY3_NT,
                                       .groups = 2,
                                       .starts = starts,
                                       .N = 4,
                                       .K = 5,
                                       .dtype = HY3_BF16,
                                       .c_dtype = HY3_BF16};
    struct hy3_transfer transfer = {.event = NULL};
    double kinds[HY3_PROFILE_KINDS];
    float data[32];
    const struct hy3_backend *run, *b;

    run = hy3_profile_begin(hy3_dry_backend(&options), hy3_timeline_now);
    assert_ok(run->kernels.gemm(NULL, &gemm));
    b = hy3_profile_begin(hy3_dry_backend(&options), hy3_timeline_now);
    assert_ok(b->kernels.grouped_gemm(NULL, &grouped));
    grouped.form = HY3_TN;
    grouped.M = 10;
    assert_ok(b->kernels.grouped_gemm(NULL, &grouped));
    assert_ok(b->collectives.all_gather(NULL, &replicas, data, 8, HY3_FP32, &transfer));
    assert_ok(b->collectives.finish(NULL, &transfer, "test"));
    hy3_profile_seconds(kinds);
    assert_seconds(kinds[HY3_PROFILE_PRODUCTS], 0);
    assert_seconds(kinds[HY3_PROFILE_GROUPED], 20);
    assert_seconds(kinds[HY3_PROFILE_GROUPED_WEIGHTS], 40);
    assert_seconds(kinds[HY3_PROFILE_SUMS], 9.6);
    hy3_profile_end();
    hy3_profile_seconds(kinds);
    assert_seconds(kinds[HY3_PROFILE_PRODUCTS], 10);
    assert_seconds(kinds[HY3_PROFILE_SUMS], 0);
    hy3_profile_end();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_run_side_by_side_and_events_order_them),
        cmocka_unit_test(a_gather_is_hidden_as_far_as_there_is_work),
        cmocka_unit_test(sums_are_told_apart_from_gathers),
        cmocka_unit_test(the_exchange_takes_the_imbalance_and_the_slower_link),
        cmocka_unit_test(copies_and_products_take_their_rates),
        cmocka_unit_test(without_overlap_the_host_does_all_one_after_the_other),
        cmocka_unit_test(without_rates_no_time_passes),
        cmocka_unit_test(memory_of_the_host_can_be_used_however_large),
        cmocka_unit_test(a_profile_on_the_clocks_counts_what_each_kind_takes),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
