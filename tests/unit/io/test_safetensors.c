/* test_safetensors.c - every way in which a safetensors file can be wrong, and those that look
 * wrong and are valid. Statuses and messages are fixed here. */
#include "test.h"

#include <fcntl.h>

#include "base/buf.h"
#include "io/safetensors.h"
#include "unit/io/alloc.h"
#include "unit/io/temp.h"

/* The file of a header and `data` zero bytes, in memory of exactly its size. */
static unsigned char *file_bytes(const char *header, size_t header_size, size_t data, size_t *size)
{
    *size = 8 + header_size + data;
    unsigned char *bytes = calloc(1, *size);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)header_size >> 8 * i);
    memcpy(bytes + 8, header, header_size);
    return bytes;
}

static ct_status open_header(const char *header, size_t header_size, size_t data, ct_err *err)
{
    size_t size;
    ct_st_file *file;
    unsigned char *bytes = file_bytes(header, header_size, data, &size);
    ct_status st = ct_st_open_bytes(bytes, size, "t", &file, err);
    assert_true((st == CT_OK) == (file != NULL));
    ct_st_close(file);
    free(bytes);
    return st;
}

typedef struct wrong {
    const char *header;
    size_t data;
    ct_status status;
    const char *text;
} wrong;

static void expect_all(const wrong *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ct_err err = {0};
        ct_status st = open_header(cases[i].header, strlen(cases[i].header), cases[i].data, &err);
        if (st != cases[i].status || strcmp(err.text, cases[i].text) != 0)
            fail_msg("%s\n  expected %s: %s\n  got      %s: %s", cases[i].header,
                     ct_status_name(cases[i].status), cases[i].text, ct_status_name(st), err.text);
    }
}
#define EXPECT_ALL(cases) expect_all(cases, sizeof cases / sizeof *cases)

#define U8_1 "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]"

static void expect_length(uint64_t length, size_t size, ct_status status, const char *text)
{
    ct_err err = {0};
    ct_st_file *file;
    unsigned char *bytes = calloc(1, size ? size : 1);
    for (size_t i = 0; i < 8 && i < size; i++) bytes[i] = (unsigned char)(length >> 8 * i);
    ct_status st = ct_st_open_bytes(bytes, size, "t", &file, &err);
    assert_null(file);
    assert_string_equal(err.text, text);
    assert_int_equal(st, status);
    free(bytes);
}

static void a_file_that_is_too_short_or_whose_header_length_is_impossible_is_refused(void **state)
{
    (void)state;
    expect_length(0, 0, CT_ERR_FORMAT,
                  "t: expected at least 8 bytes, got 0; is the file truncated?");
    expect_length(2, 7, CT_ERR_FORMAT,
                  "t: expected at least 8 bytes, got 7; is the file truncated?");
    expect_length(0, 8, CT_ERR_FORMAT,
                  "t: header: expected an object, got the header's end (byte 0 of the header)");
    expect_length(2, 9, CT_ERR_FORMAT,
                  "t: expected a header of 2 bytes, got 1 bytes; is the file truncated?");
    expect_length(100000000, 10, CT_ERR_FORMAT,
                  "t: expected a header of 100000000 bytes, got 2 bytes; is the file truncated?");
    expect_length(100000001, 10, CT_ERR_LIMIT,
                  "t: expected a header of at most 100000000 bytes, got 100000001; is this a "
                  "safetensors file?");
    expect_length(
        UINT64_C(1) << 63, 10, CT_ERR_LIMIT,
        "t: expected a header of at most 100000000 bytes, got 9223372036854775808; is this "
        "a safetensors file?");
    expect_length(UINT64_MAX, 10, CT_ERR_LIMIT,
                  "t: expected a header of at most 100000000 bytes, got 18446744073709551615; is "
                  "this a safetensors file?");
}

