/* SPDX-License-Identifier: Apache-2.0 */
/* report.c - a table as text, so that an interrupted merge keeps what it has. */
#include "ckpt/adapter/report.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/printable.h"

enum { LIMIT = 256 << 20, LINE = HY3_PARAM_NAME + 64 };

static const char headings[] = "tensor\tchange\tadapter\terror\n";

hy3_status hy3_merge_report_format(const struct hy3_hf_plan *plan, const struct hy3_hf_file *file,
                                   const struct hy3_merge_change *changes, char **text)
{
    size_t size = (size_t)(file->end - file->first) * LINE + sizeof headings, used;

    HY3_TRY(hy3_alloc(text, size, 1));
    used = (size_t)snprintf(*text, size, "%s", file == plan->files ? headings : "");
    for (int i = file->first; i < file->end; i++) {
        char name[HY3_PARAM_NAME];

        snprintf(name, sizeof name, "%s", plan->entries[i].name);
        hy3_make_printable(name, false);
        used += (size_t)snprintf(*text + used, size - used, "%s\t%s\t%s\t%.3g\n", name,
                                 changes[i].updated ? "updated" : "unchanged",
                                 changes[i].has_adapter ? "yes" : "no", changes[i].largest);
    }
    return HY3_OK;
}

struct sums {
    int tensors, updated, lost;
    double largest;
    char at[HY3_PARAM_NAME], first_lost[HY3_PARAM_NAME];
};

/* A copy is scanned: sscanf measures all of its text first. */
static void add_line(struct sums *sums, const char *text)
{
    char line[LINE], name[HY3_PARAM_NAME], change[16], adapter[8];
    double error;

    snprintf(line, sizeof line, "%.*s", (int)strcspn(text, "\n"), text);
    if (sscanf(line, "%111[^\t]\t%15[^\t]\t%7[^\t]\t%lf", name, change, adapter, &error) != 4)
        return; /* the headings */
    sums->tensors++;
    sums->updated += strcmp(change, "updated") == 0;
    if (strcmp(change, "unchanged") == 0 && strcmp(adapter, "yes") == 0 && error > 0 &&
        sums->lost++ == 0)
        snprintf(sums->first_lost, sizeof sums->first_lost, "%s", name);
    if (error > sums->largest) {
        sums->largest = error;
        snprintf(sums->at, sizeof sums->at, "%s", name);
    }
}

hy3_status hy3_merge_report_tell(const char *directory, FILE *out)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], *text = NULL;
    struct sums sums = {0};
    size_t size;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", directory, HY3_MERGE_REPORT));
    HY3_TRY_DONE(hy3_file_read(path, LIMIT, &text, &size));
    for (const char *line = text; line && *line; line = strchr(line, '\n'))
        add_line(&sums, line += *line == '\n');
    if (out) {
        fputs(text, out);
        fflush(out);
    }
    hy3_log(HY3_LOG_INFO, "%d of %d tensors updated; largest |W' - W - s B A| %.3g%s%s; each: '%s'",
            sums.updated, sums.tensors, sums.largest, sums.at[0] ? " in " : "", sums.at, path);
    if (sums.lost > 0)
        hy3_log(HY3_LOG_WARN,
                "the update of %d tensors is too small for the dtype and lost by rounding, first "
                "of '%s'; another --save_dtype keeps it",
                sums.lost, sums.first_lost);
done:
    hy3_free(text);
    return status;
}
