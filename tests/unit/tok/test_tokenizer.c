/* test_tokenizer.c - every way in which a tokenizer.json can be wrong, with its status and message;
 * texts that cannot be encoded; limits of memory; offsets where the library's say less. */
#include "test.h"

#include "base/buf.h"
#include "tok/tok.h"
#include "unit/io/alloc.h"
#include "unit/io/temp.h"

/* A tokenizer.json by its parts; what is NULL is as in `ab` below. */
typedef struct parts {
    const char *vocab, *merges, *added, *normalizer, *pre, *post, *decoder, *model;
} parts;

static const char * or (const char *given, const char *usual)
{
    return given ? given : usual;
}

static char *document(parts p)
{
    return ct_strf(NULL,
                   "{\"version\":\"1.0\",\"added_tokens\":[%s],\"normalizer\":%s,"
                   "\"pre_tokenizer\":%s,\"post_processor\":%s,\"decoder\":%s,"
                   "\"model\":{\"type\":\"BPE\",%s\"vocab\":{%s},\"merges\":[%s]}}",
                   or (p.added, ""), or (p.normalizer, "null"), or (p.pre, "null"),
                   or (p.post, "null"), or (p.decoder, "{\"type\":\"Fuse\"}"), or (p.model, ""),
                   or (p.vocab, "\"a\":0,\"b\":1,\"ab\":2,\" \":3"), or (p.merges, "\"a b\""));
}

static ct_status open_text(const char *json, ct_tokenizer **out, ct_err *err)
{
    /* A copy of exactly its size, so that a sanitizer sees a read past the end. */
    size_t size = strlen(json);
    char *bytes = malloc(size ? size : 1);
    memcpy(bytes, json, size);
    ct_status st = ct_tokenizer_open_bytes(bytes, size, NULL, 0, "t", out, err);
    assert_true((st == CT_OK) == (*out != NULL));
    free(bytes);
    return st;
}

static void expect_text(const char *json, ct_status status, const char *text)
{
    ct_err err = {0};
    ct_tokenizer *t;
    ct_status st = open_text(json, &t, &err);
    if (st != status || strcmp(err.text, text) != 0)
        fail_msg("%.300s\n  expected %s: %s\n  got      %s: %s", json, ct_status_name(status), text,
                 ct_status_name(st), err.text);
    ct_tokenizer_close(t);
}

typedef struct wrong {
    parts parts;
    ct_status status;
    const char *text;
} wrong;

static void expect_all(const wrong *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *json = document(cases[i].parts);
        expect_text(json, cases[i].status, cases[i].text);
        free(json);
    }
}
#define EXPECT_ALL(cases) expect_all(cases, sizeof cases / sizeof *cases)

static ct_tokenizer *open_parts(parts p)
{
    ct_err err = {0};
    ct_tokenizer *t;
    char *json = document(p);
    assert_ok(open_text(json, &t, &err));
    free(json);
    return t;
}

/* Ids of a text as "1 2 3", in a static buffer. */
static const char *ids_of(const ct_tokenizer *t, const char *text)
{
    static char line[1024];
    ct_err err = {0};
    int32_t *ids;
    size_t count, at = 0;
    assert_ok(ct_tokenizer_encode(t, text, strlen(text), true, &ids, &count, &err));
    line[0] = 0;
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, i ? " %d" : "%d", ids[i]);
    free(ids);
    return line;
}

static void documents_that_are_no_json_are_refused_with_their_place(void **state)
{
    (void)state;
    expect_text("", CT_ERR_FORMAT, "t: expected a value at offset 0");
    expect_text("[]", CT_ERR_FORMAT, "t: tokenizer: expected an object, got an array");
    expect_text("{} x", CT_ERR_FORMAT, "t: expected nothing but white space at offset 3");
    expect_text("{\"a\":}", CT_ERR_FORMAT, "t: expected a value at offset 5");
    expect_text("{\"a\":\"\\ud800\"}", CT_ERR_FORMAT, "t: expected a valid escape at offset 6");
    expect_text("{\"a\":\"\xED\xA0\x80\"}", CT_ERR_FORMAT,
                "t: expected UTF-8, got byte 0xED at offset 6");
    expect_text("{\"a\":\"\x01\"}", CT_ERR_FORMAT,
                "t: expected no control character in a string at offset 6");
    expect_text("{}", CT_ERR_FORMAT, "t: model: expected an object, got nothing");
    expect_text("{\"version\":\"2.0\"}", CT_ERR_UNSUPPORTED, "t: version: expected \"1.0\"");
    expect_text("{\"model\":{},\"model\":{}}", CT_ERR_FORMAT,
                "t: tokenizer: expected key \"model\" once, got it twice");

    ct_err err = {0};
    ct_tokenizer *t;
    static const char nul[] = "{\"a\":\"\0\"}";
    assert_fails(ct_tokenizer_open_bytes(nul, sizeof nul - 1, NULL, 0, "t", &t, &err),
                 CT_ERR_FORMAT, "no control character in a string at offset 6");
    char *deep = malloc(200001);
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    deep[200000] = 0;
    expect_text(deep, CT_ERR_FORMAT, "t: expected at most 128 nested values at offset 128");
    free(deep);
}