static void a_header_that_is_not_a_json_object_is_refused(void **state)
{
    (void)state;
    const wrong cases[] = {
        {"\xff\xfe{}", 0, CT_ERR_FORMAT, "t: header: expected UTF-8, got other bytes"},
        {"PK\x03\x04", 0, CT_ERR_FORMAT,
         "t: header: expected an object, got \"PK??\" (byte 0 of the header)"},
        {"[]", 0, CT_ERR_FORMAT,
         "t: header: expected an object, got \"[]\" (byte 0 of the header)"},
        {"{", 0, CT_ERR_FORMAT,
         "t: header: expected a string, got the header's end (byte 1 of the header)"},
        {"{}x", 0, CT_ERR_FORMAT,
         "t: header: expected nothing but white space, got \"x\" (byte 2 of the header)"},
        {"{\"a\":{" U8_1 "}}{}", 1, CT_ERR_FORMAT,
         "t: header: expected nothing but white space, got \"{}\" (byte 53 of the header)"},
        {"{\"a\":{" U8_1 "},}", 1, CT_ERR_FORMAT,
         "t: header: expected a string, got \"}\" (byte 53 of the header)"},
        {"{\"a\":{" U8_1 "},\"b\"}", 1, CT_ERR_FORMAT,
         "t: header: expected ':', got \"}\" (byte 56 of the header)"},
        {"{\"a\" {" U8_1 "}}", 1, CT_ERR_FORMAT,
         "t: header: expected ':', got "
         "\"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}\" "
         "(byte 5 of the header)"},
        {"{\"a\n\":{" U8_1 "}}", 1, CT_ERR_FORMAT,
         "t: header: expected no control character in a string, got \" "
         "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}\" (byte 3 of the header)"},
        {"{\"a\\x\":1}", 1, CT_ERR_FORMAT,
         "t: header: expected a valid escape, got \"\\x\":1}\" (byte 3 of the header)"},
        {"{\"\\ud800\":1}", 1, CT_ERR_FORMAT,
         "t: header: expected a valid escape, got \"\\ud800\":1}\" (byte 2 of the header)"},
        {"{\"\\ud800\\u0041\":1}", 1, CT_ERR_FORMAT,
         "t: header: expected a valid escape, got \"\\ud800\\u0041\":1}\" (byte 2 of the header)"},
        {"{\"a", 1, CT_ERR_FORMAT,
         "t: header: expected the closing quote of a string, got the header's end (byte 3 of the "
         "header)"},
        {"\xef\xbb\xbf{}", 0, CT_ERR_FORMAT,
         "t: header: expected an object, got \"\xef\xbb\xbf{}\" (byte 0 of the header)"},
    };
    EXPECT_ALL(cases);
    /* Padding is white space: NUL bytes are not. */
    ct_err err = {0};
    assert_fails(open_header("{}\0\0", 4, 0, &err), CT_ERR_FORMAT,
                 "expected nothing but white space");
}

static void nesting_beyond_128_is_refused_without_deep_recursion(void **state)
{
    (void)state;
    static char deep[100000];
    ct_err err = {0};
    memset(deep, '[', sizeof deep);
    assert_int_equal(open_header(deep, sizeof deep, 0, &err), CT_ERR_FORMAT);
    memcpy(deep, "{\"a\":{\"x\":", 10);
    assert_int_equal(open_header(deep, sizeof deep, 0, &err), CT_ERR_FORMAT);
    assert_string_equal(
        err.text, "t: tensor \"a\": expected at most 128 nested values, got "
                  "\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[...\" (byte "
                  "138 of the header)");
    for (size_t i = 0; i + 5 < sizeof deep; i += 5) memcpy(deep + i, "{\"a\":", 5);
    assert_int_equal(open_header(deep, sizeof deep, 0, &err), CT_ERR_FORMAT);
}

static void what_stands_twice_is_refused(void **state)
{
    (void)state;
    const wrong cases[] = {
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, CT_ERR_FORMAT, "t: expected each tensor once, got \"a\" twice"},
        /* the same name, once with an escape */
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0, CT_ERR_FORMAT, "t: expected each tensor once, got \"a\" twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, CT_ERR_FORMAT,
         "t: header: expected __metadata__ once, got it twice"},
        {"{\"__metadata__\":{},\"__met\\u0061data__\":{}}", 0, CT_ERR_FORMAT,
         "t: header: expected __metadata__ once, got it twice"},
        {"{\"__metadata__\":{\"k\":\"1\",\"j\":\"2\",\"k\":\"1\"}}", 0, CT_ERR_FORMAT,
         "t: __metadata__: expected each key once, got \"k\" twice"},
        {"{\"a\":{" U8_1 ",\"dtype\":\"U8\"}}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected dtype once, got it twice"},
        {"{\"a\":{" U8_1 ",\"shape\":[1]}}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected shape once, got it twice"},
        {"{\"a\":{" U8_1 ",\"data_offsets\":[0,1]}}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected data_offsets once, got it twice"},
    };
    EXPECT_ALL(cases);
}

