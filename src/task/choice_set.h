/* choice_set.h - a set of questions while it is read; for mmlu.c and glue.c only. */
#ifndef CT_TASK_CHOICE_SET_H
#define CT_TASK_CHOICE_SET_H

#include "task/choice.h"

enum { CT_CHOICE_FILE_BYTES = 256 << 20 };

/* What a benchmark says of one of its subjects. */
typedef struct ct_subject_kind {
    const char *name, *group;
    const char *choices[CT_CHOICES_MAX];
    size_t n_choices;
    ct_choice_metric metric;
} ct_subject_kind;

/* Adds an empty subject; its questions are those added until the next one. */
ct_status ct_choice_add_subject(ct_choice_set *set, const ct_subject_kind *kind,
                                ct_err *err) CT_CHECK;
/* Adds a question to the last subject, which takes the text. */
ct_status ct_choice_add_question(ct_choice_set *set, char *text, int gold, ct_err *err) CT_CHECK;
/* Checks the options' names against the kinds, of which the nearest is named. */
ct_status ct_choice_check_subjects(const ct_choice_options *options, const char *benchmark,
                                   const ct_subject_kind *kinds, size_t n, ct_err *err) CT_CHECK;
/* Whether the options want this subject; named: by its name, not as one of all. */
bool ct_choice_wants(const ct_choice_options *options, const char *name, bool *named);
/* True once the last subject has as many questions as the options allow. */
bool ct_choice_is_full(const ct_choice_options *options, const ct_choice_set *set);
/* Appends text without the white space at its ends, as Python's str.strip() does. */
ct_status ct_choice_add_stripped(ct_buf *out, const char *text, ct_err *err) CT_CHECK;

#endif
