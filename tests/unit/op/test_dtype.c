/* test_dtype.c - element types: conversions are exact, and rounding is to nearest even. */
#include "op_test.h"

static float f16_value(uint16_t bits)
{
    return ct_dtype_get(&bits, CT_F16, 0);
}

static float bf16_value(uint16_t bits)
{
    return ct_dtype_get(&bits, CT_BF16, 0);
}

static void every_f16_survives_the_way_to_f32_and_back(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float x = f16_value((uint16_t)bits);
        if (isnan(x)) assert_true(isnan(f16_value(ct_f32_to_f16(x))));
        else assert_int_equal(ct_f32_to_f16(x), bits);
    }
    assert_true(f16_value(0x3C00) == 1 && f16_value(0x0001) == 0x1p-24f);
    assert_true(f16_value(0xFBFF) == -65504 && f16_value(0xFC00) == -INFINITY);
}

static void every_bf16_survives_the_way_to_f32_and_back(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float x = bf16_value((uint16_t)bits);
        if (isnan(x)) assert_true(isnan(bf16_value(ct_f32_to_bf16(x))));
        else assert_int_equal(ct_f32_to_bf16(x), bits);
    }
}

/* Between two neighbours the nearer one is taken, and in the middle the even one. */
static void check_rounding(float (*value)(uint16_t), uint16_t (*round)(float), uint32_t first,
                           uint32_t last)
{
    for (uint32_t bits = first; bits < last; bits++) {
        double low = (double)value((uint16_t)bits), high = (double)value((uint16_t)(bits + 1));
        float middle = (float)((low + high) / 2); /* exact: one more bit than either */
        assert_int_equal(round(middle), bits + (bits & 1));
        assert_int_equal(round(nextafterf(middle, -INFINITY)), bits);
        assert_int_equal(round(nextafterf(middle, INFINITY)), bits + 1);
    }
}

static void rounding_is_to_the_nearest_and_even_in_the_middle(void **state)
{
    (void)state;
    check_rounding(f16_value, ct_f32_to_f16, 0, 0x7BFF);        /* 0 to 65504, subnormals too */
    check_rounding(bf16_value, ct_f32_to_bf16, 0x0080, 0x7F7F); /* the normal numbers */
}

static void beyond_the_largest_is_infinity(void **state)
{
    (void)state;
    assert_int_equal(ct_f32_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(ct_f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(ct_f32_to_f16(-1e30f), 0xFC00);
    assert_int_equal(ct_f32_to_bf16(3.4028235e38f), 0x7F80);
}

static void an_element_may_lie_at_an_odd_address(void **state)
{
    (void)state;
    char bytes[9] = {0};
    float x = 1.5f;
    memcpy(bytes + 5, &x, 4);
    assert_true(ct_dtype_get(bytes + 1, CT_F32, 1) == 1.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_survives_the_way_to_f32_and_back),
        cmocka_unit_test(every_bf16_survives_the_way_to_f32_and_back),
        cmocka_unit_test(rounding_is_to_the_nearest_and_even_in_the_middle),
        cmocka_unit_test(beyond_the_largest_is_infinity),
        cmocka_unit_test(an_element_may_lie_at_an_odd_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