static void every_truncation_of_a_file_is_refused(void **state)
{
    (void)state;
    char *json = document((parts){.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"x\"}",
                                  .pre = "{\"type\":\"Digits\"}"});
    size_t size = strlen(json);
    for (size_t n = 0; n < size; n++) {
        ct_err err = {0};
        ct_tokenizer *t;
        char *bytes = malloc(n ? n : 1);
        memcpy(bytes, json, n);
        assert_int_equal(ct_tokenizer_open_bytes(bytes, n, NULL, 0, "t", &t, &err), CT_ERR_FORMAT);
        assert_null(t);
        free(bytes);
    }
    free(json);
}

static void vocabularies_with_bad_ids_or_tokens_twice_are_refused(void **state)
{
    (void)state;
    static const wrong cases[] = {
        {{.vocab = "\"a\":0,\"b\":0,\"ab\":1"},
         CT_ERR_VALUE,
         "t: model.vocab: expected every id once, got 0 for \"a\" and \"b\""},
        {{.vocab = "\"a\":0,\"a\":1"},
         CT_ERR_VALUE,
         "t: model.vocab: expected every token once, got \"a\" with ids 0 and 1"},
        {{.vocab = "\"a\":0,\"\\u0061\":1"},
         CT_ERR_VALUE,
         "t: model.vocab: expected every token once, got \"a\" with ids 0 and 1"},
        {{.vocab = "\"a\":-1"},
         CT_ERR_VALUE,
         "t: model.vocab: token \"a\": expected an id from 0 to 2147483647, got -1"},
        {{.vocab = "\"a\":2147483648"},
         CT_ERR_VALUE,
         "t: model.vocab: token \"a\": expected an id from 0 to 2147483647, got 2147483648"},
        {{.vocab = "\"a\":99999999999999999999"},
         CT_ERR_VALUE,
         "t: model.vocab: token \"a\": expected an id from 0 to 2147483647, got "
         "99999999999999999999"},
        {{.vocab = "\"a\":1.5"},
         CT_ERR_VALUE,
         "t: model.vocab: token \"a\": expected an id from 0 to 2147483647, got 1.5"},
        {{.vocab = "\"a\":\"0\""},
         CT_ERR_VALUE,
         "t: model.vocab: token \"a\": expected an id from 0 to 2147483647, got \"0\""},
    };
    EXPECT_ALL(cases);
    expect_text("{\"model\":{\"merges\":[]}}", CT_ERR_FORMAT,
                "t: model.vocab: expected an object of tokens and ids");
    expect_text("{\"model\":{\"vocab\":{}}}", CT_ERR_FORMAT, "t: model.merges: expected an array");
}

static void merges_of_unknown_tokens_and_malformed_merges_are_refused(void **state)
{
    (void)state;
    static const wrong cases[] = {
        {{.merges = "\"a x\""},
         CT_ERR_NOT_FOUND,
         "t: model.merges: merge 0: expected a second part that is in the vocabulary, got \"x\""},
        {{.merges = "\"a b\",[\"x\",\"b\"]"},
         CT_ERR_NOT_FOUND,
         "t: model.merges: merge 1: expected a first part that is in the vocabulary, got \"x\""},
        {{.merges = "\"b a\""},
         CT_ERR_NOT_FOUND,
         "t: model.merges: merge 0: expected a result that is in the vocabulary, got \"ba\""},
        {{.merges = "\"ab\""},
         CT_ERR_FORMAT,
         "t: model.merges: merge 0: expected two tokens with one space between, got \"ab\""},
        {{.merges = "\"a  b\""},
         CT_ERR_FORMAT,
         "t: model.merges: merge 0: expected two tokens with one space between, got \"a  b\""},
        {{.merges = "[\"a\"]"},
         CT_ERR_FORMAT,
         "t: model.merges: merge 0: expected \"a b\" or [\"a\", \"b\"]"},
        {{.merges = "[\"a\",\"b\",\"c\"]"},
         CT_ERR_FORMAT,
         "t: model.merges: merge 0: expected two strings"},
        {{.merges = "7"},
         CT_ERR_FORMAT,
         "t: model.merges: merge 0: expected \"a b\" or [\"a\", \"b\"]"},
    };
    EXPECT_ALL(cases);
}

static void merges_are_read_in_both_forms_and_behind_a_version_line(void **state)
{
    (void)state;
    static const char *const forms[] = {"\"a b\"", "[\"a\",\"b\"]", "\"#version: 0.2\",\"a b\""};
    for (size_t i = 0; i < 3; i++) {
        ct_tokenizer *t = open_parts((parts){.merges = forms[i]});
        assert_string_equal(ids_of(t, "abba"), "2 1 0");
        ct_tokenizer_close(t);
    }
}

