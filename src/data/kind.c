/* SPDX-License-Identifier: Apache-2.0 */
/* kind.c - what else a data file may be: compressed, a table, another encoding, a JSON document.
 *
 * Only what is certain is named here; a file that looks like lines is read line by line, and each
 * bad line is reported by its number. */
#include "data/kind.h"

#include "data/item_state.h"

#include <strings.h>

/* clang-format off */
#define TO_JSON(read) "write it as JSON Lines: python3 -c 'import sys, pandas; " read \
                      ".to_json(sys.argv[2], orient=\"records\", lines=True)' "
#define PARQUET TO_JSON("pandas.read_parquet(sys.argv[1])") "IN.parquet OUT.jsonl"
#define FEATHER TO_JSON("pandas.read_feather(sys.argv[1])") "IN.arrow OUT.jsonl"
#define STREAM  "write it as JSON Lines: python3 -c 'import sys, datasets; " \
                "datasets.Dataset.from_file(sys.argv[1]).to_json(sys.argv[2])' IN.arrow OUT.jsonl"
#define CSV     TO_JSON("pandas.read_csv(sys.argv[1], sep=None, engine=\"python\")") \
                "IN.csv OUT.jsonl, and name its columns in a dataset_info.json"
#define TEXT    "write each conversation as a line: {\"messages\": [{\"role\": \"user\", " \
                "\"content\": …}, {\"role\": \"assistant\", \"content\": …}]}"
#define OTHER   "name a file of JSON Lines"

static const struct {
    const char *magic;
    size_t size;
    const char *what, *remedy;
} kinds[] = {

#define MAGIC(bytes) bytes, sizeof bytes - 1
    {MAGIC("\x1f\x8b"), "compressed by gzip", "decompress it: gunzip -k"},
    {MAGIC("\x28\xb5\x2f\xfd"), "compressed by zstd", "decompress it: unzstd"},
    {MAGIC("\xfd" "7zXZ"), "compressed by xz", "decompress it: unxz -k"},
    {MAGIC("BZh"), "compressed by bzip2", "decompress it: bunzip2 -k"},
    {MAGIC("\x04\x22\x4d\x18"), "compressed by lz4", "decompress it: unlz4"},
    {MAGIC("PK\x03\x04"), "a ZIP archive", "unpack it: unzip"},
    {MAGIC("PAR1"), "a Parquet file", PARQUET},
    {MAGIC("ARROW1"), "an Arrow file", FEATHER},
    {MAGIC("\xff\xff\xff\xff"), "an Arrow stream", STREAM},
    {MAGIC("\x89HDF"), "an HDF5 file", "name the JSON Lines it was made from"},
    {MAGIC("GGUF"), "a GGUF file", OTHER},
    {MAGIC("\x93NUMPY"), "a NumPy file", OTHER},
    {MAGIC("SQLite format 3"), "an SQLite file", OTHER},
    {MAGIC("%PDF-"), "a PDF file", OTHER},
    {MAGIC("\xff\xfe\0\0"), "text in UTF-32", "convert it: iconv -f UTF-32 -t UTF-8"},
    {MAGIC("\0\0\xfe\xff"), "text in UTF-32", "convert it: iconv -f UTF-32 -t UTF-8"},
    {MAGIC("\xff\xfe"), "text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"},
    {MAGIC("\xfe\xff"), "text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"},
    {MAGIC("{\0\0\0"), "text in UTF-32", "convert it: iconv -f UTF-32LE -t UTF-8"},
    {MAGIC("\0\0\0{"), "text in UTF-32", "convert it: iconv -f UTF-32BE -t UTF-8"},
    {MAGIC("{\0"), "text in UTF-16", "convert it: iconv -f UTF-16LE -t UTF-8"},
    {MAGIC("\0{"), "text in UTF-16", "convert it: iconv -f UTF-16BE -t UTF-8"},
    {MAGIC("version https://git-lfs"), "a pointer of Git LFS, not the file",
     "fetch that: git lfs pull"},
#undef MAGIC
};

