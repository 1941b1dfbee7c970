/* test_synth.c - random weights: the same bits always, in one file or in shards. */
#include "test.h"

#include <math.h>
#include <omp.h>

#include "load/load.h"
#include "load/synth.h"
#include "unit/load/folder.h"

static const ct_synth_tensor TENSORS[] = {
    {"w", 2, {65, 63}, 0.5f, 0},   {"norm", 1, {7}, 0.25f, 1},
    {"gate", 3, {2, 7, 7}, 2, -3}, {"big", 1, {(1 << 20) + 1}, 1, 0}, /* more than one piece */
    {"none", 1, {0}, 1, 0},        {"scalar", 0, {0}, 1, 0},
};
enum { N = sizeof TENSORS / sizeof *TENSORS };

static ct_folder *make(const char *dir, uint64_t seed, ct_dtype dtype, uint64_t shard_bytes)
{
    ct_err err = {0};
    ct_folder *folder;
    temp_text("config-in.json", "{\"hidden_size\": 63}\n");
    assert_ok(ct_synth_write_shards(temp_path(dir), temp_path("config-in.json"), TENSORS, N, seed,
                                    dtype, shard_bytes, &err));
    assert_ok(ct_folder_open(temp_path(dir), &folder, &err));
    assert_int_equal(ct_folder_tensor_count(folder), N);
    return folder;
}

static float *values(const ct_folder *folder, const ct_synth_tensor *t)
{
    ct_err err = {0};
    float *out;
    assert_ok(ct_folder_vector(folder, t->name, t->shape, t->rank, &out, &err));
    return out;
}

static int64_t count(const ct_synth_tensor *t)
{
    int64_t n = 1;
    for (int d = 0; d < t->rank; d++) n *= t->shape[d];
    return n;
}

static void every_element_is_what_the_header_says(void **state)
{
    (void)state;
    ct_folder *f32 = make("f32", 42, CT_F32, UINT64_MAX),
              *bf16 = make("bf16", 42, CT_BF16, UINT64_MAX);
    for (size_t i = 0; i < N; i++) {
        const ct_synth_tensor *t = &TENSORS[i];
        float *x = values(f32, t), *y = values(bf16, t);
        uint64_t stream = ct_synth_stream(t->name);
        double sum = 0;
        for (int64_t k = 0; k < count(t); k++) {
            float expected = ct_synth_value(42, stream, (uint64_t)k, t->scale, t->offset);
            uint16_t rounded = ct_f32_to_bf16(expected);
            assert_true(x[k] == expected);
            assert_true(y[k] == ct_dtype_get(&rounded, CT_BF16, 0));
            assert_true(x[k] >= t->offset - t->scale && x[k] <= t->offset + t->scale);
            sum += x[k];
        }
        /* Uniform: the mean's deviation is scale / sqrt(3 n); 5 of them never happen by chance. */
        if (count(t) > 1)
            assert_true(fabs(sum / (double)count(t) - t->offset) <
                        5 * t->scale / sqrt(3 * (double)count(t)));
        free(x);
        free(y);
    }
    ct_folder_close(f32);
    ct_folder_close(bf16);
}

/* The numbers are part of what random weights mean: these bits must never change. */
static void the_bits_are_fixed(void **state)
{
    (void)state;
    const struct {
        uint64_t seed, i;
        const char *name;
        float scale, offset;
        uint32_t bits;
    } cases[] = {
        {0, 0, "w", 1, 0, 0x3f5fa784u},
        {42, 1, "model.layers.0.mlp.up_proj.weight", 0.02f, 0, 0xbc6c1080u},
        {42, 1ull << 33, "norm", 0.1f, 1, 0x3f699169u},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        float x = ct_synth_value(cases[k].seed, ct_synth_stream(cases[k].name), cases[k].i,
                                 cases[k].scale, cases[k].offset);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        if (bits != cases[k].bits)
            fail_msg("case %zu: expected %08x, got %08x", k, cases[k].bits, bits);
    }
}

