/* odd.c - runs of three words, and the outputs that stand out by them. See odd.h. */
#include "report/odd.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"

/* ---- a set of 64-bit numbers ----------------------------------------------------------------- */

typedef struct ct_set {
    uint64_t *slots; /* 0: free; a value of 0 is stored as 1 */
    size_t count, n_slots;
} ct_set;

static size_t set_slot(const ct_set *s, uint64_t value)
{
    size_t at = (size_t)value & (s->n_slots - 1);
    while (s->slots[at] && s->slots[at] != value) at = (at + 1) & (s->n_slots - 1);
    return at;
}

static ct_status set_add(ct_set *s, uint64_t value, bool *added, ct_err *err)
{
    value += value == 0;
    if (s->count * 2 >= s->n_slots) {
        ct_set next = {.count = s->count, .n_slots = s->n_slots ? s->n_slots * 2 : 64};
        next.slots = calloc(next.n_slots, sizeof *next.slots);
        if (!next.slots) return ct_fail_memory(err, "words", next.n_slots * sizeof *next.slots);
        for (size_t i = 0; i < s->n_slots; i++)
            if (s->slots[i]) next.slots[set_slot(&next, s->slots[i])] = s->slots[i];
        free(s->slots);
        *s = next;
    }
    size_t at = set_slot(s, value);
    *added = s->slots[at] == 0;
    if (*added) {
        s->slots[at] = value;
        s->count++;
    }
    return CT_OK;
}

static bool set_has(const ct_set *s, uint64_t value)
{
    value += value == 0;
    return s->n_slots && s->slots[set_slot(s, value)] != 0;
}

static void set_empty(ct_set *s)
{
    if (s->slots) memset(s->slots, 0, s->n_slots * sizeof *s->slots);
    s->count = 0;
}

/* ---- runs of three words --------------------------------------------------------------------- */

