/* test_gemma.c - the Gemma vocabulary (shared data): ids, essays there and back, no slow text. */
#include "test.h"

#include <glob.h>
#include <time.h>

#include "io/file.h"
#include "tok/tok.h"
#include "unit/io/alloc.h"
#include "unit/io/temp.h"

static ct_err err;
static ct_tokenizer *gemma;
static int64_t gemma_peak_bytes, gemma_file_bytes;

static int open_gemma(void **state)
{
    char command[2048];
    struct stat info;
    if (temp_begin(state) != 0) return -1;
    snprintf(command, sizeof command, "xz -dc '%s' > '%s' && cp '%s' '%s'",
             shared_path("data/tokenizers/gemma/tokenizer.json.xz"), temp_path("tokenizer.json"),
             shared_path("data/tokenizers/gemma/tokenizer_config.json"),
             temp_path("tokenizer_config.json"));
    if (system(command) != 0) return -1;
    if (stat(temp_path("tokenizer.json"), &info) != 0) return -1;
    gemma_file_bytes = info.st_size;
    alloc_start(0);
    ct_status st = ct_tokenizer_open(temp_root, &gemma, &err);
    alloc_stop();
    gemma_peak_bytes = alloc.peak;
    return st == CT_OK ? 0 : -1;
}

static int close_gemma(void **state)
{
    ct_tokenizer_close(gemma);
    return temp_end(state);
}

static void the_vocabulary_has_its_known_size_and_special_tokens(void **state)
{
    (void)state;
    assert_int_equal(ct_tokenizer_vocab_size(gemma), 256000);
    assert_int_equal(ct_tokenizer_bos(gemma), 2);
    assert_int_equal(ct_tokenizer_eos(gemma), 1);
    assert_int_equal(ct_tokenizer_token_id(gemma, "<pad>"), 0);
    assert_int_equal(ct_tokenizer_token_id(gemma, "no token of it"), -1);
}

static void opening_stays_within_the_limit_of_memory(void **state)
{
    (void)state;
    printf("open: %.1f MiB at most for a file of %.1f MiB\n", (double)gemma_peak_bytes / (1 << 20),
           (double)gemma_file_bytes / (1 << 20));
    assert_true(gemma_peak_bytes <= (16 << 20) + 16 * gemma_file_bytes);
}

static void essays_come_back_from_their_ids_and_offsets_tile_them(void **state)
{
    (void)state;
    char pattern[4200];
    glob_t files;
    snprintf(pattern, sizeof pattern, "%s/*.txt", shared_path("data/niah/paul-graham-essays"));
    assert_int_equal(glob(pattern, 0, NULL, &files), 0);
    for (size_t f = 0; f < files.gl_pathc; f++) {
        char *text, *back;
        size_t size, count, back_size, *begin, *end;
        int32_t *ids;
        assert_ok(ct_file_read(files.gl_pathv[f], 1 << 24, &text, &size, &err));
        assert_ok(
            ct_tokenizer_encode_offsets(gemma, text, size, true, &ids, &begin, &end, &count, &err));
        assert_int_equal(ids[0], 2);
        assert_true(begin[0] == 0 && end[0] == 0);
        /* Every byte belongs to the next token, or, within a character, to the same ones. */
        size_t at = 0;
        for (size_t i = 1; i < count; i++) {
            assert_true(begin[i] == at || (begin[i] == begin[i - 1] && end[i] == end[i - 1]));
            at = end[i];
        }
        assert_int_equal(at, size);
        assert_ok(ct_tokenizer_decode(gemma, ids, count, true, &back, &back_size, &err));
        assert_int_equal(back_size, size);
        assert_memory_equal(back, text, size);
        free(ids);
        free(begin);
        free(end);
        free(text);
        free(back);
    }
    globfree(&files);
}

/* Encodes `size` bytes of a repeated piece; returns the seconds of processor time. */
static double seconds_for(const char *piece, size_t size)
{
    size_t n = strlen(piece), count;
    int32_t *ids;
    char *text = malloc(size);
    for (size_t i = 0; i < size; i++) text[i] = piece[i % n];
    clock_t start = clock();
    assert_ok(ct_tokenizer_encode(gemma, text, size / n * n, true, &ids, &count, &err));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    free(ids);
    free(text);
    return seconds;
}

static void a_megabyte_without_a_boundary_does_not_take_quadratic_time(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a",        " ",     "\n", "\xF0\x9F\x98\x80", "1", "ab",
                                         "qzjxkvwy", "<bos>", "<",  "\xCC\x81"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        double seconds = seconds_for(pieces[i], 1 << 20);
        /* About 0.3 s here; 10^12 steps of a quadratic loop would take minutes at the least, so
         * that 20 s leave room for sanitizers and a busy machine. */
        if (seconds > 20) fail_msg("\"%s\": %.1f s", pieces[i], seconds);
    }
    assert_true(seconds_for("a", 100000) < 20);
}

int main(void)
{
    static const char *const needed[] = {"data/tokenizers/gemma/tokenizer.json.xz",
                                         "data/niah/paul-graham-essays"};
    for (size_t i = 0; i < 2; i++)
        if (!shared_path(needed[i])) skip_program(needed[i]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vocabulary_has_its_known_size_and_special_tokens),
        cmocka_unit_test(opening_stays_within_the_limit_of_memory),
        cmocka_unit_test(essays_come_back_from_their_ids_and_offsets_tile_them),
        cmocka_unit_test(a_megabyte_without_a_boundary_does_not_take_quadratic_time),
    };
    return cmocka_run_group_tests(tests, open_gemma, close_gemma);
}