#define ADDED(id, content) "{\"id\":" id ",\"content\":\"" content "\"}"

static void added_tokens_that_clash_or_are_empty_are_refused(void **state)
{
    (void)state;
    static const wrong cases[] = {
        {{.added = ADDED("4", "")},
         CT_ERR_VALUE,
         "t: added_tokens: id 4: expected a content that is not empty"},
        {{.added = "{\"id\":4}"},
         CT_ERR_VALUE,
         "t: added_tokens: id 4: expected a content that is not empty"},
        {{.added = ADDED("5", "b")},
         CT_ERR_VALUE,
         "t: added_tokens: \"b\": expected id 1 (as in the vocabulary), got 5"},
        {{.added = ADDED("1", "x")},
         CT_ERR_VALUE,
         "t: added_tokens: \"x\": expected id 4 (the next after the vocabulary), got 1"},
        {{.added = ADDED("9", "x")},
         CT_ERR_VALUE,
         "t: added_tokens: \"x\": expected id 4 (the next after the vocabulary), got 9"},
        {{.added = ADDED("4", "x") "," ADDED("5", "x")},
         CT_ERR_VALUE,
         "t: model.vocab: expected every token once, got \"x\" with ids 4 and 5"},
        {{.added = ADDED("1", "b") "," ADDED("1", "b")},
         CT_ERR_VALUE,
         "t: added_tokens: expected every content once, got \"b\" with ids 1 and 1"},
        {{.added = ADDED("-1", "x")},
         CT_ERR_VALUE,
         "t: added_tokens.id: expected an integer from 0 to 2147483647, got -1"},
        {{.added = "7"}, CT_ERR_FORMAT, "t: added_tokens: expected an object, got a number"},
        {{.added = "{\"id\":4,\"content\":\"  \",\"normalized\":true}",
          .normalizer = "{\"type\":\"Strip\"}"},
         CT_ERR_VALUE,
         "t: added_tokens: id 4: expected a content that the normalizer leaves something of, got "
         "nothing"},
        {{.added = "{\"id\":4,\"content\":\"x\",\"special\":1}"},
         CT_ERR_FORMAT,
         "t: added_tokens.special: expected true or false, got a number"},
    };
    EXPECT_ALL(cases);
}

static void kinds_and_options_that_are_not_supported_are_named(void **state)
{
    (void)state;
    static const wrong cases[] = {
        {{.normalizer = "{\"type\":\"Precompiled\"}"},
         CT_ERR_UNSUPPORTED,
         "t: normalizer.type: expected one of Replace, Prepend, Strip, StripAccents, NFC, NFD, "
         "NFKC, NFKD, Lowercase, ByteLevel, got \"Precompiled\""},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}"},
         CT_ERR_UNSUPPORTED,
         "t: normalizer.type: expected one of Replace, Prepend, Strip, StripAccents, NFC, NFD, "
         "NFKC, NFKD, Lowercase, ByteLevel, got \"Nmt\""},
        {{.pre = "{\"type\":\"BertPreTokenizer\"}"},
         CT_ERR_UNSUPPORTED,
         "t: pre_tokenizer.type: expected one of ByteLevel, Metaspace, Split, Digits, Punctuation, "
         "got \"BertPreTokenizer\""},
        {{.decoder = "{\"type\":\"WordPiece\"}"},
         CT_ERR_UNSUPPORTED,
         "t: decoder.type: expected one of ByteLevel, Metaspace, Replace, ByteFallback, Fuse, "
         "Strip, got \"WordPiece\""},
        {{.post = "{\"type\":\"BertProcessing\"}"},
         CT_ERR_UNSUPPORTED,
         "t: post_processor.type: expected one of TemplateProcessing, ByteLevel, got "
         "\"BertProcessing\""},
        {{.model = "\"dropout\":0.1,"},
         CT_ERR_UNSUPPORTED,
         "t: model.dropout: expected null or 0: random merges are not supported"},
        {{.model = "\"end_of_word_suffix\":\"</w>\","},
         CT_ERR_UNSUPPORTED,
         "t: model.end_of_word_suffix: expected null or \"\": not supported"},
        {{.model = "\"unk_token\":\"<unk>\","},
         CT_ERR_NOT_FOUND,
         "t: model.unk_token: expected a token of the vocabulary, got \"<unk>\""},
        {{.pre = "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Glued\"}"},
         CT_ERR_UNSUPPORTED,
         "t: pre_tokenizer.behavior: expected one of Removed, Isolated, MergedWithPrevious, "
         "MergedWithNext, Contiguous, got \"Glued\""},
        {{.pre = "{\"type\":\"Split\",\"pattern\":{\"String\":\"\"}}"},
         CT_ERR_VALUE,
         "t: pre_tokenizer.pattern: expected a string that is not empty"},
        {{.pre = "{\"type\":\"Metaspace\",\"replacement\":\"__\"}"},
         CT_ERR_VALUE,
         "t: pre_tokenizer.replacement: expected one character, got \"__\""},
        {{.pre = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}"},
         CT_ERR_VALUE,
         "t: pre_tokenizer: expected prepend_scheme \"never\" with add_prefix_space false, got "
         "\"always\""},
        {{.decoder = "{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0}"},
         CT_ERR_VALUE,
         "t: decoder.content: expected one character, got \"ab\""},
        {{.normalizer = "{\"type\":\"Prepend\",\"prepend\":7}"},
         CT_ERR_FORMAT,
         "t: normalizer.prepend: expected a string, got a number"},
        {{.normalizer = "{\"prepend\":7}"},
         CT_ERR_FORMAT,
         "t: normalizer.type: expected a string, got nothing"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":7}"},
         CT_ERR_FORMAT,
         "t: normalizer.normalizers: expected an array, got a number"},
    };
    EXPECT_ALL(cases);
    expect_text("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", CT_ERR_UNSUPPORTED,
                "t: model.type: expected one of BPE, got \"Unigram\"");
}

