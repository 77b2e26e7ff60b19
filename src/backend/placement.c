/* SPDX-License-Identifier: Apache-2.0 */
/* placement.c - device memory, host memory, or a mapped file. */
#include "backend/placement.h"

#include "base/file.h"
#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* The space is claimed at once: a full disk is an error here, not a SIGBUS in the middle of a
 * step. */
static hy3_status map_file(const char *directory, size_t bytes, void **out)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], size[HY3_SIZE_TEXT];
    void *memory;
    int fd = -1, error;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/hy3_offload_XXXXXX", directory));
    if ((fd = mkostemp(path, O_CLOEXEC)) < 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot create a file in offload_dir '%s': %s", directory,
                      strerror(errno));
    unlink(path);
    if ((error = posix_fallocate(fd, 0, (off_t)bytes)) != 0)
        HY3_FAIL_DONE(HY3_EIO, "no space for %s in offload_dir '%s': %s",
                      hy3_size_text((double)bytes, size), directory, strerror(error));
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        HY3_FAIL_DONE(HY3_EIO, "cannot map %s of offload_dir '%s': %s",
                      hy3_size_text((double)bytes, size), directory, strerror(errno));
    *out = memory;
done:
    if (fd >= 0)
        close(fd);
    return status;
}

struct hy3_placement hy3_offloading_next(const struct hy3_offloading *offload, size_t bytes,
                                         double *owed)
{
    *owed += offload->ratio * (double)bytes;
    if (offload->ratio <= 0 || *owed < 0.5 * (double)bytes)
        return (struct hy3_placement){.host = false};
    *owed -= (double)bytes;
    return (struct hy3_placement){.host = true, .directory = offload->directory};
}

hy3_status hy3_placement_alloc(const struct hy3_device *device,
                               const struct hy3_placement *placement, size_t bytes, void *out)
{
    hy3_status status = HY3_OK;
    void *memory = NULL;

    if (bytes > 0 && !placement->host)
        HY3_TRY_DONE(device->alloc(bytes, &memory));
    if (bytes > 0 && placement->host && !placement->directory)
        HY3_TRY_DONE(device->alloc_host(bytes, &memory));
    if (bytes > 0 && placement->host && placement->directory)
        HY3_TRY_DONE(map_file(placement->directory, bytes, &memory));
done:
    memcpy(out, &memory, sizeof memory);
    return status;
}

void hy3_placement_free(const struct hy3_device *device, const struct hy3_placement *placement,
                        size_t bytes, void *memory)
{
    if (!memory)
        return;
    if (!placement->host)
        device->free(memory);
    else if (!placement->directory)
        device->free_host(memory);
    else
        munmap(memory, bytes);
}
