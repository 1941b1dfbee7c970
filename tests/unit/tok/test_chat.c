/* test_chat.c - chat templates: which is known, what is rendered, one BOS.
 *
 * With a file of JSON lines as its argument (tools/oracle_chat.py writes one with jinja2) it compares
 * those instead: {"config": tokenizer_config.json, "message": TEXT or "messages": [...], "rendered": TEXT}.
 */
#include "test.h"

#include <jansson.h>

#include "base/buf.h"
#include "tok/chat.h"
#include "tok/tok.h"
#include "unit/io/temp.h"

#define GEMMA                                                                                      \
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + role + '\\n' + "           \
    "message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}"  \
    "{{'<start_of_turn>model\\n'}}{% endif %}"

#define JAMBA                                                                                      \
    "{% set default_system_message = '' %}{% if bos_token %}{{ bos_token }}{% endif %}"            \
    "{{ '<|bom|><|system|> ' + default_system_message }}{% for message in messages %}"             \
    "{{ '<|eom|><|bom|><|' + message.role + '|> ' + message.content }}{% endfor %}"                \
    "{% if add_generation_prompt %}{{ '<|eom|><|bom|><|assistant|>' }}{% endif %}"

static ct_err err;

static const char json[] =
    "{\"model\":{\"vocab\":{\"<unk>\":0,\"a\":1},\"merges\":[],\"unk_token\":\"<unk>\"},"
    "\"added_tokens\":[{\"id\":2,\"content\":\"<bos>\",\"special\":true}],"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<bos>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<bos>\":{\"ids\":[2]}}}}";

static ct_tokenizer *open_with(const char *template)
{
    ct_tokenizer *t;
    char *config = ct_strf(NULL, "{\"bos_token\":\"<bos>\"%s%s}",
                           template ? ",\"chat_template\":" : "", template ? template : "");
    assert_ok(ct_tokenizer_open_bytes(json, strlen(json), config, strlen(config), "t", &t, &err));
    free(config);
    return t;
}

static void expect_rendered(const char *template, const char *message, const char *expected)
{
    ct_tokenizer *t = open_with(template);
    char *text;
    size_t size;
    assert_ok(ct_chat_render(t, message, strlen(message), &text, &size, &err));
    assert_string_equal(text, expected);
    assert_int_equal(size, strlen(expected));
    free(text);
    ct_tokenizer_close(t);
}

static void gemma_messages_are_trimmed_and_put_between_turns(void **state)
{
    (void)state;
    static const char hello[] =
        "<bos><start_of_turn>user\nHello  you<end_of_turn>\n<start_of_turn>model\n";
    expect_rendered("\"" GEMMA "\"", "Hello  you", hello);
    /* As Python's strip: no-break and ideographic spaces and ASCII's separators too. */
    expect_rendered("\"" GEMMA "\"", " \n\t\x1c\xC2\xA0Hello  you\xE3\x80\x80\x1f\r\n", hello);
    expect_rendered("\"" GEMMA "\"", "\xE2\x80\x8BHello",
                    "<bos><start_of_turn>user\n\xE2\x80\x8BHello<end_of_turn>\n"
                    "<start_of_turn>model\n");
    expect_rendered("\"" GEMMA "\"", " \n ",
                    "<bos><start_of_turn>user\n<end_of_turn>\n<start_of_turn>model\n");
}

static void jamba_messages_stay_as_they_are_after_an_empty_system_block(void **state)
{
    (void)state;
    expect_rendered("\"" JAMBA "\"", " Hello\n you \n",
                    "<bos><|bom|><|system|> <|eom|><|bom|><|user|>  Hello\n you \n"
                    "<|eom|><|bom|><|assistant|>");
    expect_rendered("\"jamba\"", "",
                    "<bos><|bom|><|system|> <|eom|><|bom|><|user|> <|eom|><|bom|><|assistant|>");
    /* A template that does not name BOS: the tokenizer may add it. */
    expect_rendered("\"{{ default_system_message + '<|bom|>' + '<|eom|>' }}\"", "a",
                    "<|bom|><|system|> <|eom|><|bom|><|user|> a<|eom|><|bom|><|assistant|>");
}

static void a_family_is_named_in_the_config_or_in_a_list_of_templates(void **state)
{
    (void)state;
    static const char a[] = "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n";
    expect_rendered("\"gemma\"", "a", a);
    expect_rendered("[{\"name\":\"tools\",\"template\":\"x\"},{\"name\":\"default\",\"template\":"
                    "\"" GEMMA "\"}]",
                    "a", a);
}

