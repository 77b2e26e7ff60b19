/* SPDX-License-Identifier: Apache-2.0 */
/* launch.c - MPI, log, threads. */
#include "comm/launch.h"

#include "base/hdf5.h"
#include "base/log.h"
#include "comm/agree.h"
#include "comm/environment.h"
#include "comm/group.h"
#include "comm/stop.h"
#include "comm/wait.h"

#include <omp.h>
#include <sched.h>

enum { MOST_THREADS = 1024 };

static int env_count(const char *name)
{
    const char *text = getenv(name);

    return text ? (int)strtol(text, NULL, 10) : 0;
}

/* Compares the world with what the launcher started. PMI_SIZE is set by what started the process
 * for MPI, mpiexec inside an allocation included; only without it Slurm's own count is used. */
static hy3_status check_launch(void)
{
    int wanted = env_count("PMI_SIZE"), size = hy3_size(MPI_COMM_WORLD);

    if (wanted <= 0)
        wanted = env_count("SLURM_STEP_NUM_TASKS");
    if (wanted <= 0)
        wanted = env_count("SLURM_NTASKS");
    if (wanted <= 0 || wanted == size)
        return HY3_OK;
    /* each process sees a world of one and would print: only the first task of the step does */
    hy3_log_start(hy3_log_program(), env_count("SLURM_PROCID") == 0);
    HY3_FAIL(HY3_EUSAGE,
             "the launcher started %d tasks but MPI sees %d; launch with 'srun --mpi=pmi2 …' "
             "('srun --mpi=list' shows what your Slurm offers) or with mpiexec",
             wanted, size);
}

/* Whether OMP_NUM_THREADS decides. GNU OpenMP takes what it cannot read for all CPUs. */
static bool threads_are_given(void)
{
    const char *text = getenv("OMP_NUM_THREADS");
    char *end = NULL;
    long threads = text ? strtol(text, &end, 10) : 0;

    if (!text)
        return false;
    end += strspn(end, " \t");
    if (end != text && threads >= 1 && threads <= MOST_THREADS && (*end == '\0' || *end == ','))
        return true;
    hy3_log(HY3_LOG_WARN,
            "OMP_NUM_THREADS = '%.40s' is not a number from 1 to %d: each rank takes its share of "
            "the CPUs",
            text, MOST_THREADS);
    return false;
}

/* An even share of the CPUs this rank may use: a launcher that binds has already cut the share; one
 * that does not leaves the same CPUs to all ranks of the node. */
static void choose_threads(void)
{
    MPI_Comm node;
    cpu_set_t mine, all;
    MPI_Request request;
    int ranks, threads;

    if (threads_are_given())
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

    hy3_stop_hold();
    hy3_environment_prepare(*argv);
    hy3_stop_catch_early();
    hy3_environment_explain(program);
    hy3_hdf5_begin();
    MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
    hy3_environment_explain(NULL);
    hy3_stop_catch();
    hy3_stop_join(MPI_COMM_WORLD);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    hy3_log_start(program, hy3_rank(MPI_COMM_WORLD) == 0);
    status = check_launch();
    if (status == HY3_OK)
        choose_threads();
    if (status == HY3_OK)
        status = hy3_agree(MPI_COMM_WORLD, hy3_environment_check(hy3_threads()), "starting");
    return status;
}

int hy3_threads(void)
{
    return omp_get_max_threads();
}
