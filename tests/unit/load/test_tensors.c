/* test_tensors.c - tensors by name: shape and type checked, misaligned ones copied once. */
#include "test.h"

#include <math.h>

#include "load/load.h"
#include "unit/load/folder.h"

static ct_folder *mixed; /* "odd" U8 [3], then everything behind it at odd addresses */
static const float F32[6] = {1, -2, 0.5f, 65504, -0.0f, INFINITY};
static const uint16_t BF16[3] = {0x3F80, 0xC000, 0x7FC0}; /* 1, -2, NaN */
static const uint16_t F16[2] = {0x3C00, 0x7C00};          /* 1, infinity */

static int open_mixed(void **state)
{
    if (temp_begin(state) != 0) return -1;
    ct_err err = {0};
    static const int64_t three[1] = {3}, matrix[2] = {3, 2}, cube[3] = {1, 2, 3}, none[2] = {0, 4};
    const ct_st_out out[] = {
        {"aligned", "F32", 2, matrix, F32, sizeof F32},
        {"odd", "U8", 1, three, "abc", 3},
        {"matrix", "F32", 2, matrix, F32, sizeof F32},
        {"cube", "F32", 3, cube, F32, sizeof F32},
        {"bf16", "BF16", 1, three, BF16, sizeof BF16},
        {"f16", "F16", 1, (int64_t[]){2}, F16, 4},
        {"scalar", "F32", 0, NULL, F32, 4},
        {"none", "F32", 2, none, NULL, 0},
    };
    assert_ok(ct_dir_make(temp_path("m"), &err));
    assert_ok(ct_st_write(temp_path("m/model.safetensors"), out, sizeof out / sizeof *out, &err));
    assert_ok(ct_folder_open(temp_path("m"), &mixed, &err));
    return 0;
}

static int close_mixed(void **state)
{
    ct_folder_close(mixed);
    return temp_end(state);
}

/* A tensor of two dimensions. */
static ct_status matrix(const ct_folder *folder, const char *name, int64_t rows, int64_t cols,
                        ct_matrix *out, ct_err *err)
{
    return ct_folder_tensor(folder, name, (const int64_t[]){rows, cols}, 2, out, err);
}

static void a_misaligned_matrix_is_copied_once_and_an_aligned_one_stays_in_the_map(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_matrix m, again;
    assert_ok(matrix(mixed, "matrix", 3, 2, &m, &err));
    assert_int_equal(m.dtype, CT_F32);
    assert_int_equal(m.rows, 3);
    assert_int_equal(m.cols, 2);
    assert_int_equal((uintptr_t)m.data % 4, 0);
    assert_memory_equal(m.data, F32, sizeof F32);
    assert_ok(matrix(mixed, "matrix", 3, 2, &again, &err));
    assert_ptr_equal(again.data, m.data);

    assert_ok(matrix(mixed, "aligned", 3, 2, &m, &err));
    const ct_folder_entry e = ct_folder_get(mixed, 0);
    assert_string_equal(e.name, "aligned");
    assert_memory_equal(m.data, F32, sizeof F32);
    assert_int_equal((uintptr_t)m.data % 8, 0);
}

static void threads_that_ask_for_a_misaligned_tensor_get_the_same_copy(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_folder *folder;
    for (int round = 0; round < 50; round++) {
        const void *seen[4] = {0};
        assert_ok(ct_folder_open(temp_path("m"), &folder, &err));
#pragma omp parallel for num_threads(4)
        for (int i = 0; i < 4; i++) {
            ct_matrix m;
            if (matrix(folder, "matrix", 3, 2, &m, NULL) == CT_OK) seen[i] = m.data;
        }
        assert_non_null(seen[0]);
        for (int i = 1; i < 4; i++) assert_ptr_equal(seen[i], seen[0]);
        ct_folder_close(folder);
    }
}

