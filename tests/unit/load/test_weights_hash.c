/* test_weights_hash.c - the weights' hash sees what it should, and its cache is only a shortcut. */
#include "test.h"

#include <dirent.h>
#include <sys/time.h>
#include <time.h>

#include "load/load.h"
#include "unit/load/folder.h"

static int begin(void **state)
{
    if (temp_begin(state) != 0) return -1;
    return setenv("XDG_CACHE_HOME", temp_path("cache"), 1);
}

/* The folder's hash, computed by a fresh process' view of it. */
static const char *hash_of(const char *dir)
{
    static char hex[4][64];
    static unsigned next;
    ct_err err = {0};
    ct_folder *folder;
    const char *text, *again;
    assert_ok(ct_folder_open(temp_path(dir), &folder, &err));
    assert_ok(ct_folder_hash(folder, &text, &err));
    assert_ok(ct_folder_hash(folder, &again, &err));
    assert_string_equal(text, again);
    assert_int_equal(strlen(text), 32);
    char *out = hex[next++ % 4];
    snprintf(out, 64, "%s", text);
    ct_folder_close(folder);
    return out;
}

static size_t cached(void)
{
    size_t n = 0;
    DIR *dir = opendir(temp_path("cache/cortado/weights"));
    if (!dir) return 0;
    for (struct dirent *e; (e = readdir(dir));) n += e->d_type == DT_REG;
    closedir(dir);
    return n;
}

/* Waits until files written so far count as settled (2 s; ctime cannot be set back). */
static void settle(void)
{
    struct timespec pause = {2, 200000000};
    nanosleep(&pause, NULL);
}

static void the_hash_does_not_depend_on_how_tensors_are_spread(void **state)
{
    (void)state;
    folder_text("one", "config.json", "{}");
    folder_file("one", "model.safetensors", "abc");
    folder_text("order", "config.json", "{}");
    folder_file("order", "model.safetensors", "cab");
    folder_text("shards", "config.json", "{}");
    folder_file("shards", "x", "cb");
    folder_file("shards", "y", "a");
    folder_index("shards", "{\"weight_map\": {\"a\": \"y\", \"b\": \"x\", \"c\": \"x\"}}");
    assert_string_equal(hash_of("one"), hash_of("shards"));
    assert_string_equal(hash_of("one"), hash_of("order"));
}

static void the_hash_sees_config_names_types_shapes_and_data(void **state)
{
    (void)state;
    ct_err err = {0};
    const unsigned char data[8] = {1, 2, 3, 4, 5, 6, 7, 8}, other[8] = {1, 2, 3, 4, 5, 6, 7, 9};
    const int64_t two[1] = {2}, row[2] = {1, 2}, column[2] = {2, 1}, eight[1] = {8};
    const struct {
        const char *config;
        ct_st_out out;
    } variants[] = {
        {"{}", {"a", "F32", 1, two, data, 8}},  {"{ }", {"a", "F32", 1, two, data, 8}},
        {"{}", {"b", "F32", 1, two, data, 8}},  {"{}", {"a", "I32", 1, two, data, 8}},
        {"{}", {"a", "F32", 2, row, data, 8}},  {"{}", {"a", "F32", 2, column, data, 8}},
        {"{}", {"a", "F32", 1, two, other, 8}}, {"{}", {"a", "U8", 1, eight, data, 8}},
    };
    enum { N = sizeof variants / sizeof *variants };
    char hex[N][64];
    for (size_t i = 0; i < N; i++) {
        folder_text("v", "config.json", variants[i].config);
        assert_ok(ct_st_write(temp_path("v/model.safetensors"), &variants[i].out, 1, &err));
        snprintf(hex[i], 64, "%s", hash_of("v"));
        for (size_t k = 0; k < i; k++) assert_string_not_equal(hex[i], hex[k]);
    }
}