static void a_rendered_text_is_encoded_with_exactly_one_bos(void **state)
{
    (void)state;
    ct_tokenizer *t = open_with("\"gemma\"");
    char *text;
    int32_t *ids;
    size_t size, count, n_bos = 0;
    assert_ok(ct_chat_render(t, "a", 1, &text, &size, &err));
    assert_false(ct_tokenizer_wants_special(t, text, size));
    assert_true(ct_tokenizer_wants_special(t, "a", 1));
    assert_ok(ct_tokenizer_encode(t, text, size, ct_tokenizer_wants_special(t, text, size), &ids,
                                  &count, &err));
    for (size_t i = 0; i < count; i++) n_bos += ids[i] == ct_tokenizer_bos(t);
    assert_int_equal(n_bos, 1);
    assert_int_equal(ids[0], ct_tokenizer_bos(t));
    free(ids);
    free(text);
    ct_tokenizer_close(t);
}

static void an_unknown_or_absent_template_is_an_error_that_names_the_known_ones(void **state)
{
    (void)state;
    char *text;
    size_t size;
    ct_tokenizer *t = open_with(NULL);
    assert_fails(ct_chat_render(t, "a", 1, &text, &size, &err), CT_ERR_NOT_FOUND,
                 "chat template: expected one of a known family (gemma, jamba), got none; to name "
                 "the family, put \"chat_template\": \"NAME\" into tokenizer_config.json");
    ct_tokenizer_close(t);
    t = open_with("\"{{ '[INST] ' + message }}\"");
    assert_fails(ct_chat_render(t, "a", 1, &text, &size, &err), CT_ERR_UNSUPPORTED,
                 "expected one of a known family (gemma, jamba), got another");
    ct_tokenizer_close(t);
}

static void a_message_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    char *text;
    size_t size;
    ct_tokenizer *t = open_with("\"gemma\"");
    assert_fails(ct_chat_render(t, "a\xFF", 2, &text, &size, &err), CT_ERR_VALUE,
                 "message: expected UTF-8, got byte 0xFF at offset 1");
    ct_tokenizer_close(t);
}

static const ct_chat_message conversation[] = {{CT_CHAT_SYSTEM, "Be brief. "},
                                               {CT_CHAT_USER, " 1+1?"},
                                               {CT_CHAT_ASSISTANT, "2"},
                                               {CT_CHAT_USER, "2+2?"}};

