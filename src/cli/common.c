/* common.c - reading inputs, lists of ids and spans, JSON output. See common.h. */
#include "cli/common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/memory.h"
#include "model/model.h"
#include "tok/chat.h"

ct_model_options ct_cli_model_options(const ct_args *args)
{
    const char *compute = ct_args_text(args, "--compute", "auto");
    return (ct_model_options){
        .device = ct_args_text(args, "--device", "cpu"),
        .compute = !strcmp(compute, "f32")    ? CT_CHOOSE_F32
                   : !strcmp(compute, "bf16") ? CT_CHOOSE_BF16
                                              : CT_CHOOSE_AUTO,
        .threads = (int)ct_args_int(args, "--threads", 0),
        .weights = ct_args_text(args, "--weights", NULL),
    };
}

ct_status ct_cli_model_options_one(const ct_args *args, const char *dir,
                                   char device[CT_DEVICE_NAME], ct_model_options *out, ct_err *err)
{
    *out = ct_cli_model_options(args);
    ct_status st = ct_device_choose_one(dir, out, device, err);
    out->device = device;
    return st;
}

ct_status ct_cli_open_model(const ct_args *args, ct_model **model, ct_err *err)
{
    ct_model_options options;
    char device[CT_DEVICE_NAME];
    const char *dir = ct_args_text(args, "--model", NULL);
    ct_status st = ct_cli_model_options_one(args, dir, device, &options, err);
    if (st != CT_OK) return st;
    options.window_visible = ct_args_int(args, "--window-visible", 0);
    st = ct_model_open_unhashed(dir, &options, model, err);
    if (st != CT_OK) return st;
    ct_cli_warn_memory(args, *model); /* before the hash, which reads all of them */
    return ct_model_hash(*model, err);
}

