/* SPDX-License-Identifier: Apache-2.0 */
/* lock_holder.h - the process that a lock file (lock.h) belongs to: what it writes about itself,
 * and what another process can tell of it. */
#pragma once

#include "base/error.h"

struct hy3_lock_holder { /* texts are "" where the system does not say */
    char program[32];
    char host[256];
    char machine[40];  /* /etc/machine-id: hosts of one name are told apart */
    char boot[40];     /* of this boot of the kernel */
    char space[40];    /* of process ids: containers of one host have their own */
    char job[40];      /* SLURM_JOB_ID */
    char restarts[16]; /* SLURM_RESTART_COUNT */
    char since[32];    /* for people: clocks of hosts are not compared */
    char nonce[24];    /* of this lock: no two are alike */
    int64_t pid;
    int64_t started; /* ticks after boot, so that a reused pid is not taken for this process */
    int64_t beat;    /* heartbeat: counts up while it lives */
};

enum hy3_lock_fate {
    HY3_LOCK_LIVES,  /* a process of this host */
    HY3_LOCK_GONE,   /* it was one, or of an earlier boot, or an earlier start of this job */
    HY3_LOCK_UNKNOWN /* of another host: only its heartbeat tells */
};

enum {
    HY3_LOCK_TEXT = 1024,    /* bytes that a lock file may have */
    HY3_LOCK_BEAT_BYTES = 11 /* of its end, which a heartbeat rewrites */
};

/* Local. This process, with a new nonce and no heartbeat yet. */
void hy3_lock_holder_self(struct hy3_lock_holder *out);

/* Local. The text of a lock file; its last HY3_LOCK_BEAT_BYTES are the heartbeat. */
void hy3_lock_holder_format(const struct hy3_lock_holder *holder, char out[HY3_LOCK_TEXT]);

/* Local. Reads a lock file; *exists is false where there is none. A file that is no lock, or not
 * completely written yet, has a nonce made of its bytes and nothing else. Errors: HY3_EIO. */
hy3_status hy3_lock_holder_read(const char *path, struct hy3_lock_holder *out, bool *exists);

/* Local. Whether the holder still runs. is_alone: a job never runs two such programs at once, so
 * that a lock of this job is that of a program that has ended. */
enum hy3_lock_fate hy3_lock_holder_fate(const struct hy3_lock_holder *holder, bool is_alone);

/* Local. "hy3_sft on node7 (process 4711, job 17), since 2026-01-31T12:00:00Z" */
void hy3_lock_holder_describe(const struct hy3_lock_holder *holder, char *out, size_t size);