#define SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"}}"
#define BAD(text)                                                                                  \
    "t: pre_tokenizer.pattern: expected an expression that Oniguruma and PCRE2 read alike, "       \
    "got " text

static void expressions_that_would_be_read_differently_are_refused(void **state)
{
    (void)state;
    static const wrong cases[] = {
        {{.pre = SPLIT("\\\\h")}, CT_ERR_UNSUPPORTED, BAD("\\h")},
        {{.pre = SPLIT("\\\\bx")}, CT_ERR_UNSUPPORTED, BAD("\\b")},
        {{.pre = SPLIT("[a&&b]")}, CT_ERR_UNSUPPORTED, BAD("an intersection")},
        {{.pre = SPLIT("[[:alpha:]]")}, CT_ERR_UNSUPPORTED, BAD("a class within a class")},
        {{.pre = SPLIT("(?m:x)")}, CT_ERR_UNSUPPORTED, BAD("(?m:")},
        {{.pre = SPLIT("(*UTF)x")}, CT_ERR_UNSUPPORTED, BAD("(*UT")},
        {{.pre = SPLIT("x{1,2}+")}, CT_ERR_UNSUPPORTED, BAD("a possessive interval {n,m}+")},
        {{.pre = SPLIT("(a")},
         CT_ERR_FORMAT,
         "t: pre_tokenizer.pattern: expected a regular expression, got (a: missing closing "
         "parenthesis"},
        {{.pre = SPLIT("\\\\p{Klingon}")},
         CT_ERR_FORMAT,
         "t: pre_tokenizer.pattern: expected a regular expression, got \\p{sc:Klingon}: unknown "
         "property after \\P or \\p"},
        {{.pre = SPLIT("a\\\\")},
         CT_ERR_FORMAT,
         "t: pre_tokenizer.pattern: expected a character after the last \\"},
    };
    EXPECT_ALL(cases);
}

#define TEMPLATE(single, specials)                                                                 \
    "{\"type\":\"TemplateProcessing\",\"single\":[" single "],\"special_tokens\":{" specials "}}"
#define TEXT_A  "{\"Sequence\":{\"id\":\"A\"}}"
#define SPECIAL "{\"SpecialToken\":{\"id\":\"s\"}}"

static void templates_must_hold_the_text_once_and_ids_of_the_vocabulary(void **state)
{
    (void)state;
    static const wrong cases[] = {
        {{.post = TEMPLATE("", "")},
         CT_ERR_UNSUPPORTED,
         "t: post_processor.single: expected the sequence A, once"},
        {{.post = TEMPLATE(TEXT_A "," TEXT_A, "")},
         CT_ERR_UNSUPPORTED,
         "t: post_processor.single: expected the sequence A, once"},
        {{.post = TEMPLATE("{\"Sequence\":{\"id\":\"B\"}}", "")},
         CT_ERR_UNSUPPORTED,
         "t: post_processor.single: expected the sequence A, once"},
        {{.post = TEMPLATE(SPECIAL "," TEXT_A, "")},
         CT_ERR_NOT_FOUND,
         "t: post_processor.single: expected a token of special_tokens, got \"s\""},
        {{.post = TEMPLATE(SPECIAL "," TEXT_A, "\"s\":{\"ids\":[7]}")},
         CT_ERR_VALUE,
         "t: post_processor.special_tokens: expected ids of the vocabulary, got 7"},
    };
    EXPECT_ALL(cases);
    ct_tokenizer *t = open_parts(
        (parts){.post = TEMPLATE(SPECIAL "," TEXT_A "," SPECIAL, "\"s\":{\"ids\":[2,3]}")});
    assert_string_equal(ids_of(t, "a"), "2 3 0 2 3");
    assert_string_equal(ids_of(t, ""), "2 3 2 3");
    ct_tokenizer_close(t);
}