static void metadata_that_is_not_text_to_text_is_refused(void **state)
{
    (void)state;
    const wrong cases[] = {
        {"{\"__metadata__\":[]}", 0, CT_ERR_FORMAT,
         "t: header: expected an object, got \"[]}\" (byte 16 of the header)"},
        {"{\"__metadata__\":\"x\"}", 0, CT_ERR_FORMAT,
         "t: header: expected an object, got \"\"x\"}\" (byte 16 of the header)"},
        {"{\"__metadata__\":{\"k\":1}}", 0, CT_ERR_FORMAT,
         "t: header: expected a string, got \"1}}\" (byte 21 of the header)"},
        {"{\"__metadata__\":{\"k\":null}}", 0, CT_ERR_FORMAT,
         "t: header: expected a string, got \"null}}\" (byte 21 of the header)"},
    };
    EXPECT_ALL(cases);
}

static void a_dtype_that_is_missing_unknown_or_below_a_byte_is_refused(void **state)
{
    (void)state;
    const wrong cases[] = {
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected dtype, got none"},
        {"{\"a\":{\"dtype\":\"FOO\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected a dtype such as F32, F16 or BF16, got \"FOO\""},
        {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, CT_ERR_FORMAT,
         "t: tensor \"a\": expected a dtype such as F32, F16 or BF16, got \"f32\""},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected a string, got \"7,\"shape\":[1],\"data_offsets\":[0,1]}}\" "
         "(byte "
         "14 of the header)"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, CT_ERR_UNSUPPORTED,
         "t: tensor \"a\": elements smaller than a byte (F4) are not supported"},
        {"{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3,
         CT_ERR_UNSUPPORTED,
         "t: tensor \"a\": elements smaller than a byte (F6_E2M3) are not supported"},
        {"{\"a\":null}", 0, CT_ERR_FORMAT,
         "t: tensor \"a\": expected an object, got \"null}\" (byte 5 of the header)"},
        {"{\"a\":[\"U8\",[1],[0,1]]}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected an object, got \"[\"U8\",[1],[0,1]]}\" (byte 5 of the header)"},
    };
    EXPECT_ALL(cases);
}

#define SHAPE(text) "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4],\"shape\":" text "}}"
#define NOT_INTEGER "t: tensor \"a\": expected an integer from 0 to 9223372036854775807, got \""
#define AT(byte)    "\" (byte " #byte " of the header)"

