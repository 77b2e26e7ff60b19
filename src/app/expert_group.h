/* SPDX-License-Identifier: Apache-2.0 */
/* expert_group.h - the size of expert groups where the configuration leaves it open. */
#pragma once

#include "app/loaded_model.h"
#include "config/config.h"

/* Collective on model->layout.world. Lays the ranks out again with expert groups of the size with
 * which the plan of a step is shortest, of those that fit into the free memory of the GPUs; leaves
 * the layout as it is where expert_parallel_size is set or no rates are known (rates.h). Errors:
 * those of hy3_rates_read and hy3_plan_make. */
hy3_status hy3_expert_group_choose(MPI_Comm comm, const struct hy3_config *config,
                                   struct hy3_loaded_model *model);
