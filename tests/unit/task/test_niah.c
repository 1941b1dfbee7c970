/* test_niah.c - prompts, prompt files and needle spans with a small tokenizer, against the golden
 * that tools/oracle_niah.py wrote; and everything that a haystack or a grid can get wrong. */
#include "test.h"

#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/file.h"
#include "task/niah.h"
#include "task/text.h"

static ct_tokenizer *tokenizer;
static char folder[] = "/tmp/ct_test_niah_XXXXXX";

#define ESSAYS CT_SOURCE_DIR "/data/haystack"
static const char *const essay[] = {ESSAYS "/01-how-bread-rises.txt"};
static const char needle[] = "\nThe best thing to do in San Francisco is eat a sandwich and sit in "
                             "Dolores Park on a sunny day.\n";
static const ct_niah_options plain = {.haystack = essay,
                                      .n_haystack = 1,
                                      .needle = needle,
                                      .question = "What is best?",
                                      .template_kind = CT_NIAH_BASE,
                                      .buffer = 20};

/* A file in the test's folder; the name is in a static buffer that the 8th next call reuses. */
static const char *put(const char *name, const void *bytes, size_t size)
{
    static char paths[8][200];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* ---- against the oracle ---------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text) fail_msg("the golden lacks %s", key);
    return text;
}

static int64_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void assert_spans(const ct_niah_request *request, const json_t *expected)
{
    assert_int_equal(request->n_needle, json_array_size(expected));
    for (size_t i = 0; i < request->n_needle; i++) {
        const json_t *pair = json_array_get(expected, i);
        assert_int_equal(request->needle[i].begin, json_integer_value(json_array_get(pair, 0)));
        assert_int_equal(request->needle[i].end, json_integer_value(json_array_get(pair, 1)));
    }
}

static void check_request(const ct_niah *niah, const ct_niah_prompt *prompt, const json_t *line,
                          bool base)
{
    ct_err err = {0};
    ct_niah_request request;
    assert_ok(ct_niah_request_new(niah, prompt, false, &request, &err));
    assert_int_equal(request.n_ids, number_of(line, "n_ids"));
    assert_spans(&request, json_object_get(line, "spans"));
    assert_false(request.needle_missing);
    if (base) assert_string_equal(request.text, prompt->content);
    else assert_non_null(strstr(request.text, prompt->content));
    assert_int_equal(strlen(request.text), request.text_size);
    size_t begin = 0, end = strlen(text_of(line, "needle"));
    ct_text_strip(text_of(line, "needle"), &begin, &end);
    assert_int_equal(request.needle_end - request.needle_begin, end - begin);
    assert_memory_equal(request.text + request.needle_begin, text_of(line, "needle") + begin,
                        end - begin);
    ct_niah_request_clear(&request);

    assert_ok(ct_niah_request_new(niah, prompt, true, &request, &err));
    json_t *reference = json_object_get(line, "reference");
    assert_int_equal(request.needle_missing, json_is_null(reference));
    if (!request.needle_missing) {
        json_t *one = json_pack("[O]", reference);
        assert_spans(&request, one);
        json_decref(one);
    }
    ct_niah_request_clear(&request);
}

static void prompts_and_needle_spans_agree_with_the_oracle(void **state)
{
    (void)state;
    ct_err err = {0};
    FILE *file = fopen(CT_SOURCE_DIR "/tests/unit/task/niah/golden.jsonl", "r");
    assert_non_null(file);
    char *bytes = NULL;
    size_t capacity = 0, lines = 0;
    while (getline(&bytes, &capacity, file) > 0) {
        json_t *line = json_loads(bytes, 0, NULL);
        assert_non_null(line);
        lines++;
        char paths[4][300];
        const char *haystack[4];
        size_t n_haystack = json_array_size(json_object_get(line, "haystack"));
        assert_true(n_haystack <= 4);
        for (size_t i = 0; i < n_haystack; i++) {
            snprintf(paths[i], sizeof paths[i], "%s/%s", CT_SOURCE_DIR,
                     json_string_value(json_array_get(json_object_get(line, "haystack"), i)));
            haystack[i] = paths[i];
        }
        bool base = strcmp(text_of(line, "template"), "base") == 0;
        const ct_niah_options options = {.haystack = haystack,
                                         .n_haystack = n_haystack,
                                         .needle = text_of(line, "needle"),
                                         .question = text_of(line, "question"),
                                         .template_kind = base ? CT_NIAH_BASE : CT_NIAH_INSTRUCT,
                                         .read_twice =
                                             json_is_true(json_object_get(line, "read_twice")),
                                         .buffer = number_of(line, "buffer")};
        ct_niah *niah;
        assert_ok(ct_niah_open(&options, tokenizer, 301, &niah, &err));
        ct_niah_prompt prompt;
        assert_ok(ct_niah_build(niah, number_of(line, "length"), number_of(line, "depth"), &prompt,
                                &err));
        char *name, *json;
        assert_ok(ct_niah_file(niah, &prompt, "a \"model\"", "Tiny", &name, &json, &err));
        assert_string_equal(json, text_of(line, "file"));
        char expected[80];
        snprintf(expected, sizeof expected, "Tiny_%lld_%lld_prompts.json",
                 (long long)number_of(line, "length"), (long long)number_of(line, "depth"));
        assert_string_equal(name, expected);
        check_request(niah, &prompt, line, base);
        free(name);
        free(json);
        ct_niah_prompt_clear(&prompt);
        ct_niah_close(niah);
        json_decref(line);
    }
    free(bytes);
    fclose(file);
    assert_int_equal(lines, 40);
}

