/* prefill.c - how far two interventions compute the same rows of a prefill.
 *
 * Attention is causal, so that what an edit does to a row depends on the positions up to it alone:
 * two prefills of the same ids agree to the row where their programs first differ. The canonical
 * form says which different interventions are one program; what is not listed in intervene.h is
 * held to differ. tests/unit/engine/test_fork.c holds every equality, bit for bit.
 */
#include "intervene/intervene.h"

/* Leaves the function unless the two are equal. */
#define ORDER(a, b)                                                                                \
    do {                                                                                           \
        if ((a) != (b)) return (a) < (b) ? -1 : 1;                                                 \
    } while (0)

void ct_prefill_program_init(ct_prefill_program *program, const ct_intervention *iv, ct_stage stage,
                             int64_t heads)
{
    const ct_weight_edit *edit = &iv->weights[stage];
    const ct_semantics *s = &iv->semantics;
    ct_prefill_program p = {
        .stage = stage,
        /* A prefill in the generation stage is one row, where the ring's quirks act. */
        .whole = stage == CT_STAGE_GENERATION || ct_intervention_needs_whole(iv, stage),
        .options = s->prefill_window_full,
        .keep = ct_heads_keep(iv, stage),
        .mode = edit->mode,
        .edit_from = INT64_MAX,
        .spans = edit->spans,
        .n_spans = edit->n_spans,
    };
    if (p.keep >= heads) p.keep = -1;
    if (p.keep > 0) {
        p.metric = iv->heads.metric;
        p.seed = p.metric == CT_METRIC_RANDOM ? iv->heads.seed : 0;
    }
    if (p.whole) {
        p.options |= (unsigned)s->needle_outside_window_unchanged << 1 |
                     (unsigned)s->binary_mean_per_layer << 2 |
                     (unsigned)s->ring_slots_reference << 3;
        if (p.mode != CT_WEIGHTS_KEEP) p.edit_from = 0;
        *program = p;
        return;
    }
    p.zero = p.keep == 0 || (p.mode != CT_WEIGHTS_KEEP && p.mode != CT_WEIGHTS_OMIT);
    if (p.keep == 0 || p.mode == CT_WEIGHTS_NULL) p.mode = CT_WEIGHTS_KEEP;
    if (p.mode != CT_WEIGHTS_KEEP) p.edit_from = p.spans[0].begin;
    *program = p;
}

static int order_heads(const ct_prefill_program *a, const ct_prefill_program *b)
{
    ORDER(a->keep, b->keep);
    ORDER(a->metric, b->metric);
    ORDER(a->seed, b->seed);
    return 0;
}

int ct_prefill_program_compare_heads(const ct_prefill_program *a, const ct_prefill_program *b)
{
    bool chosen_a = a->keep > 0, chosen_b = b->keep > 0;
    ORDER(chosen_a, chosen_b);
    return chosen_a ? order_heads(a, b) : 0;
}

/* The next span of marked positions, with those that touch it; beyond all if there is none. */
static ct_span next_span(const ct_prefill_program *p, size_t *at)
{
    if (*at == p->n_spans) return (ct_span){INT64_MAX, INT64_MAX};
    ct_span span = p->spans[(*at)++];
    while (*at < p->n_spans && p->spans[*at].begin == span.end) span.end = p->spans[(*at)++].end;
    return span;
}

/* The first position that one of them marks and the other does not, or INT64_MAX. */
static int order_spans(const ct_prefill_program *a, const ct_prefill_program *b, int64_t *position)
{
    for (size_t i = 0, j = 0; i < a->n_spans || j < b->n_spans;) {
        ct_span x = next_span(a, &i), y = next_span(b, &j);
        bool begin_apart = x.begin != y.begin;
        int64_t p = begin_apart ? x.begin : x.end, q = begin_apart ? y.begin : y.end;
        *position = p < q ? p : q;
        if (p != q) return (p < q) == begin_apart ? 1 : -1; /* a marked position comes last */
    }
    *position = INT64_MAX;
    return 0;
}

int ct_prefill_program_compare(const ct_prefill_program *a, const ct_prefill_program *b,
                               int64_t *rows)
{
    *rows = 0;
    ORDER(a->recorded, b->recorded);
    ORDER(a->whole, b->whole);
    ORDER(a->stage, b->stage);
    ORDER(a->options, b->options);
    bool edited_a = a->edit_from == 0, edited_b = b->edit_from == 0;
    ORDER(edited_a, edited_b);
    if (!edited_a) ORDER(a->zero, b->zero);
    int heads = order_heads(a, b);
    if (heads && (edited_a || !a->zero)) return heads;
    if (edited_a) ORDER(a->mode, b->mode);

    /* Alike before either edit: where does the first begin? */
    *rows = a->edit_from < b->edit_from ? a->edit_from : b->edit_from;
    if (*rows == INT64_MAX) return 0;
    if (!heads && a->mode == b->mode && a->edit_from != INT64_MAX && b->edit_from != INT64_MAX)
        return order_spans(a, b, rows);
    ORDER(b->edit_from, a->edit_from); /* a row that is not edited yet comes first */
    if (a->mode != b->mode) return a->mode < b->mode ? -1 : 1;
    return heads;
}
