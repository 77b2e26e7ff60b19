/* SPDX-License-Identifier: Apache-2.0 */
/* lock_holder.c - one line "key value" for each fact; the heartbeat is last and of fixed length. */
#include "base/lock_holder.h"

#include "base/log.h"
#include "base/random.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

static const char title[] = "hy3 lock";

static const struct fact {
    const char *key;
    size_t offset, size;
} facts[] = {

#define FACT(name)                                                                               \
    {                                                                                            \
#        name, offsetof(struct hy3_lock_holder, name), sizeof((struct hy3_lock_holder *)0)->name \
    }
    FACT(program), FACT(host), FACT(machine),  FACT(boot),  FACT(space),
    FACT(job),     FACT(pid),  FACT(restarts), FACT(since), FACT(nonce),
#undef FACT
};

enum { FACTS = sizeof facts / sizeof *facts };

/* The first line of a file without its end, "" where it cannot be read. */
static void read_line(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, out, size - 1) : 0;

    if (fd >= 0)
        close(fd);
    out[got > 0 ? got : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

/* A value from outside becomes one printable word: it stands in a file of words and in messages. */
static void keep_word(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text ? text : "");
    for (char *p = out; *p; p++)
        if (!isgraph((unsigned char)*p))
            *p = '?';
}

/* Start of a process in ticks after boot; -1: it has ended; 0: the system does not say. */
static int64_t start_of(int64_t pid)
{
    char path[64], line[1024];
    const char *rest;

    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
        return -1;
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    read_line(path, line, sizeof line);
    rest = strrchr(line, ')'); /* the name before it may hold anything */
    if (!rest || rest[1] == '\0')
        return 0;
    rest += 2;
    if (*rest == 'Z' || *rest == 'X')
        return -1;
    for (int field = 3; field < 22 && rest; field++)
        if ((rest = strchr(rest, ' ')))
            rest++;
    return rest ? strtoll(rest, NULL, 10) : 0;
}

void hy3_lock_holder_self(struct hy3_lock_holder *out)
{
    char host[256] = "", text[256] = "";
    time_t now = time(NULL);
    struct tm utc;
    ssize_t length;

    memset(out, 0, sizeof *out);
    gethostname(host, sizeof host - 1);
    keep_word(out->host, sizeof out->host, host);
    keep_word(out->program, sizeof out->program, hy3_log_program());
    keep_word(out->job, sizeof out->job, getenv("SLURM_JOB_ID"));
    keep_word(out->restarts, sizeof out->restarts, getenv("SLURM_RESTART_COUNT"));
    read_line("/etc/machine-id", text, sizeof text);
    keep_word(out->machine, sizeof out->machine, text);
    read_line("/proc/sys/kernel/random/boot_id", text, sizeof text);
    keep_word(out->boot, sizeof out->boot, text);
    length = readlink("/proc/self/ns/pid", text, sizeof text - 1);
    text[length > 0 ? length : 0] = '\0';
    keep_word(out->space, sizeof out->space, text);
    if (gmtime_r(&now, &utc))
        strftime(out->since, sizeof out->since, "%Y-%m-%dT%H:%M:%SZ", &utc);
    snprintf(out->nonce, sizeof out->nonce, "%016llx", (unsigned long long)hy3_random_secret());
    out->pid = getpid();
    out->started = start_of(out->pid);
    if (out->started < 0)
        out->started = 0;
}

void hy3_lock_holder_format(const struct hy3_lock_holder *holder, char out[HY3_LOCK_TEXT])
{
    size_t used = (size_t)snprintf(out, HY3_LOCK_TEXT, "%s\n", title);

    for (int i = 0; i < FACTS; i++) {
        const char *value = (const char *)holder + facts[i].offset;

        if (strcmp(facts[i].key, "pid") == 0)
            used += (size_t)snprintf(out + used, HY3_LOCK_TEXT - used, "pid %lld %lld\n",
                                     (long long)holder->pid, (long long)holder->started);
        else
            used +=
                (size_t)snprintf(out + used, HY3_LOCK_TEXT - used, "%s %s\n", facts[i].key, value);
    }
    snprintf(out + used, HY3_LOCK_TEXT - used, "beat %010lld\n", (long long)holder->beat);
}

