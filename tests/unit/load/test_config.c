/* test_config.c - config.json is found by folder or file, within its limits. */
#include "test.h"

#include "io/json.h"
#include "load/load.h"
#include "unit/load/folder.h"

static void a_folder_and_its_file_give_the_same_config(void **state)
{
    (void)state;
    ct_err err = {0};
    json_t *one, *other;
    folder_text("m", "config.json", "{\"hidden_size\": 96, \"window\": null}");
    assert_ok(ct_config_open(temp_path("m"), &one, &err));
    assert_ok(ct_config_open(temp_path("m/config.json"), &other, &err));
    assert_true(json_equal(one, other));
    json_decref(one);
    json_decref(other);
}

static void a_config_that_is_not_there_or_no_object_is_refused_with_its_path(void **state)
{
    (void)state;
    ct_err err = {0};
    json_t *config;
    assert_fails(ct_config_open(temp_path("none"), &config, &err), CT_ERR_NOT_FOUND,
                 "/none: expected a file, got none");
    folder_text("empty", "other", "");
    assert_fails(ct_config_open(temp_path("empty"), &config, &err), CT_ERR_NOT_FOUND,
                 "/empty/config.json: expected a file, got none");
    folder_text("list", "config.json", "[1]");
    assert_fails(ct_config_open(temp_path("list"), &config, &err), CT_ERR_FORMAT,
                 "/list/config.json: expected a JSON object, got an array");
    folder_text("dup", "config.json", "{\"a\": 1, \"a\": 2}");
    assert_fails(ct_config_open(temp_path("dup"), &config, &err), CT_ERR_FORMAT,
                 "duplicate object key");
    assert_null(config);
}

static void a_config_over_a_mebibyte_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    json_t *config;
    folder_text("big", "config.json", "{}");
    assert_int_equal(truncate(temp_path("big/config.json"), CT_CONFIG_MAX_BYTES + 1), 0);
    assert_fails(ct_config_open(temp_path("big"), &config, &err), CT_ERR_LIMIT,
                 "expected at most 1048576 bytes, got 1048577");
}

/* What an architecture does with its keys: each way to be wrong names the file and the key. */
static void every_field_error_names_the_file_and_the_key(void **state)
{
    (void)state;
    ct_err err = {0};
    json_t *config;
    folder_text(
        "f", "config.json",
        "{\"hidden_size\": 96.0, \"num_hidden_layers\": 0, \"vocab_size\": \"512\","
        "\"rope_theta\": -1, \"block_types\": [\"attention\", 2], \"num_attention_head\": 4,"
        "\"tie_word_embeddings\": 1, \"lru_width\": null}");
    assert_ok(ct_config_open(temp_path("f"), &config, &err));
    const char *where = temp_path("f/config.json");
    int64_t whole = 5;
    double real;
    bool yes;
    const json_t *list;
    assert_fails(ct_json_int(config, "hidden_size", true, 1, 1 << 20, where, &whole, &err),
                 CT_ERR_FORMAT, "/f/config.json: hidden_size: expected an integer, got a number");
    assert_fails(ct_json_int(config, "num_hidden_layers", true, 1, 4096, where, &whole, &err),
                 CT_ERR_VALUE, "/f/config.json: num_hidden_layers: expected 1 to 4096, got 0");
    assert_fails(ct_json_int(config, "vocab_size", true, 1, 1 << 20, where, &whole, &err),
                 CT_ERR_FORMAT, "/f/config.json: vocab_size: expected an integer, got a string");
    assert_fails(ct_json_real(config, "rope_theta", true, 1, 1e9, where, &real, &err), CT_ERR_VALUE,
                 "/f/config.json: rope_theta: expected 1 to 1e+09, got -1");
    assert_fails(ct_json_texts(config, "block_types", true, where, &list, &err), CT_ERR_FORMAT,
                 "/f/config.json: block_types[1]: expected a string, got an integer");
    assert_fails(ct_json_bool(config, "tie_word_embeddings", true, where, &yes, &err),
                 CT_ERR_FORMAT,
                 "/f/config.json: tie_word_embeddings: expected true or false, got an integer");
    assert_fails(ct_json_int(config, "num_attention_heads", true, 1, 64, where, &whole, &err),
                 CT_ERR_NOT_FOUND,
                 "/f/config.json: num_attention_heads: expected an integer, got none; did you mean "
                 "\"num_attention_head\"?");
    assert_ok(ct_json_int(config, "lru_width", false, 1, 64, where, &whole, &err));
    assert_int_equal(whole, 5);
    json_decref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_and_its_file_give_the_same_config),
        cmocka_unit_test(a_config_that_is_not_there_or_no_object_is_refused_with_its_path),
        cmocka_unit_test(a_config_over_a_mebibyte_is_refused),
        cmocka_unit_test(every_field_error_names_the_file_and_the_key),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
