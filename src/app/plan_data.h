/* SPDX-License-Identifier: Apache-2.0 */
/* plan_data.h - samples, packed rows and steps of a planned run, where its token file is there. */
#pragma once

#include "config/config.h"
#include "model/shape.h"

/* Local. Prints them, or a line that they are not known yet. Errors: HY3_EUSAGE, HY3_ENOMEM. */
hy3_status hy3_plan_data_print(const struct hy3_config *config, const struct hy3_shape *shape,
                               int ranks);