/* ---- the haystack ---------------------------------------------------------------------------- */

/* Opens with these files and gives the prompt of 400 tokens at depth 100. */
static char *content_of(const char *const *paths, size_t count)
{
    ct_err err = {0};
    ct_niah_options options = plain;
    options.haystack = paths;
    options.n_haystack = count;
    ct_niah *niah;
    ct_niah_prompt prompt;
    assert_ok(ct_niah_open(&options, tokenizer, 400, &niah, &err));
    assert_ok(ct_niah_build(niah, 400, 100, &prompt, &err));
    ct_niah_close(niah);
    return prompt.content;
}

static void a_folder_stands_for_its_text_files_in_byte_order(void **state)
{
    (void)state;
    char dir[100];
    snprintf(dir, sizeof dir, "%s/essays", folder);
    assert_int_equal(mkdir(dir, 0700), 0);
    const char *const files[] = {put("essays/B.txt", "Capital.", 8), put("essays/a.txt", "", 0),
                                 put("essays/b.txt", "small.\n", 7)};
    put("essays/README.md", "\xFF", 1);
    put("essays/.hidden.txt", "\xFF", 1);
    const char *const dirs[] = {dir};
    char *from_folder = content_of(dirs, 1), *from_files = content_of(files, 3);
    assert_string_equal(from_folder, from_files);
    assert_non_null(strstr(from_folder, "CONTEXT: Capital.small.\nCapital."));
    free(from_folder);
    free(from_files);
}

static void newlines_are_those_of_python_text_mode(void **state)
{
    (void)state;
    const char *const crlf[] = {put("crlf.txt", "One.\r\nTwo.\rThree.\n\r\n", 20)};
    const char *const lf[] = {put("lf.txt", "One.\nTwo.\nThree.\n\n", 18)};
    char *a = content_of(crlf, 1), *b = content_of(lf, 1);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void only_the_beginning_of_a_huge_haystack_is_read(void **state)
{
    (void)state;
    /* 64 GiB of which all but the first 300 KB is a hole: zeros, which are refused where read. */
    char *text = malloc(300000);
    assert_non_null(text);
    for (size_t i = 0; i < 300000; i++) text[i] = "Water and flour. "[i % 17];
    const char *const paths[] = {put("huge.txt", text, 300000), "/never/opened.txt"};
    free(text);
    int fd = open(paths[0], O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)64 << 30), 0);
    close(fd);
    char *content = content_of(paths, 2);
    assert_non_null(strstr(content, "CONTEXT: Water and flour. Water"));
    free(content);
}

