/* SPDX-License-Identifier: Apache-2.0 */
/* faults.cpp - which call fails, hangs or stops the process, as the environment says. */
#include "cuda/emulation/emu.h"

#include <atomic>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace
{

/* A fault of the environment: CALL[:N]. */
struct fault {
    const char *text;
    long seen; /* calls of that name */

    bool is(const char *call)
    {
        size_t length = text ? strcspn(text, ":") : 0;

        return length > 0 && length == strlen(call) && memcmp(text, call, length) == 0 &&
               ++seen == (text[length] ? atol(text + length + 1) : 1);
    }
};

long calls;
std::atomic<bool> has_failed; /* a watchdog asks, too */
fault hang = {getenv("HY3_EMU_HANG"), 0}, halt = {getenv("HY3_EMU_STOP"), 0};

/* Says at the end how often a call was made. */
struct counter {
    fault call = {getenv("HY3_EMU_COUNT"), 0};

    ~counter()
    {
        if (call.text)
            fprintf(stderr, "hy3_emu: %ld calls of %s\n", call.seen, call.text);
    }
} counted;

} // namespace

bool hy3_emu_is_endless()
{
    return hang.is("kernel");
}

void hy3_emu_may_hang(const char *call)
{
    (void)counted.call.is(call);
    if (halt.is(call))
        raise(SIGSTOP);
    if (!hang.is(call))
        return;
    fprintf(stderr, "hy3_emu: %s hangs\n", call);
    for (;;)
        pause();
}

bool hy3_emu_fails(const char *call)
{
    static const char *const text = getenv("HY3_EMU_FAIL_AT");

    hy3_emu_may_hang(call);
    if (!text || ++calls != atol(text))
        return false;
    fprintf(stderr, "hy3_emu: call %ld, %s, fails\n", calls, call);
    has_failed = true;
    return true;
}

bool hy3_emu_has_failed()
{
    return has_failed;
}
