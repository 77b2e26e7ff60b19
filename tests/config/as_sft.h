/* SPDX-License-Identifier: Apache-2.0 */
/* as_sft.h - tests of a configuration whose messages are those of hy3_sft. */
#pragma once

#include "base/log.h"
#include "config/config.h"

static struct hy3_config config; /* of the test under way */

static int start_as_sft(void **state)
{
    (void)state;
    hy3_log_start("hy3_sft", true);
    return 0;
}

static int release(void **state)
{
    (void)state;
    hy3_config_free(&config);
    hy3_log_start("test", true);
    return 0;
}