static bool in_word(unsigned char c)
{
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Walks the words of a text; each call gives the hash of the next one. */
static bool next_word(const char **text, uint64_t *hash)
{
    while (**text && !in_word((unsigned char)**text)) ++*text;
    if (!**text) return false;
    for (*hash = 0; in_word((unsigned char)**text); ++*text) {
        unsigned char c = (unsigned char)**text;
        if (c >= 'A' && c <= 'Z') c = (unsigned char)(c - 'A' + 'a');
        *hash = ct_rng_mix(*hash ^ c);
    }
    return true;
}

/* Adds a text's runs of three words to the set; counts its words and, if `known` is given, those of
 * its different runs that are not in it. */
static ct_status runs_add(const char *text, ct_set *set, const ct_set *known, size_t *words,
                          size_t *fresh, uint64_t *first, ct_err *err)
{
    uint64_t last[3] = {0, 0, 0};
    *words = *fresh = 0;
    *first = 0;
    while (last[0] = last[1], last[1] = last[2], next_word(&text, &last[2])) {
        if (++*words < 3) continue;
        uint64_t run = ct_rng_mix(ct_rng_mix(ct_rng_mix(last[0]) ^ last[1]) ^ last[2]);
        bool added = false;
        ct_status st = set_add(set, run, &added, err);
        if (st != CT_OK) return st;
        if (*words == 3) *first = run;
        *fresh += added && known && !set_has(known, run);
    }
    return CT_OK;
}

/* own: any set, emptied here. */
static ct_status measure(const char *text, const ct_set *known, ct_set *own, bool *judged,
                         ct_odd *out, ct_err *err)
{
    size_t words, fresh;
    set_empty(own);
    ct_status st = runs_add(text, own, known, &words, &fresh, &out->begins, err);
    *judged = st == CT_OK && words >= CT_ODD_WORDS;
    if (!*judged) return st;
    out->repeated = 1 - (double)own->count / (double)(words - 2);
    out->fresh = (double)fresh / (double)own->count;
    return CT_OK;
}

ct_status ct_odd_measure(const char *text, const char *const *prompts, bool *judged,
                         double *repeated, double *fresh, ct_err *err)
{
    ct_status st = CT_OK;
    ct_set known = {0}, own = {0};
    ct_odd odd = {0};
    size_t words, ignored;
    uint64_t begins;
    for (; *prompts; prompts++)
        CT_TRY(runs_add(*prompts, &known, NULL, &words, &ignored, &begins, err));
    CT_TRY(measure(text, &known, &own, judged, &odd, err));
    *repeated = odd.repeated;
    *fresh = odd.fresh;
done:
    free(known.slots);
    free(own.slots);
    return st;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static int descending(double a, double b)
{
    return (a < b) - (a > b);
}

static int by_repeated(const void *left, const void *right)
{
    const ct_odd *a = left, *b = right;
    int d = descending(a->repeated, b->repeated);
    if (!d) d = descending(a->fresh, b->fresh);
    return d ? d : (a->cell > b->cell) - (a->cell < b->cell);
}

static int by_fresh(const void *left, const void *right)
{
    const ct_odd *a = left, *b = right;
    int d = descending(a->fresh, b->fresh);
    if (!d) d = descending(b->repeated, a->repeated);
    return d ? d : (a->cell > b->cell) - (a->cell < b->cell);
}

/* The first `most` of those whose `fresh` or `repeated` is above 0, few that begin alike. */
static ct_status pick(const ct_odd *all, size_t n, bool fresh, size_t most, ct_odd **out,
                      size_t *count, ct_err *err)
{
    *out = calloc(n + 1, sizeof **out);
    *count = 0;
    if (!*out) return ct_fail_memory(err, "odd outputs", n * sizeof **out);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if ((fresh ? all[i].fresh : all[i].repeated) > 0) (*out)[kept++] = all[i];
    qsort(*out, kept, sizeof **out, fresh ? by_fresh : by_repeated);
    for (size_t i = 0; i < kept && *count < most; i++) {
        int alike = 0;
        for (size_t j = 0; j < *count; j++) alike += (*out)[j].begins == (*out)[i].begins;
        if (alike < CT_ODD_ALIKE) (*out)[(*count)++] = (*out)[i];
    }
    return CT_OK;
}

ct_status ct_odd_new(const ct_stats *stats, size_t most, ct_odd_lists *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_set known = {0}, own = {0};
    *out = (ct_odd_lists){0};
    size_t n_texts = ct_textset_count(stats->texts), n = 0, words, ignored;
    uint64_t begins;
    bool *prompt = calloc(n_texts + 1, sizeof *prompt);
    size_t *place = calloc(n_texts + 1, sizeof *place); /* of an output in all, + 1 */
    ct_odd *all = calloc(n_texts + 1, sizeof *all);
    if (!prompt || !place || !all) {
        st = ct_fail_memory(err, "odd outputs", n_texts * sizeof *all);
        goto done;
    }
    for (size_t i = 0; i < stats->n_cells; i++) {
        const ct_stats_cell *c = &stats->cells[i];
        if (!prompt[c->prompt_text])
            CT_TRY(runs_add(ct_textset_get(stats->texts, c->prompt_text), &known, NULL, &words,
                            &ignored, &begins, err));
        prompt[c->prompt_text] = true;
    }
    for (size_t i = 0; i < stats->n_cells; i++) {
        const ct_stats_cell *c = &stats->cells[i];
        if (c->failed) continue;
        if (place[c->output]) {
            all[place[c->output] - 1].cells++;
            continue;
        }
        all[n] = (ct_odd){.cell = i, .cells = 1};
        place[c->output] = ++n;
    }
    size_t judged = 0;
    for (size_t i = 0; i < n; i++) {
        ct_odd odd = all[i];
        const char *text = ct_textset_get(stats->texts, stats->cells[odd.cell].output);
        bool enough;
        CT_TRY(measure(text, &known, &own, &enough, &odd, err));
        if (enough) all[judged++] = odd;
    }
    out->judged = judged;
    CT_TRY(pick(all, judged, false, most, &out->repeating, &out->n_repeating, err));
    CT_TRY(pick(all, judged, true, most, &out->far, &out->n_far, err));
done:
    free(known.slots);
    free(own.slots);
    free(prompt);
    free(place);
    free(all);
    if (st != CT_OK) ct_odd_clear(out);
    return st;
}

void ct_odd_clear(ct_odd_lists *lists)
{
    free(lists->repeating);
    free(lists->far);
    *lists = (ct_odd_lists){0};
}