static void shards_hold_the_same_numbers_and_replace_the_single_file(void **state)
{
    (void)state;
    ct_err err = {0};
    const char *hex;
    char single[64];
    ct_folder *folder = make("s", 7, CT_F32, UINT64_MAX);
    assert_string_equal(ct_folder_get(folder, 0).file, "model.safetensors");
    assert_ok(ct_folder_hash(folder, &hex, &err));
    snprintf(single, sizeof single, "%s", hex);
    ct_folder_close(folder);

    folder =
        make("s", 7, CT_F32, 20000); /* w 16380, norm and gate beside it, big alone, the rest */
    assert_string_equal(ct_folder_get(folder, 0).name, "big");
    assert_string_equal(ct_folder_get(folder, 0).file, "model-00002-of-00003.safetensors");
    assert_ok(ct_folder_hash(folder, &hex, &err));
    assert_string_equal(hex, single);
    ct_folder_close(folder);

    folder = make("s", 7, CT_F32, UINT64_MAX);
    assert_int_equal(access(temp_path("s/model.safetensors.index.json"), F_OK), -1);
    ct_folder_close(folder);
    char *config;
    size_t size;
    assert_ok(ct_file_read(temp_path("s/config.json"), 99, &config, &size, &err));
    assert_string_equal(config, "{\"hidden_size\": 63}\n");
    free(config);
}

static void threads_do_not_change_a_bit_and_the_seed_changes_all(void **state)
{
    (void)state;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    ct_folder *one = make("t1", 1, CT_F32, UINT64_MAX);
    omp_set_num_threads(3);
    ct_folder *three = make("t3", 1, CT_F32, UINT64_MAX),
              *other = make("t4", 2, CT_F32, UINT64_MAX);
    omp_set_num_threads(threads);
    for (size_t i = 0; i < N; i++) {
        float *a = values(one, &TENSORS[i]), *b = values(three, &TENSORS[i]),
              *c = values(other, &TENSORS[i]);
        size_t bytes = (size_t)count(&TENSORS[i]) * sizeof *a;
        if (bytes) {
            assert_memory_equal(a, b, bytes);
            assert_memory_not_equal(a, c, bytes);
        }
        free(a);
        free(b);
        free(c);
    }
    ct_folder_close(one);
    ct_folder_close(three);
    ct_folder_close(other);
}

static void no_tensors_make_one_empty_file(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_folder *folder;
    temp_text("c.json", "{}");
    assert_ok(ct_synth_write(temp_path("e"), temp_path("c.json"), NULL, 0, 1, CT_F32, &err));
    assert_ok(ct_folder_open(temp_path("e"), &folder, &err));
    assert_int_equal(ct_folder_tensor_count(folder), 0);
    ct_folder_close(folder);
}

static void what_cannot_be_written_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    temp_text("c.json", "{}");
    const ct_synth_tensor bad[] = {
        {"a", 1, {-1}, 1, 0},       {"a", 9, {1}, 1, 0},   {"a", 2, {INT64_MAX, 2}, 1, 0},
        {"a", 1, {1}, INFINITY, 0}, {"a", 1, {1}, 1, NAN}, {"a", 1, {INT64_MAX}, 1, 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(
            ct_synth_write(temp_path("x"), temp_path("c.json"), &bad[i], 1, 1, CT_F32, &err),
            CT_ERR_VALUE, "synth: tensor \"a\": expected rank 0 to 8, dimensions that fit");
    assert_fails(ct_synth_write(temp_path("x"), temp_path("c.json"), TENSORS, N, 1, CT_F16, &err),
                 CT_ERR_UNSUPPORTED, "synth: expected f32 or bf16, got f16");
    assert_fails(ct_synth_write(temp_path("x"), temp_path("no.json"), TENSORS, N, 1, CT_F32, &err),
                 CT_ERR_NOT_FOUND, "/no.json: expected a file, got none");
    assert_int_equal(access(temp_path("x/model.safetensors"), F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_is_what_the_header_says),
        cmocka_unit_test(the_bits_are_fixed),
        cmocka_unit_test(shards_hold_the_same_numbers_and_replace_the_single_file),
        cmocka_unit_test(threads_do_not_change_a_bit_and_the_seed_changes_all),
        cmocka_unit_test(no_tensors_make_one_empty_file),
        cmocka_unit_test(what_cannot_be_written_is_refused),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
