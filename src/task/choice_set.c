/* choice_set.c - a set of questions while it is read. See choice_set.h. */
#include "task/choice_set.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "task/text.h"

/* Room for one more in an array that doubles at powers of two. */
static ct_status grow(void **list, size_t n, size_t size, ct_err *err)
{
    if (n & (n - 1) || (n && n < 8)) return CT_OK;
    size_t room = n < 8 ? 8 : 2 * n;
    void *more = realloc(*list, room * size);
    if (!more) return ct_fail_memory(err, "questions", room * size);
    *list = more;
    return CT_OK;
}

ct_status ct_choice_add_subject(ct_choice_set *set, const ct_subject_kind *kind, ct_err *err)
{
    ct_status st = grow((void **)&set->subjects, set->n_subjects, sizeof *set->subjects, err);
    if (st != CT_OK) return st;
    ct_subject *s = &set->subjects[set->n_subjects];
    *s = (ct_subject){
        .name = kind->name,
        .group = kind->group,
        .n_choices = kind->n_choices,
        .metric = kind->metric,
        .first = set->n_questions,
    };
    memcpy(s->choices, kind->choices, sizeof s->choices);
    s->description = ct_strdup("", err);
    if (!s->description) return CT_ERR_MEMORY;
    set->n_subjects++;
    return CT_OK;
}

ct_status ct_choice_add_question(ct_choice_set *set, char *text, int gold, ct_err *err)
{
    ct_status st = grow((void **)&set->questions, set->n_questions, sizeof *set->questions, err);
    if (st != CT_OK) {
        free(text);
        return st;
    }
    ct_subject *s = &set->subjects[set->n_subjects - 1];
    set->questions[set->n_questions++] = (ct_question){
        .text = text,
        .subject = set->n_subjects - 1,
        .doc_id = (int64_t)s->count++,
        .gold = gold,
    };
    return CT_OK;
}

ct_status ct_choice_check_subjects(const ct_choice_options *options, const char *benchmark,
                                   const ct_subject_kind *kinds, size_t n, ct_err *err)
{
    for (size_t i = 0; i < options->n_subjects; i++) {
        const char *names[64];
        bool known = false;
        for (size_t k = 0; k < n; k++) {
            names[k] = kinds[k].name;
            known |= !strcmp(options->subjects[i], kinds[k].name);
        }
        if (known) continue;
        const char *nearest = ct_nearest(options->subjects[i], names, n);
        ct_fail(err, CT_ERR_VALUE, "%s: expected one of its %zu subjects, got \"%.60s\"%s%s%s",
                benchmark, n, options->subjects[i], nearest ? "; did you mean " : "",
                nearest ? nearest : "", nearest ? "?" : "");
        return CT_ERR_VALUE;
    }
    return CT_OK;
}

bool ct_choice_wants(const ct_choice_options *options, const char *name, bool *named)
{
    *named = false;
    for (size_t i = 0; i < options->n_subjects; i++) *named |= !strcmp(options->subjects[i], name);
    return *named || options->n_subjects == 0;
}

bool ct_choice_is_full(const ct_choice_options *options, const ct_choice_set *set)
{
    return options->limit > 0 &&
           (int64_t)set->subjects[set->n_subjects - 1].count >= options->limit;
}

ct_status ct_choice_add_stripped(ct_buf *out, const char *text, ct_err *err)
{
    size_t begin = 0, end = strlen(text);
    ct_text_strip(text, &begin, &end);
    return ct_buf_add(out, text + begin, end - begin, err);
}
