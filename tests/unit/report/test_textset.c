/* test_textset.c - texts are interned, and packed so that every one comes back as it was. */
#include "test.h"

#include "base/rng.h"
#include "report/odd.h"
#include "report/textset.h"

static void equal_texts_are_one_text(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_textset *texts;
    assert_ok(ct_textset_new(&texts, &err));
    char name[16];
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < 1000; i++) {
            uint32_t index;
            snprintf(name, sizeof name, "text %u", i);
            assert_ok(ct_textset_add(texts, name, &index, &err));
            assert_int_equal(index, i);
        }
    assert_int_equal(ct_textset_count(texts), 1000);
    assert_string_equal(ct_textset_get(texts, 999), "text 999");
    ct_textset_free(texts);
    ct_textset_free(NULL);
}

static void utf16_units_are_counted_as_javascript_does(void **state)
{
    (void)state;
    assert_int_equal(ct_utf16_length("abc", 3), 3);
    assert_int_equal(ct_utf16_length("\xC3\xA9\xE2\x80\x93", 5), 2);
    assert_int_equal(ct_utf16_length("\xF0\x9F\x8C\x89!", 5), 3); /* a bridge: two units */
    assert_int_equal(ct_utf16_length("\xFFz", 2), 2);
}

/* The text that the pieces give, units counted here anew. */
static void unpack(const ct_packed *p, size_t i, ct_buf *out)
{
    ct_err err = {0};
    out->size = 0;
    assert_ok(ct_buf_reserve(out, 1, &err));
    out->data[0] = 0;
    for (size_t k = p->first[i]; k < p->first[i + 1]; k++) {
        size_t at = 0, units = 0;
        for (; at < p->pool.size && units < p->pieces[k].begin;) {
            uint32_t c;
            at += ct_utf8_next(p->pool.data + at, p->pool.size - at, &c);
            units += c > 0xFFFF ? 2 : 1;
        }
        assert_int_equal(units, p->pieces[k].begin);
        size_t begin = at;
        while (units < (size_t)p->pieces[k].begin + p->pieces[k].length) {
            uint32_t c;
            at += ct_utf8_next(p->pool.data + at, p->pool.size - at, &c);
            units += c > 0xFFFF ? 2 : 1;
        }
        assert_ok(ct_buf_add(out, p->pool.data + begin, at - begin, &err));
    }
}

static void prompts_with_one_haystack_take_the_room_of_one(void **state)
{
    (void)state;
    enum { N = 63, WORDS = 700 };
    static const char *const words[] = {"tide ",
                                        "caf\xC3\xA9 ",
                                        "stone ",
                                        "\xF0\x9F\x8C\x89 ",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ",
                                        "\xFF "};
    ct_err err = {0};
    ct_textset *texts;
    ct_buf haystack = {0}, prompt = {0}, got = {0}, clean = {0};
    assert_ok(ct_textset_new(&texts, &err));
    for (uint64_t i = 0; i < WORDS; i++)
        assert_ok(ct_buf_adds(&haystack, words[ct_rng_u64(1, 2, i) % 6], &err));
    uint32_t wanted[N];
    size_t bytes = 0;
    for (size_t i = 0; i < N; i++) {
        size_t length = haystack.size * (N - i) / N, cut = length * (i * 37 % N) / N;
        ct_buf_clear(&prompt);
        assert_ok(ct_buf_adds(&prompt, "CONTEXT: ", &err));
        assert_ok(ct_buf_add(&prompt, haystack.data, cut, &err)); /* in a character, maybe */
        assert_ok(ct_buf_adds(&prompt, "\nThe needle is here, on a sunny day.\n", &err));
        assert_ok(ct_buf_add(&prompt, haystack.data + cut, length - cut, &err));
        assert_ok(ct_buf_adds(&prompt, "\n\nQUESTION: where?", &err));
        assert_ok(ct_textset_add(texts, prompt.data, &wanted[i], &err));
        bytes += prompt.size;
    }
    ct_packed packed;
    assert_ok(ct_textset_pack(texts, wanted, N, &packed, &err));
    assert_true(ct_utf8_valid(packed.pool.data, packed.pool.size));
    assert_true(bytes > 20 * haystack.size);
    /* The haystack once, and the little that is new at each cut. */
    assert_true(packed.pool.size < 2 * haystack.size);
    for (size_t i = 0; i < N; i++) {
        const char *text = ct_textset_get(texts, wanted[i]);
        size_t size = strlen(text);
        clean.size = 0;
        for (size_t at = 0; at < size;) {
            uint32_t c;
            char utf8[4];
            at += ct_utf8_next(text + at, size - at, &c);
            assert_ok(ct_buf_add(&clean, utf8, ct_utf8_put(c, utf8), &err));
        }
        unpack(&packed, i, &got);
        assert_string_equal(got.data, clean.data);
    }
    ct_packed_clear(&packed);
    assert_ok(ct_textset_pack(texts, wanted, 0, &packed, &err));
    assert_int_equal(packed.first[0], 0);
    ct_packed_clear(&packed);
    ct_buf_clear(&haystack);
    ct_buf_clear(&prompt);
    ct_buf_clear(&got);
    ct_buf_clear(&clean);
    ct_textset_free(texts);
}

static void the_longest_run_is_taken_even_of_one_letter(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_textset *texts;
    ct_buf same = {0};
    assert_ok(ct_textset_new(&texts, &err));
    for (int i = 0; i < 100000; i++) assert_ok(ct_buf_adds(&same, "a", &err));
    uint32_t wanted[3];
    assert_ok(ct_textset_add(texts, same.data, &wanted[0], &err));
    assert_ok(ct_textset_add(texts, same.data + 1, &wanted[1], &err));
    assert_ok(ct_textset_add(texts, "", &wanted[2], &err));
    ct_packed packed;
    assert_ok(ct_textset_pack(texts, wanted, 3, &packed, &err));
    assert_int_equal(packed.first[3], 2);
    assert_int_equal(packed.pool.size, 100000);
    assert_int_equal(packed.pieces[1].length, 99999);
    ct_packed_clear(&packed);
    ct_textset_free(texts);
    ct_buf_clear(&same);
}

static void odd_outputs_are_measured_by_runs_of_three_words(void **state)
{
    (void)state;
    ct_err err = {0};
    bool judged;
    double repeated, fresh;
    const char *const prompts[] = {"The best thing to do is: eat a sandwich on a sunny day.", NULL};
    assert_ok(ct_odd_measure("the BEST thing, to do is eat a sandwich", prompts, &judged, &repeated,
                             &fresh, &err));
    assert_true(judged);
    assert_true(repeated == 0 && fresh == 0);
    /* 10 words, 8 runs: "I am a", "am a programmer", "a programmer I", "programmer I am", each
     * twice; no prompt has any. */
    assert_ok(ct_odd_measure("I am a programmer. I am a programmer. I am", prompts, &judged,
                             &repeated, &fresh, &err));
    assert_true(judged);
    assert_true(repeated == 0.5 && fresh == 1);
    assert_ok(ct_odd_measure("only seven words are in this text", prompts, &judged, &repeated,
                             &fresh, &err));
    assert_false(judged);
    assert_ok(ct_odd_measure("", prompts, &judged, &repeated, &fresh, &err));
    assert_false(judged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_texts_are_one_text),
        cmocka_unit_test(utf16_units_are_counted_as_javascript_does),
        cmocka_unit_test(prompts_with_one_haystack_take_the_room_of_one),
        cmocka_unit_test(the_longest_run_is_taken_even_of_one_letter),
        cmocka_unit_test(odd_outputs_are_measured_by_runs_of_three_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
