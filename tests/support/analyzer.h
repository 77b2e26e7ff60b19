/* SPDX-License-Identifier: Apache-2.0 */
/* analyzer.h - included before every source file by make lint: what functions of other files
 * return, which an analyzer that sees one source file at a time cannot know. */
#include "comm/agree.h"

/* A failure is never HY3_OK. */
#define hy3_fail(code, ...) ((void)hy3_fail((code), __VA_ARGS__), (code))

/* A failure here is a failure everywhere. */
static inline hy3_status hy3_agree_analyzed(MPI_Comm comm, hy3_status mine, const char *phase)
{
    hy3_status agreed = hy3_agree(comm, mine, phase);

    return mine == HY3_OK ? agreed : mine;
}

#define hy3_agree(comm, mine, phase) hy3_agree_analyzed(comm, mine, phase)
