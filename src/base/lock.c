/* SPDX-License-Identifier: Apache-2.0 */
/* lock.c - see the invariants in lock.h. */
#include "base/lock.h"

#include "base/log.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    TRIES = 1000, /* of a lock that comes and goes while it is looked at */
    LEFT = 32
};

/* Of the last locks of this process that the disk did not let it remove: nobody holds them, though
 * the process lives. */
static struct {
    char nonces[LEFT][24];
    unsigned count;
} left;

struct hy3_lock {
    char path[HY3_PATH_MAX];
    char draft[HY3_PATH_MAX]; /* the written file, before it is linked to `path` */
    struct hy3_lock_holder self;
    int fd;
    off_t beat_at;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t end;
    bool is_beating, is_ending;
};

static double patience_s(void)
{
    const char *text = getenv("HY3_LOCK_SECONDS");
    double seconds = text ? strtod(text, NULL) : 0;

    return seconds > 0 ? seconds : 90;
}

static hy3_status guard_of(const char *path, const char *nonce, char *out)
{
    return hy3_path_format(out, HY3_PATH_MAX, "%s.%s", path, nonce);
}

/* A heartbeat that cannot be written is not the end: the check before a save decides. */
static void beat(struct hy3_lock *lock)
{
    char text[HY3_LOCK_BEAT_BYTES + 1];

    snprintf(text, sizeof text, "%010u\n", (unsigned)++lock->self.beat);
    if (pwrite(lock->fd, text, HY3_LOCK_BEAT_BYTES, lock->beat_at) == HY3_LOCK_BEAT_BYTES)
        (void)fdatasync(lock->fd); /* network file systems show it to others only then */
}

static void *run_heart(void *context)
{
    struct hy3_lock *lock = context;
    double interval = patience_s() / 6;
    struct timespec until;

    pthread_mutex_lock(&lock->mutex);
    clock_gettime(CLOCK_MONOTONIC, &until);
    while (!lock->is_ending) {
        double next = (double)until.tv_sec + 1e-9 * (double)until.tv_nsec + interval;

        until.tv_sec = (time_t)next;
        until.tv_nsec = (long)(1e9 * (next - (double)until.tv_sec));
        while (!lock->is_ending &&
               pthread_cond_timedwait(&lock->end, &lock->mutex, &until) != ETIMEDOUT)
            continue;
        if (lock->is_ending)
            break;
        pthread_mutex_unlock(&lock->mutex);
        beat(lock);
        clock_gettime(CLOCK_MONOTONIC, &until);
        pthread_mutex_lock(&lock->mutex);
    }
    pthread_mutex_unlock(&lock->mutex);
    return NULL;
}

/* Signals are the main thread's matter. */
static hy3_status start_heart(struct hy3_lock *lock)
{
    pthread_condattr_t monotonic;
    sigset_t all, before;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&lock->mutex, NULL);
    pthread_cond_init(&lock->end, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    lock->is_beating = pthread_create(&lock->thread, NULL, run_heart, lock) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!lock->is_beating)
        HY3_FAIL(HY3_ENOMEM, "cannot start the heartbeat of the lock '%s'", lock->path);
    return HY3_OK;
}

static void stop_heart(struct hy3_lock *lock)
{
    if (!lock->is_beating)
        return;
    pthread_mutex_lock(&lock->mutex);
    lock->is_ending = true;
    pthread_cond_signal(&lock->end);
    pthread_mutex_unlock(&lock->mutex);
    pthread_join(lock->thread, NULL);
    lock->is_beating = false;
}

/* Creates the file `path` with what this process says of itself; 0, or an error number. */
static int write_file(struct hy3_lock *lock, const char *path)
{
    char text[HY3_LOCK_TEXT];
    size_t size;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666), error;

    if (fd < 0)
        return errno;
    hy3_lock_holder_format(&lock->self, text);
    size = strlen(text);
    if (hy3_file_write_at(fd, text, size, 0, path) != HY3_OK || fsync(fd) != 0) {
        error = errno;
        close(fd);
        unlink(path);
        return error != 0 ? error : EIO;
    }
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = fd;
    lock->beat_at = (off_t)size - HY3_LOCK_BEAT_BYTES;
    return 0;
}

/* Gives the draft the name `at` unless there is one; 0, or an error number. A link counts, not what
 * the call says: the answer of a server may be lost. */
static int create(struct hy3_lock *lock, const char *at)
{
    struct stat before, after;
    int error = stat(lock->draft, &before) == 0 ? 0 : errno;

    if (error != 0)
        return error;
    error = link(lock->draft, at) == 0 ? 0 : errno;
    if (error == 0 || (stat(lock->draft, &after) == 0 && after.st_nlink > before.st_nlink))
        return 0;
    if (error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EMLINK)
        return write_file(lock, at); /* no links here */
    return error;
}

static bool is_left(const char *nonce)
{
    for (int i = 0; i < LEFT; i++)
        if (strcmp(left.nonces[i], nonce) == 0)
            return true;
    return false;
}