static void sparse_ids_cost_no_memory_and_their_holes_cannot_be_decoded(void **state)
{
    (void)state;
    ct_err err = {0};
    char *text;
    size_t size;
    alloc_start(0);
    ct_tokenizer *t = open_parts((parts){.vocab = "\"b\":2147483647,\"a\":7,\"ab\":1000000000"});
    alloc_stop();
    assert_true(alloc.peak < 16 << 20);
    assert_true(ct_tokenizer_vocab_size(t) == (size_t)INT32_MAX + 1);
    assert_string_equal(ids_of(t, "aab"), "7 1000000000");
    assert_string_equal(ids_of(t, "b"), "2147483647");
    static const int32_t good[] = {7, INT32_MAX, 1000000000}, bad[][1] = {{8}, {-1}, {INT32_MIN}};
    assert_ok(ct_tokenizer_decode(t, good, 3, false, &text, &size, &err));
    assert_string_equal(text, "abab");
    free(text);
    assert_fails(ct_tokenizer_decode(t, bad[0], 1, false, &text, &size, &err), CT_ERR_VALUE,
                 "ids: expected ids of the vocabulary, got 8 at place 0");
    assert_fails(ct_tokenizer_decode(t, bad[1], 1, false, &text, &size, &err), CT_ERR_VALUE,
                 "got -1 at place 0");
    assert_fails(ct_tokenizer_decode(t, bad[2], 1, false, &text, &size, &err), CT_ERR_VALUE,
                 "got -2147483648");
    ct_tokenizer_close(t);
}

static void tokens_that_only_look_like_bytes_are_text(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_tokenizer *t = open_parts((parts){
        .vocab = "\"<0x-1>\":0,\"<0xZZ>\":1,\"<0x100>\":2,\"<0x41>\":3,\"<0xC3>\":4,\"<0xA9>\":5,"
                 "\"u\":6",
        .merges = "",
        .model = "\"byte_fallback\":true,\"unk_token\":\"u\",\"fuse_unk\":true,",
        .decoder = "{\"type\":\"ByteFallback\"}"});
    static const int32_t ids[] = {0, 1, 2, 3, 4, 5, 4};
    char *text;
    size_t size;
    assert_ok(ct_tokenizer_decode(t, ids, 7, false, &text, &size, &err));
    assert_string_equal(text,
                        "<0x-1><0xZZ><0x100>\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    free(text);
    assert_ok(ct_tokenizer_decode(t, ids, 6, false, &text, &size, &err));
    assert_string_equal(text, "<0x-1><0xZZ><0x100>A\xC3\xA9");
    free(text);
    assert_string_equal(ids_of(t, "A\xC3\xA9"), "3 4 5");
    assert_string_equal(ids_of(t, "AB"), "3 6"); /* <0x42> is missing */
    ct_tokenizer_close(t);
}

static void a_character_without_any_token_is_an_error_and_not_dropped(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_tokenizer *t = open_parts((parts){0});
    int32_t *ids;
    size_t count;
    assert_fails(ct_tokenizer_encode(t, "ab\xC3\xA9", 4, true, &ids, &count, &err), CT_ERR_VALUE,
                 "text: expected characters of the vocabulary, got U+00E9");
    ct_tokenizer_close(t);
}

static void text_that_is_not_utf8_is_refused_with_the_offset(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        const char *part;
    } cases[] = {
        {"ab\xFF", 3, "text: expected UTF-8, got byte 0xFF at offset 2"},
        {"\xED\xA0\x80", 3, "got byte 0xED at offset 0"},
        {"abababababab\xC0\x80", 14, "got byte 0xC0 at offset 12"},
        {"a\xE2\x82", 3, "got byte 0xE2 at offset 1"},
        {"\xF4\x90\x80\x80", 4, "got byte 0xF4 at offset 0"},
        {"\x80", 1, "got byte 0x80 at offset 0"},
    };
    ct_tokenizer *t = open_parts((parts){0});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_err err = {0};
        int32_t *ids;
        size_t count;
        assert_fails(ct_tokenizer_encode(t, cases[i].text, cases[i].size, true, &ids, &count, &err),
                     CT_ERR_VALUE, cases[i].part);
    }
    ct_tokenizer_close(t);
}

static void nul_is_a_character_like_others(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_tokenizer *t = open_parts(
        (parts){.vocab = "\"a\":0,\"\\u0000\":1,\"a\\u0000\":2", .merges = "[\"a\",\"\\u0000\"]"});
    int32_t *ids;
    char *text;
    size_t count, size;
    assert_ok(ct_tokenizer_encode(t, "a\0\0", 3, true, &ids, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], 1);
    assert_ok(ct_tokenizer_decode(t, ids, count, false, &text, &size, &err));
    assert_int_equal(size, 3);
    assert_memory_equal(text, "a\0\0", 4);
    free(ids);
    free(text);
    ct_tokenizer_close(t);
}