static void the_same_text_in_one_file_or_in_many_gives_the_same_prompt(void **state)
{
    (void)state;
    enum { PIECES = 40 }; /* 160 KB: reading stops within them */
    char paths[PIECES][200];
    const char *many[PIECES];
    ct_buf all = {0};
    ct_err err = {0};
    for (size_t i = 0; i < PIECES; i++) {
        char piece[4001], name[24];
        for (size_t k = 0; k < sizeof piece; k++) piece[k] = "It is fog.\n"[(k * (i + 1)) % 11];
        memcpy(piece + 1999, "\xE2\x82\xAC", 3);
        snprintf(name, sizeof name, "piece%02zu.txt", i);
        snprintf(paths[i], sizeof paths[i], "%s", put(name, piece, sizeof piece));
        many[i] = paths[i];
        assert_ok(ct_buf_add(&all, piece, sizeof piece, &err));
    }
    const char *const one[] = {put("pieces.txt", all.data, all.size)};
    ct_buf_clear(&all);
    char *a = content_of(many, PIECES), *b = content_of(one, 1);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void reading_stops_between_characters(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        char *text = malloc(300004);
        assert_non_null(text);
        memset(text, 'a', shift);
        for (size_t i = 0; i < 75000; i++) memcpy(text + shift + 4 * i, "\xE2\x82\xAC.", 4);
        const char *const paths[] = {put("euro.txt", text, shift + 300000)};
        free(text);
        char *content = content_of(paths, 1);
        assert_non_null(strstr(content, "\xE2\x82\xAC.\xE2\x82\xAC."));
        free(content);
    }
}

static void more_is_read_where_the_beginning_gives_too_few_tokens(void **state)
{
    (void)state;
    enum { LONG = 512, TOKENS = 600 };
    ct_err err = {0};
    /* The tokenizer with one more token of 512 bytes, and 300 KB of it: what is read at first, 64
     * KB and 16 bytes a token, gives 140 tokens of the 400. */
    char bytes[LONG + 1], *json, dir[100];
    size_t size;
    memset(bytes, '=', LONG);
    bytes[LONG] = 0;
    assert_ok(ct_file_read(CT_SOURCE_DIR "/tests/unit/task/niah/tokenizer.json", 1 << 20, &json,
                           &size, &err));
    char *place = strstr(json, "\"added_tokens\":[");
    assert_non_null(place);
    place += strlen("\"added_tokens\":[");
    ct_buf edited = {0};
    assert_ok(ct_buf_add(&edited, json, (size_t)(place - json), &err));
    assert_ok(ct_buf_addf(&edited, &err,
                          "{\"id\":%zu,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
                          "\"rstrip\":false,\"normalized\":false,\"special\":false},",
                          ct_tokenizer_vocab_size(tokenizer), bytes));
    assert_ok(ct_buf_adds(&edited, place, &err));
    snprintf(dir, sizeof dir, "%s/long", folder);
    assert_int_equal(mkdir(dir, 0700), 0);
    put("long/tokenizer.json", edited.data, edited.size);
    ct_buf_clear(&edited);
    free(json);
    ct_tokenizer *with_long;
    assert_ok(ct_tokenizer_open(dir, &with_long, &err));
    for (int i = 0; i < TOKENS; i++) assert_ok(ct_buf_adds(&edited, bytes, &err));
    const char *const paths[] = {put("long.txt", edited.data, edited.size)};
    ct_buf_clear(&edited);

    ct_niah_options options = plain;
    options.haystack = paths;
    ct_niah *niah;
    ct_niah_prompt prompt;
    int32_t *ids;
    size_t n_needle;
    assert_ok(ct_tokenizer_encode(with_long, needle, strlen(needle), false, &ids, &n_needle, &err));
    free(ids);
    assert_ok(ct_niah_open(&options, with_long, 400, &niah, &err));
    assert_ok(ct_niah_build(niah, 400, 100, &prompt, &err));
    assert_int_equal(strspn(prompt.content + strlen("CONTEXT: "), "="),
                     (400 - 20 - n_needle) * LONG);
    ct_niah_prompt_clear(&prompt);
    ct_niah_close(niah);
    ct_tokenizer_close(with_long);
}

static void the_default_haystack_gives_4096_tokens_without_repeating(void **state)
{
    (void)state;
    ct_err err = {0};
    const char *const dirs[] = {ESSAYS};
    ct_niah_options options = plain;
    options.haystack = dirs;
    options.buffer = 200;
    ct_niah *niah;
    ct_niah_prompt prompt;
    assert_ok(ct_niah_open(&options, tokenizer, 4096, &niah, &err));
    assert_ok(ct_niah_build(niah, 4096, 100, &prompt, &err));
    const char *start = prompt.content + strlen("CONTEXT: "), *end = strstr(start, needle);
    assert_non_null(end);
    /* The context is the beginning of the essays in the order of their names. */
    size_t context = (size_t)(end - start), at = 0;
    for (int i = 1; i <= 40 && at < context; i++) {
        char pattern[100], line[4096];
        snprintf(pattern, sizeof pattern, "ls %s/%02d-*.txt", ESSAYS, i);
        FILE *list = popen(pattern, "r");
        assert_non_null(fgets(line, sizeof line, list));
        pclose(list);
        line[strcspn(line, "\n")] = 0;
        char *text;
        size_t size;
        assert_ok(ct_file_read(line, 1 << 20, &text, &size, &err));
        size_t shared = size < context - at ? size : context - at;
        assert_memory_equal(start + at, text, shared);
        at += shared;
        free(text);
    }
    assert_int_equal(at, context);
    ct_niah_prompt_clear(&prompt);
    ct_niah_close(niah);
}