/* Whether the lock file may be taken over; else the request notes whether its holder lives. */
static bool is_stale(struct hy3_lock_request *request, int depth,
                     const struct hy3_lock_holder *holder)
{
    enum hy3_lock_fate fate = hy3_lock_holder_fate(holder, !request->waits);
    bool is_known = strcmp(request->watch[depth].nonce, holder->nonce) == 0;
    double now = hy3_seconds();

    if (fate == HY3_LOCK_GONE || is_left(holder->nonce))
        return true;
    if (!is_known || request->watch[depth].beat != holder->beat) {
        snprintf(request->watch[depth].nonce, sizeof request->watch[depth].nonce, "%s",
                 holder->nonce);
        request->watch[depth].beat = holder->beat;
        request->watch[depth].since = now;
        request->watch[depth].lives = is_known;
    }
    if (fate == HY3_LOCK_LIVES)
        request->watch[depth].lives = true;
    return fate == HY3_LOCK_UNKNOWN && now - request->watch[depth].since >= patience_s();
}

/* What to do about a lock of another: NULL in *lock, or refusal. */
static hy3_status judge(struct hy3_lock_request *request, int depth,
                        const struct hy3_lock_holder *holder)
{
    char who[512];

    hy3_lock_holder_describe(holder, who, sizeof who);
    if (request->watch[depth].lives && !request->waits)
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' belongs to %s: one run at a time may write there; wait for its end or stop "
                 "it, or name another directory. If you are sure that it has ended, remove '%s'",
                 request->path, who, request->path);
    if (!request->has_spoken && request->waits)
        hy3_log(HY3_LOG_INFO, "waiting for the lock '%s' of %s", request->path, who);
    else if (!request->has_spoken)
        hy3_log(HY3_LOG_INFO,
                "'%s' belongs to %s; watching its heartbeat: it is taken over if there is none for "
                "%.0f s",
                request->path, who, patience_s());
    request->has_spoken = true;
    return HY3_OK;
}

/* With the guard in hand: the lock file becomes ours if it is still the one that was judged. */
static hy3_status replace(const char *at, const char *guard, const char *nonce, bool *is_ours)
{
    struct hy3_lock_holder now;
    bool exists;

    *is_ours = false;
    HY3_TRY(hy3_lock_holder_read(at, &now, &exists));
    if (!exists || strcmp(now.nonce, nonce) != 0) {
        unlink(guard);
        return HY3_OK;
    }
    if (rename(guard, at) != 0)
        HY3_FAIL(HY3_EIO, "cannot take over the lock '%s': %s", at, strerror(errno));
    *is_ours = true;
    return HY3_OK;
}

/* Gets the lock file `at`, which is request->path or, deeper, a guard. */
static hy3_status take(struct hy3_lock_request *request, struct hy3_lock *lock, const char *at,
                       int depth, bool *is_ours)
{
    struct hy3_lock_holder holder;
    char guard[HY3_PATH_MAX];
    bool exists;

    for (int i = 0; i < TRIES; i++) {
        int error = create(lock, at);

        *is_ours = error == 0;
        if (*is_ours)
            return HY3_OK;
        if (error != EEXIST)
            HY3_FAIL(HY3_EIO, "cannot create the lock '%s': %s", at, strerror(error));
        HY3_TRY(hy3_lock_holder_read(at, &holder, &exists));
        if (!exists)
            continue;
        if (!is_stale(request, depth, &holder) || depth + 1 == HY3_LOCK_DEPTH)
            return judge(request, depth, &holder);
        HY3_TRY(guard_of(request->path, holder.nonce, guard));
        HY3_TRY(take(request, lock, guard, depth + 1, is_ours));
        if (!*is_ours)
            return HY3_OK;
        HY3_TRY(replace(at, guard, holder.nonce, is_ours));
        if (*is_ours) {
            char who[512];

            hy3_lock_holder_describe(&holder, who, sizeof who);
            hy3_log(depth == 0 ? HY3_LOG_INFO : HY3_LOG_DEBUG,
                    "taking over the lock of %s: it has ended, or has no heartbeat", who);
            return HY3_OK;
        }
    }
    HY3_FAIL(HY3_EIO, "the lock '%s' changes faster than it can be read; try again", at);
}

/* Whether a guard or draft can go: its process has ended, or stopped while it wrote the file, an
 * hour ago by the clock that also dated our lock. */
static bool is_left_over(const struct hy3_lock *lock, const char *path)
{
    struct hy3_lock_holder holder;
    struct stat old, own;
    bool exists;

    if (hy3_lock_holder_read(path, &holder, &exists) != HY3_OK || !exists)
        return false;
    if (holder.pid > 0)
        return hy3_lock_holder_fate(&holder, false) == HY3_LOCK_GONE;
    return stat(path, &old) == 0 && fstat(lock->fd, &own) == 0 &&
           own.st_mtime - old.st_mtime > 3600;
}

