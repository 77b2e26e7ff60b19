/* SPDX-License-Identifier: Apache-2.0 */
/* module_options.h - the options of each module, from the configuration. */
#pragma once

#include "app/loaded_model.h"
#include "config/config.h"
#include "engine/pass.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

/* The directory of the tokenizer; NULL: none is named. */
const char *hy3_module_options_tokenizer(const struct hy3_config *config);

enum hy3_training hy3_module_options_training(const struct hy3_config *config);

/* Local. Errors: HY3_EUSAGE for an unknown name of a module. Texts are borrowed. */
hy3_status hy3_module_options_model(const struct hy3_config *config,
                                    struct hy3_loaded_model_options *out);

/* How much of the weights (HY3_OFFLOAD_param) or of the optimizer state is in host memory; what
 * `auto` has become must be known (plan.h). The directory is borrowed. */
struct hy3_offloading hy3_module_options_offload(const struct hy3_config *config,
                                                 enum hy3_offload what);

/* Without the placement of the state. */
struct hy3_optimizer_options hy3_module_options_optimizer(const struct hy3_config *config);

/* Local. Whether the model can do what the configuration asks for. Errors: HY3_EUSAGE. */
hy3_status hy3_module_options_check(const struct hy3_config *config, const struct hy3_shape *shape);

/* Tokens of the longest sample, or of a full row of packing. */
int64_t hy3_module_options_item_tokens(const struct hy3_config *config);

/* Without max_tokens, which depends on the data, and with max_samples for samples that are not
 * packed. */
struct hy3_pass_options hy3_module_options_pass(const struct hy3_config *config);

/* steps: of hy3_module_options_schedule_steps. */
struct hy3_schedule hy3_module_options_schedule(const struct hy3_config *config, int64_t steps);

/* Steps over which the learning rate is planned, and of which shares are taken. */
int64_t hy3_module_options_schedule_steps(const struct hy3_config *config, int64_t steps_per_epoch);

/* Steps of a run: max_epochs may end it before its schedule. */
int64_t hy3_module_options_steps(const struct hy3_config *config, int64_t steps_per_epoch);
