/* SPDX-License-Identifier: Apache-2.0 */
/* lock.c - of many processes that ask at one instant one gets the lock: free, stale, of another
 * host; with and without links, while others are killed. */
#include "base/lock.h"

#include "base/memory.h"
#include "base/output.h"
#include "support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 50, ASKING = 4 };

/* What the file system can: 0: links; an error: none; -1: a link is made, and said to have failed
 * (a server's answer was lost). */
static int links;

/* In place of the library's: of the whole program. */
int link(const char *from, const char *to)
{
    long result = links > 0 ? -1 : syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);

    if (links > 0)
        errno = links;
    if (links < 0 && result == 0)
        errno = EEXIST;
    return links < 0 ? -1 : (int)result;
}

static bool keeps_files; /* unlink fails */

int unlink(const char *path)
{
    errno = EIO;
    return keeps_files ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int flock(int fd, int operation)
{
    (void)fd;
    (void)operation;
    errno = ENOLCK;
    return -1;
}

static struct shared {
    atomic_int ready, go, inside, most, held, refused, answered;
} * shared;

static void nap(double seconds)
{
    const struct timespec moment = {.tv_nsec = (long)(1e9 * seconds)};

    nanosleep(&moment, NULL);
}

static const char *lock_path(void)
{
    static char path[HY3_PATH_MAX];

    snprintf(path, sizeof path, "%.4000s/.hy3_lock", hy3_test_directory());
    return path;
}

/* Asks until it has the lock or is refused. */
static hy3_status get(bool waits, struct hy3_lock **lock)
{
    struct hy3_lock_request request;

    *lock = NULL;
    HY3_TRY(hy3_lock_request(lock_path(), waits, &request));
    for (;;) {
        HY3_TRY(hy3_lock_ask(&request, lock));
        if (*lock)
            return HY3_OK;
        nap(0.01);
    }
}

static void compete(void)
{
    struct hy3_lock *lock;
    hy3_status status;
    int now;

    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->go))
        sched_yield();
    status = get(false, &lock);
    if (status == HY3_OK) {
        now = atomic_fetch_add(&shared->inside, 1) + 1;
        if (now > atomic_load(&shared->most))
            atomic_store(&shared->most, now);
        atomic_fetch_add(&shared->held, 1);
    } else if (status == HY3_EUSAGE) {
        atomic_fetch_add(&shared->refused, 1);
    } else {
        fprintf(stderr, "# %s\n", hy3_error_text());
    }
    atomic_fetch_add(&shared->answered, 1);
    while (atomic_load(&shared->answered) < ASKING) /* a lock that is back is free for the next */
        nap(0.001);
    if (lock && hy3_lock_check(lock) != HY3_OK)
        atomic_fetch_add(&shared->held, 100);
    hy3_lock_close(lock);
    _exit(0);
}

static pid_t begin(void (*child)(void))
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        child();
    return pid;
}

/* Files beside the lock: guards, drafts. */
static void assert_nothing_is_left(void)
{
    bool empty;

    assert_ok(hy3_directory_is_empty(hy3_test_directory(), &empty));
    assert_true(empty);
}

static void one_round(void)
{
    pid_t pids[ASKING];

    (void)lock_path(); /* the same of all */
    memset(shared, 0, sizeof *shared);
    for (int i = 0; i < ASKING; i++)
        pids[i] = begin(compete);
    while (atomic_load(&shared->ready) < ASKING)
        nap(0.0005);
    atomic_store(&shared->go, 1);
    for (int i = 0; i < ASKING; i++)
        waitpid(pids[i], NULL, 0);
    assert_int_equal(atomic_load(&shared->held), 1);
    assert_int_equal(atomic_load(&shared->most), 1);
    assert_int_equal(atomic_load(&shared->refused), ASKING - 1);
    assert_nothing_is_left();
}

/* A lock file of another holder. */
static void leave_lock(const struct hy3_lock_holder *holder)
{
    char text[HY3_LOCK_TEXT];

    hy3_lock_holder_format(holder, text);
    assert_ok(hy3_output_replace(lock_path(), text, strlen(text)));
}

/* Of a process of this host that has ended. */
static void leave_dead_lock(void)
{
    struct hy3_lock_holder dead;
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    hy3_lock_holder_self(&dead);
    dead.pid = pid;
    leave_lock(&dead);
}

static void leave_foreign_lock(void)
{
    struct hy3_lock_holder other;

    hy3_lock_holder_self(&other);
    snprintf(other.host, sizeof other.host, "elsewhere");
    snprintf(other.boot, sizeof other.boot, "another");
    leave_lock(&other);
}

