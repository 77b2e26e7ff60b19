/* SPDX-License-Identifier: Apache-2.0 */
/* batches.c - which samples make which step, and what a micro-batch holds. */
#include "data/batches.h"

#include "base/memory.h"
#include "support/test.h"

enum { SAMPLES = 53, LENGTH = 7, VOCAB = 31 };

static struct hy3_dataset *dataset, *uneven; /* uneven: samples of 2 to 40 tokens */

static struct hy3_batches plan(int64_t batch, int64_t accumulation, int ranks)
{
    return (struct hy3_batches){.dataset = dataset,
                                .count = SAMPLES,
                                .batch = batch,
                                .accumulation = accumulation,
                                .ranks = ranks,
                                .shuffle = true,
                                .seed = 42};
}

/* How often each sample occurs in a step, over all ranks and micro-batches. */
static void count_step(struct hy3_batches b, int64_t step, int *seen)
{
    struct hy3_batch *batch;

    assert_ok(hy3_batch_create(&b, &batch));
    for (b.rank = 0; b.rank < b.ranks; b.rank++) {
        for (int64_t micro = 0; micro < b.accumulation; micro++) {
            assert_ok(hy3_batches_load(&b, step, micro, batch));
            assert_true(b.packing || batch->S <= b.batch);
            for (int64_t i = 0; i < batch->S; i++)
                seen[batch->samples[i]]++;
        }
    }
    hy3_batch_free(batch);
}

static void a_step_does_not_depend_on_how_its_batch_is_made_up(void **state)
{
    static const int ways[][3] = {{12, 1, 1}, {1, 12, 1}, {1, 1, 12},
                                  {3, 2, 2},  {2, 3, 2},  {1, 3, 4}};

    (void)state;
    for (int64_t step = 0; step < 15; step++) {
        int wanted[SAMPLES] = {0};

        count_step(plan(12, 1, 1), step, wanted);
        for (size_t w = 1; w < sizeof ways / sizeof *ways; w++) {
            int seen[SAMPLES] = {0};

            count_step(plan(ways[w][0], ways[w][1], ways[w][2]), step, seen);
            assert_memory_equal(seen, wanted, sizeof seen);
        }
    }
}

static void a_drawn_split_and_the_rest_are_all_samples_once(void **state)
{
    struct hy3_batches b = plan(2, 1, 1), held_out = b;
    int seen[SAMPLES] = {0}, out_of_place = 0;

    (void)state;
    b.split_drawn = held_out.split_drawn = true;
    b.count = held_out.first = 40;
    held_out.count = SAMPLES - 40;
    held_out.shuffle = false;
    for (int64_t i = 0; i < b.count; i++)
        seen[hy3_batches_sample(&b, 1, i)]++;
    for (int64_t i = 0; i < held_out.count; i++) {
        int64_t sample = hy3_batches_sample(&held_out, 0, i);

        seen[sample]++;
        out_of_place += sample < 40;
        assert_int_equal(sample, hy3_batches_sample(&held_out, 5, i)); /* the same in every epoch */
    }
    for (int i = 0; i < SAMPLES; i++)
        assert_int_equal(seen[i], 1);
    assert_true(out_of_place > 3);
}

/* What all parts of a micro-batch have, put together in `whole` by the places that they say. */
static void put_together(struct hy3_batches b, int64_t step, int64_t T, int32_t (*whole)[3],
                         int *seen)
{
    struct hy3_batch *part;
    int64_t most = 0, segment, pairs[2] = {INT64_MAX, 0};

    assert_ok(hy3_batch_create(&b, &part));
    for (b.part = 0; b.part < b.parts; b.part++) {
        int64_t sum = 0;

        assert_ok(hy3_batches_load(&b, step, 0, part));
        assert_int_equal(part->cut.T, T);
        most = part->T > most ? part->T : most;
        for (segment = 0; segment < part->S; segment++) {
            int64_t first = part->cut.first[segment], end = part->cut.end[segment];
            int64_t rows = part->starts[segment + 1] - part->starts[segment];

            assert_true(rows > 0 && end - first <= part->cut.lengths[segment]);
            assert_int_equal(part->cut.lengths[segment],
                             hy3_dataset_length(b.dataset, part->samples[segment]));
            for (int64_t i = 0; i < rows; i++) {
                int64_t from = part->starts[segment] + i, to = end - rows + i;

                assert_int_equal(part->positions[from], to - first);
                sum += to - first + 1;
                seen[to]++;
                whole[to][0] = part->ids[from];
                whole[to][1] = part->positions[from];
                whole[to][2] = part->targets[from];
            }
        }
        assert_int_equal(part->starts[part->S], part->T);
        pairs[0] = sum < pairs[0] ? sum : pairs[0];
        pairs[1] = sum > pairs[1] ? sum : pairs[1];
    }
    assert_true(most <= 2 * ((T + 2 * b.parts - 1) / (2 * b.parts)));
    if (b.batch == 1) /* one sample: all ranks have as many pairs but for rounding */
        assert_true(pairs[1] - pairs[0] <= 4 * T);
    hy3_batch_free(part);
}

