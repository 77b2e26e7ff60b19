/* SPDX-License-Identifier: Apache-2.0 */
/* token_file.c - a token file that is damaged, old or of another model is not taken for good. */
#include "data/token_file.h"

#include "base/hdf5_seal.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/fixture.h"
#include "data/sample.h"

#include <sys/stat.h>

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

/* Rank 0. Seals what was changed, as a forger would; HDF5 has cut the old seal off. */
static void seal(const char *path)
{
    struct hy3_span none = {0};
    struct hy3_hdf5_seal made;
    int64_t bytes;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_ok(hy3_file_size(path, &bytes));
    assert_ok(hy3_hdf5_seal_create(fd, path, &none, 0, bytes, &made));
    assert_ok(hy3_file_write_at(fd, made.bytes, made.size, bytes, path));
    hy3_free(made.bytes);
    close(fd);
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
    seal(path);
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

static void a_file_without_its_seal_is_made_again(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "unsealed");
    int64_t bytes;

    (void)state;
    assert_all(!is_reused(&o));
    assert_ok(hy3_file_size(here("unsealed/train.h5"), &bytes));
    hy3_barrier(MPI_COMM_WORLD, "testing");
    if (rank() == 0)
        assert_int_equal(truncate(here("unsealed/train.h5"), bytes - 8), 0);
    hy3_barrier(MPI_COMM_WORLD, "testing");
    assert_all(!is_reused(&o));
    assert_all(is_reused(&o));
}

/* Rank 0. The names of the sources lie in another file, a FIFO, which blocks whoever opens it. */
static void put_names_outside(const char *path, const char *fifo)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), set = -1, type, space;
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);

    assert_true(file >= 0 && (set = H5Dopen2(file, "source_name", H5P_DEFAULT)) >= 0);
    type = H5Dget_type(set);
    space = H5Dget_space(set);
    H5Dclose(set);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_true(H5Pset_external(creation, fifo, 0, H5F_UNLIMITED) >= 0);
    assert_true(H5Ldelete(file, "source_name", H5P_DEFAULT) >= 0);
    set = H5Dcreate2(file, "source_name", type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Pclose(creation);
    H5Sclose(space);
    H5Tclose(type);
    H5Fclose(file);
    seal(path);
}

static void no_file_outside_is_read(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "outside");

    (void)state;
    assert_all(!is_reused(&o));
    if (rank() == 0)
        put_names_outside(here("outside/train.h5"), here("outside/fifo"));
    hy3_barrier(MPI_COMM_WORLD, "testing");
    alarm(60); /* a hang ends the test */
    assert_all(!is_reused(&o));
    alarm(0);
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

/* Opens the file and sums the ids and masks of all samples; reused: whether it was not rebuilt. */
static hy3_status sum_samples(const struct hy3_dataset_options *o, bool *reused, uint64_t *sum)
{
    hy3_status status = HY3_OK;
    struct hy3_dataset_summary summary = {0};
    struct hy3_dataset *d = NULL;
    int32_t ids[64];
    uint8_t mask[64];

    *sum = 0;
    HY3_TRY_DONE(hy3_dataset_open(MPI_COMM_WORLD, o, &d, &summary));
    for (int64_t i = 0; i < hy3_dataset_count(d); i++) {
        assert_true(hy3_dataset_length(d, i) <= 64);
        HY3_TRY_DONE(hy3_dataset_read(d, i, ids, mask));
        *sum = *sum * 31 + hy3_sample_checksum(ids, mask, (size_t)hy3_dataset_length(d, i));
    }
done:
    *reused = summary.reused;
    hy3_dataset_close(d);
    return status;
}

/* Where a sample comes from is for messages, and has no checksum. */
static bool is_in_sources(const struct hy3_token_header *h, int64_t at)
{
    return (at >= h->line_at && at < h->line_at + 8 * h->summary.samples) ||
           (at >= h->file_at && at < h->file_at + 4 * h->summary.samples);
}

/* Damage is noticed when the file is opened, and it is built anew, or when the sample is read. A
 * third of the flips each: anywhere, in what HDF5 interprets, in the seal. HY3_FLIPS: how many. */
static void no_flipped_bit_is_missed(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "flips");
    const char *flips = getenv("HY3_FLIPS"), *path = here("flips/train.h5");
    struct hy3_token_header header;
    const int64_t by_default = hy3_size(MPI_COMM_WORLD) == 1 ? 90 : 3;
    uint64_t right, sum;
    bool reused;

    (void)state;
    assert_ok(sum_samples(&o, &reused, &right));
    inspect(path, &header);
    for (int64_t i = 0; i < (flips ? strtol(flips, NULL, 10) : by_default); i++) {
        const int64_t first[] = {0, 0, header.size - 200};
        const int64_t count[] = {header.size, header.tokens_at, 200};
        int64_t at;
        uint32_t word[4];

        hy3_random(11, 0, 0, (uint64_t)i, word);
        at = first[i % 3] + (int64_t)(word[0] % (uint64_t)count[i % 3]);
        flip_bit(path, at, word[1] % 8);
        alarm(60); /* a hang ends the test */
        if (sum_samples(&o, &reused, &sum) == HY3_OK) {
            if (sum != right || (reused && !is_in_sources(&header, at)))
                fail_msg("bit %u of byte %lld", word[1] % 8, (long long)at);
        } else if (!strstr(hy3_error_text(), path)) {
            fail_msg("no file in '%s'", hy3_error_text());
        }
        if (reused)
            flip_bit(path, at, word[1] % 8);
    }
    alarm(0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_torn_or_altered_file_is_made_again),
        cmocka_unit_test(no_flipped_bit_is_missed),
        cmocka_unit_test(a_file_without_its_seal_is_made_again),
        cmocka_unit_test(a_file_of_an_older_format_is_made_again),
        cmocka_unit_test(no_file_outside_is_read),
        cmocka_unit_test(a_flipped_token_is_noticed_when_it_is_read),
        cmocka_unit_test(no_offset_that_is_wrong_is_trusted),
        cmocka_unit_test(an_id_beyond_the_vocabulary_is_refused_with_its_sample),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
