/* SPDX-License-Identifier: Apache-2.0 */
/* clock.c - a wall clock that jumps under a program (LD_PRELOAD): what time, gettimeofday and
 * clock_gettime of the real-time clocks say is moved, every 20 ms by the next of some offsets.
 *
 *     HY3_CLOCK="SECONDS SECONDS …"    the offsets, again and again from the first
 *     HY3_CLOCK_LOG=FILE               created when a clock was read with an offset
 *
 * The monotonic clocks and the file system's times are as they are. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { OFFSETS = 16, EVERY = 20000000 };

static int next_clock_gettime(clockid_t clock, struct timespec *now)
{
    union {
        void *object;
        int (*function)(clockid_t, struct timespec *);
    } next = {dlsym(RTLD_NEXT, "clock_gettime")};

    return next.function(clock, now);
}

static long long offset(void)
{
    const char *text = getenv("HY3_CLOCK"), *log = getenv("HY3_CLOCK_LOG");
    long long offsets[OFFSETS];
    int count = 0, saved = errno, fd;
    struct timespec now;

    for (char *end; text && count < OFFSETS; text = end) {
        offsets[count] = strtoll(text, &end, 10);
        if (end == text)
            break;
        count++;
    }
    if (count > 0 && log && (fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0666)) >= 0)
        close(fd);
    errno = saved;
    if (count == 0 || next_clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    return offsets[((long long)now.tv_sec * (1000000000 / EVERY) + now.tv_nsec / EVERY) % count];
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = next_clock_gettime(clock, now);

    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += (time_t)offset();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec fine;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &fine) != 0)
        return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    time_t seconds = clock_gettime(CLOCK_REALTIME, &now) == 0 ? now.tv_sec : -1;

    if (out)
        *out = seconds;
    return seconds;
}
