/* test_random.c - random weights made in a backend's memory have the bits of base/rng.h, on the host and on
 * the device that CORTADO_TEST_DEVICE names. */
#include "test.h"

#include "base/rng.h"
#include "model/model.h"

static const ct_ops *ops;
static ct_device *device;

static void check(int64_t count, ct_dtype stored, ct_dtype held, float scale, float offset)
{
    ct_err err = {0};
    const ct_random_fill fill = {.seed = 7,
                                 .stream = 0x9E3779B97F4A7C15u,
                                 .count = count,
                                 .scale = scale,
                                 .offset = offset,
                                 .stored = stored,
                                 .held = held};
    size_t bytes = (size_t)count * ct_dtype_bytes(held);
    char *to = ops->alloc(device, bytes + 64), *got = malloc(bytes + 64);
    assert_true(to && got);
    assert_ok(ops->fill_random(device, to, &fill, &err));
    assert_ok(ops->read(device, got, to, bytes + 64, &err));
    for (int64_t i = 0; i < count; i++) {
        float x = ct_rng_uniform(7, 0x9E3779B97F4A7C15u, (uint64_t)i, scale, offset);
        uint16_t rounded = ct_f32_to_bf16(x);
        if (stored == CT_BF16) x = ct_dtype_get(&rounded, CT_BF16, 0);
        if (held == CT_BF16) assert_memory_equal(got + i * 2, &rounded, 2);
        else assert_memory_equal(got + i * 4, &x, 4);
    }
    for (int i = 0; i < 64; i++) assert_int_equal(got[bytes + (size_t)i], 0); /* nothing beyond */
    ops->free(device, to);
    free(got);
}

static void every_element_has_the_bits_of_the_generator(void **state)
{
    (void)state;
    static const int64_t counts[] = {1, 7, 8, 9, 63, 65, 4097, 3000001};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        check(counts[i], CT_BF16, CT_BF16, 0.034f, 0);
        check(counts[i], CT_BF16, CT_F32, 0.17f, 1);
        check(counts[i], CT_F32, CT_F32, 1.7320508f, -4.4f);
        check(counts[i], CT_F32, CT_BF16, 1.7320508f, -4.4f);
    }
}

static void no_elements_are_none(void **state)
{
    (void)state;
    check(0, CT_BF16, CT_BF16, 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_has_the_bits_of_the_generator),
        cmocka_unit_test(no_elements_are_none),
    };
    ct_err err = {0};
    ct_device_choice choice;
    if (ct_device_choose(getenv("CORTADO_TEST_DEVICE"), &choice, &err) != CT_OK ||
        choice.ops->open(choice.index[0], &device, &err) != CT_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    ops = choice.ops;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ops->close(device);
    return failed;
}