static void a_shape_that_is_no_list_of_sizes_is_refused(void **state)
{
    (void)state;
    const wrong cases[] = {
        {SHAPE("[-1]"), 4, CT_ERR_FORMAT, NOT_INTEGER "-1]}}" AT(50)},
        {SHAPE("[-0]"), 4, CT_ERR_FORMAT, NOT_INTEGER "-0]}}" AT(50)},
        {SHAPE("[1.0]"), 4, CT_ERR_FORMAT, NOT_INTEGER "1.0]}}" AT(50)},
        {SHAPE("[0.5]"), 4, CT_ERR_FORMAT, NOT_INTEGER "0.5]}}" AT(50)},
        {SHAPE("[1e3]"), 4, CT_ERR_FORMAT, NOT_INTEGER "1e3]}}" AT(50)},
        {SHAPE("[1E0]"), 4, CT_ERR_FORMAT, NOT_INTEGER "1E0]}}" AT(50)},
        {SHAPE("[01]"), 4, CT_ERR_FORMAT, NOT_INTEGER "01]}}" AT(50)},
        {SHAPE("[\"1\"]"), 4, CT_ERR_FORMAT, NOT_INTEGER "\"1\"]}}" AT(50)},
        {SHAPE("[null]"), 4, CT_ERR_FORMAT, NOT_INTEGER "null]}}" AT(50)},
        {SHAPE("[[1]]"), 4, CT_ERR_FORMAT, NOT_INTEGER "[1]]}}" AT(50)},
        {SHAPE("[1,]"), 4, CT_ERR_FORMAT, NOT_INTEGER "]}}" AT(52)},
        {SHAPE("[18446744073709551614]"), 4, CT_ERR_FORMAT,
         NOT_INTEGER "18446744073709551614]}}" AT(50)},
        {SHAPE("[9223372036854775808]"), 4, CT_ERR_FORMAT,
         NOT_INTEGER "9223372036854775808]}}" AT(50)},
        {SHAPE("{\"0\":1}"), 4, CT_ERR_FORMAT,
         "t: tensor \"a\": expected an array, got \"{\"0\":1}}}" AT(49)},
        {SHAPE("1"), 4, CT_ERR_FORMAT, "t: tensor \"a\": expected an array, got \"1}}" AT(49)},
        {SHAPE("[1 1]"), 4, CT_ERR_FORMAT,
         "t: tensor \"a\": expected ',' or the closing bracket, got \"1]}}" AT(52)},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, CT_ERR_FORMAT,
         "t: tensor \"a\": expected shape, got none"},
        {SHAPE("[1,1,1,1,1,1,1,1,1]"), 4, CT_ERR_LIMIT,
         "t: tensor \"a\": expected a rank of at most 8, got 9"},
    };
    EXPECT_ALL(cases);
    const char *overflow = "t: tensor \"a\": expected a shape that fits memory, got one whose size "
                           "overflows 63 bits";
    const wrong overflows[] = {
        {SHAPE("[9223372036854775807]"), 4, CT_ERR_FORMAT, overflow},
        {SHAPE("[4611686018427387904]"), 4, CT_ERR_FORMAT, overflow}, /* x 4 bytes = 2^64 */
        {SHAPE("[4294967296,4294967296]"), 4, CT_ERR_FORMAT, overflow},
        {SHAPE("[4294967296,4294967296,0]"), 4, CT_ERR_FORMAT, overflow},
        {SHAPE("[3037000500,3037000500]"), 4, CT_ERR_FORMAT, overflow}, /* just over 2^63 */
    };
    EXPECT_ALL(overflows);

    char header[4096] = "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1],\"shape\":[1";
    ct_err err = {0};
    for (int i = 1; i < 1000; i++) strcat(header, ",1");
    strcat(header, "]}}");
    assert_int_equal(open_header(header, strlen(header), 1, &err), CT_ERR_LIMIT);
    assert_string_equal(err.text, "t: tensor \"a\": expected a rank of at most 8, got 1000");
}

#define OFFSETS(text) "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" text "}}"

static void data_offsets_that_do_not_fit_the_shape_or_the_file_are_refused(void **state)
{
    (void)state;
    const wrong cases[] = {
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, CT_ERR_FORMAT,
         "t: tensor \"a\": expected data_offsets, got none"},
        {OFFSETS("[]"), 4, CT_ERR_FORMAT, "t: tensor \"a\": expected 2 data_offsets, got 0"},
        {OFFSETS("[0]"), 4, CT_ERR_FORMAT, "t: tensor \"a\": expected 2 data_offsets, got 1"},
        {OFFSETS("[0,4,4]"), 4, CT_ERR_FORMAT, "t: tensor \"a\": expected 2 data_offsets, got 3"},
        {OFFSETS("[4,0]"), 4, CT_ERR_FORMAT,
         "t: tensor \"a\": expected data_offsets in order, got [4, 0]"},
        {OFFSETS("[0,4]"), 3, CT_ERR_FORMAT,
         "t: tensor \"a\": expected data_offsets within 3 bytes of data, got an end of 4; is the "
         "file truncated?"},
        {OFFSETS("[9223372036854775803,9223372036854775807]"), 4, CT_ERR_FORMAT,
         "t: tensor \"a\": expected data_offsets within 4 bytes of data, got an end of "
         "9223372036854775807; is the file truncated?"},
        {OFFSETS("[0,3]"), 4, CT_ERR_FORMAT,
         "t: tensor \"a\": expected 4 bytes for its shape and dtype, got 3"},
        {OFFSETS("[0,5]"), 5, CT_ERR_FORMAT,
         "t: tensor \"a\": expected 4 bytes for its shape and dtype, got 5"},
        {OFFSETS("[-4,0]"), 4, CT_ERR_FORMAT, NOT_INTEGER "-4,0]}}" AT(47)},
        {OFFSETS("[0,4.0]"), 4, CT_ERR_FORMAT, NOT_INTEGER "4.0]}}" AT(49)},
        {OFFSETS("[0,18446744073709551614]"), 4, CT_ERR_FORMAT,
         NOT_INTEGER "18446744073709551614]}}" AT(49)},
    };
    EXPECT_ALL(cases);
}