static void ranks_that_share_a_micro_batch_have_each_token_once(void **state)
{
    (void)state;
    for (int parts = 2; parts <= 8; parts++) {
        for (int64_t step = 0; step < 24; step++) {
            struct hy3_batches b = plan(step % 2 ? 1 : 5, 1, 1);
            struct hy3_batch *whole;
            int32_t got[256][3];
            int seen[256] = {0};

            b.dataset = uneven;
            assert_ok(hy3_batch_create(&b, &whole));
            assert_ok(hy3_batches_load(&b, step, 0, whole));
            assert_true(whole->T <= 256);
            b.parts = parts;
            put_together(b, step, whole->T, got, seen);
            for (int64_t t = 0; t < whole->T; t++) {
                assert_int_equal(seen[t], 1);
                assert_int_equal(got[t][0], whole->ids[t]);
                assert_int_equal(got[t][1], whole->positions[t]);
                assert_int_equal(got[t][2], whole->targets[t]);
            }
            hy3_batch_free(whole);
        }
    }
}

static void dealing_changes_the_samples_of_no_step(void **state)
{
    static const int ways[][3] = {{12, 1, 1}, {1, 4, 3}, {2, 3, 2}, {3, 1, 4}};
    struct hy3_batches in_order = plan(1, 3, 4);

    (void)state;
    in_order.dataset = uneven;
    in_order.keeps_order = true;
    for (int64_t step = 0; step < 10; step++) {
        int wanted[SAMPLES] = {0};

        count_step(in_order, step, wanted);
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            struct hy3_batches b = plan(ways[w][0], ways[w][1], ways[w][2]);
            int seen[SAMPLES] = {0};

            b.dataset = uneven;
            count_step(b, step, seen);
            assert_memory_equal(seen, wanted, sizeof seen);
        }
    }
}

static void uneven_samples_leave_no_rank_waiting_long(void **state)
{
    struct hy3_batches b = plan(2, 2, 3);
    struct hy3_balance balance;
    struct hy3_batch *batch;

    (void)state;
    b.dataset = uneven;
    b.attention_length = 100;
    assert_ok(hy3_batch_create(&b, &batch));
    hy3_batches_balance(&b, batch, &balance);
    assert_int_equal(balance.items, SAMPLES);
    assert_true(balance.in_order > 1.5 * balance.mean);
    assert_true(balance.dealt < 1.25 * balance.mean);
    hy3_batch_free(batch);
}

/* Rows of 40 tokens on 2 ranks: each epoch every sample once, the same rows in another order. */
static void rows_hold_every_sample_once_an_epoch(void **state)
{
    struct hy3_batches b = plan(2, 1, 2);
    struct hy3_packing *packing;
    struct hy3_batch *batch;
    int64_t steps, first[2] = {0};

    (void)state;
    b.dataset = uneven;
    assert_ok(hy3_batches_pack(&b, 40, &packing));
    b.packing = packing;
    assert_true(packing->rows < SAMPLES / 2 && packing->rows > 8);
    assert_ok(hy3_batch_create(&b, &batch));
    steps = hy3_batches_steps_per_epoch(&b);
    assert_int_equal(steps, (packing->rows + 3) / 4);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        int seen[SAMPLES] = {0};

        for (int64_t step = 0; step < steps; step++)
            count_step(b, epoch * steps + step, seen);
        for (int i = 0; i < SAMPLES; i++)
            assert_int_equal(seen[i], 1);
        assert_ok(hy3_batches_load(&b, epoch * steps, 0, batch));
        first[epoch] = batch->samples[0];
    }
    assert_true(first[0] != first[1]);
    hy3_batch_free(batch);
    hy3_packing_free(packing);
}

