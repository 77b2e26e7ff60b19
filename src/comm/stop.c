/* SPDX-License-Identifier: Apache-2.0 */
/* stop.c - a flag set by signals. */
#include "comm/stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t noted;

static void note(int signal)
{
    noted = signal;
}

void hy3_stop_catch(void)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int hy3_stop_noted(void)
{
    return noted;
}

const char *hy3_stop_name(int signal)
{
    return signal == SIGUSR1 ? "SIGUSR1" : signal == SIGTERM ? "SIGTERM" : "a signal";
}