#define TWO(a0, a1, b0, b1)                                                                        \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[" #a0 "," #a1                        \
    "]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[" #b0 "," #b1 "]}}"

static void tensors_that_overlap_or_leave_holes_are_refused(void **state)
{
    (void)state;
    const wrong cases[] = {
        {TWO(0, 2, 1, 3), 3, CT_ERR_FORMAT,
         "t: tensor \"b\": expected its data at offset 2, got 1 (tensors overlap)"},
        {TWO(0, 2, 0, 2), 2, CT_ERR_FORMAT,
         "t: tensor \"b\": expected its data at offset 2, got 0 (tensors overlap)"},
        {TWO(0, 2, 3, 5), 5, CT_ERR_FORMAT,
         "t: tensor \"b\": expected its data at offset 2, got 3 (a hole before it)"},
        {TWO(1, 3, 3, 5), 5, CT_ERR_FORMAT,
         "t: tensor \"a\": expected its data at offset 0, got 1 (a hole before it)"},
        {TWO(0, 2, 2, 4), 5, CT_ERR_FORMAT,
         "t: expected 4 bytes of data for all tensors, got 5: bytes after the last tensor"},
        {"{}", 1, CT_ERR_FORMAT,
         "t: expected 0 bytes of data for all tensors, got 1: bytes after the last tensor"},
        /* an empty tensor inside another one */
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}",
         2, CT_ERR_FORMAT,
         "t: tensor \"b\": expected its data at offset 2, got 1 (tensors overlap)"},
    };
    EXPECT_ALL(cases);
}

static void what_looks_odd_and_is_valid_is_read(void **state)
{
    (void)state;
    const struct {
        const char *header;
        size_t data, tensors;
    } cases[] = {
        {"{}", 0, 0},
        {" \t\r\n{\"a\":{" U8_1 "}}", 1, 1},
        {"{\"a\":{" U8_1 "}}       ", 1, 1},
        {"{\"a\":{" U8_1 "}} \n\t\r", 1, 1},
        {"{ \"a\" : { \"dtype\" : \"U8\" , \"shape\" : [ 1 ] , \"data_offsets\" : [ 0 , 1 ] } }", 1,
         1},
        {"{\"__metadata__\":null,\"a\":{" U8_1 "}}", 1, 1},
        {"{\"__metadata__\":{},\"a\":{" U8_1 "}}", 1, 1},
        {"{\"a\":{" U8_1 "},\"__metadata__\":{\"format\":\"pt\",\"\":\"\"}}", 1, 1},
        {"{\"a\":{" U8_1 ",\"more\":[1e3,-0.5,{\"x\":[true,false,null]},\"\\n\"]}}", 1, 1},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1}, /* rank 0 */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
         1}, /* dimension 0 */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3,0,9223372036854775807],\"data_offsets\":[0,0]}}",
         0, 1},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, 1},
        {TWO(2, 4, 0, 2), 4, 2}, /* not in the order of the data */
        {"{\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":{" U8_1 "},"
         "\"f\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}",
         1, 3},
        {"{\"a\":{\"dtype\":\"U\\u0038\",\"sh\\u0061pe\":[1],\"data_offsets\":[0,1]}}", 1, 1},
        {"{\"../../etc/passwd\":{" U8_1 "}}", 1, 1}, /* a name is never a path */
        {"{\"\":{" U8_1 "}}", 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_err err = {0};
        size_t size;
        ct_st_file *file;
        unsigned char *bytes =
            file_bytes(cases[i].header, strlen(cases[i].header), cases[i].data, &size);
        if (ct_st_open_bytes(bytes, size, "t", &file, &err) != CT_OK)
            fail_msg("%s: %s", cases[i].header, err.text);
        assert_int_equal(ct_st_count(file), cases[i].tensors);
        ct_st_close(file);
        free(bytes);
    }
}

