/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5.c - the innermost complaint. */
#include "base/hdf5.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void hy3_hdf5_quiet(void)
{
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

enum { TEXT = 200 };

static herr_t keep_innermost(unsigned n, const H5E_error2_t *entry, void *text)
{
    static const char of_mpi[] = "error stack:\n"; /* what the system said comes behind it */
    const char *system = n == 0 && entry->desc ? strstr(entry->desc, of_mpi) : NULL;

    if (n == 0 && entry->desc)
        snprintf(text, TEXT, "%s", system ? system + sizeof of_mpi - 1 : entry->desc);
    for (char *end = text; (end = strchr(end, '\n'));)
        *end = ' ';
    return 0;
}

const char *hy3_hdf5_text(void)
{
    static _Thread_local char text[TEXT];

    text[0] = '\0';
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, text);
    return text;
}

void hy3_hdf5_discard(hid_t file)
{
    void *handle = NULL;
    int nowhere = memfd_create("discarded", MFD_CLOEXEC);

    if (nowhere >= 0 && H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle)
        dup2(nowhere, *(const int *)handle);
    if (nowhere >= 0)
        close(nowhere);
    H5Fclose(file);
}