static void several_messages_are_turns_and_gemma_refuses_a_system(void **state)
{
    (void)state;
    char *text;
    size_t size;
    ct_tokenizer *t = open_with("\"" JAMBA "\"");
    assert_true(ct_chat_takes_system(t));
    assert_ok(ct_chat_render_messages(t, conversation, 4, &text, &size, &err));
    assert_string_equal(text, "<bos><|bom|><|system|> Be brief. <|eom|><|bom|><|user|>  1+1?<|eom|>"
                              "<|bom|><|assistant|> 2<|eom|><|bom|><|user|> 2+2?<|eom|>"
                              "<|bom|><|assistant|>");
    assert_int_equal(size, strlen(text));
    free(text);
    ct_tokenizer_close(t);
    t = open_with("\"" GEMMA "\"");
    assert_false(ct_chat_takes_system(t));
    assert_ok(ct_chat_render_messages(t, conversation + 1, 3, &text, &size, &err));
    assert_string_equal(text, "<bos><start_of_turn>user\n1+1?<end_of_turn>\n<start_of_turn>model\n"
                              "2<end_of_turn>\n<start_of_turn>user\n2+2?<end_of_turn>\n"
                              "<start_of_turn>model\n");
    free(text);
    assert_fails(ct_chat_render_messages(t, conversation, 4, &text, &size, &err),
                 CT_ERR_UNSUPPORTED, "got one of the system, which the gemma template refuses");
    /* Not by turns, or with an answer as the last. */
    assert_fails(ct_chat_render_messages(t, conversation, 0, &text, &size, &err), CT_ERR_VALUE,
                 "the user's first and last, got 0");
    assert_fails(ct_chat_render_messages(t, conversation, 1, &text, &size, &err), CT_ERR_VALUE,
                 "by turns");
    assert_fails(ct_chat_render_messages(t, conversation, 3, &text, &size, &err), CT_ERR_VALUE,
                 "by turns");
    assert_fails(ct_chat_render_messages(t, conversation + 2, 2, &text, &size, &err), CT_ERR_VALUE,
                 "by turns");
    ct_tokenizer_close(t);
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(temp_path(name), "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_true(fclose(file) == 0);
}

static void the_template_may_be_a_file_of_its_own(void **state)
{
    (void)state;
    ct_tokenizer *t;
    char *text;
    size_t size;
    write_file("tokenizer.json", json);
    write_file("chat_template.jinja", "{{ '<start_of_turn>' + message | trim + '<end_of_turn>' }}");
    assert_ok(ct_tokenizer_open(temp_root, &t, &err));
    assert_ok(ct_chat_render(t, "a", 1, &text, &size, &err));
    assert_string_equal(text, "<start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n");
    free(text);
    ct_tokenizer_close(t);
}

/* A tokenizer that knows the config's BOS, if it has one. */
static ct_status open_for(const json_t *config, const char *where, ct_tokenizer **out)
{
    const json_t *bos = json_object_get(config, "bos_token");
    if (json_is_object(bos)) bos = json_object_get(bos, "content");
    json_t *tokenizer = json_loads(json, 0, NULL);
    json_object_del(tokenizer, "post_processor");
    if (bos)
        json_object_set(json_array_get(json_object_get(tokenizer, "added_tokens"), 0), "content",
                        (json_t *)(uintptr_t)bos);
    json_t *kept = json_pack("{s:O}", "chat_template", json_object_get(config, "chat_template"));
    if (bos) json_object_set(kept, "bos_token", (json_t *)(uintptr_t)bos);
    char *tokenizer_text = json_dumps(tokenizer, 0), *config_text = json_dumps(kept, 0);
    ct_status st = ct_tokenizer_open_bytes(tokenizer_text, strlen(tokenizer_text), config_text,
                                           strlen(config_text), where, out, &err);
    free(tokenizer_text);
    free(config_text);
    json_decref(tokenizer);
    json_decref(kept);
    return st;
}

/* What cortado makes of a line's message or messages. */
static ct_status render_line(const ct_tokenizer *t, const json_t *test, char **text, size_t *size)
{
    const json_t *message = json_object_get(test, "message"),
                 *messages = json_object_get(test, "messages");
    ct_chat_message list[16];
    size_t n = json_array_size(messages);
    if (!messages)
        return ct_chat_render(t, json_string_value(message), json_string_length(message), text,
                              size, &err);
    if (n > 16) return ct_fail(&err, CT_ERR_LIMIT, "expected up to 16 messages, got %zu", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        list[i].text = json_string_value(json_object_get(m, "content"));
        for (int r = CT_CHAT_SYSTEM; r <= CT_CHAT_ASSISTANT; r++)
            if (!strcmp(role, ct_chat_role_name((ct_chat_role)r))) list[i].role = (ct_chat_role)r;
    }
    return ct_chat_render_messages(t, list, n, text, size, &err);
}

/* Compares a file of the oracle; returns the number of differences. */
static int compare_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) return 1;
    char *line = NULL;
    size_t room = 0;
    int cases = 0, differ = 0;
    while (getline(&line, &room, file) > 0) {
        json_t *test = json_loads(line, 0, NULL);
        if (!test) return 1;
        const json_t *rendered = json_object_get(test, "rendered");
        ct_tokenizer *t = NULL;
        char *text = NULL;
        size_t size = 0;
        ct_status st = open_for(json_object_get(test, "config"), path, &t);
        if (st == CT_OK) st = render_line(t, test, &text, &size);
        if (st != CT_OK || size != json_string_length(rendered) ||
            memcmp(text, json_string_value(rendered), size) != 0) {
            printf("case %d: %s\n", cases, st == CT_OK ? text : err.text);
            differ++;
        }
        cases++;
        free(text);
        ct_tokenizer_close(t);
        json_decref(test);
    }
    free(line);
    fclose(file);
    printf("%d cases, %d differ\n", cases, differ);
    return cases > 0 ? differ : 1;
}

int main(int argc, char **argv)
{
    if (argc > 1) return compare_file(argv[1]) != 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemma_messages_are_trimmed_and_put_between_turns),
        cmocka_unit_test(jamba_messages_stay_as_they_are_after_an_empty_system_block),
        cmocka_unit_test(a_family_is_named_in_the_config_or_in_a_list_of_templates),
        cmocka_unit_test(a_rendered_text_is_encoded_with_exactly_one_bos),
        cmocka_unit_test(an_unknown_or_absent_template_is_an_error_that_names_the_known_ones),
        cmocka_unit_test(several_messages_are_turns_and_gemma_refuses_a_system),
        cmocka_unit_test(a_message_that_is_not_utf8_is_refused),
        cmocka_unit_test_setup_teardown(the_template_may_be_a_file_of_its_own, temp_begin,
                                        temp_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
