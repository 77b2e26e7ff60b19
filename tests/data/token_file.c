/* SPDX-License-Identifier: Apache-2.0 */
/* token_file.c - a token file that is damaged, old or of another model is not taken for good. */
#include "data/token_file.h"

#include "base/memory.h"
#include "data/fixture.h"

static void a_torn_or_altered_file_is_made_again(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "torn");
    static const char *const marks[] = {"complete", "offsets", "tokenizer_fingerprint"};
    int64_t size;
    char *text;
    size_t bytes;

    (void)state;
    assert_all(!is_reused(&o));
    assert_ok(hy3_file_read(here("torn/train.h5"), 1 << 30, &text, &bytes));
    write_file(here("torn/good.h5"), text, bytes);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        char *at = memmem(text, bytes, marks[i], strlen(marks[i]));

        assert_all(at != NULL);
        flip(here("torn/train.h5"), at - text);
        assert_all(!is_reused(&o));
        assert_all(same_bytes(here("torn/train.h5"), here("torn/good.h5")));
    }
    free(text);
    assert_ok(hy3_file_size(here("torn/train.h5"), &size));
    for (int i = 0; i <= 4; i++) {
        hy3_barrier(MPI_COMM_WORLD, "testing");
        if (rank() == 0)
            assert_int_equal(truncate(here("torn/train.h5"), (size - 1) * i / 4), 0);
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(!is_reused(&o));
        assert_all(same_bytes(here("torn/train.h5"), here("torn/good.h5")));
    }
}

/* Rank 0. An attribute gets the value, or goes if that is negative. */
static void change_attribute(const char *path, const char *name, int64_t value)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), attribute;

    assert_true(file >= 0);
    if (value < 0) {
        assert_true(H5Adelete(file, name) >= 0);
    } else {
        attribute = H5Aopen(file, name, H5P_DEFAULT);
        assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
        H5Aclose(attribute);
    }
    H5Fclose(file);
}

static void a_file_of_an_older_format_is_made_again(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "older");

    (void)state;
    assert_all(!is_reused(&o));
    for (int i = 0; i < 2; i++) {
        hy3_barrier(MPI_COMM_WORLD, "testing");
        if (rank() == 0)
            change_attribute(here("older/train.h5"), i == 0 ? "format_version" : "null_contents",
                             i == 0 ? 1 : -1);
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(!is_reused(&o));
        assert_all(is_reused(&o));
    }
}

static void inspect(const char *path, struct hy3_token_header *header)
{
    uint64_t *offsets;
    struct hy3_source source = {.path = (char *)(uintptr_t)hy3_golden("a/dataset.jsonl")};

    assert_ok(hy3_token_file_inspect(path, &source, 1, header, &offsets));
    hy3_free(offsets);
}

static void a_flipped_token_is_noticed_when_it_is_read(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "flipped");
    struct hy3_token_header header;
    struct hy3_dataset *d;
    int32_t ids[64];
    uint8_t mask[64];

    (void)state;
    assert_all(!is_reused(&o));
    inspect(here("flipped/train.h5"), &header);
    assert_ok(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, NULL));
    assert_ok(hy3_dataset_read(d, 0, ids, mask));
    flip(here("flipped/train.h5"), header.tokens_at + 17);
    assert_fails(HY3_EFORMAT, "dataset.jsonl:1", hy3_dataset_read(d, 0, ids, mask));
    assert_ok(hy3_dataset_read(d, 1, ids, mask));
    hy3_dataset_close(d);
}

static void no_offset_that_is_wrong_is_trusted(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "offsets");
    struct hy3_token_header header;

    (void)state;
    assert_all(!is_reused(&o));
    inspect(here("offsets/train.h5"), &header);
    for (int64_t i = 0; i <= header.summary.samples; i += 5) {
        bool inner =
            i > 0 && i < header.summary.samples; /* its low bits: the check of the sample */

        flip(here("offsets/train.h5"), header.offsets_at + 8 * i + (inner ? 7 : 0));
        assert_all(!is_reused(&o));
    }
}

static void an_id_beyond_the_vocabulary_is_refused_with_its_sample(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "vocabulary");
    struct hy3_dataset *d;
    int32_t ids[64], largest = 0;
    uint8_t mask[64];

    (void)state;
    assert_ok(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, NULL));
    assert_ok(hy3_dataset_read(d, 0, ids, mask));
    for (int64_t t = 0; t < hy3_dataset_length(d, 0); t++)
        largest = ids[t] > largest ? ids[t] : largest;
    hy3_dataset_set_vocab(d, largest + 1);
    assert_ok(hy3_dataset_read(d, 0, ids, mask));
    hy3_dataset_set_vocab(d, largest);
    assert_fails(HY3_EFORMAT, "dataset.jsonl:1", hy3_dataset_read(d, 0, ids, mask));
    hy3_dataset_close(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_torn_or_altered_file_is_made_again),
        cmocka_unit_test(a_file_of_an_older_format_is_made_again),
        cmocka_unit_test(a_flipped_token_is_noticed_when_it_is_read),
        cmocka_unit_test(no_offset_that_is_wrong_is_trusted),
        cmocka_unit_test(an_id_beyond_the_vocabulary_is_refused_with_its_sample),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
