/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_token_file.c - any bytes as a token file, sealed by whoever made them: refused, or samples
 * that lie inside the file. */
#include "data/token_file.h"
#include "fuzz.h"

/* Each sample's tokens and its line, as dataset.c reads them. */
static void read_samples(const char *path, const struct hy3_token_header *h,
                         const uint64_t *offsets)
{
    int64_t samples = h->summary.samples;
    int32_t *ids;
    int fd;

    if (hy3_token_file_open(path, h, &fd) != HY3_OK ||
        hy3_alloc(&ids, (size_t)h->summary.longest, sizeof *ids) != HY3_OK)
        abort();
    for (int64_t i = 0; i < samples; i++) {
        size_t length = offsets[i + 1] - offsets[i];
        int64_t first = (int64_t)offsets[i];
        uint64_t word;

        if (length > (size_t)h->summary.longest ||
            hy3_file_read_at(fd, ids, length * 4, h->tokens_at + 4 * first, path) != HY3_OK ||
            hy3_file_read_at(fd, ids, length, h->mask_at + first, path) != HY3_OK ||
            hy3_file_read_at(fd, &word, 8, h->checksum_at + 8 * i, path) != HY3_OK ||
            (h->summary.weighted > 0 &&
             (hy3_file_read_at(fd, ids, length * 4, h->weights_at + 4 * first, path) != HY3_OK ||
              hy3_file_read_at(fd, &word, 8, h->weight_checksum_at + 8 * i, path) != HY3_OK)) ||
            hy3_file_read_at(fd, &word, 8, h->line_at + 8 * i, path) != HY3_OK ||
            hy3_file_read_at(fd, &word, 4, h->file_at + 4 * i, path) != HY3_OK)
            HY3_BUG("sample %lld does not lie in the file", (long long)i);
    }
    hy3_free(ids);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct hy3_source source = {.path = (char[]){"dataset.jsonl"}};
    struct hy3_token_header header;
    uint64_t *offsets;
    char path[HY3_PATH_MAX];

    fuzz_write(fuzz_path(path, "train.h5"), data, size);
    fuzz_seal(path);
    if (hy3_token_file_inspect(path, &source, 1, &header, &offsets) == HY3_OK)
        read_samples(path, &header, offsets);
    hy3_free(offsets);
    return 0;
}
