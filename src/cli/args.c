/* args.c - parsing of one verb's command line. See args.h; help.c prints what the tables say. */
#include "cli/args.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

const ct_option ct_common_options[] = {
    {"--help", "-h", CT_ARG_FLAG, NULL, "Print this help.", 0, 0},
};
const size_t ct_n_common_options = sizeof ct_common_options / sizeof *ct_common_options;

typedef struct ct_value {
    bool present;
    const char **texts; /* TEXT and CHOICE: the last one given counts; TEXTS: all */
    size_t n_texts;
    int64_t integer;
    double real;
} ct_value;

struct ct_args {
    const ct_verb *verb;
    ct_value *values; /* one for each option of the verb */
    const char **operands;
    size_t n_operands;
    char *command_line;
};

static int usage_error(const ct_verb *verb, const char *fmt, ...) CT_PRINTF(2, 3);

static int usage_error(const ct_verb *verb, const char *fmt, ...)
{
    ct_err err;
    va_list ap;
    va_start(ap, fmt);
    char text[CT_ERR_TEXT_MAX];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ct_fail(&err, CT_ERR_USAGE, "%s", text); /* makes it one clean line */
    fprintf(stderr, "cortado %s: %s (see: cortado %s --help)\n", verb->name, err.text, verb->name);
    return CT_EXIT_USAGE;
}

static size_t find_option(const ct_verb *verb, const char *name, size_t length)
{
    for (size_t i = 0; i < verb->n_options; i++) {
        const ct_option *o = &verb->options[i];
        if (strlen(o->name) == length && !memcmp(o->name, name, length)) return i;
        if (o->alias && strlen(o->alias) == length && !memcmp(o->alias, name, length)) return i;
    }
    return SIZE_MAX;
}

static int unknown_option(const ct_verb *verb, const char *given)
{
    if (given[1] != '-' && given[2]) { /* -n20, -n=20 */
        size_t i = find_option(verb, given, 2);
        if (i != SIZE_MAX && verb->options[i].kind != CT_ARG_FLAG)
            return usage_error(verb, "%.2s: expected %s as an argument of its own, got %s", given,
                               verb->options[i].metavar, given);
    }
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; i < verb->n_options && n < 63; i++) names[n++] = verb->options[i].name;
    names[n++] = "--help";
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(given, "="), given);
    const char *nearest = ct_nearest(word, names, n);
    if (nearest) return usage_error(verb, "unknown option %s; did you mean %s?", word, nearest);
    return usage_error(verb, "unknown option %s", word);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t length = strlen(value);
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (n == length && !memcmp(p, value, n)) return true;
        p += n + (p[n] == '|');
    }
    return false;
}

/* The choice nearest to value, copied into out; false if none is near. */
static bool nearest_choice(const char *choices, const char *value, char *out, size_t size)
{
    char copy[256];
    const char *names[16];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", choices);
    for (char *p = strtok(copy, "|"); p && n < 16; p = strtok(NULL, "|")) names[n++] = p;
    const char *nearest = ct_nearest(value, names, n);
    if (nearest) snprintf(out, size, "%s", nearest);
    return nearest != NULL;
}

/* True if a value looks like an option rather than a negative number or a lone dash. */
static bool looks_like_option(const char *arg)
{
    return arg[0] == '-' && arg[1] && !(arg[1] >= '0' && arg[1] <= '9') && arg[1] != '.';
}

/* What a path is given for; an empty one is a shell variable that is not set. */
static bool names_a_path(const ct_option *o)
{
    static const char *const metavars[] = {"DIR", "FILE", "FILE...", "MODEL"};
    for (size_t i = 0; i < sizeof metavars / sizeof *metavars; i++)
        if (!strcmp(o->metavar, metavars[i])) return true;
    return false;
}

