/* file.c - mapped files, whole-file reads, writes that are whole or not at all. See file.h. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

static const char *kind_name(mode_t mode)
{
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    if (S_ISLNK(mode)) return "a symbolic link";
    return "a device";
}

/* Opens a regular file for reading. O_NONBLOCK: a FIFO must be refused, not waited for. */
static ct_status open_regular(const char *path, int *fd, struct stat *info, ct_err *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return ct_fail(err, CT_ERR_NOT_FOUND, "%s: expected a file, got none", path);
        return ct_fail_errno(err, "%s: cannot open", path);
    }
    ct_status st = CT_OK;
    if (fstat(*fd, info) != 0) st = ct_fail_errno(err, "%s: cannot stat", path);
    else if (!S_ISREG(info->st_mode))
        st = ct_fail(err, CT_ERR_IO, "%s: expected a regular file, got %s", path,
                     kind_name(info->st_mode));
    if (st != CT_OK) {
        close(*fd);
        *fd = -1;
    }
    return st;
}

static int64_t nanoseconds(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

ct_status ct_map_open(const char *path, ct_map *out, ct_err *err)
{
    *out = (ct_map){0};
    ct_status st = CT_OK;
    struct stat info, again;
    ct_map map = {0};
    int fd;
    CT_TRY(open_regular(path, &fd, &info, err));
    if ((uint64_t)info.st_size > SIZE_MAX / 2) {
        st = ct_fail(err, CT_ERR_LIMIT, "%s: %lld bytes are too many to map", path,
                     (long long)info.st_size);
        goto done;
    }
    map.size = (size_t)info.st_size;
    if (map.size > 0) {
        void *data = mmap(NULL, map.size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            map.size = 0;
            st = ct_fail_errno(err, "%s: cannot map %lld bytes", path, (long long)info.st_size);
            goto done;
        }
        map.data = data;
    }
    /* A file that is still being written shows here instead of as SIGBUS later. */
    if (fstat(fd, &again) != 0 || again.st_size != info.st_size) {
        st = ct_fail(err, CT_ERR_IO, "%s: the file's size changed while it was opened", path);
        goto done;
    }
    map.id = (ct_file_id){.device = again.st_dev,
                          .inode = again.st_ino,
                          .size_bytes = (uint64_t)again.st_size,
                          .modified_ns = nanoseconds(again.st_mtim),
                          .changed_ns = nanoseconds(again.st_ctim)};
    map.path = ct_strdup(path, err);
    if (!map.path) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    *out = map;
    map = (ct_map){0};
done:
    if (fd >= 0) close(fd);
    ct_map_close(&map);
    return st;
}

void ct_map_close(ct_map *map)
{
    /* munmap's argument is not const, the map is. */
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    free(map->path);
    *map = (ct_map){0};
}

ct_status ct_file_read(const char *path, size_t max_bytes, char **data, size_t *size, ct_err *err)
{
    *data = NULL;
    *size = 0;
    ct_status st = CT_OK;
    char *bytes = NULL;
    struct stat info;
    int fd;
    CT_TRY(open_regular(path, &fd, &info, err));
    if ((uint64_t)info.st_size > max_bytes) {
        st = ct_fail(err, CT_ERR_LIMIT, "%s: expected at most %zu bytes, got %lld", path, max_bytes,
                     (long long)info.st_size);
        goto done;
    }
    size_t count = 0, want = (size_t)info.st_size;
    bytes = malloc(want + 1);
    if (!bytes) {
        st = ct_fail_memory(err, path, want + 1);
        goto done;
    }
    while (count < want) {
        ssize_t n = read(fd, bytes + count, want - count);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = ct_fail_errno(err, "%s: cannot read", path);
            goto done;
        }
        if (n == 0) break; /* it became shorter: what there is is the file */
        count += (size_t)n;
    }
    bytes[count] = 0;
    *data = bytes;
    *size = count;
    bytes = NULL;
done:
    if (fd >= 0) close(fd);
    free(bytes);
    return st;
}

/* The folder that a path lies in, as a new string. */
static char *parent_of(const char *path, ct_err *err)
{
    const char *slash = strrchr(path, '/');
    return slash ? ct_strndup(path, slash == path ? 1 : (size_t)(slash - path), err)
                 : ct_strdup(".", err);
}

