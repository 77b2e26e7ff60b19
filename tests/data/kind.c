/* SPDX-License-Identifier: Apache-2.0 */
/* kind.c - every kind of file that is no JSON is called what it is, with what to do. */
#include "data/kind.h"

#include "support/test.h"

static const struct {
    const char *name, *bytes;
    size_t size;
    const char *words; /* of the message, between '|'; NULL: it is read */
} cases[] = {

/* clang-format off */
#define BYTES(text) text, sizeof text - 1
    {"a.jsonl", BYTES("\x1f\x8b\x08\0"), "compressed by gzip|gunzip -k"},
    {"a.jsonl.gz", BYTES("cut"), "compressed by gzip|gunzip -k"},
    {"a", BYTES("\x28\xb5\x2f\xfd...."), "compressed by zstd|unzstd"},
    {"a.jsonl.zst", BYTES(""), "compressed by zstd|unzstd"},
    {"a", BYTES("\xfd" "7zXZ\0"), "xz|unxz -k"},
    {"a", BYTES("BZh91AY"), "bzip2|bunzip2 -k"},
    {"a", BYTES("\x04\x22\x4d\x18...."), "lz4|unlz4"},
    {"a.json", BYTES("PK\x03\x04"), "ZIP archive|unzip"},
    {"train-00000.parquet", BYTES("PAR1...."), "a Parquet file|read_parquet|OUT.jsonl"},
    {"train-00000.parquet", BYTES(""), "by its name a Parquet file|read_parquet"},
    {"a", BYTES("ARROW1\0\0"), "an Arrow file|read_feather"},
    {"data.arrow", BYTES("\xff\xff\xff\xff\x10"), "an Arrow stream|Dataset.from_file"},
    {"data.arrow", BYTES("x"), "an Arrow file|Dataset.from_file"},
    {"a.csv", BYTES("question\nwhich?\n"), "a table (CSV)|read_csv|dataset_info.json"},
    {"a", BYTES("question,answer\nwhich?,that\n"), "a table (CSV)|read_csv"},
    {"a.TSV", BYTES("question\tanswer\n"), "a table (TSV)|read_csv"},
    {"notes.txt", BYTES("Once upon a time.\n"), "plain text|{\"messages\":"},
    {"README.md", BYTES("# Data\n"), "plain text"},
    {"a.h5", BYTES("\x89HDF\r\n"), "an HDF5 file"},
    {"a", BYTES("\x93NUMPY\x01"), "a NumPy file|JSON Lines"},
    {"a", BYTES("GGUF\x03"), "a GGUF file"},
    {"a", BYTES("SQLite format 3\0"), "an SQLite file"},
    {"a", BYTES("%PDF-1.4"), "a PDF file"},
    {"model.safetensors", BYTES("\x40\0\0\0\0\0\0\0{\"a\""), "a file of tensors"},
    {"a", BYTES("\x7f" "ELF\0\0"), "a binary file"},
    {"a", BYTES("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"},
    {"a.jsonl", BYTES("\xff\xfe{\0"), "UTF-16|iconv"},
    {"a.jsonl", BYTES(""), NULL},
    {"a.txt", BYTES("{\"messages\": []}\n"), NULL},
    {"a.csv", BYTES(" [{\"messages\": []}]\n"), NULL},
    {"a.jsonl", BYTES("{\"a\": \"\0\"}\n"), NULL},
    {"a.jsonl", BYTES("messages\n{}\n"), NULL},
#undef BYTES
    /* clang-format on */
};

static void each_kind_has_its_name_and_a_command(void **state)
{
    enum hy3_data_layout layout;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hy3_status status = hy3_kind_check(cases[i].name, cases[i].bytes, cases[i].size, &layout);
        char words[256], *rest = NULL;

        if (!cases[i].words && status != HY3_OK)
            fail_msg("case %zu: %s", i, hy3_error_text());
        if (!cases[i].words)
            continue;
        if (status != HY3_EUSAGE)
            fail_msg("case %zu, %s, is taken", i, cases[i].name);
        snprintf(words, sizeof words, "%s", cases[i].words);
        for (char *w = strtok_r(words, "|", &rest); w; w = strtok_r(NULL, "|", &rest))
            if (!strstr(hy3_error_text(), w) || !strstr(hy3_error_text(), cases[i].name))
                fail_msg("case %zu: '%s' is not in: %s", i, w, hy3_error_text());
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_kind_has_its_name_and_a_command)};

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
