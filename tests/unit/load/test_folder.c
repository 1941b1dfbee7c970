/* test_folder.c - shards and their index: every way in which they can disagree. */
#include "test.h"

#include "base/buf.h"
#include "load/load.h"
#include "unit/io/alloc.h"
#include "unit/load/folder.h"

static void expect_refused(const char *dir, ct_status status, const char *text)
{
    ct_err err = {0};
    ct_folder *folder;
    assert_fails(ct_folder_open(temp_path(dir), &folder, &err), status, text);
    assert_null(folder);
}

static void one_file_is_a_folder(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_folder *folder;
    folder_file("one", "model.safetensors", "bca");
    assert_ok(ct_folder_open(temp_path("one"), &folder, &err));
    assert_string_equal(ct_folder_path(folder), temp_path("one"));
    assert_int_equal(ct_folder_tensor_count(folder), 3);
    for (size_t i = 0; i < 3; i++) { /* sorted */
        ct_folder_entry e = ct_folder_get(folder, i);
        assert_int_equal(e.name[0], "abc"[i]);
        assert_string_equal(ct_folder_tensor_name(folder, i), e.name);
        assert_string_equal(e.dtype, "F32");
        assert_string_equal(e.file, "model.safetensors");
        assert_int_equal(e.rank, 1);
        assert_int_equal(e.shape[0], 2);
        assert_int_equal(e.count, 2);
        assert_int_equal(e.size_bytes, 8);
    }
    ct_folder_close(folder);
    ct_folder_close(NULL);
}

static void shards_are_one_list_of_tensors(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_folder *folder;
    folder_file("two", "x.safetensors", "ad");
    folder_file("two", "y.safetensors", "cb");
    const char *const totals[] = {"{\"total_size\": 32}", "{\"total_size\": 32.0}", "{}", "null",
                                  "{\"total_size\": 32, \"total_parameters\": 8}"};
    for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
        char index[512];
        snprintf(index, sizeof index,
                 "{\"metadata\": %s, \"weight_map\": {\"a\": \"x.safetensors\", \"b\": "
                 "\"y.safetensors\", \"c\": \"y.safetensors\", \"d\": \"x.safetensors\"}}",
                 totals[i]);
        folder_index("two", index);
        assert_ok(ct_folder_open(temp_path("two"), &folder, &err));
        assert_int_equal(ct_folder_tensor_count(folder), 4);
        for (size_t k = 0; k < 4; k++) {
            ct_folder_entry e = ct_folder_get(folder, k);
            assert_int_equal(e.name[0], "abcd"[k]);
            assert_string_equal(e.file, k == 0 || k == 3 ? "x.safetensors" : "y.safetensors");
        }
        ct_folder_close(folder);
    }
    /* The single file wins over an index, as in transformers. */
    folder_file("two", "model.safetensors", "e");
    assert_ok(ct_folder_open(temp_path("two"), &folder, &err));
    assert_int_equal(ct_folder_tensor_count(folder), 1);
    ct_folder_close(folder);
}

static void a_folder_without_weights_says_what_it_lacks(void **state)
{
    (void)state;
    folder_text("bare", "config.json", "{}");
    expect_refused("bare", CT_ERR_NOT_FOUND,
                   "/bare: expected model.safetensors or model.safetensors.index.json, got "
                   "neither; is this a model folder?");
    expect_refused("nowhere", CT_ERR_NOT_FOUND, "/nowhere: expected model.safetensors or");
}

static void an_index_that_is_no_index_is_refused(void **state)
{
    (void)state;
    const struct {
        const char *index;
        ct_status status;
        const char *text;
    } cases[] = {
        {"", CT_ERR_FORMAT, "/i/model.safetensors.index.json: line 1"},
        {"[]", CT_ERR_FORMAT, "index.json: expected a JSON object, got an array"},
        {"{}", CT_ERR_NOT_FOUND, "index.json: weight_map: expected an object, got none"},
        {"{\"weight_map\": []}", CT_ERR_FORMAT,
         "index.json: weight_map: expected an object, got another value"},
        {"{\"weight_map\": {}}", CT_ERR_VALUE,
         "index.json: weight_map: expected tensors, got none"},
        {"{\"weight_map\": {\"a\": 1}}", CT_ERR_FORMAT,
         "index.json: weight_map: \"a\": expected a file name, got another value"},
        {"{\"weight_map\": {\"a\": \"x\", \"a\": \"x\"}}", CT_ERR_FORMAT, "duplicate object key"},
        {"{\"weight_map\": {\"a\": \"../x\"}}", CT_ERR_VALUE,
         "index.json: weight_map: \"a\": expected the name of a file in this folder, got \"../x\""},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", CT_ERR_VALUE, "got \"/etc/passwd\""},
        {"{\"weight_map\": {\"a\": \"sub/x\"}}", CT_ERR_VALUE, "got \"sub/x\""},
        {"{\"weight_map\": {\"a\": \"..\"}}", CT_ERR_VALUE, "got \"..\""},
        {"{\"weight_map\": {\"a\": \".\"}}", CT_ERR_VALUE, "got \".\""},
        {"{\"weight_map\": {\"a\": \"\"}}", CT_ERR_VALUE, "got \"\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_index("i", cases[i].index);
        expect_refused("i", cases[i].status, cases[i].text);
    }
}

