/* SPDX-License-Identifier: Apache-2.0 */
/* large.c - collectives in pieces, as before MPI 4, against what must come out. */
#include "comm/large.h"

#include "comm/group.h"
#include "comm/wait.h"
#include "support/test.h"

enum { COUNT = 10, RANKS = 4 };

static const int64_t limits[] = {0, 1, 3, 10, 11};

static int rank(void)
{
    return hy3_rank(MPI_COMM_WORLD);
}

/* Element i of what rank r has: sums of them are exact. */
static float value(int r, int64_t i)
{
    return (float)(r * 1000 + i);
}

static float sum(int64_t i)
{
    float s = 0;

    for (int r = 0; r < RANKS; r++)
        s += value(r, i);
    return s;
}

static void check_sums(void)
{
    float data[COUNT];
    MPI_Request request;
    bool same = true;

    for (int i = 0; i < COUNT; i++)
        data[i] = value(rank(), i);
    hy3_large_allreduce(MPI_COMM_WORLD, data, COUNT, &request, "testing");
    hy3_wait(&request, "testing");
    for (int i = 0; i < COUNT; i++)
        same = same && data[i] == sum(i);
    assert_all(same);
}

static void check_gather(void)
{
    unsigned char data[RANKS][COUNT];
    MPI_Request request;
    bool same = true;

    memset(data, 0xee, sizeof data);
    for (int i = 0; i < COUNT; i++)
        data[rank()][i] = (unsigned char)(rank() * 16 + i);
    hy3_large_allgather(MPI_COMM_WORLD, data, COUNT, &request);
    hy3_wait(&request, "testing");
    for (int r = 0; r < RANKS; r++)
        for (int i = 0; i < COUNT; i++)
            same = same && data[r][i] == r * 16 + i;
    assert_all(same);
}

static void check_scatter(void)
{
    float data[RANKS * COUNT], own[COUNT];
    MPI_Request request;
    bool same = true;

    for (int i = 0; i < RANKS * COUNT; i++)
        data[i] = value(rank(), i);
    hy3_large_reduce_scatter(MPI_COMM_WORLD, data, own, COUNT, HY3_FP32, &request, "testing");
    hy3_wait(&request, "testing");
    for (int i = 0; i < COUNT; i++)
        same = same && own[i] == sum(rank() * COUNT + i);
    assert_all(same);
}

/* Small whole numbers, whose sums are exact in bf16. */
static void check_narrow_scatter(void)
{
    hy3_bf16 data[RANKS * COUNT], own[COUNT];
    MPI_Request request;
    bool same = true;

    for (int i = 0; i < RANKS * COUNT; i++)
        data[i] = hy3_bf16_from_float((float)((rank() + 1) * (i % 7) - 5));
    hy3_large_reduce_scatter(MPI_COMM_WORLD, data, own, COUNT, HY3_BF16, &request, "testing");
    hy3_wait(&request, "testing");
    for (int i = 0; i < COUNT; i++) {
        int whole = 0;

        for (int r = 0; r < RANKS; r++)
            whole += (r + 1) * ((rank() * COUNT + i) % 7) - 5;
        same = same && hy3_float_from_bf16(own[i]) == (float)whole;
    }
    assert_all(same);
}

/* What rank a gives rank b: some give nothing. */
static int given(int a, int b)
{
    return (3 * a + 5 * b) % 7;
}

static void check_exchange(void)
{
    float send[RANKS * 7], receive[RANKS * 7];
    MPI_Count counts[2 * RANKS];
    MPI_Aint places[2 * RANKS];
    const struct hy3_large_exchange exchange = {
        .size = sizeof *send, .send = send, .receive = receive, .counts = counts, .places = places};
    bool same = true;

    for (int r = 0; r < RANKS; r++) {
        counts[r] = given(rank(), r);
        counts[RANKS + r] = given(r, rank());
        places[r] = places[RANKS + r] = 7 * (MPI_Aint)r;
        for (int i = 0; i < 7; i++) {
            send[7 * r + i] = value(rank(), 7 * r + i);
            receive[7 * r + i] = -1;
        }
    }
    hy3_large_alltoall(MPI_COMM_WORLD, &exchange, "testing");
    for (int r = 0; r < RANKS; r++)
        for (int i = 0; i < 7; i++)
            same = same &&
                   receive[7 * r + i] == (i < given(r, rank()) ? value(r, 7 * rank() + i) : -1);
    assert_all(same);
}

static void with_each_limit(void (*check)(void))
{
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        hy3_large_limit(limits[i]);
        check();
    }
    hy3_large_limit(0);
}

static void sums_are_whole(void **state)
{
    with_each_limit(check_sums);
}

static void gathered_data_are_whole(void **state)
{
    with_each_limit(check_gather);
}

static void scattered_sums_are_whole(void **state)
{
    with_each_limit(check_scatter);
    with_each_limit(check_narrow_scatter);
}

static void exchanged_elements_arrive(void **state)
{
    with_each_limit(check_exchange);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_whole),
        cmocka_unit_test(gathered_data_are_whole),
        cmocka_unit_test(scattered_sums_are_whole),
        cmocka_unit_test(exchanged_elements_arrive),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
