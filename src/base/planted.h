/* SPDX-License-Identifier: Apache-2.0 */
/* planted.h - what another user has put into a directory that everybody may write.
 *
 * There a name that hy3 uses may be a link to a file of somebody, a pipe that nobody writes to, or
 * a file made to be read. A name is planted if everybody may write its directory and it belongs
 * neither to this user, nor to root, nor to the directory's owner: Linux follows links by the same
 * rule (fs.protected_symlinks), and only in directories with the sticky bit. Who may write a
 * directory as a member of its group is trusted. */
#pragma once

#include "base/error.h"

/* Local. Whether the name is planted; a link itself counts, not what it leads to. */
bool hy3_is_planted(const char *path);

/* Local. HY3_EUSAGE if the name is planted. */
hy3_status hy3_planted_refuse(const char *path);

/* Local. HY3_EUSAGE if the directory, or a link to it, is planted and is none that a group of this
 * user's may write, or if a name in it is planted that hy3 would use. is_used: whether it would;
 * NULL: all names. A directory that does not exist is fine. One whose names everybody may exchange
 * at any moment is warned of. */
hy3_status hy3_planted_check(const char *directory, bool (*is_used)(const char *name));
