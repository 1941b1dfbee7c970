/* test_export.c - cells as CSV and JSON lines: quoting, broken UTF-8, column names. */
#include "test.h"

#include <jansson.h>
#include <unistd.h>

#include <cortado/lab.h>

#include "base/buf.h"
#include "store/store.h"

static char dir[64];

static ct_status append(void *user, const char *bytes, size_t size, ct_err *err)
{
    return ct_buf_add(user, bytes, size, err);
}

static const int32_t ids[] = {7, -1, 65};

static const ct_cell cell = {
    .key = "000102030405060708090a0b0c0d0e0f",
    .study = "s,1",
    .model = "m",
    .family = "griffin",
    .heads = 8,
    .length = 250,
    .depth = 33,
    .keep_heads = -1,
    .metric = "",
    .stages = "",
    .weights_generation = "null",
    .weights_prefill = "keep",
    .template_name = "base",
    .read_twice = true,
    .semantics = "paper",
    .scoring = "table",
    .prompt = "p",
    .prompt_ids_hash = "ff",
    .prompt_tokens = 251,
    .needle_token_begin = 3,
    .needle_token_end = 9,
    .status = CT_CELL_FAILED,
    .error = "what: expected \"a\", got b",
    .ids = ids,
    .n_ids = 3,
    /* comma, quote, line end, carriage return, control character, e acute, a stray byte, backslash
     */
    .text = "a,\"b\"\r\n\x01\xC3\xA9\xFF\\",
    .score = 0.1,
    .max_score = 5,
    .audit = {{1, 2}, {3, 4}, {5, 6}, {7, 8}, {9, 10}},
    .prefill_ms = 1.0 / 3,
    .decode_ms = 2,
    .finished_unix_ms = 1700000000001,
};

static int make_run(void **state)
{
    (void)state;
    ct_store *store;
    char path[128];
    snprintf(dir, sizeof dir, "/tmp/cortado-export-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/run.sqlite", dir);
    ct_status st = ct_store_open(path, true, &store, NULL);
    if (st == CT_OK) st = ct_store_begin(store, &(ct_provenance){.study = "s,1"}, NULL);
    if (st == CT_OK) st = ct_store_put(store, &cell, 1, NULL);
    if (st == CT_OK) st = ct_store_end(store, "done", 1, NULL);
    ct_store_close(store);
    return st == CT_OK ? 0 : -1;
}

static int remove_run(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static void a_line_of_json_is_valid_and_has_the_promised_fields(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_buf out = {0};
    json_error_t why;
    assert_ok(ct_run_export(dir, CT_EXPORT_JSONL, append, &out, &err));
    assert_int_equal(out.data[out.size - 1], '\n');
    json_t *o = json_loadb(out.data, out.size, JSON_REJECT_DUPLICATES, &why);
    assert_non_null(o);
    static const char *const texts[][2] = {
        {"study", "s,1"},
        {"model", "m"},
        {"metric", ""},
        {"stages", ""},
        {"template", "base"},
        {"weights_generation", "null"},
        {"semantics", "paper"},
        {"weights_prefill", "keep"},
        {"status", "failed"},
        {"error", "what: expected \"a\", got b"},
        {"scoring", "table"},
        {"text", "a,\"b\"\r\n\x01\xC3\xA9\\xFF\\"},
        {"prompt_ids_hash", "ff"},
        {"key", "000102030405060708090a0b0c0d0e0f"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *got = json_string_value(json_object_get(o, texts[i][0]));
        assert_non_null(got);
        assert_string_equal(got, texts[i][1]);
    }
    static const struct {
        const char *name;
        json_int_t value;
    } wholes[] = {
        {"length", 250},
        {"depth", 33},
        {"keep_heads", -1},
        {"heads", 8},
        {"prompt_tokens", 251},
        {"needle_token_begin", 3},
        {"needle_token_end", 9},
        {"head_rows_prefill", 3},
        {"edit_rows_changed_generation", 10},
        {"max_score", 5},
        {"finished_unix_ms", 1700000000001},
    };
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++)
        assert_int_equal(json_integer_value(json_object_get(o, wholes[i].name)), wholes[i].value);
    assert_true(json_is_true(json_object_get(o, "read_twice")));
    assert_true(json_real_value(json_object_get(o, "score")) == 0.1);
    assert_true(json_real_value(json_object_get(o, "prefill_ms")) == 1.0 / 3);
    const json_t *list = json_object_get(o, "ids");
    assert_int_equal(json_array_size(list), 3);
    assert_int_equal(json_integer_value(json_array_get(list, 1)), -1);
    json_decref(o);
    ct_buf_clear(&out);
}

static void csv_has_a_header_and_doubles_quotes(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_buf out = {0};
    assert_ok(ct_run_export(dir, CT_EXPORT_CSV, append, &out, &err));
    static const char header[] =
        "study,model,length,depth,keep_heads,metric,seed,stages,weights_generation,weights_prefill,"
        "template,read_twice,semantics,text,score,max_score,status,error,";
    assert_memory_equal(out.data, header, sizeof header - 1);
    assert_non_null(strstr(out.data, "decode_ms,finished_unix_ms\r\n"
                                     "\"s,1\",m,250,33,-1,,0,,null,keep,base,true,paper,"
                                     "\"a,\"\"b\"\"\r\n\x01\xC3\xA9\\xFF\\\",0.1,5,failed,"
                                     "\"what: expected \"\"a\"\", got b\",table,8,0,251,ff,"));
    assert_non_null(strstr(out.data, ",\"[7,-1,65]\","));
    assert_true(ct_utf8_valid(out.data, out.size));
    ct_buf_clear(&out);
}

static ct_status refuse(void *user, const char *bytes, size_t size, ct_err *err)
{
    (void)user;
    (void)bytes;
    (void)size;
    (void)err;
    return CT_ERR_IO;
}

static void an_export_that_cannot_be_written_or_read_is_an_error(void **state)
{
    (void)state;
    ct_err err = {0};
    assert_int_equal(ct_run_export(dir, CT_EXPORT_CSV, refuse, NULL, &err), CT_ERR_IO);
    assert_int_equal(ct_run_export(dir, CT_EXPORT_JSONL, refuse, NULL, &err), CT_ERR_IO);
    assert_fails(ct_run_export("/no/such/run", CT_EXPORT_CSV, append, NULL, &err), CT_ERR_NOT_FOUND,
                 "/no/such/run/run.sqlite");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_of_json_is_valid_and_has_the_promised_fields),
        cmocka_unit_test(csv_has_a_header_and_doubles_quotes),
        cmocka_unit_test(an_export_that_cannot_be_written_or_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
