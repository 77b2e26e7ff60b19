/* SPDX-License-Identifier: Apache-2.0 */
/* rates.c - a file of key = value lines, through the reader of configurations. */
#include "app/rates.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/planted.h"
#include "config/settings.h"

#include <ctype.h>
#include <stdlib.h>

enum { FILE_LIMIT = 1 << 16 };

static const char made[] = "# Rates measured by hy3_plan --probe";

#define RATE(key)                             \
    {                                         \
#        key, offsetof(struct hy3_rates, key) \
    }

static const struct {
    const char *key;
    size_t offset; /* of a double */
} table[] = {
    RATE(peak),
    RATE(product_bf16),
    RATE(product_fp32),
    RATE(grouped_bf16),
    RATE(grouped_fp32),
    RATE(grouped_weights_bf16),
    RATE(grouped_weights_fp32),
    RATE(attention_forward),
    RATE(attention_backward),
    RATE(attention_forward_long),
    RATE(attention_backward_long),
    RATE(memory),
    RATE(host_copy),
    RATE(host_memory),
    RATE(launch),
    RATE(kernel),
    RATE(wait),
    RATE(node_link),
    RATE(network),
    RATE(node_latency),
    RATE(network_latency),
};

#undef RATE

enum { RATES = sizeof table / sizeof *table, OVERLAP = RATES };

static void put(const struct hy3_setting *s, struct hy3_rates *rates, bool *seen,
                struct hy3_problems *problems)
{
    double value = s->type == HY3_VALUE_REAL ? s->real : (double)s->integer;
    int i = 0;

    while (i < RATES && strcmp(table[i].key, s->key) != 0)
        i++;
    if (i == RATES && strcmp(s->key, "overlap") != 0) {
        hy3_problem(problems, s->where, "'%.64s' is no rate of a device", s->key);
        return;
    }
    seen[i] = true;
    if (i == OVERLAP && s->type == HY3_VALUE_BOOL)
        rates->overlap = s->truth;
    else if (i == OVERLAP)
        hy3_problem(problems, s->where, "'overlap' must be true or false");
    else if ((s->type != HY3_VALUE_REAL && s->type != HY3_VALUE_INT) || !(value > 0) ||
             !(value < 1e24))
        hy3_problem(problems, s->where, "'%s' must be a number above 0", s->key);
    else
        memcpy((char *)rates + table[i].offset, &value, sizeof value);
}

static hy3_status find_installed(const char *device, char path[HY3_PATH_MAX])
{
    const char *directory = getenv("HY3_DATADIR");
    char name[HY3_PATH_MAX];

    HY3_TRY(hy3_path_format(name, sizeof name, "etc/devices/%s.cfg", device));
    if (!directory && hy3_path_beside_program(name, path) == HY3_OK && hy3_path_exists(path))
        return HY3_OK;
    return hy3_path_format(path, HY3_PATH_MAX, "%s/%s", directory ? directory : HY3_DATADIR, name);
}

static hy3_status find(const char *device, char path[HY3_PATH_MAX])
{
    if (strchr(device, '/') || hy3_path_exists(device))
        return hy3_path_format(path, HY3_PATH_MAX, "%s", device);
    return find_installed(device, path);
}

hy3_status hy3_rates_name(const char *given, const struct hy3_device *device,
                          char name[HY3_PATH_MAX])
{
    struct hy3_device_identity identity;
    char path[HY3_PATH_MAX], *word, *rest;

    name[0] = '\0';
    if (given)
        return hy3_path_format(name, HY3_PATH_MAX, "%s", given);
    if (!device->identify)
        return HY3_OK;
    HY3_TRY(device->identify(&identity));
    for (word = strtok_r(identity.name, " -/", &rest); word; word = strtok_r(NULL, " -/", &rest)) {
        for (char *c = word; *c; c++)
            *c = (char)tolower((unsigned char)*c);
        HY3_TRY(find_installed(word, path));
        if (hy3_path_exists(path))
            return hy3_path_format(name, HY3_PATH_MAX, "%s", path);
    }
    return HY3_OK;
}

hy3_status hy3_rates_read(const char *device, struct hy3_rates *rates)
{
    hy3_status status = HY3_OK;
    struct hy3_settings settings = {0};
    struct hy3_problems problems = {0};
    bool seen[RATES + 1] = {false};
    char path[HY3_PATH_MAX], *text = NULL;
    size_t size;

    *rates = (struct hy3_rates){0};
    HY3_TRY_DONE(find(device, path));
    if (!hy3_path_exists(path))
        HY3_FAIL_DONE(
            HY3_EUSAGE,
            "no rates of the device '%s': '%s' does not exist; etc/devices has those that "
            "are known",
            device, path);
    HY3_TRY_DONE(hy3_file_read(path, FILE_LIMIT, &text, &size));
    HY3_TRY_DONE(hy3_libconfig_read(text, size, path, &settings, &problems));
    for (size_t i = 0; i < settings.count; i++)
        put(&settings.items[i], rates, seen, &problems);
    for (int i = 0; problems.count == 0 && i <= RATES; i++)
        if (!seen[i])
            hy3_problem(&problems, path, "'%s' is missing", i < RATES ? table[i].key : "overlap");
    HY3_TRY_DONE(hy3_problems_status(&problems));
done:
    hy3_settings_free(&settings);
    hy3_free(text);
    return status;
}

/* Whether the file begins as those that are written here do. */
static hy3_status is_made(const char *path, bool *out)
{
    char *text = NULL;
    size_t size = 0;

    HY3_TRY(hy3_file_read(path, FILE_LIMIT, &text, &size));
    *out = size > strlen(made) && strncmp(text, made, strlen(made)) == 0;
    hy3_free(text);
    return HY3_OK;
}

static void put_text(FILE *out, const char *about, const struct hy3_rates *rates)
{
    fprintf(out, "%s: %s\n", made, about);
    for (int i = 0; i < RATES; i++) {
        double value;

        memcpy(&value, (const char *)rates + table[i].offset, sizeof value);
        fprintf(out, "%s = %.6e;\n", table[i].key, value);
    }
    fprintf(out, "overlap = %s;\n", rates->overlap ? "true" : "false");
}

hy3_status hy3_rates_may_write(const char *path, bool overwrite)
{
    bool may = overwrite || !hy3_path_exists(path);

    HY3_TRY(hy3_planted_refuse(path));
    if (!may)
        HY3_TRY(is_made(path, &may));
    if (!may)
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' was not written by --probe; choose another name, or give --overwrite", path);
    return HY3_OK;
}

hy3_status hy3_rates_write(const char *path, const char *about, const struct hy3_rates *rates)
{
    hy3_status status = HY3_OK;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for the rates");
    put_text(out, about, rates);
    if (fclose(out) != 0)
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for the rates");
    HY3_TRY_DONE(hy3_output_replace(path, text, size));
done:
    free(text);
    return status;
}
