/* test_safetensors_golden.c - a file that the reference library has written. A program of its own:
 * it needs the shared data, the cases of test_safetensors.c do not. */
#include "io/safetensors.h"
#include "test.h"

static void the_golden_files_of_the_reference_library_are_read(void **state)
{
    (void)state;
    const char *path = shared_path("data/goldens/recurrentgemma-tiny/model.safetensors");
    if (!path) skip_program("data/goldens/recurrentgemma-tiny/model.safetensors");
    ct_err err = {0};
    ct_st_file *file;
    assert_ok(ct_st_open(path, &file, &err));
    assert_int_equal(ct_st_count(file), 154);
    const ct_st_tensor *t = ct_st_find(file, "model.embed_tokens.weight");
    assert_non_null(t);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 512);
    assert_int_equal(t->shape[1], 96);
    ct_st_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_files_of_the_reference_library_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