static void nested_quantifiers_end_with_an_error(void **state)
{
    (void)state;
    ct_err err = {0};
    static const char *const expressions[] = {SPLIT("(a+)+[bd]"), SPLIT("(a|aa)+[bd]"),
                                              SPLIT("(?:(?:a*)*)*[bd]")};
    char text[64];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < 3; i++) {
        ct_tokenizer *t = open_parts((parts){.pre = expressions[i]});
        int32_t *ids;
        size_t count;
        assert_fails(ct_tokenizer_encode(t, text, sizeof text, true, &ids, &count, &err),
                     CT_ERR_LIMIT, "regular expression: expected a match within the limits");
        ct_tokenizer_close(t);
    }
}

/* Offsets of each token as "begin-end ..." in a static buffer. */
static const char *offsets_of(const ct_tokenizer *t, const char *text)
{
    static char line[1024];
    ct_err err = {0};
    int32_t *ids;
    size_t count, at = 0, *begin, *end;
    assert_ok(
        ct_tokenizer_encode_offsets(t, text, strlen(text), true, &ids, &begin, &end, &count, &err));
    line[0] = 0;
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, i ? " %zu-%zu" : "%zu-%zu", begin[i],
                               end[i]);
    free(ids);
    free(begin);
    free(end);
    return line;
}

static void offsets_are_the_characters_that_a_token_stands_for(void **state)
{
    (void)state;
    /* What is put in front stands for nothing; BOS neither; what replaces stands for all of it. */
    ct_tokenizer *t = open_parts(
        (parts){.vocab = "\"a\":0,\"b\":1,\"ab\":2,\"_\":3,\"e\\u0301\":5,\"\\u00e9\":6,\"x\":7",
                .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
                              "{\"type\":\"Prepend\",\"prepend\":\"_\"},{\"type\":\"Replace\","
                              "\"pattern\":{\"String\":\"  \"},\"content\":\"_\"}]}",
                .post = TEMPLATE(SPECIAL "," TEXT_A, "\"s\":{\"ids\":[7]}")});
    assert_string_equal(ids_of(t, "ab  b"), "7 3 2 3 1");
    assert_string_equal(offsets_of(t, "ab  b"), "0-0 0-0 0-2 2-4 4-5");
    assert_string_equal(ids_of(t, "ae\xCC\x81"), "7 3 0 6");
    assert_string_equal(offsets_of(t, "ae\xCC\x81"), "0-0 0-0 0-1 1-4");
    ct_tokenizer_close(t);

    /* Each byte of a character stands for the whole character. */
    t = open_parts((parts){.vocab = "\"<0xC3>\":0,\"<0xA9>\":1,\"a\":2",
                           .merges = "",
                           .model = "\"byte_fallback\":true,"});
    assert_string_equal(offsets_of(t, "a\xC3\xA9"), "0-1 1-3 1-3");
    ct_tokenizer_close(t);
}

static void special_ids_and_text_come_from_the_config(void **state)
{
    (void)state;
    static const char config[] =
        "{\"bos_token\":{\"content\":\"ab\",\"lstrip\":false},\"eos_token\":\"b\"}";
    static const char unknown[] = "{\"bos_token\":\"nowhere\"}";
    ct_err err = {0};
    ct_tokenizer *t;
    char *json = document((parts){0});
    assert_ok(ct_tokenizer_open_bytes(json, strlen(json), config, strlen(config), "t", &t, &err));
    assert_int_equal(ct_tokenizer_bos(t), 2);
    assert_int_equal(ct_tokenizer_eos(t), 1);
    assert_string_equal(ct_tokenizer_bos_text(t), "ab");
    assert_false(ct_tokenizer_wants_special(t, "abx", 3));
    assert_true(ct_tokenizer_wants_special(t, "a", 1));
    assert_int_equal(ct_tokenizer_token_id(t, "ab"), 2);
    assert_int_equal(ct_tokenizer_token_id(t, "abc"), -1);
    assert_int_equal(strlen(ct_tokenizer_hash(t)), 32);
    ct_tokenizer_close(t);
    assert_fails(
        ct_tokenizer_open_bytes(json, strlen(json), unknown, strlen(unknown), "t", &t, &err),
        CT_ERR_NOT_FOUND,
        "t: tokenizer_config.bos_token: expected a token of tokenizer.json, got "
        "\"nowhere\"");
    free(json);
}

static void a_folder_without_tokenizer_json_is_not_found(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_tokenizer *t;
    assert_fails(ct_tokenizer_open(temp_root, &t, &err), CT_ERR_NOT_FOUND, "tokenizer.json");
    assert_null(t);
    assert_true(mkdir(temp_path("tokenizer.json"), 0700) == 0);
    assert_fails(ct_tokenizer_open(temp_root, &t, &err), CT_ERR_IO, "a directory");
}

