/* test_file.c - reading, mapping and writing of whole files. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "io/file.h"
#include "unit/io/temp.h"

static size_t files_in_temp(void)
{
    size_t n = 0;
    DIR *dir = opendir(temp_root);
    for (struct dirent *e; (e = readdir(dir));) n += e->d_type == DT_REG;
    closedir(dir);
    return n;
}

static void what_is_written_is_read_and_mapped(void **state)
{
    (void)state;
    ct_err err = {0};
    char *data;
    size_t size;
    ct_map map;
    for (size_t n = 0; n <= 65; n += n == 0 || n == 7 ? 1 : 6) {
        char bytes[65];
        for (size_t i = 0; i < n; i++) bytes[i] = (char)(i * 7);
        assert_ok(ct_file_write(temp_path("f"), bytes, n, &err));
        assert_ok(ct_file_read(temp_path("f"), 65, &data, &size, &err));
        assert_int_equal(size, n);
        assert_memory_equal(data, bytes, n);
        assert_int_equal(data[n], 0);
        free(data);
        assert_ok(ct_map_open(temp_path("f"), &map, &err));
        assert_int_equal(map.size, n);
        assert_int_equal(map.id.size_bytes, n);
        if (n) assert_memory_equal(map.data, bytes, n);
        else assert_null(map.data);
        assert_string_equal(map.path, temp_path("f"));
        ct_map_close(&map);
        assert_null(map.data);
    }
}

static void a_file_over_the_limit_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    char *data;
    size_t size;
    temp_text("eight", "12345678");
    assert_fails(ct_file_read(temp_path("eight"), 7, &data, &size, &err), CT_ERR_LIMIT,
                 "/eight: expected at most 7 bytes, got 8");
    assert_null(data);
}

static void what_is_no_regular_file_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    char *data;
    size_t size;
    ct_map map;
    assert_int_equal(mkfifo(temp_path("fifo"), 0600), 0);
    assert_int_equal(symlink("b", temp_path("a")), 0);
    assert_int_equal(symlink("a", temp_path("b")), 0);
    assert_fails(ct_file_read(temp_path("fifo"), 7, &data, &size, &err), CT_ERR_IO, "got a FIFO");
    assert_fails(ct_file_read(temp_root, 7, &data, &size, &err), CT_ERR_IO, "got a directory");
    assert_fails(ct_file_read(temp_path("a"), 7, &data, &size, &err), CT_ERR_IO, "symbolic links");
    assert_fails(ct_file_read(temp_path("none"), 7, &data, &size, &err), CT_ERR_NOT_FOUND,
                 "/none: expected a file, got none");
    assert_fails(ct_map_open(temp_path("fifo"), &map, &err), CT_ERR_IO, "got a FIFO");
    assert_fails(ct_map_open(temp_path("none"), &map, &err), CT_ERR_NOT_FOUND, "/none: ");
    assert_null(map.data);
}

static void what_is_no_regular_file_is_not_replaced(void **state)
{
    (void)state;
    ct_err err = {0};
    struct stat info;
    temp_text("named", "old");
    assert_int_equal(mkfifo(temp_path("pipe"), 0600), 0);
    assert_int_equal(symlink("named", temp_path("link")), 0);
    assert_fails(ct_file_write(temp_path("pipe"), "x", 1, &err), CT_ERR_IO, "got a FIFO");
    assert_fails(ct_file_write(temp_path("link"), "x", 1, &err), CT_ERR_IO, "got a symbolic link");
    assert_fails(ct_file_write(temp_root, "x", 1, &err), CT_ERR_IO, "got a directory");
    assert_fails(ct_file_write(temp_path("none/x"), "x", 1, &err), CT_ERR_IO,
                 "expected a folder to write the file in, got none at ");
    assert_fails(ct_file_write(temp_path("named/x"), "x", 1, &err), CT_ERR_IO, "expected a folder");
    assert_int_equal(lstat(temp_path("pipe"), &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
    assert_int_equal(lstat(temp_path("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_ok(ct_file_write(temp_path("named"), "new", 3, &err));
}

static void an_identity_tells_a_changed_file_from_the_old_one(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_map one, same, other;
    assert_ok(ct_file_write(temp_path("id"), "abc", 3, &err));
    assert_ok(ct_map_open(temp_path("id"), &one, &err));
    assert_ok(ct_map_open(temp_path("id"), &same, &err));
    assert_ok(ct_file_write(temp_path("id"), "xyz", 3, &err));
    assert_ok(ct_map_open(temp_path("id"), &other, &err));
    assert_memory_equal(&one.id, &same.id, sizeof one.id);
    assert_memory_not_equal(&one.id, &other.id, sizeof one.id);
    assert_memory_equal(one.data, "abc", 3); /* replaced, not overwritten */
    ct_map_close(&one);
    ct_map_close(&same);
    ct_map_close(&other);
}