/* ---- errors ---------------------------------------------------------------------------------- */

#define assert_open_fails(options, length, status, part)                                           \
    do {                                                                                           \
        ct_niah *niah_open_fails;                                                                  \
        assert_fails(ct_niah_open(&(options), tokenizer, length, &niah_open_fails, &err), status,  \
                     part);                                                                        \
        assert_null(niah_open_fails);                                                              \
    } while (0)

static void haystacks_that_are_no_text_are_refused_with_file_and_place(void **state)
{
    (void)state;
    ct_err err = {0};
    static const struct {
        const char *bytes;
        size_t size;
        ct_status status;
        const char *part;
    } cases[] = {
        {"caf\xE9 au lait", 12, CT_ERR_FORMAT,
         "bad.txt: expected UTF-8 text, got byte 0xe9 at offset 3; convert it to UTF-8"},
        {"\xFF\xFE"
         "a\0",
         4, CT_ERR_FORMAT, "bad.txt: expected UTF-8 text, got byte 0xff at offset 0"},
        {"ab\0c", 4, CT_ERR_FORMAT, "bad.txt: expected UTF-8 text, got byte 0x00 at offset 2"},
        {"ab\xE2\x82", 4, CT_ERR_FORMAT, "got byte 0xe2 at offset 2"},
        {"\xED\xA0\x80", 3, CT_ERR_FORMAT, "got byte 0xed at offset 0"},
        {"", 0, CT_ERR_VALUE, "haystack: expected some text, got none in "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_niah_options options = plain;
        const char *const paths[] = {put("bad.txt", cases[i].bytes, cases[i].size)};
        options.haystack = paths;
        assert_open_fails(options, 400, cases[i].status, cases[i].part);
    }
}

static void files_that_cannot_be_read_are_named(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_niah_options options = plain;
    char empty[100];
    snprintf(empty, sizeof empty, "%s/nothing", folder);
    assert_int_equal(mkdir(empty, 0700), 0);
    const char *paths[] = {empty};
    options.haystack = paths;
    assert_open_fails(options, 400, CT_ERR_NOT_FOUND,
                      "nothing: expected a haystack folder with *.txt files, got none");
    paths[0] = "/no/such/essay.txt";
    assert_open_fails(options, 400, CT_ERR_NOT_FOUND, "/no/such/essay.txt: expected a file");
    options.n_haystack = 0;
    assert_open_fails(options, 400, CT_ERR_VALUE, "haystack: expected at least one file, got none");
    paths[0] = put("a.txt", "", 0);
    const char *two[] = {paths[0], paths[0]};
    options.haystack = two;
    options.n_haystack = 2;
    assert_open_fails(options, 400, CT_ERR_VALUE, "a.txt and the other files");
}

static void texts_of_the_options_are_checked(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_niah_options options = plain;
    options.needle = "";
    assert_open_fails(options, 400, CT_ERR_VALUE, "needle: expected some text, got none");
    options.needle = "ab\xFF";
    assert_open_fails(options, 400, CT_ERR_FORMAT,
                      "needle: expected UTF-8 text, got byte 0xff at offset 2");
    options.needle = " \n";
    assert_open_fails(options, 400, CT_ERR_VALUE,
                      "needle: expected some text besides white space, got none");
    options = plain;
    options.question = NULL;
    assert_open_fails(options, 400, CT_ERR_VALUE, "question: expected some text, got none");
    options = plain;
    options.buffer = -1;
    assert_open_fails(options, 400, CT_ERR_VALUE, "buffer: expected 0 to 16777216 tokens, got -1");
    assert_open_fails(plain, 0, CT_ERR_VALUE, "length: expected at least 1 token, got 0");
    assert_open_fails(plain, 16777217, CT_ERR_LIMIT,
                      "length: expected at most 16777216 tokens, got 16777217");
}

static void lengths_and_depths_that_cannot_be_built_name_the_limit(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_niah *niah;
    ct_niah_prompt prompt;
    assert_ok(ct_niah_open(&plain, tokenizer, 400, &niah, &err));
    assert_fails(ct_niah_build(niah, 400, -1, &prompt, &err), CT_ERR_VALUE,
                 "depth: expected 0 to 100 per cent, got -1");
    assert_fails(ct_niah_build(niah, 400, 101, &prompt, &err), CT_ERR_VALUE,
                 "depth: expected 0 to 100 per cent, got 101");
    assert_fails(ct_niah_build(niah, 401, 0, &prompt, &err), CT_ERR_VALUE,
                 "length: expected at most 400 tokens, as the haystack was opened, got 401");
    assert_fails(ct_niah_build(niah, INT64_MIN, 0, &prompt, &err), CT_ERR_VALUE,
                 "length: expected at least ");
    /* The least length that the message names is the least one that works. */
    assert_fails(ct_niah_build(niah, 0, 0, &prompt, &err), CT_ERR_VALUE,
                 "length: expected at least ");
    long long least = strtoll(err.text + strlen("length: expected at least "), NULL, 10);
    assert_true(least > 20 + 40);
    assert_fails(ct_niah_build(niah, least - 1, 0, &prompt, &err), CT_ERR_VALUE,
                 "of the needle, 20 of buffer)");
    assert_null(prompt.content);
    for (int64_t depth = 0; depth <= 100; depth += 50) {
        assert_ok(ct_niah_build(niah, least, depth, &prompt, &err));
        assert_string_equal(prompt.content,
                            "CONTEXT: \nThe best thing to do in San Francisco is eat a sandwich "
                            "and sit in Dolores Park on a sunny day.\n\n\nQUESTION: What is best?"
                            "\n\nANSWER: Here is the most relevant sentence in the context: ");
        ct_niah_prompt_clear(&prompt);
    }
    ct_niah_close(niah);
}

static void prompt_file_names_cannot_leave_their_folder(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_niah *niah;
    ct_niah_prompt prompt;
    char *name, *json;
    assert_ok(ct_niah_open(&plain, tokenizer, 100, &niah, &err));
    assert_ok(ct_niah_build(niah, 100, 50, &prompt, &err));
    assert_fails(ct_niah_file(niah, &prompt, "m", "../x", &name, &json, &err), CT_ERR_VALUE,
                 "tokenizer name: expected a name without \"/\", since it begins file names, got "
                 "\"../x\"");
    assert_fails(ct_niah_file(niah, &prompt, "m\xFF", "x", &name, &json, &err), CT_ERR_FORMAT,
                 "model name: expected UTF-8");
    assert_null(name);
    assert_null(json);
    ct_niah_prompt_clear(&prompt);
    ct_niah_close(niah);
}

/* ---- finding needles ------------------------------------------------------------------------- */

static void a_needle_that_is_not_there_is_an_error_by_text_and_missing_by_ids(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_niah *niah;
    ct_niah_request request;
    assert_ok(ct_niah_open(&plain, tokenizer, 100, &niah, &err));
    char other[] = "Nothing of the kind.";
    const ct_niah_prompt prompt = {.content = other, .length = 100};
    assert_fails(ct_niah_request_new(niah, &prompt, false, &request, &err), CT_ERR_NOT_FOUND,
                 "needle: expected \"The best thing to do in San Francisco is eat a sandwich and "
                 "...\" in the prompt, got 20 bytes without it; give it as it stands there, or "
                 "give positions");
    assert_null(request.ids);
    assert_ok(ct_niah_request_new(niah, &prompt, true, &request, &err));
    assert_true(request.needle_missing);
    assert_null(request.needle);
    assert_int_equal(request.needle_end, 0);
    ct_niah_request_clear(&request);
    ct_niah_close(niah);
}

/* A token is in a span if and only if it shares a byte with a copy; spans are sorted and disjoint.
 */
static void check_copies(const char *text, const char *word, const char *with_space)
{
    ct_err err = {0};
    ct_span *spans;
    size_t n_spans, count, *begin, *end, size = strlen(text), length = strlen(word);
    int32_t *ids;
    assert_ok(ct_needle_find(tokenizer, text, size, with_space, false, &spans, &n_spans, &err));
    assert_ok(
        ct_tokenizer_encode_offsets(tokenizer, text, size, true, &ids, &begin, &end, &count, &err));
    for (size_t i = 0; i < count; i++) {
        bool expected = false, found = false;
        for (const char *p = text; (p = strstr(p, word)); p += length) {
            size_t at = (size_t)(p - text);
            if (begin[i] < at + length && end[i] > at && begin[i] < end[i]) expected = true;
        }
        for (size_t s = 0; s < n_spans; s++)
            if ((size_t)spans[s].begin <= i && i < (size_t)spans[s].end) found = true;
        assert_int_equal(found, expected);
    }
    for (size_t s = 1; s < n_spans; s++) assert_true(spans[s - 1].end <= spans[s].begin);
    free(spans);
    free(ids);
    free(begin);
    free(end);
}

static void copies_are_found_wherever_they_stand(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "the",  "the the", "thethethe", " the\nother then the", "\xE2\x82\xACthe\xF0\x9F\xA5\x9E",
        "xthe", "thex"};
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++)
        check_copies(texts[t], "the", " the\n");
    check_copies("feel, see, eeeee; well", "e", "e"); /* "ee" is one token of two copies */
    check_copies("wool, tooth, ooo", "o", "\xE3\x80\x80o");
}

