/* stats.h - stored cells -> versions, accuracy by k with intervals, retrieval maps.
 *
 * Owns the arithmetic behind every figure and table; draws nothing and opens nothing. A version is
 * what one line of a figure stands for: cells that differ only in k, prompt and seed. Cells
 * come in by ct_stats_add in any order (from the store, or from an array in a test),
 * ct_stats_finish puts them in one order, so that the same cells give the same bits.
 */
#ifndef CT_REPORT_STATS_H
#define CT_REPORT_STATS_H

#include "report/textset.h"
#include "store/store.h"

/* Resamples of the bootstrap, and its seed: fixed, so that a report can be made again. */
enum { CT_BOOTSTRAP_RESAMPLES = 2000, CT_BOOTSTRAP_SEED = 95 };

/* The outcome of all prompts of one version at one k. */
typedef struct ct_point {
    int64_t keep_heads;   /* -1: no head selection */
    size_t prompts;       /* with a done cell; several seeds of one prompt are one prompt */
    size_t cells, failed; /* done and failed cells; failed ones are in no number below */
    double accuracy;      /* mean over prompts of score / max_score, 0..1; 0 if prompts = 0 */
    double low, high;     /* 95 % interval; both = accuracy where prompts < 2 */
} ct_point;

typedef struct ct_stats_version {
    char *study, *model, *metric, *stages, *weights_generation, *weights_prefill, *template_name;
    char *semantics, *scoring;
    bool read_twice;
    int64_t heads, window;
    double max_score;   /* 0 until a cell is done */
    size_t model_index; /* models are counted as they first come in */
    size_t cells, failed;
    size_t prompts_least, prompts_most; /* over the points that have any */
    size_t n_points;
    ct_point *points; /* by k, ascending */
    size_t n_lengths, n_depths;
    int64_t *lengths, *depths; /* of all its cells, failed too; ascending */
    ct_audit audit;            /* sums over its done cells */
    double prefill_ms, decode_ms;
} ct_stats_version;

/* What is kept of a cell. */
typedef struct ct_stats_cell {
    size_t version;
    int64_t keep_heads, length, depth, seed;
    bool failed;
    double score, max_score;
    char key[33], prompt[33]; /* prompt: the hash of its ids, or the key if there is none */
    char *error;              /* NULL unless failed */
    ct_audit audit;
    double prefill_ms, decode_ms;
    uint32_t prompt_text, output;     /* indices into the stats' texts */
    int64_t prompt_tokens, n_ids;     /* n_ids: generated */
    int64_t needle_begin, needle_end; /* bytes of the prompt's text */
    int64_t needle_token_begin, needle_token_end;
} ct_stats_cell;

typedef struct ct_stats {
    size_t n_versions, version_capacity;
    ct_stats_version *versions; /* by model, stages, metric, weights, template, read_twice, ... */
    size_t n_cells, cell_capacity;
    ct_stats_cell *cells; /* by version, k, length, depth, prompt, key */
    ct_textset *texts;    /* prompts and outputs, each once */
    size_t done, failed, n_models;
    int64_t first_finished_unix_ms, last_finished_unix_ms; /* 0: unknown */
} ct_stats;

/* Mean score by (length, depth) for one version and k; row = depth, as it is drawn. */
typedef struct ct_retrieval {
    size_t n_lengths, n_depths;
    const int64_t *lengths, *depths; /* the version's */
    double *mean;                    /* [n_depths, n_lengths], 0 where counts is 0 */
    size_t *counts;                  /* [n_depths, n_lengths] done cells */
    int64_t *tokens;                 /* [n_lengths], of the version's longest prompt of each */
    size_t missing;                  /* places without a done cell */
    double max_score;
} ct_retrieval;

/* Begins empty; ct_stats_free takes NULL. */
ct_status ct_stats_new(ct_stats **out, ct_err *err) CT_CHECK;
void ct_stats_free(ct_stats *stats);

/* Takes one cell in. A done cell whose max_score is not above 0 or whose score lies outside
 * 0..max_score is CT_ERR_VALUE: no figure is drawn over it. */
ct_status ct_stats_add(ct_stats *stats, const ct_cell *cell, ct_err *err) CT_CHECK;

/* Orders cells and versions, drops second copies of a cell (same version and key; a done one stays)
 * and computes every version's points. Call once, after the last add. */
ct_status ct_stats_finish(ct_stats *stats, ct_err *err) CT_CHECK;

/* The point of a version at k, or NULL. */
const ct_point *ct_stats_point(const ct_stats_version *v, int64_t keep_heads);
/* The least k above `after` that any of versions[begin..end) has; false if there is none. Begin
 * with after = -2. `out` may point to `after`'s variable. */
bool ct_stats_next_k(const ct_stats *stats, size_t begin, size_t end, int64_t after, int64_t *out);

/* The map of version `v` at k; CT_ERR_NOT_FOUND if that version has no cell at that k, CT_ERR_LIMIT
 * if lengths x depths exceed CT_RETRIEVAL_MAX (a sweep without a grid). */
enum { CT_RETRIEVAL_MAX = 1 << 16 };
ct_status ct_stats_retrieval(const ct_stats *stats, size_t v, int64_t keep_heads, ct_retrieval *out,
                             ct_err *err) CT_CHECK;
void ct_retrieval_clear(ct_retrieval *map);

/* 95 % interval of the mean of x[n], n > 0, by the percentile bootstrap (Efron 1979): resample r
 * draws n values with replacement, element i by counter (r, i); the bounds are the 2.5 % and 97.5 %
 * points of the resampled means, linear between order statistics. n = 1 gives low = high = x[0]. */
ct_status ct_bootstrap_mean(const double *x, size_t n, double *low, double *high,
                            ct_err *err) CT_CHECK;

#endif
