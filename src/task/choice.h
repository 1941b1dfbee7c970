/* choice.h - multiple-choice benchmarks, asked as lm-evaluation-harness 0.4 asks them: MMLU and GLUE.
 *
 * Owns the questions, their prompts with and without a chat template, and what a model's log-probabilities
 * of the choices come to: accuracy, F1, Matthews correlation, groups. Knows nothing of models. The
 * harness's texts and rules: docs/semantics.md.
 */
#ifndef CT_TASK_CHOICE_H
#define CT_TASK_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

#include "base/buf.h"
#include "tok/chat.h"

enum { CT_CHOICES_MAX = 4, CT_SHOTS_MAX = 5 };

/* Metrics of a subject beside accuracy. */
typedef enum ct_choice_metric {
    CT_CHOICE_ACCURACY,
    CT_CHOICE_F1,       /* and F1 of the choice of index 1 */
    CT_CHOICE_MATTHEWS, /* and Matthews correlation, of two choices */
} ct_choice_metric;

/* A question, or a shot, in which `gold` is the answer given. */
typedef struct ct_question {
    char *text;     /* ends with "Answer:" */
    size_t subject; /* its place in the set */
    int64_t doc_id; /* its row in the subject's file, from 0 */
    int gold;       /* index of the right choice */
} ct_question;

/* A subject of MMLU, a task of GLUE. */
typedef struct ct_subject {
    const char *name;  /* "abstract_algebra", "cola" */
    const char *group; /* "stem", "humanities", "social_sciences", "other"; "" for GLUE */
    char *description; /* in front of the shots; "" if none */
    const char *choices[CT_CHOICES_MAX];
    size_t n_choices;
    ct_choice_metric metric;
    ct_question shots[CT_SHOTS_MAX];
    size_t n_shots;
    size_t first, count; /* of its questions in the set */
} ct_subject;

typedef struct ct_choice_set {
    ct_subject *subjects;
    size_t n_subjects;
    ct_question *questions; /* by subject, in the file's order */
    size_t n_questions;
} ct_choice_set;

typedef struct ct_choice_options {
    const char *dir;             /* the benchmark's files, see the two functions below */
    const char *const *subjects; /* names, of which each is read once; none: all */
    size_t n_subjects;
    int shots;     /* 0 .. 5, MMLU only */
    int64_t limit; /* questions of a subject at most; 0: all */
} ct_choice_options;

/* MMLU (Hendrycks et al. 2020): DIR/dev/NAME_dev.csv, of which the first rows are the shots, and
 * DIR/test/NAME_test.csv; rows are question, four choices, letter. All 57 subjects where none are named. */
ct_status ct_mmlu_open(const ct_choice_options *options, ct_choice_set *out, ct_err *err) CT_CHECK;
/* GLUE (Wang et al. 2019), validation split, without shots: the published TSV files (DIR/CoLA/dev.tsv ...)
 * or JSON lines of the Hugging Face dataset (DIR/cola.jsonl ... with its fields). Where no tasks are
 * named: those whose files are there; none at all is an error. */
ct_status ct_glue_open(const ct_choice_options *options, ct_choice_set *out, ct_err *err) CT_CHECK;
void ct_choice_set_clear(ct_choice_set *set);

/* ---- prompts --------------------------------------------------------------------------------- */

/* Appends the prompt without a chat template: description, shots with their answers, question. The
 * continuations are " " and a choice. */
ct_status ct_choice_context(const ct_choice_set *set, const ct_question *question, ct_buf *out,
                            ct_err *err) CT_CHECK;

enum { CT_CHOICE_MESSAGES = 2 + 2 * CT_SHOTS_MAX };
/* The messages for a chat template, borrowed from the set: the description as the system's, the shots as
 * turns of user and assistant, the question. Returns their number. The continuations are the
 * choices themselves. */
size_t ct_choice_messages(const ct_choice_set *set, const ct_question *question,
                          ct_chat_message out[CT_CHOICE_MESSAGES]);

/* ---- scores ---------------------------------------------------------------------------------- */

/* The index of the highest log-probability, the first of equals. */
int ct_choice_pick(const double *log_p, size_t n);

typedef struct ct_choice_score {
    int64_t n;
    double accuracy, accuracy_stderr; /* sample deviation over sqrt(n); NaN where n < 2 */
    double f1, matthews;              /* as scikit-learn's for two classes; 0 where undefined */
} ct_choice_score;

/* Scores picked against gold, [n] each, indices of choices. n > 0. */
ct_choice_score ct_choice_scores(const int *picked, const int *gold, int64_t n);
/* Of subjects together: the mean weighted by their sizes, and the harness's pooled standard error. */
ct_choice_score ct_choice_pool(const ct_choice_score *of, size_t n);

#endif
