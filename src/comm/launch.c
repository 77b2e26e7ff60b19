/* SPDX-License-Identifier: Apache-2.0 */
/* launch.c - MPI, log, threads. */
#include "comm/launch.h"

#include "base/log.h"
#include "comm/group.h"
#include "comm/stop.h"
#include "comm/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

/* shorter than this is slower on an idle machine, longer is slower on a busy one */
static const char spin_turns[] = "1000";

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

/* Descriptors 0 to 2 that were closed at the start lead nowhere: else the next file that is opened
 * gets one of them, and what is printed goes into it. */
static void open_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) < 0)
            return;
}

/* Threads of GNU OpenMP that have no work spin for milliseconds before they sleep, which takes the
 * CPUs from others and from the threads that are still busy where the machine is not idle: 3 to 28
 * times slower. The library reads the number of turns before main and offers no call to change it,
 * so the program is replaced by itself, once: the variable is set then. */
static void shorten_spin(char **argv)
{
    const char *threads = getenv("OMP_NUM_THREADS"), *preload = getenv("LD_PRELOAD");
    char path[4096];
    ssize_t length;

    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") ||
        (threads && strcmp(threads, "1") == 0) || (preload && strstr(preload, "valgrind")))
        return;
    length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0 || setenv("GOMP_SPINCOUNT", spin_turns, 1) != 0)
        return;
    path[length] = '\0';
    execv(path, argv); /* returns only where that is impossible: the long spin stays */
}

hy3_status hy3_start(int *argc, char ***argv, const char *program)
{
    hy3_status status;
    int provided;

    open_standard();
    hy3_stop_hold();
    shorten_spin(*argv);
    hy3_stop_catch_early();
    MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
    hy3_stop_catch();
    hy3_stop_join(MPI_COMM_WORLD);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    hy3_log_start(program, hy3_rank(MPI_COMM_WORLD) == 0);
    status = check_launch();
    if (status == HY3_OK)
        choose_threads();
    return status;
}

int hy3_threads(void)
{
    return omp_get_max_threads();
}
