/* SPDX-License-Identifier: Apache-2.0 */
/* planted.c - owners are compared. */
#include "base/planted.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_strange(const struct stat *entry, const struct stat *directory)
{
    return (directory->st_mode & S_IWOTH) != 0 && entry->st_uid != geteuid() &&
           entry->st_uid != 0 && entry->st_uid != directory->st_uid;
}

/* The directory of a name, without the slashes behind the name. */
static bool split(const char *path, char name[HY3_PATH_MAX], char directory[HY3_PATH_MAX])
{
    size_t length = strlen(path);

    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length >= HY3_PATH_MAX)
        return false;
    snprintf(name, HY3_PATH_MAX, "%.*s", (int)length, path);
    length = (size_t)(hy3_path_name(name) - name);
    snprintf(directory, HY3_PATH_MAX, "%.*s", length > 0 ? (int)length : 1,
             length > 0 ? name : ".");
    return true;
}

bool hy3_is_planted(const char *path)
{
    char name[HY3_PATH_MAX], directory[HY3_PATH_MAX];
    struct stat entry, parent;

    return split(path, name, directory) && lstat(name, &entry) == 0 &&
           stat(directory, &parent) == 0 && is_strange(&entry, &parent);
}

static hy3_status refuse(const char *path, uid_t owner)
{
    HY3_FAIL(HY3_EUSAGE,
             "'%s' belongs to the user %lld, and everybody may write its directory: hy3 neither "
             "reads, follows nor removes it; name a directory that only you or your group may "
             "write, or have it removed",
             path, (long long)owner);
}

hy3_status hy3_planted_refuse(const char *path)
{
    char name[HY3_PATH_MAX], directory[HY3_PATH_MAX];
    struct stat entry;

    if (!hy3_is_planted(path) || !split(path, name, directory) || lstat(name, &entry) != 0)
        return HY3_OK;
    return refuse(name, entry.st_uid);
}

static hy3_status check_names(DIR *open, const char *directory, const struct stat *parent,
                              bool (*is_used)(const char *name))
{
    const struct dirent *entry;
    struct stat info;
    char path[2 * HY3_PATH_MAX];

    while ((entry = readdir(open))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            (is_used && !is_used(entry->d_name)) ||
            fstatat(dirfd(open), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !is_strange(&info, parent))
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        return refuse(path, info.st_uid);
    }
    return HY3_OK;
}

/* Whether this user writes there as a member of the directory's group, who trust each other. */
static bool is_of_our_group(const struct stat *directory)
{
    enum { GROUPS = 1 << 16 };

    gid_t *groups = NULL;
    int count =
        hy3_alloc(&groups, GROUPS, sizeof *groups) == HY3_OK ? getgroups(GROUPS, groups) : 0;
    bool is_ours = directory->st_gid == getegid();

    for (int i = 0; i < count; i++)
        is_ours |= groups[i] == directory->st_gid;
    hy3_free(groups);
    return is_ours && S_ISDIR(directory->st_mode) && (directory->st_mode & S_IWGRP) != 0;
}

hy3_status hy3_planted_check(const char *directory, bool (*is_used)(const char *name))
{
    hy3_status status = HY3_OK;
    char name[HY3_PATH_MAX], above[HY3_PATH_MAX];
    struct stat info;
    DIR *open;

    if (split(directory, name, above) && lstat(name, &info) == 0 && !is_of_our_group(&info))
        HY3_TRY(hy3_planted_refuse(name));
    if (!(open = opendir(directory)))
        return HY3_OK; /* whoever uses it says why not */
    if (fstat(dirfd(open), &info) == 0 && (info.st_mode & S_IWOTH) != 0) {
        status = check_names(open, directory, &info, is_used);
        if (status == HY3_OK && (info.st_mode & S_ISVTX) == 0)
            hy3_log(HY3_LOG_WARN,
                    "everybody may replace what is written to '%s'; 'chmod o-w' ends that",
                    directory);
    }
    closedir(open);
    return status;
}