/* Fills a list with the entry, again and again; '#' in it stands for the entry's number. */
static void grow_list(ct_buf *out, const char *entry, size_t size)
{
    ct_err err = {0};
    for (unsigned i = 0; out->size < size; i++) {
        if (i > 0) assert_ok(ct_buf_add(out, ",", 1, &err));
        for (const char *p = entry; *p; p++) {
            if (*p == '#') assert_ok(ct_buf_addf(out, &err, "%u", i));
            else assert_ok(ct_buf_add(out, p, 1, &err));
        }
    }
}

static void expect_within_memory(const char *json, bool opens)
{
    ct_err err = {0};
    ct_tokenizer *t;
    int64_t size = (int64_t)strlen(json);
    alloc_start(0);
    ct_status st = ct_tokenizer_open_bytes(json, (size_t)size, NULL, 0, "t", &t, &err);
    alloc_stop();
    if (opens != (st == CT_OK)) fail_msg("%s", err.text);
    if (alloc.peak > (16 << 20) + 16 * size)
        fail_msg("%lld bytes took %lld", (long long)size, (long long)alloc.peak);
    ct_tokenizer_close(t);
}

static void memory_stays_below_16_times_the_file(void **state)
{
    (void)state;
    static const struct {
        const char *before, *entry, *after;
        size_t size;
        bool opens;
    } cases[] = {
        {"{\"model\":{\"vocab\":{", "\"#\":#", "},\"merges\":[]}}", 34 << 20, true},
        {"{\"model\":{\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[", "\"a a\"", "]}}", 8 << 20, true},
        {"{\"model\":{\"vocab\":{},\"merges\":[]},\"added_tokens\":[",
         "{\"content\":\"#\",\"id\":#}", "]}", 8 << 20, true},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Sequence\","
         "\"normalizers\":[",
         "{\"type\":\"NFC\"}", "]}}", 8 << 20, false},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"decoder\":{\"type\":\"Sequence\","
         "\"decoders\":[",
         "{\"type\":\"Fuse\"}", "]}}", 8 << 20, false},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"x\":[", "[]", "]}", 1 << 20, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_err err = {0};
        ct_buf json = {0};
        assert_ok(ct_buf_adds(&json, cases[i].before, &err));
        grow_list(&json, cases[i].entry, cases[i].size);
        assert_ok(ct_buf_adds(&json, cases[i].after, &err));
        expect_within_memory(json.data, cases[i].opens);
        ct_buf_clear(&json);
    }
}

#define DOUBLE                                                                                     \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaaaaaaaa\"}"
#define EIGHT(x) x "," x "," x "," x "," x "," x "," x "," x

static void a_short_file_cannot_multiply_a_text_without_end(void **state)
{
    (void)state;
    static const char normalizer[] = "{\"type\":\"Sequence\",\"normalizers\":[" EIGHT(DOUBLE) "]}";
    static const char decoder[] = "{\"type\":\"Sequence\",\"decoders\":[" EIGHT(DOUBLE) "]}";
    static const char bytes[] = "{\"type\":\"ByteLevel\",\"use_regex\":false}";
    ct_err err = {0};
    int32_t *ids, id = 0;
    char *text, pre[512];
    size_t count, size;
    expect_text(
        "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Sequence\","
        "\"normalizers\":[" EIGHT(DOUBLE) "]},\"added_tokens\":[{\"id\":1,\"content\":\"aaa\","
                                          "\"normalized\":true}]}",
        CT_ERR_LIMIT,
        "t: text: expected at most 4288 bytes after normalization: does a step of "
        "tokenizer.json multiply it?");
    ct_tokenizer *t = open_parts((parts){.normalizer = normalizer, .decoder = decoder});
    assert_fails(ct_tokenizer_encode(t, "a", 1, true, &ids, &count, &err), CT_ERR_LIMIT,
                 "text: expected at most 4160 bytes after normalization");
    assert_fails(ct_tokenizer_decode(t, &id, 1, true, &text, &size, &err), CT_ERR_LIMIT,
                 "decoding: expected at most 4160 bytes");
    ct_tokenizer_close(t);
    snprintf(pre, sizeof pre, "{\"type\":\"Sequence\",\"pretokenizers\":[%s,%s,%s,%s,%s,%s,%s]}",
             bytes, bytes, bytes, bytes, bytes, bytes, bytes);
    t = open_parts((parts){.pre = pre});
    char *spaces = malloc(100000);
    memset(spaces, '\n', 100000);
    assert_fails(ct_tokenizer_encode(t, spaces, 100000, true, &ids, &count, &err), CT_ERR_LIMIT,
                 "text: expected at most 6404096 bytes after normalization");
    free(spaces);
    ct_tokenizer_close(t);
}