static const int file_systems[] = {0, EPERM, -1};

static void of_many_that_ask_at_once_one_gets_the_lock(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof file_systems / sizeof *file_systems; f++) {
        links = file_systems[f];
        for (int i = 0; i < (f == 0 ? ROUNDS : ROUNDS / 5); i++)
            one_round();
    }
    links = 0;
}

static void of_many_that_take_over_a_dead_lock_one_gets_it(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof file_systems / sizeof *file_systems; f++) {
        links = file_systems[f];
        for (int i = 0; i < (f == 0 ? ROUNDS : ROUNDS / 5); i++) {
            leave_dead_lock();
            one_round();
        }
    }
    links = 0;
}

static void of_many_that_take_over_a_silent_lock_one_gets_it(void **state)
{
    (void)state;
    setenv("HY3_LOCK_SECONDS", "0.05", 1);
    for (int i = 0; i < ROUNDS; i++) {
        leave_foreign_lock();
        one_round();
    }
    unsetenv("HY3_LOCK_SECONDS");
}

static void take_and_wait(void)
{
    struct hy3_lock *lock;

    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->go))
        sched_yield();
    if (get(true, &lock) == HY3_OK)
        hy3_lock_close(lock);
    for (;;)
        pause();
}

/* Wherever the processes that take over a lock are killed, the next one gets it. */
static void killed_takers_leave_no_lock_that_stays(void **state)
{
    pid_t pids[ASKING];
    struct hy3_lock *lock;

    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        memset(shared, 0, sizeof *shared);
        leave_dead_lock();
        for (int k = 0; k < ASKING; k++)
            pids[k] = begin(take_and_wait);
        while (atomic_load(&shared->ready) < ASKING)
            nap(0.0005);
        atomic_store(&shared->go, 1);
        nap(0.00006 * i);
        for (int k = 0; k < ASKING; k++)
            kill(pids[k], SIGKILL);
        for (int k = 0; k < ASKING; k++)
            waitpid(pids[k], NULL, 0);
        assert_ok(get(false, &lock));
        hy3_lock_close(lock);
        assert_false(hy3_path_exists(lock_path()));
    }
    assert_ok(hy3_directory_remove(hy3_test_directory())); /* with drafts that were cut short */
    assert_ok(hy3_directory_create(hy3_test_directory()));
}

static void a_lock_that_is_held_refuses_and_names_its_holder(void **state)
{
    struct hy3_lock *lock, *second;
    char words[64];

    (void)state;
    assert_ok(get(false, &lock));
    snprintf(words, sizeof words, "(process %d", (int)getpid());
    assert_fails(HY3_EUSAGE, words, get(false, &second));
    assert_fails(HY3_EUSAGE, "remove '", get(false, &second));
    assert_ok(hy3_lock_check(lock));
    hy3_lock_close(lock);
    assert_ok(hy3_lock_check(NULL));
    assert_nothing_is_left();
}

/* Three heartbeats are seen in the time after which a silent lock would be taken over. */
static void a_lock_of_another_host_that_beats_refuses(void **state)
{
    struct hy3_lock_holder mine, seen;
    struct hy3_lock *lock, *second;
    bool exists;

    (void)state;
    setenv("HY3_LOCK_SECONDS", "0.3", 1);
    assert_ok(get(false, &lock));
    nap(0.2);
    assert_ok(hy3_lock_holder_read(lock_path(), &seen, &exists));
    assert_true(exists && seen.beat >= 2);
    hy3_lock_holder_self(&mine);
    assert_string_equal(seen.boot, mine.boot);
    assert_int_equal(seen.started, mine.started);
    hy3_lock_close(lock);

    leave_foreign_lock(); /* beats while it is watched */
    if (fork() == 0) {
        for (int i = 0; i < 10; i++, nap(0.1)) {
            int fd = open(lock_path(), O_RDWR);
            struct stat info;

            fstat(fd, &info);
            if (pwrite(fd, (char[]){(char)('0' + i)}, 1, info.st_size - 2) != 1)
                break;
            close(fd);
        }
        _exit(0);
    }
    assert_fails(HY3_EUSAGE, "on elsewhere", get(false, &second));
    wait(NULL);
    unlink(lock_path());
    unsetenv("HY3_LOCK_SECONDS");
}

static void assert_fate(const struct hy3_lock_holder *holder, enum hy3_lock_fate fate)
{
    assert_int_equal(hy3_lock_holder_fate(holder, true), fate);
}

