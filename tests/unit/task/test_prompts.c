/* test_prompts.c - the 100 prompt files of the thesis that are at hand, byte for byte, and the
 * needle's tokens in them. Shared data: the essays, the prompts, Gemma's tokenizer. */
#include "test.h"

#include <dirent.h>
#include <jansson.h>
#include <unistd.h>

#include "io/file.h"
#include "task/niah.h"

static ct_tokenizer *tokenizer;
static char folder[] = "/tmp/ct_test_prompts_XXXXXX";

/* The span of the needle's text is the tightest one: its tokens spell the needle, and without the
 * first or the last they do not. */
static void assert_tightest(const ct_niah_request *request, ct_span span)
{
    ct_err err = {0};
    static const char words[] = "The best thing to do in San Francisco is eat a sandwich and sit "
                                "in Dolores Park on a sunny "
                                "day.";
    for (int drop = 0; drop < 3; drop++) {
        char *text;
        size_t size;
        const int32_t *ids = request->ids + span.begin + (drop == 1);
        assert_ok(ct_tokenizer_decode(tokenizer, ids, (size_t)(span.end - span.begin) - (drop > 0),
                                      false, &text, &size, &err));
        assert_int_equal(strstr(text, words) != NULL, drop == 0);
        free(text);
    }
}

static void check_needle(const ct_niah *niah, const ct_niah_prompt *prompt, bool read_twice)
{
    ct_err err = {0};
    ct_niah_request text, reference;
    assert_ok(ct_niah_request_new(niah, prompt, false, &text, &err));
    assert_int_equal(text.n_needle, read_twice ? 2 : 1);
    for (size_t i = 0; i < text.n_needle; i++) assert_tightest(&text, text.needle[i]);
    /* The published code's is that of the first copy, one too small. */
    assert_ok(ct_niah_request_new(niah, prompt, true, &reference, &err));
    assert_false(reference.needle_missing);
    assert_int_equal(reference.n_needle, 1);
    assert_int_equal(reference.needle[0].begin, text.needle[0].begin - 1);
    assert_int_equal(reference.needle[0].end, text.needle[0].end - 1);
    ct_niah_request_clear(&text);
    ct_niah_request_clear(&reference);
}

/* Rebuilds every file of a folder from its own fields; returns how many there were. */
static int rebuild_folder(const char *dir, bool read_twice)
{
    ct_err err = {0};
    static char essays[2][4096];
    snprintf(essays[0], sizeof essays[0], "%s",
             shared_path("data/niah/paul-graham-essays/useful.txt"));
    snprintf(essays[1], sizeof essays[1], "%s",
             shared_path("data/niah/paul-graham-essays/newideas.txt"));
    const char *const haystack[] = {essays[0], essays[1]};
    ct_niah *niah = NULL;
    int files = 0;
    DIR *entries = opendir(dir);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!strstr(entry->d_name, ".json")) continue;
        char *path = ct_path_join(dir, entry->d_name, &err), *expected, *name, *json;
        size_t size;
        assert_non_null(path);
        assert_ok(ct_file_read(path, 1 << 20, &expected, &size, &err));
        json_t *fields = json_loads(expected, 0, NULL);
        const char *model, *tokenizer_name, *needle, *question;
        json_int_t length, depth;
        assert_int_equal(json_unpack(fields, "{ss ss sI sI ss ss}", "model", &model, "tokenizer",
                                     &tokenizer_name, "context_length", &length, "depth_percent",
                                     &depth, "needle", &needle, "retrieval_question", &question),
                         0);
        if (!niah) {
            const ct_niah_options options = {.haystack = haystack,
                                             .n_haystack = 2,
                                             .needle = needle,
                                             .question = question,
                                             .template_kind = CT_NIAH_BASE,
                                             .read_twice = read_twice,
                                             .buffer = 200};
            assert_ok(ct_niah_open(&options, tokenizer, 4096, &niah, &err));
        }
        ct_niah_prompt prompt;
        assert_ok(ct_niah_build(niah, length, depth, &prompt, &err));
        assert_ok(ct_niah_file(niah, &prompt, model, tokenizer_name, &name, &json, &err));
        assert_string_equal(name, entry->d_name);
        assert_int_equal(strlen(json), size);
        assert_memory_equal(json, expected, size);
        check_needle(niah, &prompt, read_twice);
        ct_niah_prompt_clear(&prompt);
        json_decref(fields);
        free(expected);
        free(name);
        free(json);
        free(path);
        files++;
    }
    closedir(entries);
    ct_niah_close(niah);
    return files;
}

static void the_base_prompts_of_the_thesis_are_reproduced_byte_for_byte(void **state)
{
    (void)state;
    assert_int_equal(rebuild_folder(shared_path("data/niah/prompts/prompts_base"), false), 50);
}

static void the_read_twice_prompts_of_the_thesis_are_reproduced_byte_for_byte(void **state)
{
    (void)state;
    assert_int_equal(rebuild_folder(shared_path("data/niah/prompts/prompts_base_jrt"), true), 50);
}

static int setup(void **state)
{
    (void)state;
    ct_err err = {0};
    char command[5000];
    if (!mkdtemp(folder)) return -1;
    snprintf(command, sizeof command, "xz -dc '%s' > %s/tokenizer.json",
             shared_path("data/tokenizers/gemma/tokenizer.json.xz"), folder);
    if (system(command) != 0) return -1;
    if (ct_tokenizer_open(folder, &tokenizer, &err) == CT_OK) return 0;
    print_error("%s\n", err.text);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    ct_tokenizer_close(tokenizer);
    char path[100];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    remove(path);
    return rmdir(folder);
}

int main(void)
{
    static const char *const needed[] = {
        "data/tokenizers/gemma/tokenizer.json.xz", "data/niah/prompts/prompts_base",
        "data/niah/prompts/prompts_base_jrt", "data/niah/paul-graham-essays/useful.txt",
        "data/niah/paul-graham-essays/newideas.txt"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!shared_path(needed[i])) skip_program(needed[i]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_prompts_of_the_thesis_are_reproduced_byte_for_byte),
        cmocka_unit_test(the_read_twice_prompts_of_the_thesis_are_reproduced_byte_for_byte),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