static void a_needle_of_two_tokens_has_no_inner_ones_for_the_published_search(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_span *spans;
    size_t n_spans;
    assert_ok(ct_needle_find(tokenizer, "a.", 2, ".", true, &spans, &n_spans, &err));
    assert_int_equal(n_spans, 0);
    assert_null(spans);
    assert_fails(ct_needle_find(tokenizer, "", 0, "the", false, &spans, &n_spans, &err),
                 CT_ERR_NOT_FOUND, "got 0 bytes without it");
    assert_fails(ct_needle_find(tokenizer, "the", 3, "\t\n", false, &spans, &n_spans, &err),
                 CT_ERR_VALUE, "needle: expected some text besides white space, got none");
}

static void a_text_that_begins_with_bos_gets_no_second_one(void **state)
{
    (void)state;
    ct_err err = {0};
    static const char text[] = "<bos>The salt of the sea is the salt of the sea."; /* a chat's */
    const size_t bos = strlen("<bos>"), size = sizeof text - 1;
    for (int reference = 0; reference < 2; reference++) {
        ct_span *with, *without;
        size_t n_with, n_without;
        assert_ok(ct_needle_find(tokenizer, text, size, " salt of the sea ", reference, &with,
                                 &n_with, &err));
        assert_ok(ct_needle_find(tokenizer, text + bos, size - bos, " salt of the sea ", reference,
                                 &without, &n_without, &err));
        assert_int_equal(n_with, reference ? 1 : 2);
        assert_int_equal(n_without, n_with);
        assert_memory_equal(with, without, n_with * sizeof *with);
        free(with);
        free(without);
    }
}

