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
    bool hostile;   /* outputs and prompts that try to leave their place in a page */
} made_sweep;

/* What a model might write, and a haystack might hold. */
static inline const char *made_output(const made_sweep *s, double score, uint64_t draw)
{
    static const char *const hostile[] = {
        "</script><script>document.title = 'broken'</script><img src=x onerror=alert(1)>",
        "<!-- <script> \"quoted\" 'single' & &amp; \\ \u2028 \xFF\xC3 \x01\x7F end",
        "{{data}} {{/done}} ]]> </pre></td></table><h1>eat a <b>sandwich</b></h1>",
        "\xE2\x80\xA8 \xF0\x9F\x8C\x89 caf\xC3\xA9 EAT A SANDWICH, sit in Dolores\nPark!"};
    static const char *const odd[] = {
        "I am a programmer. I am a programmer. I am a programmer.",
        "The best way to get to the top of the mountain is to start by walking.",
        "I do not know of any such city, but the sandwich is good on a sunny day."};
    if (s->hostile) return hostile[draw % 4];
    if (score >= 5)
        return "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on "
               "a sunny day.";
    return score > 0 ? "You can eat a sandwich there, or wait for a sunny day." : odd[draw % 3];
}

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
                int64_t needle[2] = {0, 0};
                snprintf(key, sizeof key, "%032x", counter);
                char prompt[2200], hash[33];
                int n = snprintf(prompt, sizeof prompt, "CONTEXT: %s",
                                 s.hostile ? "</script> \xFF \xF0\x9F\x8C\x89 " : "");
                for (int64_t words = 0, cut = length * depth / 100; words <= length / 16; words++) {
                    if (words == cut / 16)
                        n += snprintf(prompt + n, sizeof prompt - (size_t)n, "\n");
                    int64_t begin = n;
                    if (words == cut / 16)
                        n += snprintf(prompt + n, sizeof prompt - (size_t)n,
                                      "The needle is to eat a sandwich in the park.");
                    if (words == cut / 16) needle[0] = begin, needle[1] = n;
                    n += snprintf(prompt + n, sizeof prompt - (size_t)n, " w%d",
                                  (int)(words * 37 % 101));
                }
                snprintf(prompt + n, sizeof prompt - (size_t)n, "\n\nQUESTION: what?");
                snprintf(hash, sizeof hash, "%d-%d-%d", (int)length, (int)depth, s.read_twice);
                ct_cell c = cell_make(key, k, length, depth, 0);
                c.prompt = prompt;
                c.prompt_ids_hash = hash;
                c.prompt_tokens = length;
                c.needle_begin = needle[0];
                c.needle_end = needle[1];
                c.needle_token_begin = length * depth / 200;
                c.needle_token_end = c.needle_token_begin + 12;
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
                c.text = made_output(&s, c.score, (uint64_t)counter * 7 / 3);
                c.n_ids = 0;
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
