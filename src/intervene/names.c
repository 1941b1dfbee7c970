/* names.c - the words for interventions, and their parsing. See intervention.h.
 *
 * Each list is in the order of its enum; the words are those of YAML, flags and the store.
 */
#include <string.h>

#include <cortado/intervention.h>

#include "base/buf.h"
#include "base/err.h"
#include "intervene/words.h"

static const char *const stages[] = {"prefill", "generation"};
static const char *const metrics[] = {"entropy", "l2", "random", "entropy-inverted"};
static const char *const modes[] = {"keep", "null", "only", "binary", "omit"};
/* Indexed by active[PREFILL] + 2 * active[GENERATION]. */
static const char *const head_stages[] = {"none", "prefill", "generation", "prefill+generation"};

#define COUNT(a) (sizeof(a) / sizeof *(a))

ct_status ct_word_parse(const char *word, const char *what, const char *const *words, size_t count,
                        size_t *out, ct_err *err)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(word, words[i]) == 0) {
            *out = i;
            return CT_OK;
        }
    char list[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i]);
    const char *nearest = ct_nearest(word, words, count);
    return ct_fail(err, CT_ERR_USAGE, "%s: expected one of %s, got \"%s\"%s%s%s", what, list, word,
                   nearest ? "; did you mean \"" : "", nearest ? nearest : "",
                   nearest ? "\"?" : "");
}

const char *ct_stage_name(ct_stage stage)
{
    return (size_t)stage < COUNT(stages) ? stages[stage] : "?";
}

const char *ct_metric_name(ct_metric metric)
{
    return (size_t)metric < COUNT(metrics) ? metrics[metric] : "?";
}

const char *ct_weights_mode_name(ct_weights_mode mode)
{
    return (size_t)mode < COUNT(modes) ? modes[mode] : "?";
}

const char *ct_head_stages_name(const ct_head_selection *heads)
{
    return head_stages[(heads->active[CT_STAGE_PREFILL] ? 1 : 0) +
                       (heads->active[CT_STAGE_GENERATION] ? 2 : 0)];
}

ct_status ct_metric_parse(const char *name, const char *what, ct_metric *out, ct_err *err)
{
    size_t i = 0;
    ct_status st = ct_word_parse(name, what, metrics, COUNT(metrics), &i, err);
    if (st == CT_OK) *out = (ct_metric)i;
    return st;
}

ct_status ct_weights_mode_parse(const char *name, const char *what, ct_weights_mode *out,
                                ct_err *err)
{
    size_t i = 0;
    ct_status st = ct_word_parse(name, what, modes, COUNT(modes), &i, err);
    if (st == CT_OK) *out = (ct_weights_mode)i;
    return st;
}

ct_status ct_head_stages_parse(const char *name, const char *what, bool active[CT_STAGE_COUNT],
                               ct_err *err)
{
    size_t i = 0;
    ct_status st = ct_word_parse(name, what, head_stages, COUNT(head_stages), &i, err);
    if (st == CT_OK) {
        active[CT_STAGE_PREFILL] = (i & 1) != 0;
        active[CT_STAGE_GENERATION] = (i & 2) != 0;
    }
    return st;
}
