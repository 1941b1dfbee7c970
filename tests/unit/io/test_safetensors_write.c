/* test_safetensors_write.c - what is written is what was given, and read back the same. */
#include "test.h"

#include <errno.h>

#include "io/safetensors.h"
#include "unit/io/temp.h"

static void tensors_come_back_as_they_were_written(void **state)
{
    (void)state;
    ct_err err = {0};
    static const float f32[7] = {1, -2, 3.5f, 0, -0.0f, 1e30f, 7};
    static const uint16_t bf16[65] = {0x3F80, 0x4000, 0xFFFF};
    static const unsigned char u8[63] = {1, 2, 3};
    const int64_t seven[1] = {7}, square[2] = {13, 5}, cube[3] = {7, 3, 3}, empty[2] = {0, 5};
    const ct_st_out out[] = {
        {"layer.0.weight", "F32", 1, seven, f32, sizeof f32},
        {"layer.1.weight", "BF16", 2, square, bf16, sizeof bf16},
        {"odd \"name\" \\ \n \xC3\xA9", "U8", 3, cube, u8, sizeof u8},
        {"empty", "F32", 2, empty, NULL, 0},
        {"scalar", "F32", 0, NULL, f32 + 2, 4}, /* misaligned after 63 bytes */
    };
    const char *path = temp_path("w.safetensors");
    assert_ok(ct_st_write(path, out, 5, &err));
    ct_st_file *file;
    assert_ok(ct_st_open(path, &file, &err));
    assert_int_equal(ct_st_count(file), 5);
    for (size_t i = 0; i < 5; i++) {
        const ct_st_tensor *t = ct_st_find(file, out[i].name);
        assert_ptr_equal(t, ct_st_get(file, i));
        assert_string_equal(t->dtype, out[i].dtype);
        assert_int_equal(t->rank, out[i].rank);
        for (int d = 0; d < t->rank; d++) assert_int_equal(t->shape[d], out[i].shape[d]);
        assert_int_equal(t->size_bytes, out[i].size_bytes);
        if (t->size_bytes) assert_memory_equal(t->data, out[i].data, t->size_bytes);
    }
    assert_int_equal((uintptr_t)ct_st_get(file, 0)->data % 8, 0); /* the header is padded */
    ct_st_close(file);
}

static void no_tensors_at_all_make_a_valid_file(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_st_file *file;
    assert_ok(ct_st_write(temp_path("none"), NULL, 0, &err));
    assert_ok(ct_st_open(temp_path("none"), &file, &err));
    assert_int_equal(ct_st_count(file), 0);
    ct_st_close(file);
}

static void what_no_file_could_hold_is_refused_and_leaves_no_file(void **state)
{
    (void)state;
    ct_err err = {0};
    const int64_t two[1] = {2}, negative[1] = {-1}, huge[2] = {INT64_MAX, 4},
                  ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    const struct {
        ct_st_out out[2];
        size_t n;
        ct_status status;
        const char *text;
    } cases[] = {
        {{{"a", "F32", 1, two, "", 4}}, 1, CT_ERR_VALUE, "expected 8 bytes for its shape, got 4"},
        {{{"a", "F32", 1, negative, "", 4}}, 1, CT_ERR_VALUE, "dimension 0 is -1"},
        {{{"a", "F32", 2, huge, "", 4}}, 1, CT_ERR_VALUE, "negative or too large"},
        {{{"a", "F32", 9, ones, "", 4}}, 1, CT_ERR_LIMIT, "expected a rank of 0 to 8, got 9"},
        {{{"a", "F4", 1, two, "", 1}}, 1, CT_ERR_VALUE, "unknown dtype \"F4\""},
        {{{"a", "U8", 1, two, "ab", 2}, {"a", "U8", 1, two, "ab", 2}},
         2,
         CT_ERR_VALUE,
         "expected each tensor once, got \"a\" twice"},
        {{{"__metadata__", "U8", 1, two, "ab", 2}}, 1, CT_ERR_VALUE, "cannot be a tensor's name"},
        {{{"\xff", "U8", 1, two, "ab", 2}}, 1, CT_ERR_VALUE, "cannot be a tensor's name"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(ct_st_write(temp_path("bad"), cases[i].out, cases[i].n, &err), cases[i].status,
                     cases[i].text);
        assert_int_equal(access(temp_path("bad"), F_OK), -1);
    }
}

static void a_stream_that_ends_short_or_long_leaves_no_file(void **state)
{
    (void)state;
    ct_err err = {0};
    const int64_t eight[1] = {8};
    const ct_st_out out = {"a", "U8", 1, eight, NULL, 8};
    ct_st_writer *writer;
    assert_ok(ct_st_writer_begin(temp_path("s"), &out, 1, &writer, &err));
    assert_ok(ct_st_writer_add(writer, "1234567", 7, &err));
    assert_fails(ct_st_writer_end(writer, 1, &err), CT_ERR_VALUE,
                 "expected 8 bytes of data, got 7");
    assert_int_equal(access(temp_path("s"), F_OK), -1);

    assert_ok(ct_st_writer_begin(temp_path("s"), &out, 1, &writer, &err));
    assert_ok(ct_st_writer_add(writer, "1234567", 7, &err));
    assert_fails(ct_st_writer_add(writer, "89", 2, &err), CT_ERR_VALUE,
                 "expected 8 bytes of data, got more");
    assert_ok(ct_st_writer_end(writer, 0, &err));
    assert_int_equal(access(temp_path("s"), F_OK), -1);

    assert_ok(ct_st_writer_begin(temp_path("s"), &out, 1, &writer, &err));
    assert_ok(ct_st_writer_add(writer, "123", 3, &err));
    assert_ok(ct_st_writer_add(writer, "45678", 5, &err));
    assert_ok(ct_st_writer_end(writer, 1, &err));
    ct_st_file *file;
    assert_ok(ct_st_open(temp_path("s"), &file, &err));
    assert_memory_equal(ct_st_get(file, 0)->data, "12345678", 8);
    ct_st_close(file);
}

static void a_disk_that_is_full_is_reported(void **state)
{
    (void)state;
    ct_err err = {0};
    /* A directory that does not exist stands for every refusal at the start. */
    assert_fails(ct_st_write(temp_path("no/where"), NULL, 0, &err), CT_ERR_IO,
                 "expected a folder to write the file in, got none");
    const int64_t big[1] = {1 << 16};
    static unsigned char zeros[1 << 16];
    const ct_st_out out = {"a", "U8", 1, big, zeros, sizeof zeros};
    assert_fails(ct_st_write("/dev/full/x", &out, 1, &err), CT_ERR_IO, "expected a folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_back_as_they_were_written),
        cmocka_unit_test(no_tensors_at_all_make_a_valid_file),
        cmocka_unit_test(what_no_file_could_hold_is_refused_and_leaves_no_file),
        cmocka_unit_test(a_stream_that_ends_short_or_long_leaves_no_file),
        cmocka_unit_test(a_disk_that_is_full_is_reported),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