/* Takes the line "key value"; an unknown key is for later versions. */
static void take_line(struct hy3_lock_holder *holder, const char *line)
{
    const char *value = strchr(line, ' ');
    char *end;

    if (!value)
        return;
    value++;
    if (strncmp(line, "beat ", 5) == 0)
        holder->beat = strtoll(value, NULL, 10);
    for (int i = 0; i < FACTS; i++) {
        const struct fact *f = &facts[i];
        size_t length = strlen(f->key);

        if (strncmp(line, f->key, length) != 0 || line[length] != ' ')
            continue;
        if (strcmp(f->key, "pid") != 0) {
            keep_word((char *)holder + f->offset, f->size, value);
            continue;
        }
        holder->pid = strtoll(value, &end, 10);
        holder->started = strtoll(end, NULL, 10);
    }
}

/* The nonce is part of a file's name: nothing but what make_nonce writes is taken. */
static bool has_nonce(const struct hy3_lock_holder *holder)
{
    return strlen(holder->nonce) == 16 && strspn(holder->nonce, "0123456789abcdef") == 16;
}

static hy3_status refuse(const char *path)
{
    HY3_FAIL(HY3_EUSAGE,
             "'%s' is in the place of a lock, but hy3 did not make it; remove it, or name another "
             "directory",
             path);
}

hy3_status hy3_lock_holder_read(const char *path, struct hy3_lock_holder *out, bool *exists)
{
    char text[HY3_LOCK_TEXT], *line, *rest;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW), error;
    struct stat info;
    ssize_t size;
    uint64_t hash;

    memset(out, 0, sizeof *out);
    *exists = fd >= 0;
    if (fd < 0 && errno == ENOENT)
        return HY3_OK;
    if (fd < 0 && (errno == ELOOP || errno == ENXIO)) /* a link; a socket */
        return refuse(path);
    if (fd < 0)
        HY3_FAIL(HY3_EIO, "cannot read the lock '%s': %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return refuse(path);
    }
    while ((size = pread(fd, text, sizeof text - 1, 0)) < 0 && errno == EINTR)
        continue;
    error = errno;
    close(fd);
    if (size < 0)
        HY3_FAIL(HY3_EIO, "cannot read the lock '%s': %s", path, strerror(error));
    text[size] = '\0';
    hash = XXH3_64bits(text, (size_t)size);
    line = strtok_r(text, "\n", &rest);
    if (info.st_nlink > 1 && (!line || strcmp(line, title) != 0))
        return refuse(path); /* a second name of somebody's file */
    if (line && strcmp(line, title) == 0)
        while ((line = strtok_r(NULL, "\n", &rest)))
            take_line(out, line);
    if (!has_nonce(out)) {
        memset(out, 0, sizeof *out);
        snprintf(out->nonce, sizeof out->nonce, "%016llx", (unsigned long long)hash);
    }
    return HY3_OK;
}

enum hy3_lock_fate hy3_lock_holder_fate(const struct hy3_lock_holder *holder, bool is_alone)
{
    struct hy3_lock_holder self;
    int64_t started;
    bool is_job;

    hy3_lock_holder_self(&self);
    if (self.boot[0] != '\0' && strcmp(holder->boot, self.boot) == 0 &&
        strcmp(holder->space, self.space) == 0 && holder->pid > 0) {
        started = start_of(holder->pid);
        if (started < 0 || (started > 0 && holder->started > 0 && started != holder->started))
            return HY3_LOCK_GONE;
        return HY3_LOCK_LIVES;
    }
    is_job = self.job[0] != '\0' && strcmp(holder->job, self.job) == 0;
    if (is_job && (is_alone || strcmp(holder->restarts, self.restarts) != 0))
        return HY3_LOCK_GONE;
    if (holder->host[0] != '\0' && strncmp(self.host, "localhost", 9) != 0 &&
        strcmp(holder->host, self.host) == 0 && strcmp(holder->machine, self.machine) == 0 &&
        holder->boot[0] != '\0' && self.boot[0] != '\0' && strcmp(holder->boot, self.boot) != 0)
        return HY3_LOCK_GONE;
    return HY3_LOCK_UNKNOWN;
}

void hy3_lock_holder_describe(const struct hy3_lock_holder *holder, char *out, size_t size)
{
    char job[64] = "";

    if (holder->pid <= 0) {
        snprintf(out, size, "a program that has not said which");
        return;
    }
    if (holder->job[0] != '\0')
        snprintf(job, sizeof job, ", job %s", holder->job);
    snprintf(out, size, "%s on %s (process %lld%s), since %s", holder->program, holder->host,
             (long long)holder->pid, job, holder->since);
}