/* Of files whose first byte that is no space begins no object and no list. */
static const struct {
    const char *ending, *what, *remedy;
} endings[] = {
    {".parquet", "no JSON, by its name a Parquet file", PARQUET},
    {".arrow", "no JSON, by its name an Arrow file", STREAM},
    {".feather", "no JSON, by its name an Arrow file", FEATHER},
    {".csv", "no JSON, by its name a table (CSV)", CSV},
    {".tsv", "no JSON, by its name a table (TSV)", CSV},
    {".txt", "plain text, not conversations", TEXT},
    {".md", "plain text, not conversations", TEXT},
    {".gz", "no JSON, by its name compressed by gzip", "decompress it: gunzip -k"},
    {".zst", "no JSON, by its name compressed by zstd", "decompress it: unzstd"},
    {".safetensors", "no JSON, by its name a file of tensors", OTHER},
    {".pt", "no JSON, by its name a file of tensors", OTHER},
    {".bin", "no JSON, by its name a binary file", OTHER},
    {".py", "a program, not data", OTHER},
};

/* clang-format on */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t skip_spaces(const char *text, size_t at, size_t size)
{
    while (at < size && is_space(text[at]))
        at++;
    return at;
}

static bool starts_with(const char *text, size_t at, size_t size, const char *word)
{
    return size - at >= strlen(word) && memcmp(text + at, word, strlen(word)) == 0;
}

/* "[{" or "[" and a line end: a list of objects, not a bad line such as [1, 2] or the messages of
 * one conversation. */
static bool is_list(const char *text, size_t at, size_t size)
{
    size_t next, key;

    if (text[at] != '[')
        return false;
    next = skip_spaces(text, at + 1, size);
    if (next == size)
        return false;
    key = skip_spaces(text, next + 1, size);
    if (starts_with(text, key, size, "\"role\"") || starts_with(text, key, size, "\"content\""))
        return false;
    return text[next] == '{' || memchr(text + at, '\n', next - at);
}

/* "{" alone in its line. */
static bool is_spread(const char *text, size_t at, size_t size)
{
    size_t next = skip_spaces(text, at + 1, size);

    return text[at] == '{' && next < size && memchr(text + at, '\n', next - at);
}

/* A first line of names with commas, semicolons or tabs between, and no line that begins with a
 * brace. */
static bool is_table(const char *text, size_t at, size_t size)
{
    size_t end = at, commas = 0;

    for (; end < size && text[end] != '\n'; end++) {
        commas += strchr(",;\t", text[end]) != NULL;
        if (strchr("{}[]:\\", text[end]))
            return false;
    }
    for (size_t i = end; i < size; i++)
        if (text[i] == '\n' && i + 1 < size && text[skip_spaces(text, i, size - 1)] == '{')
            return false;
    return commas > 0 && end < size;
}

/* An object with another one behind it in its line. */
static bool is_row(const char *text, size_t at, size_t size)
{
    struct hy3_item_state state = {.depth = 0};

    if (text[at] != '{')
        return false;
    do
        hy3_item_step(&state, text[at++]);
    while (at < size && (state.depth > 0 || state.is_inside));
    while (at < size && (text[at] == ' ' || text[at] == '\t' || text[at] == ','))
        at++;
    return at < size && text[at] == '{';
}

static hy3_status refuse(const char *path, const char *what, const char *remedy)
{
    HY3_FAIL(HY3_EUSAGE, "'%s' is %s; hy3 reads JSON in UTF-8; %s", path, what, remedy);
}

/* By its ending, or by a byte that no text has. at: of the first byte that is no space. */
static hy3_status check_other(const char *path, const char *bytes, size_t at, size_t size)
{
    const char *ending = strrchr(path, '.');

    for (size_t i = 0; ending && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(ending, endings[i].ending) == 0)
            return refuse(path, endings[i].what, endings[i].remedy);
    if (at < size && memchr(bytes, '\0', size))
        return refuse(path, "a binary file", OTHER);
    if (at < size && is_table(bytes, at, size))
        return refuse(path, "a table (CSV)", CSV);
    return HY3_OK;
}

hy3_status hy3_kind_check(const char *path, const char *bytes, size_t size,
                          enum hy3_data_layout *layout)
{
    size_t at = size >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (size >= kinds[i].size && memcmp(bytes, kinds[i].magic, kinds[i].size) == 0)
            return refuse(path, kinds[i].what, kinds[i].remedy);
    *layout = HY3_LAYOUT_LINES;
    at = skip_spaces(bytes, at, size);
    if (at == size || (bytes[at] != '{' && bytes[at] != '['))
        return check_other(path, bytes, at, size);
    if (is_list(bytes, at, size))
        *layout = HY3_LAYOUT_ARRAY;
    else if (is_spread(bytes, at, size) || is_row(bytes, at, size))
        *layout = HY3_LAYOUT_VALUES;
    return HY3_OK;
}
