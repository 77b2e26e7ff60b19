/* SPDX-License-Identifier: Apache-2.0 */
/* fingerprint.c - hashes of portions, combined in their order. */
#include "data/fingerprint.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"
#include "data/items.h"
#include "data/lines.h"

#include <xxhash.h>

uint64_t hy3_fingerprint_combine(const struct hy3_source *sources, int count,
                                 const uint64_t *hashes, size_t stride, int64_t hashed)
{
    uint64_t sum = XXH3_64bits(&hashed, sizeof hashed);

    for (int f = 0; f < count; f++)
        sum = XXH3_64bits_withSeed(&sources[f].size, sizeof sources[f].size, sum);
    for (int64_t p = 0; p < hashed; p++)
        sum = XXH3_64bits_withSeed(hashes + (size_t)p * stride, sizeof *hashes, sum);
    return sum;
}

/* Nothing where lines are learned as they are, so that older checkpoints fit. */
static uint64_t add_reading(const struct hy3_reading *reading, uint64_t sum)
{
    const bool ends = reading->masks_history || reading->forgets_reasoning;
    const int64_t history = reading->masks_history + 2 * reading->forgets_reasoning +
                            4 * (ends && reading->ends_in_round);
    const int64_t facts[] = {reading->effort, reading->without_reasoning, history,
                             reading->masks_empty_think, reading->system != NULL};
    bool is_plain = true;

    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        is_plain = is_plain && facts[i] == 0;
    if (is_plain)
        return sum;
    sum = XXH3_64bits_withSeed(facts, sizeof facts, sum);
    return reading->system ? XXH3_64bits_withSeed(reading->system, strlen(reading->system), sum)
                           : sum;
}

uint64_t hy3_fingerprint_reading(const struct hy3_dataset_options *options)
{
    const size_t names = offsetof(struct hy3_form, prompt);
    const int64_t truncation = options->truncation;
    uint64_t sum = truncation == HY3_TRUNCATE_RIGHT
                       ? 0
                       : XXH3_64bits_withSeed(&truncation, sizeof truncation, 0);

    sum = add_reading(&options->reading, sum);
    for (int f = 0; options->forms && f < options->file_count; f++) {
        const struct hy3_form *form = &options->forms[f];
        const int64_t facts[] = {form->kind, form->splits_think + 2 * form->guesses,
                                 options->sets && options->max_samples > 0 ? options->sets[f] : 0};

        sum = XXH3_64bits_withSeed(facts, sizeof facts, sum);
        sum = XXH3_64bits_withSeed((const char *)form + names, sizeof *form - names, sum);
    }
    for (int f = 0; f < options->file_count; f++) {
        const int64_t facts[] = {f, options->limits ? options->limits[f] : 0,
                                 options->sets ? options->sets[f] : f};
        bool counts = facts[1] > 0 || (options->max_samples > 0 && !options->forms);

        if (facts[1] > 0 || (counts && facts[2] != f))
            sum = XXH3_64bits_withSeed(facts, sizeof facts, sum);
    }
    return sum;
}

static hy3_status hash_portion(struct hy3_lines *lines, const struct hy3_source *source,
                               const struct hy3_portion *portion, uint64_t *hash)
{
    const char *line = "";
    int64_t size;

    HY3_TRY(hy3_lines_begin(lines, source, portion));
    while (line) {
        HY3_TRY(hy3_lines_next(lines, &line, &size));
        HY3_TRY(hy3_stop_check("checking the data"));
    }
    *hash = hy3_lines_hash(lines);
    return HY3_OK;
}

hy3_status hy3_fingerprint_read(MPI_Comm comm, const struct hy3_source *sources, int count,
                                int64_t piece_bytes, int64_t hashed, uint64_t *out)
{
    hy3_status status = HY3_OK;
    struct hy3_portion *portions = NULL;
    struct hy3_lines *lines = NULL;
    uint64_t *hashes = NULL;
    int64_t portion_count = 0;

    *out = 0;
    status = hy3_portions_plan(sources, count, piece_bytes, &portions, &portion_count);
    if (status == HY3_OK)
        status = hy3_lines_create(&lines);
    if (status == HY3_OK)
        status = hy3_alloc(&hashes, (size_t)portion_count, sizeof *hashes);
    HY3_AGREE_DONE(comm, status, "checking the data");
    HY3_TRY_DONE(hy3_items_locate(comm, sources, portions, portion_count));
    for (int64_t p = 0; p < hashed && p < portion_count && status == HY3_OK; p++)
        if (portions[p].piece % hy3_size(comm) == hy3_rank(comm))
            status = hash_portion(lines, &sources[portions[p].file], &portions[p], &hashes[p]);
    HY3_AGREE_DONE(comm, status, "checking the data");
    if (hashed > portion_count)
        goto done;
    hy3_allreduce_int(comm, (int64_t *)hashes, (int)hashed, MPI_SUM, "checking the data");
    *out = hy3_fingerprint_combine(sources, count, hashes, 1, hashed);
done:
    hy3_lines_free(lines);
    hy3_free(portions);
    hy3_free(hashes);
    return status;
}

hy3_status hy3_fingerprint_verify(MPI_Comm comm, const struct hy3_source *sources, int count,
                                  int64_t piece_bytes, int64_t hashed, uint64_t was)
{
    hy3_status status = HY3_OK;
    int changed = -1;
    uint64_t now = was;

    if (hy3_rank(comm) == 0)
        status = hy3_sources_look_again(sources, count, &changed);
    HY3_AGREE(comm, status, "checking the data");
    hy3_broadcast(comm, 0, &changed, sizeof changed, "checking the data");
    if (changed >= 0)
        HY3_TRY(hy3_fingerprint_read(comm, sources, count, piece_bytes, hashed, &now));
    if (now != was && hy3_rank(comm) == 0)
        status = hy3_fail(HY3_EFORMAT, __FILE__, __LINE__,
                          "'%s' was changed while it was read; start again when nothing writes to "
                          "it",
                          sources[changed].path);
    return hy3_agree(comm, status, "checking the data");
}