static void what_is_known_of_a_holder_decides(void **state)
{
    struct hy3_lock_holder self, other;

    (void)state;
    setenv("SLURM_JOB_ID", "17", 1);
    hy3_lock_holder_self(&self);
    assert_fate(&self, HY3_LOCK_LIVES);
    other = self;
    other.started += 7; /* the pid was used again */
    assert_fate(&other, HY3_LOCK_GONE);
    other = self;
    snprintf(other.space, sizeof other.space, "pid:[1]"); /* another container, the same job */
    assert_fate(&other, HY3_LOCK_GONE);
    assert_int_equal(hy3_lock_holder_fate(&other, false), HY3_LOCK_UNKNOWN);
    snprintf(other.restarts, sizeof other.restarts, "9");
    assert_int_equal(hy3_lock_holder_fate(&other, false), HY3_LOCK_GONE);
    snprintf(other.job, sizeof other.job, "18");
    assert_fate(&other, HY3_LOCK_UNKNOWN);
    snprintf(other.boot, sizeof other.boot, "before"); /* this host has booted since */
    assert_fate(&other, HY3_LOCK_GONE);
    snprintf(other.host, sizeof other.host, "elsewhere");
    assert_fate(&other, HY3_LOCK_UNKNOWN);
    unsetenv("SLURM_JOB_ID");
}

/* By whoever took it over, or by hand. */
static void a_holder_whose_lock_is_replaced_or_gone_knows_it(void **state)
{
    struct hy3_lock *lock;
    char *text;
    size_t size;

    (void)state;
    assert_ok(get(false, &lock));
    leave_foreign_lock();
    assert_fails(HY3_EIO, "taken it over", hy3_lock_check(lock));
    hy3_lock_close(lock); /* which leaves the other's */
    assert_ok(hy3_file_read(lock_path(), HY3_LOCK_TEXT, &text, &size));
    assert_non_null(strstr(text, "elsewhere"));
    hy3_free(text);
    unlink(lock_path());
    assert_ok(get(false, &lock));
    unlink(lock_path());
    assert_fails(HY3_EIO, "is gone", hy3_lock_check(lock));
    hy3_lock_close(lock);
    assert_nothing_is_left();
}

/* The process lives, but holds it no more: it would wait for itself. */
static void a_lock_that_could_not_be_removed_is_got_again(void **state)
{
    struct hy3_lock *lock;

    (void)state;
    for (int i = 0; i < 10; i++) {
        assert_ok(get(true, &lock));
        keeps_files = true;
        hy3_lock_close(lock);
        keeps_files = false;
        assert_true(hy3_path_exists(lock_path()));
    }
    assert_ok(get(true, &lock));
    hy3_lock_close(lock);
    assert_false(hy3_path_exists(lock_path()));
    assert_ok(hy3_directory_remove(hy3_test_directory())); /* with guards that stayed */
    assert_ok(hy3_directory_create(hy3_test_directory()));
}

/* Torn, of another program, hostile: nothing is known of its holder, and it is watched. */
static void a_file_that_is_no_lock_is_watched(void **state)
{
    static const char *const texts[] = {
        "", "something else\n", "hy3 lock\nnonce ../../../etc/x\npid 1 1\nbeat 0000000000\n"};
    struct hy3_lock *lock;

    (void)state;
    setenv("HY3_LOCK_SECONDS", "0.05", 1);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_ok(hy3_output_replace(lock_path(), texts[i], strlen(texts[i])));
        assert_ok(get(false, &lock));
        hy3_lock_close(lock);
        assert_nothing_is_left();
    }
    unsetenv("HY3_LOCK_SECONDS");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_many_that_ask_at_once_one_gets_the_lock),
        cmocka_unit_test(of_many_that_take_over_a_dead_lock_one_gets_it),
        cmocka_unit_test(of_many_that_take_over_a_silent_lock_one_gets_it),
        cmocka_unit_test(killed_takers_leave_no_lock_that_stays),
        cmocka_unit_test(a_lock_that_is_held_refuses_and_names_its_holder),
        cmocka_unit_test(a_lock_of_another_host_that_beats_refuses),
        cmocka_unit_test(what_is_known_of_a_holder_decides),
        cmocka_unit_test(a_holder_whose_lock_is_replaced_or_gone_knows_it),
        cmocka_unit_test(a_lock_that_could_not_be_removed_is_got_again),
        cmocka_unit_test(a_file_that_is_no_lock_is_watched),
    };

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