/* Removes what killed processes have left, which means nothing to the holder of the lock. */
static void clean(const struct hy3_lock *lock)
{
    char directory[HY3_PATH_MAX], path[2 * HY3_PATH_MAX];
    const char *name = hy3_path_name(lock->path);
    const struct dirent *entry;
    DIR *open;

    snprintf(directory, sizeof directory, "%.*s", (int)(name - lock->path), lock->path);
    if (!(open = opendir(directory[0] != '\0' ? directory : ".")))
        return;
    while ((entry = readdir(open))) {
        if (strncmp(entry->d_name, name, strlen(name)) != 0 || entry->d_name[strlen(name)] != '.')
            continue;
        snprintf(path, sizeof path, "%s%s", directory, entry->d_name);
        if (is_left_over(lock, path))
            unlink(path);
    }
    closedir(open);
}

hy3_status hy3_lock_request(const char *path, bool waits, struct hy3_lock_request *out)
{
    memset(out, 0, sizeof *out);
    out->waits = waits;
    return hy3_path_format(out->path, sizeof out->path - 32, "%s", path); /* guards are longer */
}

/* Without its file: not held, not beating. */
static void free_lock(struct hy3_lock *lock)
{
    if (!lock)
        return;
    if (lock->draft[0] != '\0')
        unlink(lock->draft);
    if (lock->fd >= 0)
        close(lock->fd);
    hy3_free(lock);
}

/* From now on nobody holds the lock file of this nonce. */
static void leave(const char *nonce)
{
    snprintf(left.nonces[left.count++ % LEFT], sizeof left.nonces[0], "%s", nonce);
}

/* Writes the draft with a new nonce. */
static int write_draft(struct hy3_lock *lock)
{
    int error = ENAMETOOLONG;

    hy3_lock_holder_self(&lock->self);
    if (hy3_path_format(lock->draft, sizeof lock->draft, "%s.%s.new", lock->path,
                        lock->self.nonce) == HY3_OK)
        error = write_file(lock, lock->draft);
    if (error != 0)
        lock->draft[0] = '\0';
    return error;
}

/* Removes the lock file under its guard: another may be about to take it over. */
static void release(struct hy3_lock *lock)
{
    char guard[HY3_PATH_MAX];
    struct hy3_lock_holder held = lock->self, now;
    bool exists;

    leave(held.nonce);
    if (guard_of(lock->path, held.nonce, guard) != HY3_OK || write_draft(lock) != 0)
        return;
    leave(lock->self.nonce);
    if (create(lock, guard) != 0)
        return;
    if (hy3_lock_holder_read(lock->path, &now, &exists) == HY3_OK && exists &&
        strcmp(now.nonce, held.nonce) == 0)
        unlink(lock->path);
    unlink(guard);
}

hy3_status hy3_lock_ask(struct hy3_lock_request *request, struct hy3_lock **out)
{
    hy3_status status = HY3_OK;
    struct hy3_lock *lock = NULL;
    struct hy3_lock_holder holder;
    bool is_ours, exists;
    int error;

    *out = NULL;
    HY3_TRY_DONE(hy3_lock_holder_read(request->path, &holder, &exists));
    if (exists && !is_stale(request, 0, &holder))
        return judge(request, 0, &holder);
    HY3_TRY_DONE(hy3_alloc(&lock, 1, sizeof *lock));
    lock->fd = -1;
    snprintf(lock->path, sizeof lock->path, "%s", request->path);
    if ((error = write_draft(lock)) != 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot create the lock '%s': %s", lock->path, strerror(error));
    HY3_TRY_DONE(take(request, lock, lock->path, 0, &is_ours));
    if (!is_ours)
        goto done;
    unlink(lock->draft);
    lock->draft[0] = '\0';
    clean(lock);
    if ((status = start_heart(lock)) != HY3_OK) {
        release(lock);
        goto done;
    }
    *out = HY3_TAKE(lock);
done:
    free_lock(lock);
    return status;
}

hy3_status hy3_lock_check(const struct hy3_lock *lock)
{
    struct hy3_lock_holder now;
    bool exists;
    char who[512];

    /* a file system that fails at the moment is no other run */
    if (!lock || hy3_lock_holder_read(lock->path, &now, &exists) != HY3_OK)
        return HY3_OK;
    if (!exists)
        HY3_FAIL(HY3_EIO,
                 "the lock '%s' of this run is gone: another run may have begun there; nothing "
                 "more is written",
                 lock->path);
    hy3_lock_holder_describe(&now, who, sizeof who);
    if (strcmp(now.nonce, lock->self.nonce) != 0)
        HY3_FAIL(HY3_EIO,
                 "'%s' now belongs to %s, which has taken it over from this run; nothing more is "
                 "written",
                 lock->path, who);
    return HY3_OK;
}

void hy3_lock_close(struct hy3_lock *lock)
{
    if (!lock)
        return;
    stop_heart(lock);
    release(lock);
    pthread_mutex_destroy(&lock->mutex);
    pthread_cond_destroy(&lock->end);
    free_lock(lock);
}
