/* SPDX-License-Identifier: Apache-2.0 */
/* corpus.c - a fuzzer as a test: every hostile file of the golden inputs and every seed, whatever
 * it was made for, through the readers of one fuzzer. Built with sanitizers (configure
 * --enable-sanitizers), whose findings end it. */
#include "fuzz.h"

#include <dirent.h>

static void give(const char *path, const char *letters)
{
    char *text, *bytes;
    size_t size;

    if (hy3_file_read(path, 1 << 28, &text, &size) != HY3_OK || !(bytes = malloc(size + 1)))
        abort();
    LLVMFuzzerTestOneInput((const uint8_t *)text, size);
    memcpy(bytes + 1, text, size);
    for (; *letters; letters++) {
        bytes[0] = *letters;
        LLVMFuzzerTestOneInput((const uint8_t *)bytes, size + 1);
    }
    free(bytes);
    hy3_free(text);
}

static int give_all(const char *directory, const char *letters)
{
    char path[HY3_PATH_MAX];
    const struct dirent *entry;
    DIR *open;
    int count = 0;

    if (hy3_path_format(path, sizeof path, "%s/%s", getenv("HY3_SOURCE"), directory) != HY3_OK ||
        !(open = opendir(path)))
        abort();
    while ((entry = readdir(open))) {
        if (entry->d_name[0] == '.' ||
            hy3_path_format(path, sizeof path, "%s/%s/%s", getenv("HY3_SOURCE"), directory,
                            entry->d_name) != HY3_OK)
            continue;
        give(path, letters);
        count++;
    }
    closedir(open);
    return count;
}

int main(int argc, char **argv)
{
    /* the letters of fuzz_small.c */
    const char *letters = argc > 0 && strstr(argv[0], "small") ? "lmkcftainruj" : "";
    int count;

    fuzz_begin_mpi();
    count = give_all("tests/golden/a/bad_inputs", letters);
    count += give_all("tests/fuzz/seeds", letters);
    printf("1..1\nok 1 - %d hostile files are refused or read\n", count);
    MPI_Finalize();
    return 0;
}