static int set_value(const ct_verb *verb, const ct_option *o, ct_value *v, const char *text)
{
    char *end = NULL;
    char nearest[64];
    switch (o->kind) {
    case CT_ARG_FLAG:
        break;
    case CT_ARG_INT:
        errno = 0;
        v->integer = strtoll(text, &end, 10);
        if (!*text || *end || errno ||
            (o->max > o->min && ((double)v->integer < o->min || (double)v->integer > o->max))) {
            if (o->max > o->min && o->max < 1e15)
                return usage_error(verb, "%s: expected an integer from %.0f to %.0f, got \"%s\"",
                                   o->name, o->min, o->max, text);
            return usage_error(verb, "%s: expected an integer%s, got \"%s\"", o->name,
                               o->min == 0 && o->max > 0 ? " of 0 or more"
                               : o->max > o->min         ? " of 1 or more"
                                                         : "",
                               text);
        }
        break;
    case CT_ARG_REAL:
        errno = 0;
        v->real = strtod(text, &end);
        if (!*text || *end || errno || !isfinite(v->real) ||
            (o->max > o->min && (v->real < o->min || v->real > o->max))) {
            if (o->max > o->min)
                return usage_error(verb, "%s: expected a number from %g to %g, got \"%s\"", o->name,
                                   o->min, o->max, text);
            return usage_error(verb, "%s: expected a number, got \"%s\"", o->name, text);
        }
        break;
    case CT_ARG_CHOICE:
        if (!is_choice(o->metavar, text)) {
            if (nearest_choice(o->metavar, text, nearest, sizeof nearest))
                return usage_error(verb, "%s: expected %s, got \"%s\"; did you mean %s?", o->name,
                                   o->metavar, text, nearest);
            return usage_error(verb, "%s: expected %s, got \"%s\"", o->name, o->metavar, text);
        }
        /* fall through */
    case CT_ARG_TEXT:
        v->n_texts = 0; /* fall through */
    case CT_ARG_TEXTS:
        if (!*text && names_a_path(o))
            return usage_error(verb, "%s: expected %s, got an empty text", o->name, o->metavar);
        v->texts[v->n_texts++] = text;
        break;
    }
    v->present = true;
    return CT_EXIT_OK;
}

static char *join_command_line(const ct_verb *verb, int argc, char **argv)
{
    ct_buf buf = {0};
    ct_status st = ct_buf_addf(&buf, NULL, "cortado %s", verb->name);
    for (int i = 0; i < argc && st == CT_OK; i++) {
        bool plain = *argv[i] && !strpbrk(argv[i], " \t\n'\"\\$`*?[](){}<>|&;!#~");
        st = plain ? ct_buf_addf(&buf, NULL, " %s", argv[i]) : ct_buf_adds(&buf, " '", NULL);
        for (const char *p = argv[i]; !plain && *p && st == CT_OK; p++)
            st = *p == '\'' ? ct_buf_adds(&buf, "'\\''", NULL) : ct_buf_add(&buf, p, 1, NULL);
        if (!plain && st == CT_OK) st = ct_buf_adds(&buf, "'", NULL);
    }
    return ct_buf_take(&buf);
}

static ct_args *new_args(const ct_verb *verb, int argc, char **argv)
{
    ct_args *args = calloc(1, sizeof *args);
    if (!args) return NULL;
    args->verb = verb;
    args->values = calloc(verb->n_options + 1, sizeof *args->values);
    args->operands = calloc((size_t)argc + 1, sizeof *args->operands);
    args->command_line = join_command_line(verb, argc, argv);
    bool good = args->values && args->operands && args->command_line;
    for (size_t i = 0; good && i < verb->n_options; i++) {
        args->values[i].texts = calloc((size_t)argc + 1, sizeof *args->values[i].texts);
        good = args->values[i].texts != NULL;
    }
    if (good) return args;
    ct_args_free(args);
    return NULL;
}

/* Parses the option at argv[*i] and its value(s), leaving *i at the last argument used. */
static int parse_option(ct_args *args, int argc, char **argv, int *i)
{
    const ct_verb *verb = args->verb;
    const char *arg = argv[*i];
    size_t name_length = arg[1] == '-' ? strcspn(arg, "=") : strlen(arg);
    size_t index = find_option(verb, arg, name_length);
    if (index == SIZE_MAX) return unknown_option(verb, arg);
    const ct_option *o = &verb->options[index];
    ct_value *v = &args->values[index];
    const char *attached = arg[name_length] == '=' ? arg + name_length + 1 : NULL;
    if (o->kind == CT_ARG_FLAG) {
        if (attached) return usage_error(verb, "%s takes no value, got \"%s\"", o->name, attached);
        return set_value(verb, o, v, "");
    }
    if (attached) return set_value(verb, o, v, attached);
    if (*i + 1 >= argc) return usage_error(verb, "%s: expected %s after it", o->name, o->metavar);
    /* A value may begin with a dash only if it is no option of this verb: "--needle -x" is a slip.
     */
    const char *next = argv[*i + 1];
    if (looks_like_option(next) && find_option(verb, next, strcspn(next, "=")) != SIZE_MAX)
        return usage_error(verb, "%s: expected %s after it, got the option %s", o->name, o->metavar,
                           next);
    int status = set_value(verb, o, v, argv[++*i]);
    while (status == CT_EXIT_OK && o->kind == CT_ARG_TEXTS && *i + 1 < argc &&
           !looks_like_option(argv[*i + 1]) && strcmp(argv[*i + 1], "--"))
        status = set_value(verb, o, v, argv[++*i]);
    return status;
}