static void any_rank_is_seen_as_rows_and_the_rest(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_matrix m;
    assert_ok(ct_folder_tensor(mixed, "cube", (int64_t[]){1, 2, 3}, 3, &m, &err));
    assert_int_equal(m.rows, 1);
    assert_int_equal(m.cols, 6);
    assert_ok(ct_folder_tensor(mixed, "bf16", (int64_t[]){3}, 1, &m, &err));
    assert_int_equal(m.dtype, CT_BF16);
    assert_int_equal(m.rows, 3);
    assert_int_equal(m.cols, 1);
    assert_ok(ct_folder_tensor(mixed, "scalar", NULL, 0, &m, &err));
    assert_int_equal(m.rows * m.cols, 1);
    assert_ok(matrix(mixed, "none", 0, 4, &m, &err));
    assert_int_equal(m.rows, 0);
}

static void vectors_are_widened_to_f32_whatever_their_type_and_place(void **state)
{
    (void)state;
    ct_err err = {0};
    float *v;
    assert_ok(ct_folder_vector(mixed, "bf16", (int64_t[]){3}, 1, &v, &err));
    assert_true(v[0] == 1 && v[1] == -2 && isnan(v[2]));
    free(v);
    assert_ok(ct_folder_vector(mixed, "f16", (int64_t[]){2}, 1, &v, &err));
    assert_true(v[0] == 1 && isinf(v[1]));
    free(v);
    assert_ok(ct_folder_vector(mixed, "matrix", (int64_t[]){3, 2}, 2, &v, &err));
    assert_memory_equal(v, F32, sizeof F32);
    free(v);
    assert_ok(ct_folder_vector(mixed, "none", (int64_t[]){0, 4}, 2, &v, &err));
    free(v);
}

static void another_shape_type_or_name_is_refused_with_what_is_there(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_matrix m;
    float *v;
    assert_fails(matrix(mixed, "absent", 3, 2, &m, &err), CT_ERR_NOT_FOUND,
                 "/m: tensor \"absent\": expected shape [3, 2], got no such tensor; does "
                 "config.json belong to these weights?");
    assert_fails(matrix(mixed, "matrix", 2, 3, &m, &err), CT_ERR_VALUE,
                 "/m/model.safetensors: tensor \"matrix\": expected shape [2, 3], got [3, 2]; does "
                 "config.json belong to these weights?");
    assert_fails(matrix(mixed, "cube", 2, 3, &m, &err), CT_ERR_VALUE,
                 "expected shape [2, 3], got [1, 2, 3]");
    assert_fails(ct_folder_vector(mixed, "scalar", (int64_t[]){1}, 1, &v, &err), CT_ERR_VALUE,
                 "expected shape [1], got []");
    assert_null(v);
    assert_fails(ct_folder_tensor(mixed, "odd", (int64_t[]){3}, 1, &m, &err), CT_ERR_UNSUPPORTED,
                 "/m/model.safetensors: tensor \"odd\": expected F32, BF16 or F16, got U8");
    assert_null(m.data);
}

static void elements_that_are_not_finite_are_allowed_and_counted(void **state)
{
    (void)state;
    const struct {
        const char *name;
        int64_t nonfinite;
    } cases[] = {{"aligned", 1}, {"bf16", 1}, {"cube", 1}, {"f16", 1},
                 {"matrix", 1},  {"none", 0}, {"odd", 0},  {"scalar", 0}};
    for (size_t i = 0; i < ct_folder_tensor_count(mixed); i++) {
        assert_string_equal(ct_folder_tensor_name(mixed, i), cases[i].name);
        assert_int_equal(ct_folder_nonfinite(mixed, i), cases[i].nonfinite);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_misaligned_matrix_is_copied_once_and_an_aligned_one_stays_in_the_map),
        cmocka_unit_test(threads_that_ask_for_a_misaligned_tensor_get_the_same_copy),
        cmocka_unit_test(any_rank_is_seen_as_rows_and_the_rest),
        cmocka_unit_test(vectors_are_widened_to_f32_whatever_their_type_and_place),
        cmocka_unit_test(another_shape_type_or_name_is_refused_with_what_is_there),
        cmocka_unit_test(elements_that_are_not_finite_are_allowed_and_counted),
    };
    return cmocka_run_group_tests(tests, open_mixed, close_mixed);
}
