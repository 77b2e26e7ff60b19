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
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_THREADS = 1024 };

static int env_count(const char *name)
{
    const char *text = getenv(name);

    return text ? (int)strtol(text, NULL, 10) : 0;
}

/* The line to type instead. */
static const char slurm[] =
    "launch with 'srun --mpi=pmi2 …' ('srun --mpi=list' shows what your Slurm offers) or "
    "with " HY3_MPIEXEC;
static const char other[] =
    "it is of another MPI than hy3 was built with: launch with '" HY3_MPIEXEC " -n RANKS …'";

/* Who starts processes for MPI, the nearest to this one first: an mpiexec inside an allocation
 * knows better than Slurm. What is not set is not told. */
static const struct launcher {
    const char *name, *size, *rank, *advice;
} launchers[] = {
    {"the launcher", "PMI_SIZE", "PMI_RANK", other},
    {"Open MPI's mpiexec", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", other},
    {"the launcher", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", slurm},
    {"the launcher", "SLURM_NTASKS", "SLURM_PROCID", slurm},
    {"a launcher that speaks PMIx", NULL, "PMIX_RANK", other},
    {"Cray's launcher", NULL, "PALS_RANKID", other},
};

enum { LAUNCHERS = sizeof launchers / sizeof *launchers };

/* Compares the world with what the launcher started: one of another MPI starts processes that each
 * see a world of one, and would all do the whole work. */
static hy3_status check_launch(void)
{
    int size = hy3_size(MPI_COMM_WORLD), wanted = 0, rank = 0;
    const struct launcher *l = launchers;
    bool speaks;

    for (int i = 0; i < LAUNCHERS && wanted <= 0; i++) {
        l = &launchers[i];
        rank = env_count(l->rank);
        wanted = l->size ? env_count(l->size) : rank > 0 && size == 1 ? rank + 1 : 0;
    }
    if (wanted <= 0 || wanted == size)
        return HY3_OK;
    /* each process sees a world of one and would print: only the first one does, or where nobody
     * tells how many there are the second; the launcher ends it when another one has ended */
    speaks = rank == (l->size ? 0 : 1);
    hy3_log_start(hy3_log_program(), speaks);
    if (!speaks)
        sleep(1);
    HY3_FAIL(HY3_EUSAGE, "%s started %s%d tasks but MPI sees %d; %s", l->name,
             l->size ? "" : "at least ", wanted, size, l->advice);
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
