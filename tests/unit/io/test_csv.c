/* test_csv.c - rows and fields of CSV and TSV, and what is refused. */
#include "test.h"

#include "base/buf.h"
#include "io/csv.h"
#include "unit/io/temp.h"

static ct_err err;

/* Rows as "line:[field][field]" one after another. */
static ct_status collect(void *user, const ct_csv_row *row, ct_err *e)
{
    ct_buf *out = user;
    ct_status st = ct_buf_addf(out, e, "%d:", (int)row->line);
    for (size_t i = 0; i < row->n && st == CT_OK; i++)
        st = ct_buf_addf(out, e, "[%s]", row->fields[i]);
    return st;
}

static void expect_rows(ct_csv_form form, const char *text, const char *rows)
{
    ct_buf out = {0};
    temp_text("table", text);
    assert_ok(ct_csv_each(temp_path("table"), 1 << 20, form, collect, &out, &err));
    assert_string_equal(out.size ? out.data : "", rows);
    ct_buf_clear(&out);
}

static void fields_in_quotes_may_hold_commas_quotes_and_line_ends(void **state)
{
    (void)state;
    expect_rows(CT_CSV_COMMA, "a,b,c\n", "1:[a][b][c]");
    expect_rows(CT_CSV_COMMA, "\"a,b\",\"say \"\"x\"\"\",\"\"\n", "1:[a,b][say \"x\"][]");
    expect_rows(CT_CSV_COMMA, "\"two\nlines\",1\n\"and\r\nthree\",2\nx,y\n",
                "1:[two\nlines][1]3:[and\r\nthree][2]5:[x][y]");
    /* A quote inside a field is text, as Python's csv module reads it. */
    expect_rows(CT_CSV_COMMA, "5\" pipe,a \"b\" c\n", "1:[5\" pipe][a \"b\" c]");
    expect_rows(CT_CSV_COMMA, ",,\n", "1:[][][]");
}

static void lines_end_in_three_ways_and_empty_ones_are_no_rows(void **state)
{
    (void)state;
    expect_rows(CT_CSV_COMMA, "a,b\r\n\r\nc,d\re\n\n\nf", "1:[a][b]3:[c][d]4:[e]7:[f]");
    expect_rows(CT_CSV_COMMA, "", "");
    expect_rows(CT_CSV_COMMA, "\n\r\n", "");
    expect_rows(CT_CSV_COMMA,
                "\xEF\xBB\xBF"
                "a,\"b\"",
                "1:[a][b]");
}

static void quotes_are_text_in_tsv(void **state)
{
    (void)state;
    expect_rows(CT_CSV_TAB, "\"a\tb\"\tc, d\n\t\"\n", "1:[\"a][b\"][c, d]2:[][\"]");
}

static void what_is_no_table_is_refused_with_its_line(void **state)
{
    (void)state;
    ct_buf out = {0};
    temp_text("table", "a,b\nc,\"d\n\ne");
    assert_fails(ct_csv_each(temp_path("table"), 1 << 20, CT_CSV_COMMA, collect, &out, &err),
                 CT_ERR_FORMAT, "expected a closing quote, got the end of the file (line 2)");
    temp_text("table", "a,b\nc,\"d\"e\n");
    assert_fails(ct_csv_each(temp_path("table"), 1 << 20, CT_CSV_COMMA, collect, &out, &err),
                 CT_ERR_FORMAT, "behind a closing quote, got \"e\" (line 2)");
    temp_text("table", "a\xFF");
    assert_fails(ct_csv_each(temp_path("table"), 1 << 20, CT_CSV_COMMA, collect, &out, &err),
                 CT_ERR_FORMAT, "expected UTF-8 text without NUL");
    temp_write("table", "a\0b", 3);
    assert_fails(ct_csv_each(temp_path("table"), 1 << 20, CT_CSV_TAB, collect, &out, &err),
                 CT_ERR_FORMAT, "expected UTF-8 text without NUL");
    assert_fails(ct_csv_each(temp_path("none"), 1 << 20, CT_CSV_TAB, collect, &out, &err),
                 CT_ERR_NOT_FOUND, "none");
    temp_text("table", "a,b\n");
    assert_fails(ct_csv_each(temp_path("table"), 3, CT_CSV_TAB, collect, &out, &err), CT_ERR_LIMIT,
                 "table");
    ct_buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_in_quotes_may_hold_commas_quotes_and_line_ends),
        cmocka_unit_test(lines_end_in_three_ways_and_empty_ones_are_no_rows),
        cmocka_unit_test(quotes_are_text_in_tsv),
        cmocka_unit_test(what_is_no_table_is_refused_with_its_line),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
