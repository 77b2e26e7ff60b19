/* SPDX-License-Identifier: Apache-2.0 */
/* module.h - the interface of a backend in a library that is opened at run time: what it gets and
 * what it gives. */
#pragma once

#include "base/error.h"
#include "comm/wait.h"

struct hy3_backend; /* backend.h */

/* What the program gives the library, which does not link against it. */
struct hy3_module_host {
    uint32_t abi;  /* HY3_BACKEND_ABI */
    int node_rank; /* of this process among those of its node; chooses the device */
    hy3_status (*fail)(hy3_status code, const char *file, int line, const char *format, ...);
    void (*wait_on)(bool (*is_done)(void *context), void *context, const char *phase,
                    const char *whose, bool is_counted);
    void (*watch)(const struct hy3_wait_library *library);
    /* around calls that may not return (comm/watchdog.h) */
    void (*enter)(const char *call, const char *file, int line);
    void (*leave)(void);
    const struct hy3_backend *cpu;
};

/* Exported by the library as "hy3_cuda_open". Local. Takes a device and hands out its table
 * (static). Errors, with a text by host->fail: HY3_EDEVICE (no driver, no device, another ABI),
 * HY3_ENOMEM. */
typedef hy3_status hy3_module_open(const struct hy3_module_host *host,
                                   const struct hy3_backend **out);
