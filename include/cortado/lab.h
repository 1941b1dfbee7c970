/* lab.h - studies, runs and their stores: the public face of experiments.
 *
 * Owns what a program needs to run a study file and to read what came out: open a study, describe
 * its grid, run it (again: what is stored is not computed twice), export its cells. The library
 * prints nothing; text goes to a function of the caller. Errors: status.h.
 */
#ifndef CORTADO_LAB_H
#define CORTADO_LAB_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/engine.h>
#include <cortado/status.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* what a header here declares is exported */

/* Takes text that a function below produces, piece by piece; a status other than CT_OK ends it. */
typedef ct_status (*ct_write_fn)(void *user, const char *bytes, size_t size, ct_err *err);

/* ---- studies --------------------------------------------------------------------------------- */

typedef struct ct_study ct_study;

/* Reads and checks a study file (docs/STUDIES.md); all errors name its line. No model is needed. */
ct_status ct_study_open(const char *path, ct_study **out, ct_err *err) CT_CHECK;
/* The same from bytes; `path` names them in errors and is where relative paths begin. */
ct_status ct_study_parse_bytes(const char *bytes, size_t size, const char *path, ct_study **out,
                               ct_err *err) CT_CHECK;
void ct_study_close(ct_study *study);
/* Its name: letters, digits, '.', '_' and '-', so that it can be a folder's name. */
const char *ct_study_name(const ct_study *study);
/* The resolved grid as plain text: prompts, versions with their cells, and the sum of cells. */
ct_status ct_study_describe(const ct_study *study, ct_write_fn write, void *user,
                            ct_err *err) CT_CHECK;

/* ---- runs ------------------------------------------------------------------------------------ */

typedef struct ct_run_progress {
    int64_t cells_done;  /* finished: now and in earlier executions, failed ones included */
    int64_t cells_total; /* of the study, or as many as the limit allows */
    int64_t cells_first; /* of cells_done, those that were stored before */
    int64_t tokens;      /* prompt and generated tokens computed so far */
    double elapsed_ms;
} ct_run_progress;

typedef struct ct_run_options {
    const char *out_dir;    /* NULL: runs/<study>; made if it is not there */
    const char *model_root; /* a folder of model folders; may be NULL */
    const char *only_model; /* of a study of several models, run this one; NULL: all */
    /* As in ct_model_options; or a list, with a copy of the model on each ("cuda:0,cuda:1", or
     * "cuda:0,1"); or "cuda:all": as many copies as the GPUs there hold. Cells are spread over them. */
    const char *device;
    ct_compute_choice compute; /* AUTO: the study's, if it names one */
    int threads;               /* of all devices together; 0: all cores */
    int64_t limit;             /* run at most so many cells; 0: all */
    const char *weights;       /* as in ct_model_options; NULL: the model folder's */
    /* Bytes that the states of sequences may take, of the host or of each device with memory of its
     * own; 0: half of what is free, or nine tenths of what the device has beside the weights. */
    int64_t memory;
    bool dry_run; /* count only; nothing is written */
    bool alone;   /* every cell by itself: no shared prefill, no batch; outcomes are the same */
    const char *command_line; /* for the provenance; may be NULL */
    /* Not 0: stop. It may be set by a signal handler; may be NULL. */
    const volatile sig_atomic_t *stop;
    /* Called a few times a second, by one thread at a time: the caller's, or with several devices
     * any of them; may be NULL. */
    void (*progress)(void *user, const ct_run_progress *progress);
    void *user;
} ct_run_options;

typedef struct ct_run_result {
    int64_t cells, prompts, versions; /* of the study */
    int64_t stored;                   /* cells that were done before */
    int64_t done, failed;             /* cells that this execution finished; a dry run: that
                                       * cannot run, and would be stored as failed */
    int64_t left;                     /* cells still without outcome: a limit, or interrupted */
    /* The plan for the cells to run: */
    int64_t prefill_tokens_plain;       /* a loop over them would prefill so many */
    int64_t prefill_tokens_planned;     /* the plan prefills so many, ... */
    int64_t segments, batches;          /* in so many pieces, in so many goes */
    int64_t forks;                      /* states forked for other pieces and cells */
    int64_t decode_steps;               /* at most: if every cell takes all its tokens */
    int64_t decode_rows;                /* cells that decode together, at most */
    int64_t state_bytes;                /* most that the states of a lane take at a time */
    int64_t memory_limit, weight_bytes; /* the limit of each lane; weights of each copy */
    int64_t lanes;                      /* cells are computed in so many places at a time, ... */
    int64_t stretches;     /* which take so many parts of the plan, one after another */
    char devices[256];     /* where, such as "cuda:0, cuda:1" */
    bool memory_of_device; /* the limit is of a device's own memory */
    int64_t recordings, recording_bytes; /* files that the cells to run leave, bytes at most */
    double plan_ms, wall_ms;
    char first_error[512]; /* of the first failed cell; "" if none */
    char store[4096];      /* path of the store */
} ct_run_result;

/* Runs what the store does not have yet; failed cells are tried again. A cell that fails is stored
 * as failed and does not end the run: look at result->failed. CT_ERR_INTERRUPTED if *stop was set:
 * what was finished is stored, the next run goes on from there. *result is filled in every case, as
 * far as the run came. */
ct_status ct_run_study(const ct_study *study, const ct_run_options *options, ct_run_result *result,
                       ct_err *err) CT_CHECK;

/* ---- outcomes -------------------------------------------------------------------------------- */

typedef enum ct_export_format { CT_EXPORT_CSV, CT_EXPORT_JSONL } ct_export_format;

/* Writes one line a cell of the run in DIR: CSV (RFC 4180, with a header line) or JSON lines. The
 * output is UTF-8: bytes of an answer that are not become \xNN. Columns that may differ between two
 * runs of the same study (times) come last. */
ct_status ct_run_export(const char *dir, ct_export_format format, ct_write_fn write, void *user,
                        ct_err *err) CT_CHECK;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
