/* help.c - help at 80 columns and the man page, both from the verbs' tables. See args.h. */
#include <stdbool.h>
#include <string.h>

#include "base/version.h"
#include "cli/args.h"

enum { WIDTH = 78, HELP_COLUMN = 26 };

/* Prints text wrapped at WIDTH, each line indented; the cursor stands at `column` when called. */
static void print_wrapped(FILE *out, const char *text, int indent, int column)
{
    bool blank = false; /* a blank is due before the next word, unless the line ends there */
    for (const char *p = text; *p;) {
        if (!strncmp(p, "\n\n", 2)) {
            fprintf(out, "\n\n%*s", indent, "");
            column = indent;
            blank = false;
            p += 2;
            continue;
        }
        if (*p == ' ' || *p == '\n') {
            blank = true;
            p++;
            continue;
        }
        int length = (int)strcspn(p, " \n");
        if (column + blank + length > WIDTH && column > indent) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            blank = false;
        }
        column += fprintf(out, "%s%.*s", blank ? " " : "", length, p);
        blank = false;
        p += length;
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const ct_option *o)
{
    char head[160];
    snprintf(head, sizeof head, "  %s%s%s%s%s", o->alias ? o->alias : "", o->alias ? ", " : "",
             o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
    int column = fprintf(out, "%s", head);
    if (column > HELP_COLUMN - 2) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", HELP_COLUMN - column, "");
    print_wrapped(out, o->help, HELP_COLUMN, HELP_COLUMN);
}

void ct_help_verb(const ct_verb *verb, FILE *out)
{
    fprintf(out, "usage: cortado %s%s%s%s\n\n", verb->name, verb->n_options ? " [options]" : "",
            *verb->operands ? " " : "", verb->operands);
    print_wrapped(out, verb->description, 0, 0);
    fprintf(out, "\noptions:\n");
    for (size_t i = 0; i < verb->n_options; i++) print_option(out, &verb->options[i]);
    for (size_t i = 0; i < ct_n_common_options; i++) print_option(out, &ct_common_options[i]);
    fprintf(out, "\nexample:\n");
    for (const char *p = verb->example; *p;) {
        int length = (int)strcspn(p, "\n");
        fprintf(out, "  %.*s\n", length, p);
        p += length + (p[length] == '\n');
    }
}

void ct_help_program(FILE *out)
{
    fprintf(out,
            "cortado %s: what attention does in hybrid language models\n\n"
            "usage: cortado VERB [options]\n\nverbs:\n",
            ct_version());
    for (size_t i = 0; i < ct_n_verbs; i++)
        fprintf(out, "  %-12s%s\n", ct_verbs[i]->name, ct_verbs[i]->summary);
    fprintf(out, "\n'cortado VERB --help' shows every option with an example; 'cortado --version' "
                 "the\nversion. Results go to stdout, everything else to stderr. Exit status: 0 "
                 "done,\n1 failed, 2 wrong usage, 130 interrupted.\n");
}

/* Roff text: a leading dot or quote is guarded, dashes and backslashes are escaped. */
static void print_roff(FILE *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        bool line_start = p == text || p[-1] == '\n';
        if (line_start && (*p == '.' || *p == '\'')) fputs("\\&", out);
        if (!strncmp(p, "\n\n", 2)) {
            fputs("\n.PP\n", out);
            p++;
        } else if (*p == '-') fputs("\\-", out);
        else if (*p == '\\') fputs("\\e", out);
        else fputc(*p, out);
    }
    fputc('\n', out);
}

static void print_roff_option(FILE *out, const ct_option *o)
{
    fputs(".TP\n.B ", out);
    char head[160];
    snprintf(head, sizeof head, "%s%s%s%s%s", o->alias ? o->alias : "", o->alias ? ", " : "",
             o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
    print_roff(out, head);
    print_roff(out, o->help);
}

void ct_help_man(FILE *out)
{
    fprintf(out, ".TH CORTADO 1 \"\" \"cortado %s\" \"User Commands\"\n", ct_version());
    fputs(".SH NAME\ncortado \\- what attention does in hybrid language models\n.SH SYNOPSIS\n"
          ".B cortado\n.I VERB\n[options]\n.SH DESCRIPTION\n",
          out);
    print_roff(out,
               "cortado runs needle-in-a-haystack tests on hybrid language models (recurrent or "
               "state-space layers with a few attention layers) while it intervenes in their "
               "attention, stores every outcome, and draws the result.\n\nResults go to stdout, "
               "everything else to stderr.");
    for (size_t i = 0; i < ct_n_verbs; i++) {
        const ct_verb *v = ct_verbs[i];
        fprintf(out, ".SH %s\n.B cortado %s\n", v->name, v->name);
        print_roff(out, v->operands);
        fputs(".PP\n", out);
        print_roff(out, v->description);
        for (size_t j = 0; j < v->n_options; j++) print_roff_option(out, &v->options[j]);
        fputs(".PP\nExample:\n.nf\n", out);
        print_roff(out, v->example);
        fputs(".fi\n", out);
    }
    fputs(".SH EXIT STATUS\n0 done; 1 failed; 2 wrong usage; 130 interrupted.\n", out);
}