static void a_row_is_several_sequences(void **state)
{
    struct hy3_batches b = plan(2, 1, 1);
    struct hy3_packing *packing;
    struct hy3_batch *batch;

    (void)state;
    b.dataset = uneven;
    assert_ok(hy3_batches_pack(&b, 40, &packing));
    b.packing = packing;
    assert_ok(hy3_batch_create(&b, &batch));
    assert_ok(hy3_batches_load(&b, 0, 0, batch));
    assert_true(batch->S > 2 && batch->T <= 80 && batch->T > 60);
    for (int64_t s = 0; s < batch->S; s++) {
        const int64_t from = batch->starts[s], end = batch->starts[s + 1];

        assert_int_equal(end - from, hy3_dataset_length(uneven, batch->samples[s]));
        for (int64_t t = from; t < end; t++)
            assert_int_equal(batch->positions[t], t - from);
        assert_int_equal(batch->targets[end - 1], -1); /* not the next sample's first token */
    }
    hy3_batch_free(batch);
    hy3_packing_free(packing);
}

static void an_epoch_visits_every_sample_once(void **state)
{
    struct hy3_batches b = plan(2, 3, 2);

    (void)state;
    assert_int_equal(hy3_batches_steps_per_epoch(&b), 5);
    for (int64_t epoch = 0; epoch < 4; epoch++) {
        int seen[SAMPLES] = {0};

        for (int64_t step = 0; step < 5; step++)
            count_step(b, epoch * 5 + step, seen);
        for (int i = 0; i < SAMPLES; i++)
            assert_int_equal(seen[i], 1);
    }
}

static void the_last_step_of_an_epoch_may_be_partial(void **state)
{
    struct hy3_batches b =
        plan(2, 3, 2); /* 53 = 4 * 12 + 5: ranks get 2, 2 and 1, 0, then nothing */
    static const int64_t wanted[3][2] = {{2, 2}, {1, 0}, {0, 0}};
    struct hy3_batch *batch;

    (void)state;
    assert_ok(hy3_batch_create(&b, &batch));
    for (int64_t micro = 0; micro < 3; micro++) {
        for (b.rank = 0; b.rank < 2; b.rank++) {
            assert_ok(hy3_batches_load(&b, 4, micro, batch));
            assert_int_equal(batch->S, wanted[micro][b.rank]);
            assert_int_equal(batch->T, batch->S * LENGTH);
            assert_int_equal(batch->starts[batch->S], batch->T);
        }
    }
    hy3_batch_free(batch);
}

static void seed_and_epoch_change_the_order_and_nothing_else_does(void **state)
{
    struct hy3_batches a = plan(1, 1, 1), b = plan(4, 2, 4), other = plan(1, 1, 1);
    int same_epoch = 0, same_seed = 0;

    (void)state;
    other.seed = 43;
    for (int64_t p = 0; p < SAMPLES; p++) {
        assert_int_equal(hy3_batches_sample(&a, 3, p), hy3_batches_sample(&b, 3, p));
        same_epoch += hy3_batches_sample(&a, 0, p) == hy3_batches_sample(&a, 1, p);
        same_seed += hy3_batches_sample(&a, 0, p) == hy3_batches_sample(&other, 0, p);
    }
    assert_true(same_epoch < 10 && same_seed < 10);
}

static void without_shuffling_samples_come_in_file_order(void **state)
{
    struct hy3_batches b = plan(1, 1, 1);

    (void)state;
    b.shuffle = false;
    b.first = 40;
    b.count = 13;
    for (int64_t epoch = 0; epoch < 2; epoch++)
        for (int64_t p = 0; p < b.count; p++)
            assert_int_equal(hy3_batches_sample(&b, epoch, p), 40 + p);
}

static void a_split_gives_samples_of_its_own_part_only(void **state)
{
    struct hy3_batches b = plan(1, 1, 1);
    int seen[SAMPLES] = {0};

    (void)state;
    b.first = 10;
    b.count = 20;
    for (int64_t step = 0; step < 20; step++)
        count_step(b, step, seen);
    for (int i = 0; i < SAMPLES; i++)
        assert_int_equal(seen[i], i >= 10 && i < 30);
}

