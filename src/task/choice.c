/* choice.c - prompts of multiple-choice questions, and their scores. See choice.h. */
#include "task/choice.h"

#include <math.h>
#include <stdlib.h>

void ct_choice_set_clear(ct_choice_set *set)
{
    for (size_t i = 0; i < set->n_questions; i++) free(set->questions[i].text);
    for (size_t i = 0; i < set->n_subjects; i++) {
        free(set->subjects[i].description);
        for (size_t s = 0; s < set->subjects[i].n_shots; s++) free(set->subjects[i].shots[s].text);
    }
    free(set->questions);
    free(set->subjects);
    *set = (ct_choice_set){0};
}

/* ---- prompts --------------------------------------------------------------------------------- */

ct_status ct_choice_context(const ct_choice_set *set, const ct_question *question, ct_buf *out,
                            ct_err *err)
{
    const ct_subject *s = &set->subjects[question->subject];
    ct_status st;
    CT_TRY(ct_buf_adds(out, s->description, err));
    for (size_t i = 0; i < s->n_shots; i++) {
        CT_TRY(ct_buf_adds(out, s->shots[i].text, err));
        CT_TRY(ct_buf_addf(out, err, " %s\n\n", s->choices[s->shots[i].gold]));
    }
    CT_TRY(ct_buf_adds(out, question->text, err));
done:
    return st;
}

size_t ct_choice_messages(const ct_choice_set *set, const ct_question *question,
                          ct_chat_message out[CT_CHOICE_MESSAGES])
{
    const ct_subject *s = &set->subjects[question->subject];
    size_t n = 0;
    if (*s->description) out[n++] = (ct_chat_message){CT_CHAT_SYSTEM, s->description};
    for (size_t i = 0; i < s->n_shots; i++) {
        out[n++] = (ct_chat_message){CT_CHAT_USER, s->shots[i].text};
        out[n++] = (ct_chat_message){CT_CHAT_ASSISTANT, s->choices[s->shots[i].gold]};
    }
    out[n++] = (ct_chat_message){CT_CHAT_USER, question->text};
    return n;
}

/* ---- scores ---------------------------------------------------------------------------------- */

int ct_choice_pick(const double *log_p, size_t n)
{
    int best = 0;
    for (size_t i = 1; i < n; i++)
        if (log_p[i] > log_p[best]) best = (int)i;
    return best;
}

ct_choice_score ct_choice_scores(const int *picked, const int *gold, int64_t n)
{
    double right = 0, pairs[2][2] = {{0}}; /* [gold == 1][picked == 1] */
    for (int64_t i = 0; i < n; i++) {
        right += picked[i] == gold[i];
        pairs[gold[i] == 1][picked[i] == 1]++;
    }
    const double tp = pairs[1][1], fp = pairs[0][1], fn = pairs[1][0], tn = pairs[0][0];
    const double p = right / (double)n;
    const double sides = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn);
    return (ct_choice_score){
        .n = n,
        .accuracy = p,
        .accuracy_stderr = n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : NAN,
        .f1 = tp > 0 ? 2 * tp / (2 * tp + fp + fn) : 0,
        .matthews = sides > 0 ? (tp * tn - fp * fn) / sqrt(sides) : 0,
    };
}

ct_choice_score ct_choice_pool(const ct_choice_score *of, size_t n)
{
    double total = 0, mean = 0, variance = 0;
    for (size_t i = 0; i < n; i++) {
        const double size = (double)of[i].n, e = of[i].accuracy_stderr;
        total += size;
        mean += size * of[i].accuracy;
        variance += (size - 1) * e * e * size;
    }
    return (ct_choice_score){
        .n = (int64_t)total,
        .accuracy = mean / total,
        .accuracy_stderr = sqrt(variance / (total - (double)n) / total),
        .f1 = NAN,
        .matthews = NAN,
    };
}