static const parts everything = {
    .vocab = "\"a\":0,\"b\":1,\"ab\":2,\"_\":3,\"<0xC3>\":4,\"<0xA9>\":5",
    .added = "{\"id\":6,\"content\":\"<s>\",\"special\":true},{\"id\":7,\"content\":\"q\","
             "\"normalized\":true,\"single_word\":true}",
    .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Replace\",\"pattern\":"
                  "{\"Regex\":\" +\"},\"content\":\"_\"},{\"type\":\"NFKC\"}]}",
    .pre = "{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT("_") ",{\"type\":\"Metaspace\","
                                                                   "\"replacement\":\"_\"}]}",
    .post = TEMPLATE(SPECIAL "," TEXT_A, "\"s\":{\"ids\":[6]}"),
    .decoder =
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":"
        "\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"},{\"type\":\"Fuse\"}]}",
    .model = "\"byte_fallback\":true,",
};

/* Opens, encodes and decodes; stops at the first failure, which must be for want of memory. */
static bool run_everything(const char *json)
{
    static const char text[] = "ab <s>q<s>\xC3\xA9 ba  e\xCC\x81";
    ct_err err = {0};
    ct_tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t *begin = NULL, *end = NULL, count, size;
    char *decoded = NULL;
    ct_status st = ct_tokenizer_open_bytes(json, strlen(json), NULL, 0, "t", &t, &err);
    if (st == CT_OK)
        st = ct_tokenizer_encode_offsets(t, text, sizeof text - 1, true, &ids, &begin, &end, &count,
                                         &err);
    if (st == CT_OK) st = ct_tokenizer_decode(t, ids, count, true, &decoded, &size, &err);
    if (st != CT_OK && st != CT_ERR_MEMORY) fail_msg("%s: %s", ct_status_name(st), err.text);
    free(ids);
    free(begin);
    free(end);
    free(decoded);
    ct_tokenizer_close(t);
    return st == CT_OK;
}

static void the_nth_allocation_may_fail_for_every_n(void **state)
{
    (void)state;
    char *json = document(everything);
    assert_true(run_everything(json));
    bool passed = false;
    for (long n = 1; !passed; n++) {
        alloc_start(n);
        passed = run_everything(json);
        alloc_stop();
        assert_true(alloc.live == 0);
        /* JIT stacks are optional: a run may pass although an allocation failed. */
        passed = passed && alloc.calls < n;
        assert_true(n < 10000);
    }
    free(json);
}

static void bytes_changed_at_random_never_break_anything(void **state)
{
    (void)state;
    char *json = document(everything);
    size_t size = strlen(json);
    char *copy = malloc(size + 1);
    uint64_t draw = 1;
    for (int i = 0; i < 3000; i++) {
        memcpy(copy, json, size + 1);
        for (int j = 0; j < 2; j++) {
            draw = draw * 6364136223846793005u + 1442695040888963407u;
            copy[(draw >> 33) % size] = "{}[]\",:0a\\<_ 9-"[(draw >> 20) % 15];
        }
        ct_err err = {0};
        ct_tokenizer *t;
        int32_t *ids;
        size_t count;
        if (open_text(copy, &t, &err) != CT_OK) continue;
        if (ct_tokenizer_encode(t, "ab q <s>", 8, true, &ids, &count, &err) == CT_OK) free(ids);
        ct_tokenizer_close(t);
    }
    free(copy);
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_that_are_no_json_are_refused_with_their_place),
        cmocka_unit_test(every_truncation_of_a_file_is_refused),
        cmocka_unit_test(vocabularies_with_bad_ids_or_tokens_twice_are_refused),
        cmocka_unit_test(merges_of_unknown_tokens_and_malformed_merges_are_refused),
        cmocka_unit_test(merges_are_read_in_both_forms_and_behind_a_version_line),
        cmocka_unit_test(added_tokens_that_clash_or_are_empty_are_refused),
        cmocka_unit_test(kinds_and_options_that_are_not_supported_are_named),
        cmocka_unit_test(expressions_that_would_be_read_differently_are_refused),
        cmocka_unit_test(templates_must_hold_the_text_once_and_ids_of_the_vocabulary),
        cmocka_unit_test(sparse_ids_cost_no_memory_and_their_holes_cannot_be_decoded),
        cmocka_unit_test(tokens_that_only_look_like_bytes_are_text),
        cmocka_unit_test(a_character_without_any_token_is_an_error_and_not_dropped),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_with_the_offset),
        cmocka_unit_test(nul_is_a_character_like_others),
        cmocka_unit_test(nested_quantifiers_end_with_an_error),
        cmocka_unit_test(offsets_are_the_characters_that_a_token_stands_for),
        cmocka_unit_test(special_ids_and_text_come_from_the_config),
        cmocka_unit_test_setup_teardown(a_folder_without_tokenizer_json_is_not_found, temp_begin,
                                        temp_end),
        cmocka_unit_test(memory_stays_below_16_times_the_file),
        cmocka_unit_test(a_short_file_cannot_multiply_a_text_without_end),
        cmocka_unit_test(the_nth_allocation_may_fail_for_every_n),
        cmocka_unit_test(bytes_changed_at_random_never_break_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
