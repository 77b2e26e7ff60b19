/* SPDX-License-Identifier: Apache-2.0 */
/* leaks.h - what the leak detector is told: libconfig 1.5 loses the text at which a syntax error
 * was found. */
#pragma once

const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so\n";
}