ct_args *ct_args_parse(const ct_verb *verb, int argc, char **argv, int *exit_code)
{
    *exit_code = CT_EXIT_OK;
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            ct_help_verb(verb, stdout);
            return NULL;
        }
    ct_args *args = new_args(verb, argc, argv);
    if (!args) {
        fprintf(stderr, "cortado %s: out of memory\n", verb->name);
        *exit_code = CT_EXIT_FAILED;
        return NULL;
    }
    bool only_operands = false;
    for (int i = 0; i < argc && *exit_code == CT_EXIT_OK; i++) {
        if (!only_operands && !strcmp(argv[i], "--")) only_operands = true;
        else if (!only_operands && looks_like_option(argv[i]))
            *exit_code = parse_option(args, argc, argv, &i);
        else if (!*argv[i]) /* all operands are paths */
            *exit_code = usage_error(verb, "expected %s, got an empty text",
                                     *verb->operands ? verb->operands : "no argument");
        else args->operands[args->n_operands++] = argv[i];
    }
    if (*exit_code == CT_EXIT_OK && args->n_operands < (size_t)verb->min_operands)
        *exit_code = usage_error(verb, "expected %s", verb->operands);
    if (*exit_code == CT_EXIT_OK && verb->max_operands >= 0 &&
        args->n_operands > (size_t)verb->max_operands)
        *exit_code =
            usage_error(verb, "unexpected argument \"%s\"", args->operands[verb->max_operands]);
    if (*exit_code == CT_EXIT_OK) return args;
    ct_args_free(args);
    return NULL;
}

void ct_args_free(ct_args *args)
{
    if (!args) return;
    for (size_t i = 0; args->values && i < args->verb->n_options; i++) free(args->values[i].texts);
    free(args->values);
    free(args->operands);
    free(args->command_line);
    free(args);
}

static const ct_value *value_of(const ct_args *args, const char *name)
{
    size_t index = find_option(args->verb, name, strlen(name));
    CT_ASSERT(index != SIZE_MAX);
    return &args->values[index];
}

bool ct_args_has(const ct_args *args, const char *name)
{
    return value_of(args, name)->present;
}

const char *ct_args_text(const ct_args *args, const char *name, const char *fallback)
{
    const ct_value *v = value_of(args, name);
    return v->present ? v->texts[0] : fallback;
}

int64_t ct_args_int(const ct_args *args, const char *name, int64_t fallback)
{
    const ct_value *v = value_of(args, name);
    return v->present ? v->integer : fallback;
}

double ct_args_real(const ct_args *args, const char *name, double fallback)
{
    const ct_value *v = value_of(args, name);
    return v->present ? v->real : fallback;
}

size_t ct_args_texts(const ct_args *args, const char *name, const char *const **values)
{
    const ct_value *v = value_of(args, name);
    *values = v->texts;
    return v->n_texts;
}

size_t ct_args_operands(const ct_args *args, const char *const **values)
{
    *values = args->operands;
    return args->n_operands;
}

const ct_verb *ct_args_verb(const ct_args *args)
{
    return args->verb;
}

const char *ct_args_command_line(const ct_args *args)
{
    return args->command_line;
}

int ct_args_fail(const ct_args *args, const ct_err *err)
{
    fprintf(stderr, "cortado %s: %s\n", args->verb->name, err->text);
    return err->status == CT_ERR_USAGE         ? CT_EXIT_USAGE
           : err->status == CT_ERR_INTERRUPTED ? CT_EXIT_INTERRUPTED
                                               : CT_EXIT_FAILED;
}

int ct_args_usage(const ct_args *args, const char *fmt, ...)
{
    char text[CT_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return usage_error(args->verb, "%s", text);
}