static void an_index_that_disagrees_with_its_shards_is_refused(void **state)
{
    (void)state;
    folder_file("d", "x", "ab");
    folder_file("d", "y", "c");
    folder_file("d", "z", "bc");
    const struct {
        const char *index;
        ct_status status;
        const char *text;
    } cases[] = {
        {"{\"weight_map\": {\"a\": \"x\", \"b\": \"x\", \"c\": \"gone\"}}", CT_ERR_NOT_FOUND,
         "/d/model.safetensors.index.json: a shard is missing: "},
        {"{\"weight_map\": {\"a\": \"x\", \"b\": \"x\", \"c\": \"y\", \"d\": \"y\"}}",
         CT_ERR_NOT_FOUND, "index.json: tensor \"d\": expected it in y, got none"},
        {"{\"weight_map\": {\"a\": \"x\", \"b\": \"x\", \"c\": \"z\"}}", CT_ERR_VALUE,
         "index.json: tensor \"b\": expected it in x alone, got it in z too"},
        {"{\"weight_map\": {\"a\": \"x\", \"b\": \"y\", \"c\": \"y\"}}", CT_ERR_VALUE,
         "index.json: tensor \"b\": expected it in y alone, got it in x too"},
        {"{\"weight_map\": {\"a\": \"x\", \"c\": \"y\"}}", CT_ERR_VALUE,
         "index.json: tensor \"b\" of x: expected it in weight_map, got none"},
        {"{\"metadata\": {\"total_size\": 23}, \"weight_map\": {\"a\": \"x\", \"b\": \"x\", \"c\": "
         "\"y\"}}",
         CT_ERR_VALUE, "index.json: total_size: expected 24 bytes as in the shards, got 23"},
        {"{\"metadata\": {\"total_size\": -1}, \"weight_map\": {\"a\": \"x\", \"b\": \"x\", \"c\": "
         "\"y\"}}",
         CT_ERR_VALUE, "index.json: total_size: expected 0 to"},
        {"{\"metadata\": {\"total_size\": \"24\"}, \"weight_map\": {\"a\": \"x\", \"b\": \"x\", "
         "\"c\": \"y\"}}",
         CT_ERR_FORMAT, "index.json: total_size: expected a number, got a string"},
        {"{\"metadata\": [], \"weight_map\": {\"a\": \"x\", \"b\": \"x\", \"c\": \"y\"}}",
         CT_ERR_FORMAT, "index.json: metadata: expected an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_index("d", cases[i].index);
        expect_refused("d", cases[i].status, cases[i].text);
    }
}

static void a_shard_that_is_broken_or_no_file_is_refused_with_its_path(void **state)
{
    (void)state;
    ct_err err = {0};
    folder_file("s", "x", "a");
    folder_index("s", "{\"weight_map\": {\"a\": \"x\", \"b\": \"y\"}}");
    folder_text("s", "y", "not safetensors at all");
    expect_refused("s", CT_ERR_LIMIT, "/s/y: expected a header of at most");
    assert_int_equal(unlink(temp_path("s/y")), 0);
    assert_ok(ct_dir_make(temp_path("s/y"), &err));
    expect_refused("s", CT_ERR_IO, "/s/y: expected a regular file, got a directory");
    folder_text("t", "model.safetensors", "x");
    expect_refused("t", CT_ERR_FORMAT, "/t/model.safetensors: expected at least 8 bytes, got 1");
}

static void ten_thousand_shards_are_opened_and_one_more_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_buf index = {0};
    ct_folder *folder;
    enum { SHARDS = 10000 };
    assert_ok(ct_dir_make(temp_path("many"), &err));
    assert_ok(ct_buf_adds(&index, "{\"weight_map\": {\"first\": \"00000\"", &err));
    for (int i = 0; i < SHARDS; i++) {
        char path[64], file[128];
        snprintf(path, sizeof path, "many/%05d", i);
        int n = snprintf(file + 8, sizeof file - 8,
                         "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                         i ? path + 5 : "first");
        memset(file, 0, 8);
        file[0] = (char)n;
        file[8 + n] = 1;
        temp_write(path, file, (size_t)n + 9);
        if (i) assert_ok(ct_buf_addf(&index, &err, ",\"%05d\":\"%05d\"", i, i));
    }
    assert_ok(ct_buf_adds(&index, "}}", &err));
    folder_index("many", index.data);
    assert_ok(ct_folder_open(temp_path("many"), &folder, &err));
    assert_int_equal(ct_folder_tensor_count(folder), SHARDS);
    assert_string_equal(ct_folder_get(folder, 1234).file, "01235"); /* "first" sorts last */
    ct_folder_close(folder);

    index.size -= 2;
    assert_ok(ct_buf_adds(&index, ",\"more\":\"more\"}}", &err));
    folder_index("many", index.data);
    expect_refused("many", CT_ERR_LIMIT, "weight_map: expected at most 10000 shards, got 10001");
    ct_buf_clear(&index);
}

static void every_allocation_that_fails_gives_a_status_and_no_leak(void **state)
{
    (void)state;
    folder_file("n", "x", "ab");
    folder_file("n", "y", "c");
    folder_index("n", "{\"metadata\": {\"total_size\": 24}, \"weight_map\": {\"a\": \"x\", \"b\": "
                      "\"x\", \"c\": \"y\"}}");
    char path[600];
    snprintf(path, sizeof path, "%s", temp_path("n"));
    for (long n = 1;; n++) {
        ct_err err = {0};
        ct_folder *folder;
        alloc_start(n);
        ct_status st = ct_folder_open(path, &folder, &err);
        ct_folder_close(folder);
        alloc_stop();
        assert_int_equal(alloc.live, 0);
        if (st == CT_OK) {
            assert_true(n > 20);
            break;
        }
        if (st != CT_ERR_MEMORY) fail_msg("call %ld: %s: %s", n, ct_status_name(st), err.text);
    }
}

/* A file of holes, whose pages no one has read, and one that was just written. */
static void the_rate_of_reading_is_measured_on_what_is_not_in_memory(void **state)
{
    (void)state;
    ct_err err = {0};
    enum { BYTES = 64 << 20 };
    static const char header[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[16777216],\"data_offsets\":[0,67108864]}} ";
    uint64_t size = strlen(header);
    assert_ok(ct_dir_make(temp_path("holes"), &err));
    FILE *file = fopen(temp_path("holes/model.safetensors"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&size, 1, 8, file), 8);
    assert_int_equal(fwrite(header, 1, size, file), size);
    assert_int_equal(ftruncate(fileno(file), (off_t)(8 + size + BYTES)), 0);
    assert_int_equal(fclose(file), 0);
    ct_folder *folder = NULL;
    assert_ok(ct_folder_open(temp_path("holes"), &folder, &err));
    assert_true(ct_folder_read_rate(folder, 16 << 20, 1000) > 0);
    assert_true(ct_folder_read_rate(folder, 0, 1000) == 0);
    ct_folder_close(folder);
    folder_file("small", "model.safetensors", "ab"); /* less than a piece */
    assert_ok(ct_folder_open(temp_path("small"), &folder, &err));
    assert_true(ct_folder_read_rate(folder, 16 << 20, 1000) == 0);
    ct_folder_close(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file_is_a_folder),
        cmocka_unit_test(shards_are_one_list_of_tensors),
        cmocka_unit_test(a_folder_without_weights_says_what_it_lacks),
        cmocka_unit_test(an_index_that_is_no_index_is_refused),
        cmocka_unit_test(an_index_that_disagrees_with_its_shards_is_refused),
        cmocka_unit_test(a_shard_that_is_broken_or_no_file_is_refused_with_its_path),
        cmocka_unit_test(ten_thousand_shards_are_opened_and_one_more_is_refused),
        cmocka_unit_test(the_rate_of_reading_is_measured_on_what_is_not_in_memory),
        cmocka_unit_test(every_allocation_that_fails_gives_a_status_and_no_leak),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