static void every_dtype_of_at_least_a_byte_is_read_with_its_size(void **state)
{
    (void)state;
    const struct {
        const char *name;
        size_t bytes;
    } dtypes[] = {{"BOOL", 1},    {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
                  {"F8_E8M0", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},     {"BF16", 2},
                  {"I32", 4},     {"U32", 4}, {"F32", 4}, {"I64", 8},     {"U64", 8},
                  {"F64", 8},     {"C64", 8}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char header[128];
        ct_err err = {0};
        size_t bytes = 3 * dtypes[i].bytes;
        snprintf(header, sizeof header,
                 "{\"a\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                 dtypes[i].name, bytes);
        assert_ok(open_header(header, strlen(header), bytes, &err));
        assert_int_equal(ct_st_dtype_bytes(dtypes[i].name), dtypes[i].bytes);
    }
    assert_int_equal(ct_st_dtype_bytes("F4"), 0);
    assert_int_equal(ct_st_dtype_bytes("FOO"), 0);
}

static void tensors_are_found_by_name_with_shape_and_data(void **state)
{
    (void)state;
    ct_err err = {0};
    /* An odd header and an odd first tensor: nothing after it is aligned. */
    const char *header =
        "{\"z\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
        "\"\\u00e9\\ud83d\\ude00\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[3,11]},"
        "\"m\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[11,13]}}";
    size_t size;
    ct_st_file *file;
    unsigned char *bytes = file_bytes(header, strlen(header), 13, &size);
    for (size_t i = 0; i < 13; i++) bytes[size - 13 + i] = (unsigned char)(i + 1);
    assert_ok(ct_st_open_bytes(bytes, size, "t", &file, &err));
    assert_int_equal(ct_st_count(file), 3);
    assert_string_equal(ct_st_get(file, 0)->name, "z");
    assert_string_equal(ct_st_get(file, 2)->name, "m");
    const ct_st_tensor *t = ct_st_find(file, "\xC3\xA9\xF0\x9F\x98\x80");
    assert_ptr_equal(t, ct_st_get(file, 1));
    assert_string_equal(t->dtype, "F32");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 1);
    assert_int_equal(t->shape[1], 2);
    assert_int_equal(t->count, 2);
    assert_int_equal(t->size_bytes, 8);
    assert_int_equal(((const unsigned char *)t->data)[0], 4);
    assert_int_equal(((const unsigned char *)ct_st_find(file, "m")->data)[1], 13);
    assert_int_equal(ct_st_find(file, "m")->count, 1);
    assert_null(ct_st_find(file, "n"));
    assert_null(ct_st_find(file, ""));
    ct_st_close(file);
    free(bytes);
}

static void a_name_with_a_nul_is_unsupported_and_one_of_a_megabyte_is_read(void **state)
{
    (void)state;
    ct_err err = {0};
    const char *nul = "{\"a\\u0000b\":{" U8_1 "}}";
    assert_int_equal(open_header(nul, strlen(nul), 1, &err), CT_ERR_UNSUPPORTED);
    assert_string_equal(err.text,
                        "t: name \"a\\u0000b\": a NUL character in a name is not supported");

    enum { LONG = 1 << 20 };
    ct_buf header = {0};
    assert_ok(ct_buf_adds(&header, "{\"", &err));
    for (int i = 0; i < LONG; i++) assert_ok(ct_buf_adds(&header, "n", &err));
    assert_ok(ct_buf_adds(&header, "\":{" U8_1 "}}", &err));
    size_t size;
    ct_st_file *file;
    unsigned char *bytes = file_bytes(header.data, header.size, 1, &size);
    assert_ok(ct_st_open_bytes(bytes, size, "t", &file, &err));
    assert_int_equal(strlen(ct_st_get(file, 0)->name), LONG);
    ct_st_close(file);
    free(bytes);

    /* The same name in an error is cut at a character: 64 bytes would cut the 22nd in two. */
    header.size = 0;
    assert_ok(ct_buf_adds(&header, "{\"", &err));
    for (int i = 0; i < 100; i++) assert_ok(ct_buf_adds(&header, "\xE2\x82\xAC", &err));
    assert_ok(ct_buf_adds(&header, "\":{}}", &err));
    assert_int_equal(open_header(header.data, header.size, 0, &err), CT_ERR_FORMAT);
    assert_true(ct_utf8_valid(err.text, strlen(err.text)));
    assert_non_null(strstr(err.text, "\xE2\x82\xAC...\": expected dtype, got none"));
    ct_buf_clear(&header);
}

/* Opens a header and returns the most bytes that were held at once. */
static int64_t peak_of(const ct_buf *header, size_t data, ct_status expected)
{
    ct_err err = {0};
    size_t size;
    ct_st_file *file;
    unsigned char *bytes = file_bytes(header->data, header->size, data, &size);
    alloc_start(0);
    ct_status st = ct_st_open_bytes(bytes, size, "t", &file, &err);
    ct_st_close(file);
    alloc_stop();
    if (st != expected) fail_msg("expected %s: %s", ct_status_name(expected), err.text);
    assert_int_equal(alloc.live, 0);
    assert_true(st != CT_OK || alloc.peak > 0); /* the counting works */
    free(bytes);
    return alloc.peak;
}

static void opening_allocates_at_most_twice_the_header(void **state)
{
    (void)state;
    ct_err err = {0};
    /* The file object, malloc's rounding, and what qsort_r takes for the first 1024 bytes. */
    const int64_t constant = 1024;
    const char *const shapes[] = {"[0]", "[0,0,0,0,0,0,0,0]", "[]"};
    for (int s = 0; s < 3; s++) { /* the densest headers there can be */
        ct_buf header = {0};
        size_t n = 20000, bytes = s == 2 ? n : 0;
        assert_ok(ct_buf_adds(&header, "{", &err));
        for (size_t i = 0; i < n; i++)
            assert_ok(
                ct_buf_addf(&header, &err,
                            "%s\"%zx\":{\"dtype\":\"U8\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                            i ? "," : "", i, shapes[s], s == 2 ? i : 0, s == 2 ? i + 1 : 0));
        assert_ok(ct_buf_adds(&header, "}", &err));
        assert_true(peak_of(&header, bytes, CT_OK) <= 2 * (int64_t)header.size + constant);
        ct_buf_clear(&header);
    }
    ct_buf header = {0};
    assert_ok(ct_buf_adds(&header, "{\"__metadata__\":{", &err));
    for (unsigned i = 0; i < 100000; i++)
        assert_ok(ct_buf_addf(&header, &err, "%s\"%x\":\"\"", i ? "," : "", i));
    assert_ok(ct_buf_adds(&header, "}}", &err));
    assert_true(peak_of(&header, 0, CT_OK) <= 2 * (int64_t)header.size + constant);
    ct_buf_clear(&header);
    /* Not a tensor at all: nothing is allocated before the whole header was checked. */
    assert_ok(ct_buf_adds(&header, "{\"a\":{\"x\":[", &err));
    for (int i = 0; i < 100000; i++) assert_ok(ct_buf_adds(&header, "{},", &err));
    assert_int_equal(peak_of(&header, 0, CT_ERR_FORMAT), 0);
    ct_buf_clear(&header);
}

static void every_allocation_that_fails_gives_a_status_and_no_leak(void **state)
{
    (void)state;
    temp_write("n.safetensors", "\x02\0\0\0\0\0\0\0{}", 10);
    char path[1024];
    snprintf(path, sizeof path, "%s", temp_path("n.safetensors"));
    for (long n = 1;; n++) {
        ct_err err = {0};
        ct_st_file *file;
        alloc_start(n);
        ct_status st = ct_st_open(path, &file, &err);
        ct_st_close(file);
        alloc_stop();
        assert_int_equal(alloc.live, 0);
        if (st == CT_OK) {
            assert_true(n > 2); /* the path's copy and the tables */
            break;
        }
        assert_int_equal(st, CT_ERR_MEMORY);
    }
}

static void a_path_that_is_no_readable_regular_file_is_refused_without_waiting(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_st_file *file;
    assert_fails(ct_st_open(temp_path("absent"), &file, &err), CT_ERR_NOT_FOUND,
                 "/absent: expected a file, got none");
    assert_fails(ct_st_open(temp_root, &file, &err), CT_ERR_IO,
                 ": expected a regular file, got a directory");
    assert_int_equal(mkfifo(temp_path("fifo"), 0600), 0);
    assert_fails(ct_st_open(temp_path("fifo"), &file, &err), CT_ERR_IO,
                 "/fifo: expected a regular file, got a FIFO");
    assert_int_equal(symlink("loop", temp_path("loop")), 0);
    assert_fails(ct_st_open(temp_path("loop"), &file, &err), CT_ERR_IO,
                 "/loop: cannot open: Too many levels of symbolic links");
    temp_text("empty", "");
    assert_fails(ct_st_open(temp_path("empty"), &file, &err), CT_ERR_FORMAT,
                 "/empty: expected at least 8 bytes, got 0; is the file truncated?");
    assert_fails(ct_st_open("/dev/null", &file, &err), CT_ERR_IO,
                 "/dev/null: expected a regular file, got a device");
    temp_text("secret", "x");
    chmod(temp_path("secret"), 0);
    if (access(temp_path("secret"), R_OK) == 0) return; /* root reads everything */
    assert_fails(ct_st_open(temp_path("secret"), &file, &err), CT_ERR_IO,
                 "/secret: cannot open: Permission denied");
}

static void a_header_over_the_limit_is_refused_in_a_file_that_has_so_many_bytes(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_st_file *file;
    const unsigned char length[8] = {0x01, 0xE1, 0xF5, 0x05}; /* 100,000,001 */
    temp_write("big", length, sizeof length);
    assert_int_equal(truncate(temp_path("big"), 200000000), 0); /* sparse */
    assert_fails(ct_st_open(temp_path("big"), &file, &err), CT_ERR_LIMIT,
                 "/big: expected a header of at most 100000000 bytes, got 100000001");
}

static void a_file_that_is_replaced_after_opening_leaves_the_data_as_it_was(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_st_file *file;
    const float old[2] = {1, 2}, new[2] = {3, 4};
    const int64_t shape[1] = {2};
    ct_st_out out = {"a", "F32", 1, shape, old, sizeof old};
    assert_ok(ct_st_write(temp_path("r"), &out, 1, &err));
    assert_ok(ct_st_open(temp_path("r"), &file, &err));
    ct_file_id id = ct_st_id(file);
    out.data = new;
    assert_ok(ct_st_write(temp_path("r"), &out, 1, &err));
    assert_memory_equal(ct_st_find(file, "a")->data, old, sizeof old);
    ct_st_close(file);
    assert_ok(ct_st_open(temp_path("r"), &file, &err));
    assert_memory_equal(ct_st_find(file, "a")->data, new, sizeof new);
    assert_true(memcmp(&id, &(ct_file_id){0}, sizeof id) != 0);
    ct_st_close(file);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    const char *header = TWO(0, 2, 2, 4);
    size_t size;
    ct_st_file *file;
    unsigned char *bytes = file_bytes(header, strlen(header), 4, &size);
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *part = malloc(cut + 1);
        memcpy(part, bytes, cut);
        assert_int_equal(ct_st_open_bytes(part, cut, "t", &file, &err), CT_ERR_FORMAT);
        assert_null(file);
        free(part);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_is_too_short_or_whose_header_length_is_impossible_is_refused),
        cmocka_unit_test(a_header_that_is_not_a_json_object_is_refused),
        cmocka_unit_test(nesting_beyond_128_is_refused_without_deep_recursion),
        cmocka_unit_test(what_stands_twice_is_refused),
        cmocka_unit_test(metadata_that_is_not_text_to_text_is_refused),
        cmocka_unit_test(a_dtype_that_is_missing_unknown_or_below_a_byte_is_refused),
        cmocka_unit_test(a_shape_that_is_no_list_of_sizes_is_refused),
        cmocka_unit_test(data_offsets_that_do_not_fit_the_shape_or_the_file_are_refused),
        cmocka_unit_test(tensors_that_overlap_or_leave_holes_are_refused),
        cmocka_unit_test(what_looks_odd_and_is_valid_is_read),
        cmocka_unit_test(every_dtype_of_at_least_a_byte_is_read_with_its_size),
        cmocka_unit_test(tensors_are_found_by_name_with_shape_and_data),
        cmocka_unit_test(a_name_with_a_nul_is_unsupported_and_one_of_a_megabyte_is_read),
        cmocka_unit_test(opening_allocates_at_most_twice_the_header),
        cmocka_unit_test(every_allocation_that_fails_gives_a_status_and_no_leak),
        cmocka_unit_test(a_path_that_is_no_readable_regular_file_is_refused_without_waiting),
        cmocka_unit_test(a_header_over_the_limit_is_refused_in_a_file_that_has_so_many_bytes),
        cmocka_unit_test(a_file_that_is_replaced_after_opening_leaves_the_data_as_it_was),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
