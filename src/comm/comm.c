/* SPDX-License-Identifier: Apache-2.0 */
/* comm.c - launch, threads, small host messages. */
#include "comm/comm.h"

#include "base/log.h"
#include "comm/agree.h"
#include "comm/wait.h"

#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static int env_count(const char *name)
{
    const char *text = getenv(name);

    return text ? (int)strtol(text, NULL, 10) : 0;
}

/* What the launcher meant to start. PMI_SIZE comes from whoever started this process for MPI,
 * mpiexec inside an allocation included; only without it does Slurm's own count speak. */
static hy3_status check_launch(void)
{
    int wanted = env_count("PMI_SIZE"), size = hy3_size(MPI_COMM_WORLD);

    if (wanted <= 0)
        wanted = env_count("SLURM_STEP_NUM_TASKS");
    if (wanted <= 0)
        wanted = env_count("SLURM_NTASKS");
    if (wanted <= 0 || wanted == size)
        return HY3_OK;
    /* each process believes to be alone, so each would print: only the first of the step speaks */
    hy3_log_start(hy3_log_program(), env_count("SLURM_PROCID") == 0);
    HY3_FAIL(HY3_EUSAGE,
             "the launcher started %d tasks but MPI sees %d; launch with 'srun --mpi=pmi2 …' "
             "('srun --mpi=list' shows what your Slurm offers) or with mpiexec",
             wanted, size);
}

/* An even share of the CPUs this rank may use: a launcher that binds has already cut the share; one
 * that does not leaves the same CPUs to all ranks of the node. */
static void choose_threads(void)
{
    MPI_Comm node;
    cpu_set_t mine, all;
    MPI_Request request;
    int ranks, threads;

    if (getenv("OMP_NUM_THREADS"))
        return;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    CPU_ZERO(&mine);
    sched_getaffinity(0, sizeof mine, &mine);
    MPI_Iallreduce(&mine, &all, (int)sizeof mine, MPI_BYTE, MPI_BOR, node, &request);
    hy3_wait(&request, "sharing CPUs");
    ranks = hy3_size(node);
    threads = CPU_COUNT(&all) / ranks;
    if (CPU_COUNT(&mine) < threads || CPU_COUNT(&mine) < CPU_COUNT(&all))
        threads = CPU_COUNT(&mine);
    omp_set_num_threads(threads < 1 ? 1 : threads);
    MPI_Comm_free(&node);
}

hy3_status hy3_start(int *argc, char ***argv, const char *program)
{
    hy3_status status;
    int provided;

    signal(SIGXFSZ,
           SIG_IGN); /* a limit on file sizes is the error of a write, not the end of a program */
    MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    hy3_log_start(program, hy3_rank(MPI_COMM_WORLD) == 0);
    status = check_launch();
    if (status == HY3_OK)
        choose_threads();
    return status;
}

static int code_of_end;

static void leave(int signal)
{
    (void)signal;
    _exit(code_of_end);
}

int hy3_finish(hy3_status status)
{
    if (status != HY3_OK && hy3_error_text()[0] != '\0')
        hy3_log(status == HY3_STOPPED ? HY3_LOG_INFO : HY3_LOG_ERROR, "%s", hy3_error_text());
    /* all work is done: a launcher or a peer that is gone must not keep this process for ever (seen
     * with MPICH's) */
    code_of_end = hy3_exit_code(status);
    signal(SIGALRM, leave);
    alarm(60);
    MPI_Finalize();
    alarm(0);
    return code_of_end;
}

void hy3_abort(hy3_status status, const char *phase)
{
    fprintf(stderr, "%s: error: %s (rank %d, %s)\n", hy3_log_program(), hy3_error_text(),
            hy3_rank(MPI_COMM_WORLD), phase);
    hy3_end_job(status);
}

/* A launcher that learns of the abort drops what it has not passed on yet, and the message with it
 * (seen with hydra, one time in six): so it is given a moment. */
void hy3_end_job(hy3_status status)
{
    const struct timespec moment = {.tv_nsec = 300000000};

    fflush(stderr);
    nanosleep(&moment, NULL);
    MPI_Abort(MPI_COMM_WORLD, hy3_exit_code(status));
    abort();
}

int hy3_rank(MPI_Comm comm)
{
    int rank;

    MPI_Comm_rank(comm, &rank);
    return rank;
}

int hy3_size(MPI_Comm comm)
{
    int size;

    MPI_Comm_size(comm, &size);
    return size;
}

int hy3_threads(void)
{
    return omp_get_max_threads();
}

void hy3_broadcast(MPI_Comm comm, int root, void *data, size_t bytes, const char *phase)
{
    const size_t piece = (size_t)1 << 30; /* counts of MPI are int */

    for (size_t at = 0; at < bytes; at += piece) {
        int count = (int)(bytes - at < piece ? bytes - at : piece);
        MPI_Request request;

        MPI_Ibcast((char *)data + at, count, MPI_BYTE, root, comm, &request);
        hy3_wait(&request, phase);
    }
}

void hy3_allreduce_int(MPI_Comm comm, int64_t *values, int count, MPI_Op op, const char *phase)
{
    MPI_Request request;

    MPI_Iallreduce(MPI_IN_PLACE, values, count, MPI_INT64_T, op, comm, &request);
    hy3_wait(&request, phase);
}

void hy3_allreduce_real(MPI_Comm comm, double *values, int count, MPI_Op op, const char *phase)
{
    MPI_Request request;

    if (comm == MPI_COMM_NULL) /* of a group that is only planned */
        return;
    MPI_Iallreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, op, comm, &request);
    hy3_wait(&request, phase);
}

void hy3_allgather_ints(MPI_Comm comm, const int64_t *values, int count, int64_t *all,
                        const char *phase)
{
    MPI_Request request;

    MPI_Iallgather(values, count, MPI_INT64_T, all, count, MPI_INT64_T, comm, &request);
    hy3_wait(&request, phase);
}

void hy3_group_allgather(const struct hy3_group *group, const int64_t *values, int count,
                         int64_t *all, const char *phase)
{
    if (group->comm != MPI_COMM_NULL) {
        hy3_allgather_ints(group->comm, values, count, all, phase);
        return;
    }
    for (int r = 0; r < group->size; r++) /* only planned: all ranks are alike */
        memcpy(all + (ptrdiff_t)r * count, values, (size_t)count * sizeof *values);
}

void hy3_allgather_int(MPI_Comm comm, int64_t value, int64_t *all, const char *phase)
{
    hy3_allgather_ints(comm, &value, 1, all, phase);
}

void hy3_barrier(MPI_Comm comm, const char *phase)
{
    MPI_Request request;

    MPI_Ibarrier(comm, &request);
    hy3_wait(&request, phase);
}
