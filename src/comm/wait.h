/* SPDX-License-Identifier: Apache-2.0 */
/* wait.h - the one wait of the program, with a deadline.
 *
 * MPICH spins in blocking calls and never yields: with more ranks than cores a non-blocking call
 * that is tested and yields is hundreds of times faster, and where cores suffice it costs nothing.
 * A wait that outlasts the deadline means a dead or hanging peer: the job ends with a message
 * and exit code 4. */
#pragma once

#include <mpi.h>

#include <stdbool.h>
#include <stddef.h>

/* Local in its effect. Waits until `request` is complete. phase: for the message, "summing
 * gradients". Does not return when MPI reports an error or the deadline passes: one message,
 * MPI_Abort, exit code 4. */
void hy3_wait(MPI_Request *request, const char *phase);

/* As hy3_wait, for `count` requests. */
void hy3_wait_all(int count, MPI_Request *requests, const char *phase);

/* As hy3_wait, for anything else that ends: until is_done(context). */
void hy3_wait_for(bool (*is_done)(void *context), void *context, const char *phase);

/* As hy3_wait_for, for work that other ranks may not have, or not as often: it is not counted among
 * the waits that show which rank is behind. */
void hy3_wait_own(bool (*is_done)(void *context), void *context, const char *phase);

/* What both are: whose: for the message, whose answer is waited for; is_counted: as by
 * hy3_wait_for. */
void hy3_wait_on(bool (*is_done)(void *context), void *context, const char *phase,
                 const char *whose, bool is_counted);

/* Does not return: one message of the job with rank, host, phase, `why`, where this rank and those
 * behind it stand, and what to do; then exit code 4, even where the other library hangs in
 * `abandon` or MPI in MPI_Abort. Any thread may call it. */
_Noreturn void hy3_wait_give_up(const char *phase, const char *why);

/* Of ranks that fail together one reports and ends the job. Returns at once on that one, on others
 * only if the job has not ended in time. Any thread may call it, once. */
void hy3_wait_turn(void);

/* Communication outside MPI (NCCL). */
struct hy3_wait_library {
    const char *(*trouble)(void);    /* polled while the main thread waits: NULL, or what failed */
    const char *(*last_words)(void); /* for the message of a failure; "": none */
    void (*abandon)(void);           /* called before a wait ends the job */
};

/* Local. From now on. */
void hy3_wait_watch(const struct hy3_wait_library *library);

/* Who keeps a record of the waits of this rank (heartbeat.h). */
struct hy3_wait_observer {
    void (*begins)(const char *phase); /* a wait that is counted; phase: a literal */
    void (*goes_on)(void);             /* now and then during any wait */
    bool (*claim)(void);               /* whether this rank is the one to report a failure */
    /* where this rank and those behind it stand, on this node; and on others, which are asked:
     * false: one of them reports */
    void (*describe)(char *out, size_t size);
    bool (*ask)(char *out, size_t size);
};

/* Local. From now on; zero: nobody. */
void hy3_wait_observe(struct hy3_wait_observer observer);

/* Local. Seconds between two looks, *last and now, which *last becomes; 0: there was none before.
 * More than one does not count: the process was stopped, as Slurm does with a job that it
 * suspends. */
double hy3_wait_passed(double *last);

/* Seconds without progress after which a wait gives up, not those in which the process was stopped;
 * ddp_timeout. 0: never. */
void hy3_wait_deadline(double seconds);
double hy3_wait_limit(void);
