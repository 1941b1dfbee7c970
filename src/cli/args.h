/* args.h - the command line's one option parser, and the help made from the same tables.
 *
 * Owns parsing, the errors of wrong usage (with the nearest right spelling), --help at 80 columns
 * or fewer, and the man page. A verb is a table of options and a function; nothing is said twice.
 */
#ifndef CT_CLI_ARGS_H
#define CT_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cortado/status.h>

enum { CT_EXIT_OK = 0, CT_EXIT_FAILED = 1, CT_EXIT_USAGE = 2, CT_EXIT_INTERRUPTED = 130 };

typedef enum ct_arg_kind {
    CT_ARG_FLAG, /* present or not */
    CT_ARG_TEXT,
    CT_ARG_TEXTS, /* one or more values up to the next option; may be repeated */
    CT_ARG_INT,   /* min .. max of the option */
    CT_ARG_REAL,
    CT_ARG_CHOICE, /* one of `metavar`, split at '|' */
} ct_arg_kind;

typedef struct ct_option {
    const char *name;  /* "--keep-heads" */
    const char *alias; /* "-n", or NULL */
    ct_arg_kind kind;
    const char *metavar; /* "K"; for CHOICE "a|b|c"; NULL for a flag */
    const char *help;
    double min, max; /* INT and REAL; both 0: not limited */
} ct_option;

typedef struct ct_args ct_args;

typedef struct ct_verb {
    const char *name;
    const char *operands;           /* "STUDY.yaml...", "" if none */
    int min_operands, max_operands; /* max < 0: any number */
    const char *summary;            /* one line, lower case */
    const char *description;        /* a paragraph or several, split by "\n\n" */
    const char *example;            /* command lines, split by '\n' */
    const ct_option *options;
    size_t n_options;
    int (*run)(const ct_args *args);
} ct_verb;

/* All verbs, in the order of the help. */
extern const ct_verb *const ct_verbs[];
extern const size_t ct_n_verbs;

/* Options that every verb has. */
extern const ct_option ct_common_options[];
extern const size_t ct_n_common_options;

/* Parses argv (without the program's and the verb's names). Wrong usage prints one line on stderr
 * and gives CT_EXIT_USAGE through *exit_code with NULL. */
ct_args *ct_args_parse(const ct_verb *verb, int argc, char **argv, int *exit_code);
void ct_args_free(ct_args *args);

/* Values by option name; a name that the verb's table lacks is a broken invariant. */
bool ct_args_has(const ct_args *args, const char *name);
const char *ct_args_text(const ct_args *args, const char *name, const char *fallback);
int64_t ct_args_int(const ct_args *args, const char *name, int64_t fallback);
double ct_args_real(const ct_args *args, const char *name, double fallback);
size_t ct_args_texts(const ct_args *args, const char *name, const char *const **values);
size_t ct_args_operands(const ct_args *args, const char *const **values);
const ct_verb *ct_args_verb(const ct_args *args);
/* The command line as given, for provenance. */
const char *ct_args_command_line(const ct_args *args);

/* Prints "cortado VERB: text" on stderr; returns the exit status that fits (2 for usage, 130 for
 * interrupted, else 1). */
int ct_args_fail(const ct_args *args, const ct_err *err);
/* Same for a usage error found by the verb itself. */
int ct_args_usage(const ct_args *args, const char *fmt, ...) CT_PRINTF(2, 3);

void ct_help_program(FILE *out);
void ct_help_verb(const ct_verb *verb, FILE *out);
void ct_help_man(FILE *out); /* the man page, as roff */

#endif
