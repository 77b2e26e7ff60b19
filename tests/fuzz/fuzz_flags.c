/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_flags.c - any bytes as a command line, a word a line, with the flags of whichever tool they
 * are. */
#include "config/foreign/flags.h"
#include "fuzz_foreign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { WORDS = 64 };

    struct hy3_settings flags = {0}, given = {0};
    struct hy3_problems problems = {0};
    char *text = fuzz_text(data, size), *rest = NULL, name[] = "hy3_sft", *argv[WORDS + 1] = {name};
    enum hy3_origin origin;
    int argc = 1;

    fuzz_begin_mpi();
    for (char *w = strtok_r(text, "\n", &rest); w && argc < WORDS; w = strtok_r(NULL, "\n", &rest))
        argv[argc++] = w;
    if (hy3_flags_find(argc, argv, &origin)) {
        for (int i = 1; i < argc; i++)
            if (hy3_flag_read(origin, argc, argv, &i, &flags, &problems) != HY3_OK)
                abort();
        if (hy3_foreign_take_flags(&given, &flags) != HY3_OK)
            abort();
        for (size_t i = 0; i < flags.count; i++) /* as arguments, key=value, which are no lists */
            flags.items[i].type = HY3_VALUE_WORD;
        if (hy3_foreign_override(origin, &given, &flags, &problems) != HY3_OK)
            abort();
        hy3_foreign_settle_nulls(origin, &given);
        fuzz_translate(&given, origin, NULL);
    }
    hy3_settings_free(&flags);
    hy3_settings_free(&given);
    free(text);
    return 0;
}
