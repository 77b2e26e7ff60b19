/* SPDX-License-Identifier: Apache-2.0 */
/* list_tensors - tensors as sorted lines for shell tests: of a directory, or of a golden manifest.
 *   list_tensors DIR                         NAME DTYPE SHAPE SHARD BEGIN BYTES
 *   list_tensors --sums DIR                  NAME DTYPE SHAPE SHARD SHA256
 *   list_tensors MANIFEST.json [RUN]         NAME DTYPE SHAPE SHARD SHA256     RUN: of "runs", e.g.
 *   adapter-bf16; SHARD: "-" there */
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "ckpt/hf/safetensors.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static void must(hy3_status status)
{
    if (status == HY3_OK)
        return;
    fprintf(stderr, "%s\n", hy3_error_text());
    exit(1);
}

static void list_shard(const char *directory, const char *name, bool with_sums)
{
    char path[HY3_PATH_MAX], sum[HY3_SHA256_TEXT], *bytes = NULL;
    struct hy3_shard *shard;
    size_t size;

    must(hy3_path_format(path, sizeof path, "%s/%s", directory, name));
    must(hy3_shard_open(path, &shard));
    if (with_sums)
        must(hy3_file_read(path, (size_t)1 << 30, &bytes, &size));
    for (int i = 0; i < hy3_shard_count(shard); i++) {
        const struct hy3_shard_tensor *t = hy3_shard_tensor(shard, i);

        printf("%s %s ", t->name, t->dtype_name);
        for (int d = 0; d < t->dims; d++)
            printf("%s%lld", d ? "," : "", (long long)t->shape[d]);
        if (with_sums)
            must(hy3_sha256_of(bytes + t->begin, (size_t)t->bytes, sum));
        if (with_sums)
            printf(" %s %s\n", name, sum);
        else
            printf(" %s %lld %lld\n", name, (long long)t->begin, (long long)t->bytes);
    }
    free(bytes);
    hy3_shard_close(shard);
}

static void list_directory(const char *path, bool with_sums)
{
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        size_t length = strlen(names[i]->d_name);

        if (length > 12 && strcmp(names[i]->d_name + length - 12, ".safetensors") == 0)
            list_shard(path, names[i]->d_name, with_sums);
        free(names[i]);
    }
    free(names);
}

static void list_manifest(const char *path, const char *run)
{
    json_t *document, *part, *tensor, *extent;
    size_t i, j;

    must(hy3_json_read(path, (size_t)1 << 26, &document));
    part = document;
    json_array_foreach(json_object_get(document, "runs"), i, tensor)
    {
        char name[256];

        snprintf(name, sizeof name, "%s-%s", json_string_value(json_object_get(tensor, "adapter")),
                 json_string_value(json_object_get(tensor, "dtype")));
        if (run && strcmp(name, run) == 0)
            part = tensor;
    }
    json_array_foreach(json_object_get(part, "tensors"), i, tensor)
    {
        const char *shard = json_string_value(json_object_get(tensor, "shard"));

        printf("%s %s ", json_string_value(json_object_get(tensor, "name")),
               json_string_value(json_object_get(tensor, "dtype")));
        json_array_foreach(json_object_get(tensor, "shape"), j, extent)
            printf("%s%lld", j ? "," : "", (long long)json_integer_value(extent));
        printf(" %s %s\n", shard ? shard : "-",
               json_string_value(json_object_get(tensor, "sha256")));
    }
    json_decref(document);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (argc == 3 && strcmp(argv[1], "--sums") == 0)
        list_directory(argv[2], true);
    else if (hy3_path_is_directory(argv[1]))
        list_directory(argv[1], false);
    else
        list_manifest(argv[1], argc > 2 ? argv[2] : NULL);
    return 0;
}
