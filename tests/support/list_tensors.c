/* SPDX-License-Identifier: Apache-2.0 */
/* list_tensors - tensors as sorted lines for shell tests: of a directory, or of a golden manifest.
 *   list_tensors DIR                         NAME DTYPE SHAPE SHARD BEGIN BYTES
 *   list_tensors MANIFEST.json [RUN]         NAME DTYPE SHAPE SHARD SHA256     RUN: of "runs", e.g.
 *   adapter-bf16; SHARD: "-" there */
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "ckpt/hf/safetensors.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static void list_shard(const char *directory, const char *name)
{
    char path[HY3_PATH_MAX];
    struct hy3_shard *shard;

    if (hy3_path_format(path, sizeof path, "%s/%s", directory, name) != HY3_OK ||
        hy3_shard_open(path, &shard) != HY3_OK) {
        fprintf(stderr, "%s\n", hy3_error_text());
        exit(1);
    }
    for (int i = 0; i < hy3_shard_count(shard); i++) {
        const struct hy3_shard_tensor *t = hy3_shard_tensor(shard, i);

        printf("%s %s ", t->name, t->dtype_name);
        for (int d = 0; d < t->dims; d++)
            printf("%s%lld", d ? "," : "", (long long)t->shape[d]);
        printf(" %s %lld %lld\n", name, (long long)t->begin, (long long)t->bytes);
    }
    hy3_shard_close(shard);
}

static void list_directory(const char *path)
{
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        size_t length = strlen(names[i]->d_name);

        if (length > 12 && strcmp(names[i]->d_name + length - 12, ".safetensors") == 0)
            list_shard(path, names[i]->d_name);
        free(names[i]);
    }
    free(names);
}

static void list_manifest(const char *path, const char *run)
{
    json_t *document, *part, *tensor, *extent;
    size_t i, j;

    if (hy3_json_read(path, (size_t)1 << 26, &document) != HY3_OK) {
        fprintf(stderr, "%s\n", hy3_error_text());
        exit(1);
    }
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
    if (hy3_path_is_directory(argv[1]))
        list_directory(argv[1]);
    else
        list_manifest(argv[1], argc > 2 ? argv[2] : NULL);
    return 0;
}
