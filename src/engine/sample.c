/* sample.c - greedy choice and sampling. See sample.h. */
#include "engine/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/rng.h"

enum { LANES = 16, BLOCK = 256 };      /* logits looked at together */
enum { SAMPLING_STREAM = 0x53414d50 }; /* keeps these numbers apart from other uses of a seed */

ct_status ct_sampling_check(const ct_sampling *s, ct_err *err)
{
    if (!(s->temperature >= 0) || !isfinite(s->temperature))
        return ct_fail(err, CT_ERR_VALUE, "temperature: expected 0 or more, got %g",
                       (double)s->temperature);
    if (!(s->top_p >= 0 && s->top_p <= 1))
        return ct_fail(err, CT_ERR_VALUE, "top_p: expected 0 to 1, got %g", (double)s->top_p);
    if (s->top_k < 0)
        return ct_fail(err, CT_ERR_VALUE, "top_k: expected 0 or more, got %d", (int)s->top_k);
    return CT_OK;
}

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

/* Highest logit first, lowest id among equals: a total order, so that the sort has one result. */
static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The largest of a block; *bad is set if one is not a number. Lane by lane, so that it becomes vector
 * instructions. */
static float block_max(const float *x, bool *bad)
{
    float high[LANES];
    int odd[LANES] = {0}, any = 0;
    for (int j = 0; j < LANES; j++) high[j] = x[j];
    for (int i = 0; i < BLOCK; i += LANES)
        for (int j = 0; j < LANES; j++) {
            odd[j] |= x[i + j] != x[i + j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    for (int j = 0; j < LANES; j++) {
        any |= odd[j];
        high[0] = high[j] > high[0] ? high[j] : high[0];
    }
    *bad |= any != 0;
    return high[0];
}

/* The first of the largest logits, or the first that is not a number. Blocks that hold nothing new are
 * passed over. */
static int64_t first_max(const float *x, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t end = i + BLOCK < count ? i + BLOCK : count;
        bool bad = false;
        if (end - i == BLOCK && block_max(x + i, &bad) <= x[best] && !bad) continue;
        for (int64_t j = i; j < end; j++) {
            if (isnan(x[j])) return j;
            if (x[j] > x[best]) best = j;
        }
    }
    return best;
}

ct_status ct_sample_not_a_number(int64_t step, int64_t token, ct_err *err)
{
    return ct_fail(err, CT_ERR_VALUE,
                   "step %lld: the logit of token %lld is not a number (are the weights damaged?)",
                   (long long)step, (long long)token);
}

ct_status ct_sample(const ct_sampling *s, const float *logits, int64_t vocab, int64_t step,
                    int32_t *id, ct_err *err)
{
    int64_t best = first_max(logits, vocab);
    if (isnan(logits[best])) return ct_sample_not_a_number(step, best, err);
    *id = (int32_t)best;
    if (s->temperature == 0) return CT_OK;

    candidate *list = malloc((size_t)vocab * sizeof *list);
    if (!list) return ct_fail_memory(err, "sampling", (size_t)vocab * sizeof *list);
    for (int64_t i = 0; i < vocab; i++) list[i] = (candidate){logits[i], (int32_t)i};
    qsort(list, (size_t)vocab, sizeof *list, by_logit);
    int64_t n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    double top = (double)list[0].logit, scale = 1 / (double)s->temperature, total = 0;
    for (int64_t i = 0; i < n; i++) total += exp(((double)list[i].logit - top) * scale);
    if (s->top_p > 0 && s->top_p < 1) {
        double reach = (double)s->top_p * total, sum = 0;
        int64_t kept = 0;
        while (kept < n && sum < reach) sum += exp(((double)list[kept++].logit - top) * scale);
        n = kept;
        total = sum;
    }
    double at = ct_rng_f64(s->seed, SAMPLING_STREAM, (uint64_t)step) * total, sum = 0;
    int64_t chosen = 0;
    for (int64_t i = 0; i < n; i++) {
        chosen = i;
        sum += exp(((double)list[i].logit - top) * scale);
        if (at < sum) break;
    }
    *id = list[chosen].id;
    free(list);
    return CT_OK;
}