static void a_write_that_fails_leaves_the_old_file_and_nothing_else(void **state)
{
    (void)state;
    ct_err err = {0};
    static char big[1 << 16];
    char *data;
    size_t size;
    assert_ok(ct_file_write(temp_path("keep"), "old", 3, &err));
    size_t files = files_in_temp();
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 4096; /* stands for a full disk: the second write is short, then refused */
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    ct_status st = ct_file_write(temp_path("keep"), big, sizeof big, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(st, CT_ERR_IO);
    assert_non_null(strstr(err.text, "cannot write: File too large"));
    assert_ok(ct_file_read(temp_path("keep"), 99, &data, &size, &err));
    assert_string_equal(data, "old");
    free(data);
    assert_int_equal(files_in_temp(), files);
    ct_sink *sink; /* its place is taken while it is written */
    assert_ok(ct_sink_begin(temp_path("seized"), &sink, &err));
    assert_int_equal(mkdir(temp_path("seized"), 0700), 0);
    assert_fails(ct_sink_end(sink, 1, &err), CT_ERR_IO, "cannot rename");
    assert_int_equal(files_in_temp(), files);
}

static void a_sink_that_is_dropped_leaves_nothing(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_sink *sink;
    size_t files = files_in_temp();
    assert_ok(ct_sink_begin(temp_path("sink"), &sink, &err));
    assert_ok(ct_sink_write(sink, "abc", 3, &err));
    assert_ok(ct_sink_end(sink, 0, &err));
    assert_ok(ct_sink_end(NULL, 1, &err));
    assert_int_equal(files_in_temp(), files);
}

static void a_temporary_name_that_is_taken_is_not_overwritten(void **state)
{
    (void)state;
    ct_err err = {0};
    char *data, name[64];
    size_t size;
    snprintf(name, sizeof name, "taken.%ld-0.tmp", (long)getpid());
    temp_text(name, "mine");
    assert_ok(ct_file_write(temp_path("taken"), "new", 3, &err));
    assert_ok(ct_file_read(temp_path(name), 9, &data, &size, &err));
    assert_string_equal(data, "mine");
    free(data);
}

static void directories_are_made_with_their_parents(void **state)
{
    (void)state;
    ct_err err = {0};
    struct stat info;
    assert_ok(ct_dir_make(temp_path("p/q/r"), &err));
    assert_ok(ct_dir_make(temp_path("p/q/r"), &err));
    assert_ok(ct_dir_make(temp_path("p//s/"), &err));
    assert_ok(ct_dir_make("/", &err));
    assert_int_equal(stat(temp_path("p/s"), &info), 0);
    assert_true(S_ISDIR(info.st_mode));
    temp_text("plain", "");
    assert_fails(ct_dir_make(temp_path("plain"), &err), CT_ERR_IO,
                 "/plain: expected a directory, got a file");
    assert_fails(ct_dir_make(temp_path("plain/x"), &err), CT_ERR_IO, "Not a directory");
    assert_fails(ct_dir_make("", &err), CT_ERR_IO, "expected a directory");
}

static void paths_are_joined_with_one_slash(void **state)
{
    (void)state;
    ct_err err = {0};
    const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
    for (size_t i = 0; i < 4; i++) {
        char *path = ct_path_join(cases[i][0], cases[i][1], &err);
        assert_string_equal(path, cases[i][2]);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_and_mapped),
        cmocka_unit_test(a_file_over_the_limit_is_refused),
        cmocka_unit_test(what_is_no_regular_file_is_refused),
        cmocka_unit_test(what_is_no_regular_file_is_not_replaced),
        cmocka_unit_test(an_identity_tells_a_changed_file_from_the_old_one),
        cmocka_unit_test(a_write_that_fails_leaves_the_old_file_and_nothing_else),
        cmocka_unit_test(a_sink_that_is_dropped_leaves_nothing),
        cmocka_unit_test(a_temporary_name_that_is_taken_is_not_overwritten),
        cmocka_unit_test(directories_are_made_with_their_parents),
        cmocka_unit_test(paths_are_joined_with_one_slash),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
