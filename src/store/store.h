/* store.h - one SQLite file per run: every cell's request, outcome and provenance.
 *
 * Owns the schema and every column name. The run layer writes cells, the report layer reads them; a
 * figure never reads a live run. Finished cells are written in small transactions that are on disk
 * when ct_store_put returns; a cell's key holds all that determines its outcome, so what is done is
 * never done again.
 */
#ifndef CT_STORE_STORE_H
#define CT_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/intervention.h>
#include <cortado/status.h>

typedef struct ct_store ct_store;

typedef enum ct_cell_status { CT_CELL_DONE, CT_CELL_FAILED } ct_cell_status;

/* One request under one intervention, with its outcome. All text is UTF-8. In calls that write,
 * pointers are borrowed; in ct_store_each they are valid during the callback. */
typedef struct ct_cell {
    char key[33];       /* 32 hex digits over all that determines the outcome */
    const char *study;  /* its name */
    const char *model;  /* as the study names it */
    const char *family; /* "griffin" */
    int64_t heads;      /* heads of an attention layer of the model (k = heads: all kept) */
    int64_t window; /* tokens that a query of its local attention sees, itself counted; 0: all */
    int64_t length, depth; /* the builder's parameters: tokens, per cent */
    int64_t keep_heads;    /* k; -1: no head selection */
    const char *metric;    /* "entropy" ...; "" without head selection */
    int64_t seed;          /* of metric "random"; 0 for the others */
    const char *stages;    /* "generation" ...; "" without head selection */
    const char *weights_generation, *weights_prefill; /* "keep" ... */
    const char *template_name;                        /* "base" or "instruct" */
    bool read_twice;
    const char *semantics; /* as ct_semantics_describe gives it */
    const char *scoring;
    const char *prompt;          /* the text that was encoded */
    const char *prompt_ids_hash; /* 32 hex digits */
    int64_t prompt_tokens;
    int64_t needle_begin, needle_end;             /* characters of the needle in prompt, bytes */
    int64_t needle_token_begin, needle_token_end; /* its first copy in the ids as fed */
    ct_cell_status status;
    const char *error;  /* one line; "" if done */
    const int32_t *ids; /* generated */
    size_t n_ids;
    const char *text;
    double score, max_score;
    ct_audit audit;
    double prefill_ms, decode_ms; /* this cell's share of shared work */
    int64_t finished_unix_ms;
} ct_cell;

/* What made the cells: one row for every execution of `cortado run`. */
typedef struct ct_provenance {
    const char *version, *commit; /* of cortado */
    const char *study, *study_hash, *study_text;
    const char
        *figures; /* those the study asks for, "accuracy_by_heads,retrieval_map"; may be "" */
    const char *model, *weights_hash, *tokenizer_hash;
    const char *backend, *compute, *dtype;
    const char *machine; /* CPU model, cores, kernel */
    const char *flags;   /* the command line */
    int numerics_version;
    int64_t started_unix_ms;
} ct_provenance;

/* Opens a run's file: to write (made if it is not there) with `create`, else to read only. A file
 * of another schema version (CT_ERR_UNSUPPORTED) or that is no store or damaged (CT_ERR_FORMAT) is
 * an error that says so. Readers may open while a run writes. */
ct_status ct_store_open(const char *path, bool create, ct_store **out, ct_err *err) CT_CHECK;
void ct_store_close(ct_store *store);

/* Begins an execution; cells put from now on belong to it. Takes the file's lock, until the end or
 * until the process dies: CT_ERR_USAGE if another process writes this store. */
ct_status ct_store_begin(ct_store *store, const ct_provenance *provenance, ct_err *err) CT_CHECK;
/* Ends it: wall time and how it ended ("done", "interrupted", "failed"). One that never came here
 * ("killed") is marked so by the next ct_store_begin. */
ct_status ct_store_end(ct_store *store, const char *how, double wall_ms, ct_err *err) CT_CHECK;

/* Whether a cell is stored, how it ended, and whether readers see it. */
ct_status ct_store_find(ct_store *store, const char *key, bool *found, ct_cell_status *status,
                        bool *current, ct_err *err) CT_CHECK;
/* Writes cells in one transaction, all or none; on disk when it returns. A failed cell of the same
 * key is replaced, a done one never. Text may be NULL and is then "". Needs ct_store_begin. */
ct_status ct_store_put(ct_store *store, const ct_cell *cells, size_t n, ct_err *err) CT_CHECK;
/* Keeps only these keys of the stored cells visible to readers: the cells of the study as it stands
 * now. With `model` only the model's other cells are hidden, and the cells are from now on called
 * its own: the folder of a model may be renamed. With NULL all others are hidden. They stay in the
 * file, so that changing a study back costs nothing. Cells put later are visible. */
ct_status ct_store_set_current(ct_store *store, const char *model, const char *const *keys,
                               size_t n, ct_err *err) CT_CHECK;

/* Calls fn for every current cell, ordered by model, read once before twice, stages, metric, weights, keep_heads, seed,
 * length, depth. fn returns a status; one that is not CT_OK ends the walk and is returned. */
typedef ct_status (*ct_cell_fn)(void *user, const ct_cell *cell, ct_err *err);
ct_status ct_store_each(ct_store *store, ct_cell_fn fn, void *user, ct_err *err) CT_CHECK;
/* Provenance of the study as it was run last, which has a last execution for each of its models:
 * that of the i-th of them, in the order of their executions; CT_ERR_NOT_FOUND if there are no more.
 * Text is valid until the next call of this function or until the store is closed. */
ct_status ct_store_provenance(ct_store *store, size_t i, ct_provenance *out, ct_err *err) CT_CHECK;

#endif
