/* SPDX-License-Identifier: Apache-2.0 */
/* plan_data.c - as the run itself counts them. */
#include "app/plan_data.h"

#include "app/datasets.h"
#include "app/module_options.h"

static void print_count(const char *what, int64_t count)
{
    printf("  %-42s %12lld\n", what, (long long)count);
}

/* Of save_strategy = best it is not known before. */
static void print_steps(const struct hy3_config *c, int64_t epoch)
{
    int64_t steps = hy3_module_options_steps(c, epoch);
    int64_t all = hy3_module_options_schedule_steps(c, epoch);
    int64_t saves = hy3_config_save_interval(c, all, epoch);
    int64_t evaluates = hy3_config_eval_interval(c, all, epoch);

    print_count("steps of an epoch", epoch);
    print_count("steps", steps);
    if (c->save_strategy != HY3_SAVE_STRATEGY_best)
        print_count("checkpoints", steps / saves + (steps % saves != 0));
    if (hy3_config_evaluates(c))
        print_count("evaluations", steps / evaluates + (steps % evaluates != 0));
}

static hy3_status print_items(const struct hy3_config *c, const struct hy3_shape *shape, int ranks,
                              const struct hy3_dataset *set)
{
    hy3_status status = HY3_OK;
    const struct hy3_group world = {MPI_COMM_NULL, 0, ranks, 1};
    struct hy3_batches train, eval;
    struct hy3_packing *packing = NULL;
    char text[64];

    HY3_TRY_DONE(hy3_datasets_split(c, &world, shape, set, NULL, &train, &eval));
    print_count("samples", train.count);
    if (c->packing) {
        HY3_TRY_DONE(hy3_batches_pack(&train, hy3_module_options_item_tokens(c), &packing));
        train.packing = packing;
        snprintf(text, sizeof text, "packed rows of %lld tokens", (long long)packing->length);
        printf("  %-42s %12lld   %.1f%% full\n", text, (long long)packing->rows,
               100 * hy3_packing_fill(packing));
    }
    print_steps(c, hy3_batches_steps_per_epoch(&train));
done:
    hy3_packing_free(packing);
    return status;
}

hy3_status hy3_plan_data_print(const struct hy3_config *config, const struct hy3_shape *shape,
                               int ranks)
{
    hy3_status status = HY3_OK;
    struct hy3_dataset *set = NULL;

    printf("data\n");
    if (config->use_dummy_data)
        HY3_TRY_DONE(hy3_datasets_dummy(config, shape, &set));
    else if (hy3_datasets_look(config, &set) != HY3_OK || !set)
        printf("  its counts are known when it is tokenized here (hy3_tokenize)\n");
    if (set)
        HY3_TRY_DONE(print_items(config, shape, ranks, set));
done:
    hy3_dataset_close(set);
    return status;
}