/* ------------------------------------------------------------------------------------------------
 */

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    ct_err err = {0};
    if (!mkdtemp(folder)) return -1;
    if (ct_tokenizer_open(CT_SOURCE_DIR "/tests/unit/task/niah", &tokenizer, &err) == CT_OK)
        return 0;
    print_error("%s\n", err.text);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    ct_tokenizer_close(tokenizer);
    return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_and_needle_spans_agree_with_the_oracle),
        cmocka_unit_test(a_folder_stands_for_its_text_files_in_byte_order),
        cmocka_unit_test(newlines_are_those_of_python_text_mode),
        cmocka_unit_test(only_the_beginning_of_a_huge_haystack_is_read),
        cmocka_unit_test(the_same_text_in_one_file_or_in_many_gives_the_same_prompt),
        cmocka_unit_test(reading_stops_between_characters),
        cmocka_unit_test(more_is_read_where_the_beginning_gives_too_few_tokens),
        cmocka_unit_test(the_default_haystack_gives_4096_tokens_without_repeating),
        cmocka_unit_test(haystacks_that_are_no_text_are_refused_with_file_and_place),
        cmocka_unit_test(files_that_cannot_be_read_are_named),
        cmocka_unit_test(texts_of_the_options_are_checked),
        cmocka_unit_test(lengths_and_depths_that_cannot_be_built_name_the_limit),
        cmocka_unit_test(prompt_file_names_cannot_leave_their_folder),
        cmocka_unit_test(a_needle_that_is_not_there_is_an_error_by_text_and_missing_by_ids),
        cmocka_unit_test(copies_are_found_wherever_they_stand),
        cmocka_unit_test(a_needle_of_two_tokens_has_no_inner_ones_for_the_published_search),
        cmocka_unit_test(a_text_that_begins_with_bos_gets_no_second_one),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