ct_status ct_file_check_target(const char *path, ct_err *err)
{
    struct stat info;
    /* A rename would put a file in the place of a device (for whoever may do that) or of a link, such
     * as /dev/stdout. */
    if (lstat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return ct_fail(err, CT_ERR_IO, "%s: expected a regular file or none to write to, got %s",
                       path, kind_name(info.st_mode));
    ct_status st = CT_OK;
    char *dir = parent_of(path, err);
    if (!dir) return CT_ERR_MEMORY;
    if (stat(dir, &info) != 0 || !S_ISDIR(info.st_mode))
        st = ct_fail(err, CT_ERR_IO, "%s: expected a folder to write the file in, got none at %s",
                     path, dir);
    else if (access(dir, W_OK | X_OK) != 0)
        st = ct_fail_errno(err, "%s: cannot write in %s", path, dir);
    free(dir);
    return st;
}

struct ct_sink {
    int fd;
    char *path, *temp;
};

static void sink_free(ct_sink *sink)
{
    if (!sink) return;
    if (sink->fd >= 0) close(sink->fd);
    free(sink->path);
    free(sink->temp);
    free(sink);
}

ct_status ct_sink_begin(const char *path, ct_sink **out, ct_err *err)
{
    *out = NULL;
    ct_status st = ct_file_check_target(path, err);
    if (st != CT_OK) return st;
    ct_sink *sink = calloc(1, sizeof *sink);
    if (!sink) return ct_fail_memory(err, path, sizeof *sink);
    sink->fd = -1;
    sink->path = ct_strdup(path, err);
    if (!sink->path) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    /* Not mkstemp: its mode 0600 would stay with the file, and the umask cannot be read safely. */
    for (int i = 0; i < 1000 && sink->fd < 0; i++) {
        free(sink->temp);
        sink->temp = ct_strf(err, "%s.%ld-%d.tmp", path, (long)getpid(), i);
        if (!sink->temp) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        sink->fd = open(sink->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (sink->fd < 0 && errno != EEXIST) break;
    }
    if (sink->fd < 0) {
        st = ct_fail_errno(err, "%s: cannot create", sink->temp);
        goto done;
    }
    *out = sink;
    sink = NULL;
done:
    sink_free(sink);
    return st;
}

ct_status ct_sink_write(ct_sink *sink, const void *data, size_t size, ct_err *err)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = write(sink->fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ct_fail_errno(err, "%s: cannot write", sink->temp);
        p += n;
        size -= (size_t)n;
    }
    return CT_OK;
}

/* The rename itself is durable only once the directory is synced. Directories that cannot be synced
 * (some network file systems) are no error: the file is complete either way. */
static void sync_parent(const char *path)
{
    char *dir = parent_of(path, NULL);
    if (!dir) return;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(dir);
}

ct_status ct_sink_end(ct_sink *sink, int commit, ct_err *err)
{
    if (!sink) return CT_OK;
    ct_status st = CT_OK;
    if (commit) {
        bool later = commit == CT_SINK_SYNC_LATER;
        if (!later && fsync(sink->fd) != 0) st = ct_fail_errno(err, "%s: cannot sync", sink->temp);
        int fd = sink->fd;
        sink->fd = -1;
        if (close(fd) != 0 && st == CT_OK) st = ct_fail_errno(err, "%s: cannot close", sink->temp);
        if (st == CT_OK && rename(sink->temp, sink->path) != 0)
            st = ct_fail_errno(err, "%s: cannot rename to %s", sink->temp, sink->path);
        if (st == CT_OK && !later) sync_parent(sink->path);
    }
    if (!commit || st != CT_OK) unlink(sink->temp);
    sink_free(sink);
    return st;
}

ct_status ct_file_write(const char *path, const void *data, size_t size, ct_err *err)
{
    ct_sink *sink;
    ct_status st = ct_sink_begin(path, &sink, err);
    if (st != CT_OK) return st;
    st = ct_sink_write(sink, data, size, err);
    ct_status end = ct_sink_end(sink, st == CT_OK, err);
    return st != CT_OK ? st : end;
}

ct_status ct_dir_make(const char *path, ct_err *err)
{
    ct_status st = CT_OK;
    char *part = ct_strdup(path, err);
    if (!part) return CT_ERR_MEMORY;
    for (char *p = part + (*part == '/');; p++) {
        if (*p != '/' && *p != 0) continue;
        char end = *p;
        *p = 0;
        struct stat info;
        if (*part && mkdir(part, 0777) != 0 && errno != EEXIST) {
            /* A parent that exists on a read-only file system gives EROFS, not EEXIST. */
            int saved = errno;
            if (stat(part, &info) != 0 || !S_ISDIR(info.st_mode)) {
                errno = saved;
                st = ct_fail_errno(err, "%s: cannot make the directory", part);
                break;
            }
        }
        *p = end;
        if (end == 0) {
            if (stat(part, &info) != 0 || !S_ISDIR(info.st_mode))
                st = ct_fail(err, CT_ERR_IO, "%s: expected a directory, got a file", path);
            break;
        }
    }
    free(part);
    return st;
}

char *ct_path_join(const char *dir, const char *name, ct_err *err)
{
    size_t n = strlen(dir);
    return ct_strf(err, "%s%s%s", dir, n == 0 || dir[n - 1] == '/' ? "" : "/", name);
}

ct_status ct_dir_sync(const char *path, ct_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return ct_fail_errno(err, "%s: cannot open", path);
    ct_status st = syncfs(fd) == 0 ? CT_OK : ct_fail_errno(err, "%s: cannot sync", path);
    close(fd);
    return st;
}