static void targets_are_the_next_token_within_a_sample(void **state)
{
    struct hy3_batches b = plan(3, 1, 1);
    int32_t ids[LENGTH];
    uint8_t mask[LENGTH];
    struct hy3_batch *batch;

    (void)state;
    assert_ok(hy3_batch_create(&b, &batch));
    assert_ok(hy3_batches_load(&b, 0, 0, batch));
    assert_int_equal(batch->S, 3);
    assert_int_equal(batch->longest, LENGTH);
    assert_int_equal(batch->labels, 3 * (LENGTH - 1));
    for (int64_t s = 0; s < 3; s++) {
        const int64_t at = batch->starts[s];

        assert_int_equal(batch->samples[s], hy3_batches_sample(&b, 0, s));
        assert_ok(hy3_dataset_read(dataset, batch->samples[s], ids, mask));
        assert_memory_equal(batch->ids + at, ids, sizeof ids);
        for (int64_t t = 0; t < LENGTH; t++) {
            assert_int_equal(batch->positions[at + t], t);
            assert_int_equal(batch->targets[at + t], t + 1 < LENGTH ? ids[t + 1] : -1);
        }
    }
    hy3_batch_free(batch);
}

static void a_batch_larger_than_the_data_needs_no_more_memory(void **state)
{
    struct hy3_batches b = plan((int64_t)1 << 50, 1, 1);
    struct hy3_batch *batch;

    (void)state;
    assert_ok(hy3_batch_create(&b, &batch));
    assert_int_equal(batch->token_capacity, SAMPLES * LENGTH);
    assert_ok(hy3_batches_load(&b, 1, 0, batch));
    assert_int_equal(batch->S, SAMPLES);
    hy3_batch_free(batch);
}

static void dummy_data_is_the_same_every_time(void **state)
{
    int32_t a[LENGTH], b[LENGTH], c[LENGTH];
    uint8_t mask[LENGTH];
    struct hy3_dataset *again;

    (void)state;
    assert_ok(hy3_dataset_dummy(SAMPLES, LENGTH, VOCAB, 9, &again));
    assert_int_equal(hy3_dataset_count(again), SAMPLES);
    assert_ok(hy3_dataset_read(dataset, 5, a, mask));
    assert_ok(hy3_dataset_read(again, 5, b, mask));
    assert_ok(hy3_dataset_read(again, 6, c, mask));
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(b, c, sizeof b);
    for (int t = 0; t < LENGTH; t++) {
        assert_in_range(a[t], 0, VOCAB - 1);
        assert_int_equal(mask[t], t > 0);
    }
    hy3_dataset_close(again);
    assert_fails(HY3_EUSAGE, "dummy data", hy3_dataset_dummy(4, 1, VOCAB, 9, &again));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_does_not_depend_on_how_its_batch_is_made_up),
        cmocka_unit_test(a_drawn_split_and_the_rest_are_all_samples_once),
        cmocka_unit_test(ranks_that_share_a_micro_batch_have_each_token_once),
        cmocka_unit_test(dealing_changes_the_samples_of_no_step),
        cmocka_unit_test(uneven_samples_leave_no_rank_waiting_long),
        cmocka_unit_test(rows_hold_every_sample_once_an_epoch),
        cmocka_unit_test(a_row_is_several_sequences),
        cmocka_unit_test(an_epoch_visits_every_sample_once),
        cmocka_unit_test(the_last_step_of_an_epoch_may_be_partial),
        cmocka_unit_test(seed_and_epoch_change_the_order_and_nothing_else_does),
        cmocka_unit_test(without_shuffling_samples_come_in_file_order),
        cmocka_unit_test(a_split_gives_samples_of_its_own_part_only),
        cmocka_unit_test(targets_are_the_next_token_within_a_sample),
        cmocka_unit_test(a_batch_larger_than_the_data_needs_no_more_memory),
        cmocka_unit_test(dummy_data_is_the_same_every_time),
    };
    int failed;

    if (hy3_dataset_dummy(SAMPLES, LENGTH, VOCAB, 9, &dataset) != HY3_OK ||
        hy3_dataset_dummy(SAMPLES, 40, VOCAB, 9, &uneven) != HY3_OK)
        return 1;
    hy3_dataset_vary(uneven, 2);
    failed = hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
    hy3_dataset_close(dataset);
    hy3_dataset_close(uneven);
    return failed;
}
