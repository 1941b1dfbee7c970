/* main.c - the program: finds the verb, parses its options, runs it. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/version.h"
#include "cli/args.h"
#include "cli/verbs.h"

const ct_verb *const ct_verbs[] = {
    &ct_verb_run,        &ct_verb_report,  &ct_verb_export, &ct_verb_generate,
    &ct_verb_prompts,    &ct_verb_score,   &ct_verb_eval,   &ct_verb_tokenize,
    &ct_verb_detokenize, &ct_verb_inspect, &ct_verb_synth,  &ct_verb_bench,
};
const size_t ct_n_verbs = sizeof ct_verbs / sizeof *ct_verbs;

static const ct_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < ct_n_verbs; i++)
        if (!strcmp(ct_verbs[i]->name, name)) return ct_verbs[i];
    return NULL;
}

static int unknown_verb(const char *name)
{
    const char *names[32];
    size_t n = 0;
    for (size_t i = 0; i < ct_n_verbs && n < 32; i++) names[n++] = ct_verbs[i]->name;
    const char *nearest = ct_nearest(name, names, n);
    ct_err err;
    ct_fail(&err, CT_ERR_USAGE, "unknown verb \"%.40s\"", name);
    fprintf(stderr, "cortado: %s", err.text);
    if (nearest) fprintf(stderr, "; did you mean %s?", nearest);
    fprintf(stderr, " (see: cortado --help)\n");
    return CT_EXIT_USAGE;
}

/* Results that could not be written are a failure, even if every call before the flush went well.
 */
static int finish(int code)
{
    if (fflush(stdout) || ferror(stdout)) {
        if (code == CT_EXIT_OK) {
            fprintf(stderr, "cortado: the output could not be written\n");
            return CT_EXIT_FAILED;
        }
    }
    return code;
}

/* Between two parallel loops libgomp's threads spin for milliseconds before they sleep. A step has
 * over a hundred such loops of some microseconds, so on a machine that others use too, threads that
 * spin keep the ones that would work from the cores. Too short a spin is as bad: loops lie up to 100
 * microseconds apart, and waking a thread takes 40. libgomp reads its settings before main begins, so they are set by starting the program once
 * more. */
static void limit_spinning(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0) execv("/proc/self/exe", argv);
    /* Where that cannot be (no /proc), everything works, only slower beside other programs. */
}

int main(int argc, char **argv)
{
    limit_spinning(argv);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, reported once by finish() */
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is a failed write like a full disk */
    if (argc < 2) {
        ct_help_program(stderr);
        return CT_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("cortado %s (%s)\n", ct_version(), ct_commit());
        return finish(CT_EXIT_OK);
    }
    if (!strcmp(argv[1], "--man")) {
        ct_help_man(stdout);
        return finish(CT_EXIT_OK);
    }
    bool help = !strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h");
    if (help && argc == 2) {
        ct_help_program(stdout);
        return finish(CT_EXIT_OK);
    }
    const char *name = help ? argv[2] : argv[1];
    const ct_verb *verb = find_verb(name);
    if (!verb) return unknown_verb(name);
    if (help) {
        ct_help_verb(verb, stdout);
        return finish(CT_EXIT_OK);
    }
    int code;
    ct_args *args = ct_args_parse(verb, argc - 2, argv + 2, &code);
    if (args) code = verb->run(args);
    ct_args_free(args);
    return finish(code);
}