static void a_fresh_file_is_not_remembered_and_a_settled_one_is(void **state)
{
    (void)state;
    folder_text("c", "config.json", "{}");
    folder_file("c", "model.safetensors", "abc");
    size_t before = cached();
    char hex[64];
    snprintf(hex, sizeof hex, "%s", hash_of("c"));
    assert_int_equal(cached(), before);
    settle();
    assert_string_equal(hash_of("c"), hex);
    assert_int_equal(cached(), before + 1);
    assert_string_equal(hash_of("c"), hex);
    assert_int_equal(cached(), before + 1);
    /* A change that keeps size and mtime is seen by ctime. */
    struct stat info;
    assert_int_equal(stat(temp_path("c/model.safetensors"), &info), 0);
    FILE *file = fopen(temp_path("c/model.safetensors"), "r+b");
    assert_non_null(file);
    fseek(file, -1, SEEK_END);
    fputc(0x55, file);
    fclose(file);
    struct timeval times[2] = {{info.st_atime, 0}, {info.st_mtime, 0}};
    utimes(temp_path("c/model.safetensors"), times);
    assert_string_not_equal(hash_of("c"), hex);
}

/* Puts a text into every file of the cache. */
static void overwrite_cache(const char *text)
{
    DIR *dir = opendir(temp_path("cache/cortado/weights"));
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_type == DT_REG) {
            char name[300];
            snprintf(name, sizeof name, "cache/cortado/weights/%s", e->d_name);
            temp_text(name, text);
        }
    closedir(dir);
}

static void what_is_remembered_is_used_and_what_is_damaged_is_not(void **state)
{
    (void)state;
    folder_text("r", "config.json", "{}");
    folder_file("r", "model.safetensors", "abc");
    settle();
    char hex[64];
    snprintf(hex, sizeof hex, "%s", hash_of("r"));
    overwrite_cache("0123456789abcdef0123456789abcdef\n");
    assert_string_equal(hash_of("r"), "0123456789abcdef0123456789abcdef"); /* it is read */
    const char *const damaged[] = {
        "", "0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789abcdef\n",
        "0123456789abcdef0123456789abcde\n", "0123456789abcdef0123456789abcdef\n\n"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        overwrite_cache(damaged[i]);
        assert_string_equal(hash_of("r"), hex);
    }
}

static void a_cache_that_cannot_be_made_changes_nothing(void **state)
{
    (void)state;
    folder_text("k", "config.json", "{}");
    folder_file("k", "model.safetensors", "abc");
    char hex[64];
    snprintf(hex, sizeof hex, "%s", hash_of("k"));
    settle();
    temp_text("file", "");
    setenv("XDG_CACHE_HOME", temp_path("file"), 1); /* a file where a directory should be */
    assert_string_equal(hash_of("k"), hex);
    setenv("XDG_CACHE_HOME", "relative", 1); /* ignored; HOME is next */
    setenv("HOME", temp_path("home"), 1);
    assert_string_equal(hash_of("k"), hex);
    assert_int_equal(access(temp_path("home/.cache/cortado/weights"), F_OK), 0);
    setenv("XDG_CACHE_HOME", temp_path("cache"), 1);
}

static void a_folder_without_config_has_no_hash(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_folder *folder;
    const char *hex;
    folder_file("bare", "model.safetensors", "a");
    assert_ok(ct_folder_open(temp_path("bare"), &folder, &err));
    assert_fails(ct_folder_hash(folder, &hex, &err), CT_ERR_NOT_FOUND,
                 "/bare/config.json: expected a file, got none");
    assert_null(hex);
    ct_folder_close(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hash_does_not_depend_on_how_tensors_are_spread),
        cmocka_unit_test(the_hash_sees_config_names_types_shapes_and_data),
        cmocka_unit_test(a_fresh_file_is_not_remembered_and_a_settled_one_is),
        cmocka_unit_test(what_is_remembered_is_used_and_what_is_damaged_is_not),
        cmocka_unit_test(a_cache_that_cannot_be_made_changes_nothing),
        cmocka_unit_test(a_folder_without_config_has_no_hash),
    };
    return cmocka_run_group_tests(tests, begin, temp_end);
}
