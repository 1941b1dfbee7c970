/* cells.h - made-up cells for the tests of the report layer: no model ran for them.
 *
 * Owns a small list of cells with their texts, and generators that give them a plausible shape: a
 * sweep over k whose accuracy rises with k, and a grid of weight edits.
 */
#ifndef CT_TESTS_REPORT_CELLS_H
#define CT_TESTS_REPORT_CELLS_H

#include <math.h>
#include <stdio.h>

#include "base/rng.h"
#include "report/stats.h"

static inline ct_cell cell_make(const char *key, int64_t k, int64_t length, int64_t depth,
                                double score)
{
    ct_cell c = {.study = "made-up",
                 .model = "tiny-griffin",
                 .family = "griffin",
                 .heads = 4,
                 .length = length,
                 .depth = depth,
                 .keep_heads = k,
                 .metric = k < 0 ? "" : "entropy",
                 .stages = k < 0 ? "" : "generation",
                 .weights_generation = "keep",
                 .weights_prefill = "keep",
                 .template_name = "base",
                 .semantics = "paper",
                 .scoring = "table",
                 .error = "",
                 .text = "",
                 .score = score,
                 .max_score = 5};
    snprintf(c.key, sizeof c.key, "%s", key);
    return c;
}

typedef struct made_sweep {
    const char *study, *model, *metric, *stages;
    int64_t heads, k_from, k_to; /* k_from -1: the run without selection only */
    double knee, slope, top;     /* where accuracy rises, how fast, and to what */
    int64_t window;              /* needles outside it are lost more often */
    const char *weights_generation, *weights_prefill;
    bool read_twice;
    int n_lengths, n_depths;
    int fail_every; /* 0: no failed cell */
} made_sweep;

static inline void made_add(ct_stats *stats, made_sweep s, ct_err *err)
{
    static const double steps[] = {0, 0.5, 1, 1.5, 2, 3, 4, 5};
    int counter = 0;
    uint64_t seed = (uint64_t)(s.knee * 1000) + (uint64_t)s.heads;
    for (int64_t k = s.k_from; k <= s.k_to; k++)
        for (int l = 0; l < s.n_lengths; l++)
            for (int d = 0; d < s.n_depths; d++, counter++) {
                int64_t length = s.n_lengths > 1 ? 250 + (4096 - 250) * l / (s.n_lengths - 1) : 250;
                int64_t depth = s.n_depths > 1 ? 100 * d / (s.n_depths - 1) : 0;
                char key[33];
                snprintf(key, sizeof key, "%032x", counter);
                ct_cell c = cell_make(key, k, length, depth, 0);
                c.study = s.study;
                c.model = s.model;
                c.heads = s.heads;
                c.window = s.window;
                if (k >= 0) c.metric = s.metric;
                if (k >= 0) c.stages = s.stages;
                c.weights_generation = s.weights_generation ? s.weights_generation : "keep";
                c.weights_prefill = s.weights_prefill ? s.weights_prefill : "keep";
                c.read_twice = s.read_twice;
                double chance = s.top / (1 + exp(-(k < 0 ? 9 : ((double)k - s.knee) * s.slope)));
                if (k == 0) chance *= 0.04;
                if (s.window && (double)length * (1 - (double)depth / 100) > (double)s.window)
                    chance *= 0.25;
                double draw = ct_rng_f64(seed, (uint64_t)(l * 31 + d), 0) * 0.8 +
                              ct_rng_f64(seed, (uint64_t)(l * 31 + d), (uint64_t)(k + 2)) * 0.2;
                if (draw < chance) c.score = 5;
                else if (draw < chance * 1.25)
                    c.score = steps[(int)(ct_rng_f64(seed, 7, (uint64_t)counter) * 8)];
                c.audit.head_rows[CT_STAGE_GENERATION] = k < 0 ? 0 : 40 * 8;
                c.audit.heads_dropped[CT_STAGE_GENERATION] = k < 0 ? 0 : 40 * 8 * (s.heads - k);
                c.prefill_ms = 120;
                c.decode_ms = 800;
                c.finished_unix_ms = 1750000000000 + counter * 900;
                if (s.fail_every && counter % s.fail_every == s.fail_every - 1) {
                    c.status = CT_CELL_FAILED;
                    c.error = "needle <b>\"eat a sandwich\"</b> is not in the prompt & cannot be";
                }
                if (ct_stats_add(stats, &c, err) != CT_OK) return;
            }
}

#endif