const char *ct_cli_bytes(char out[32], int64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

void ct_cli_memory_text(char *out, size_t size, int64_t weights, int64_t read_per_token,
                        int64_t available, double rate)
{
    char of_weights[32], of_memory[32], of_rate[32];
    *out = 0;
    if (available < 0 || weights <= available) return;
    size_t used =
        (size_t)snprintf(out, size,
                         "the weights take %s, %s of memory are available: they are read from "
                         "storage again and again",
                         ct_cli_bytes(of_weights, weights), ct_cli_bytes(of_memory, available));
    if (rate > 0 && used < size)
        snprintf(out + used, size - used, ", at %s/s as measured now: up to %.3g s a token",
                 ct_cli_bytes(of_rate, (int64_t)rate), (double)read_per_token / rate);
}

void ct_cli_warn_memory(const ct_args *args, const ct_model *model)
{
    char text[512];
    if (!model->folder || !model->ops->host_memory) return; /* nothing is read again */
    ct_model_needs needs = ct_model_get_needs(model);
    ct_memory memory = ct_memory_read("");
    double rate = memory.available_bytes >= 0 && needs.weights > memory.available_bytes
                      ? ct_folder_read_rate(model->folder, 256 << 20, 1000)
                      : 0;
    ct_cli_memory_text(text, sizeof text, needs.weights, needs.read_per_token,
                       memory.available_bytes, rate);
    if (*text) fprintf(stderr, "cortado %s: warning: %s\n", ct_args_verb(args)->name, text);
}

ct_status ct_cli_chat(const ct_tokenizer *tokenizer, char **text, size_t *size, ct_err *err)
{
    char *rendered = NULL;
    ct_status st = ct_chat_render(tokenizer, *text, *size, &rendered, size, err);
    if (st != CT_OK) return st;
    free(*text);
    *text = rendered;
    return CT_OK;
}

ct_status ct_cli_read(const char *path, char **data, size_t *size, ct_err *err)
{
    if (path && strcmp(path, "-")) return ct_file_read(path, (size_t)1 << 32, data, size, err);
    ct_buf buf = {0};
    ct_status st = CT_OK;
    for (size_t got = 1; st == CT_OK && got;) {
        st = ct_buf_reserve(&buf, 1 << 16, err);
        if (st != CT_OK) break;
        got = fread(buf.data + buf.size, 1, 1 << 16, stdin);
        buf.size += got;
    }
    if (st == CT_OK && ferror(stdin)) st = ct_fail_errno(err, "standard input");
    if (st != CT_OK) {
        ct_buf_clear(&buf);
        return st;
    }
    buf.data[buf.size] = 0;
    *size = buf.size;
    *data = ct_buf_take(&buf);
    return CT_OK;
}

/* Reads one integer at *p and moves on; what separates list items is skipped first. False at the
 * end. */
static ct_status next_integer(const char **p, const char *separators, const char *what,
                              int64_t *value, bool *found, ct_err *err)
{
    *p += strspn(*p, separators);
    *found = **p != 0;
    if (!*found) return CT_OK;
    char *end;
    errno = 0;
    long long v = strtoll(*p, &end, 10);
    if (end == *p || errno)
        return ct_fail(err, CT_ERR_USAGE, "%s: expected integers, got \"%.20s\"", what, *p);
    *value = v;
    *p = end;
    return CT_OK;
}

ct_status ct_cli_parse_ids(const char *text, const char *what, int32_t **ids, size_t *count,
                           ct_err *err)
{
    static const char separators[] = ", \t\r\n[]";
    size_t capacity = strlen(text) / 2 + 1;
    int32_t *list = malloc(capacity * sizeof *list);
    if (!list) return ct_fail_memory(err, what, capacity * sizeof *list);
    size_t n = 0;
    const char *p = text;
    ct_status st;
    for (;;) {
        int64_t value;
        bool found;
        st = next_integer(&p, separators, what, &value, &found, err);
        if (st != CT_OK || !found) break;
        if ((*p && !strchr(separators, *p)) || value < 0 || value > INT32_MAX) {
            st = ct_fail(err, CT_ERR_USAGE,
                         "%s: expected token ids like 2,17,5, got \"%lld%.10s\" as item %zu", what,
                         (long long)value, *p && !strchr(separators, *p) ? p : "", n + 1);
            break;
        }
        list[n++] = (int32_t)value;
    }
    if (st == CT_OK && n == 0)
        st = ct_fail(err, CT_ERR_USAGE, "%s: expected token ids, got none", what);
    if (st != CT_OK) {
        free(list);
        return st;
    }
    *ids = list;
    *count = n;
    return CT_OK;
}

static int by_begin(const void *a, const void *b)
{
    const ct_span *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

ct_status ct_cli_parse_spans(const char *text, const char *what, ct_span **spans, size_t *count,
                             ct_err *err)
{
    size_t capacity = strlen(text) / 2 + 1;
    ct_span *list = malloc(capacity * sizeof *list);
    if (!list) return ct_fail_memory(err, what, capacity * sizeof *list);
    size_t n = 0;
    const char *p = text;
    ct_status st;
    for (;;) {
        int64_t begin, last;
        bool found;
        st = next_integer(&p, ", \t\n", what, &begin, &found, err);
        if (st != CT_OK || !found) break;
        last = begin;
        if (*p == '-') {
            p++;
            st = next_integer(&p, "", what, &last, &found, err);
            if (st != CT_OK) break;
            if (!found) last = -1;
        }
        if (begin < 0 || last < begin || last >= INT32_MAX || (*p && !strchr(", \t\n", *p))) {
            st = ct_fail(err, CT_ERR_USAGE,
                         "%s: expected positions like 5,6,7 or 5-9,30-37, got \"%s\"", what, text);
            break;
        }
        list[n++] = (ct_span){begin, last + 1};
    }
    if (st == CT_OK && n == 0)
        st = ct_fail(err, CT_ERR_USAGE, "%s: expected positions like 5-9,30-37, got none", what);
    if (st != CT_OK) {
        free(list);
        return st;
    }
    qsort(list, n, sizeof *list, by_begin);
    size_t kept = 1;
    for (size_t i = 1; i < n; i++) {
        ct_span *before = &list[kept - 1];
        if (list[i].begin > before->end) list[kept++] = list[i];
        else if (list[i].end > before->end) before->end = list[i].end;
    }
    *spans = list;
    *count = kept;
    return CT_OK;
}

json_t *ct_cli_ids_json(const int32_t *ids, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < count; i++)
        if (json_array_append_new(array, json_integer(ids[i]))) {
            json_decref(array);
            return NULL;
        }
    return array;
}

json_t *ct_cli_text_json(const char *text, size_t size)
{
    ct_buf buf = {0};
    for (size_t i = 0; i < size;) {
        uint32_t c;
        char bytes[4];
        size_t length = ct_utf8_next(text + i, size - i, &c);
        if (ct_buf_add(&buf, bytes, ct_utf8_put(c, bytes), NULL) != CT_OK) break;
        i += length;
    }
    json_t *string = json_stringn(buf.data ? buf.data : "", buf.size);
    ct_buf_clear(&buf);
    return string;
}

ct_status ct_cli_print_json(json_t *object, ct_err *err)
{
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    if (!text) return ct_fail_memory(err, "JSON output", 0);
    puts(text);
    free(text);
    return CT_OK;
}

bool ct_cli_has_file(const char *dir, const char *name)
{
    char *path = ct_path_join(dir, name, NULL);
    struct stat info;
    bool found = path && stat(path, &info) == 0;
    free(path);
    return found;
}
