/* memory.c - reading memory limits. See memory.h. */
#include "io/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number after `key` at the start of a line of the file (key "": of its first line), or -1. */
static int64_t read_number(const char *path, const char *key)
{
    int64_t value = -1;
    char line[512];
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    while (value < 0 && fgets(line, sizeof line, file)) {
        char *end, *text = line + strlen(key);
        if (strncmp(line, key, strlen(key)) != 0) continue;
        long long n = strtoll(text, &end, 10);
        if (end != text && n >= 0) value = n; /* "max" is no number */
    }
    fclose(file);
    return value;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* One kind of control group: where it is mounted, and what its files are called. */
typedef struct group_kind {
    const char *controller; /* the second field of /proc/self/cgroup */
    const char *mount, *limit, *usage, *file_pages;
} group_kind;

static const group_kind kinds[] = {
    {"", "/sys/fs/cgroup", "memory.max", "memory.current", "file "},
    {"memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_cache "},
};

/* Lowers *out to the limit of one group. */
static void apply_group(const char *root, const group_kind *kind, const char *group, ct_memory *out)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s%s/%s", root, kind->mount, group, kind->limit);
    int64_t limit = read_number(path, "");
    if (limit < 0 || (out->total_bytes >= 0 && limit >= out->total_bytes)) return;
    out->total_bytes = limit;
    snprintf(path, sizeof path, "%s%s%s/%s", root, kind->mount, group, kind->usage);
    int64_t usage = read_number(path, "");
    snprintf(path, sizeof path, "%s%s%s/memory.stat", root, kind->mount, group);
    int64_t pages = read_number(path, kind->file_pages);
    if (usage < 0) return;
    usage -= pages > 0 ? pages : 0;
    out->available_bytes = least(out->available_bytes, limit > usage ? limit - usage : 0);
}

/* The group of this process and all above it; the innermost limit need not be the lowest. */
static void apply_groups(const char *root, ct_memory *out)
{
    char path[4096], line[4096];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) { /* id:controllers:/group */
        char *controller = strchr(line, ':'),
             *group = controller ? strchr(controller + 1, ':') : NULL;
        if (!group) continue;
        controller++;
        *group++ = 0;
        group[strcspn(group, "\n")] = 0;
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            if (strcmp(controller, kinds[k].controller) != 0) continue;
            for (char *slash = group + strlen(group);; slash = strrchr(group, '/')) {
                if (!slash) break;
                *slash = 0;
                apply_group(root, &kinds[k], group, out);
            }
        }
    }
    if (file) fclose(file);
}

ct_memory ct_memory_read(const char *root)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    int64_t total = read_number(path, "MemTotal:"), available = read_number(path, "MemAvailable:");
    ct_memory out = {total < 0 ? -1 : total * 1024, available < 0 ? -1 : available * 1024};
    apply_groups(root, &out);
    return out;
}
