/* SPDX-License-Identifier: Apache-2.0 */
/* named_data.h - the files of a run's data, of those that the configuration names: each file, all
 * files of a directory, or those that match a pattern. */
#pragma once

#include "text/form.h"

#include <mpi.h>

struct hy3_named_data { /* zero: none; owned (hy3_named_data_free) */
    char **files;
    struct hy3_form *forms; /* of each file */
    int *sets;              /* of each file: which of the names it belongs to */
    int64_t *limits;        /* of each file: samples asked for of its set; 0: all */
    int count;
    size_t capacity[4];
};

/* Local. Adds what `path` stands for. Files that hy3 itself writes beside data are left out, and
 * all files of a directory must be of one kind. Errors: HY3_EUSAGE, HY3_EIO. */
hy3_status hy3_named_data_add(struct hy3_named_data *data, const char *path,
                              const struct hy3_form *form, int set, int64_t limit);

/* Local. The data of a list of paths, each a set of its own, of lines of that form; "PATH#N" asks
 * for the first N samples of it. */
hy3_status hy3_named_data_list(char *const *paths, int count, const struct hy3_form *form,
                               struct hy3_named_data *out);

/* Collective on `comm`. All ranks get what rank 0 has; the others have given zeros. */
hy3_status hy3_named_data_share(MPI_Comm comm, struct hy3_named_data *data);
void hy3_named_data_free(struct hy3_named_data *data);
