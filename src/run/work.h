/* work.h - what the run of one model of a study holds, shared by the files of run/.
 *
 * Owns the step from a cell of the grid to a request of the engine, and the cell's key. prepare.c
 * fills it, lanes.c and plan.c arrange it, execute.c runs it; run.c makes one for each model, one after another.
 */
#ifndef CT_RUN_WORK_H
#define CT_RUN_WORK_H

#include <cortado/lab.h>

#include "base/hash.h"
#include "model/devices.h"
#include "run/grid.h"
#include "run/schedule.h"
#include "run/study.h"
#include "store/store.h"
#include "task/niah.h"

/* The prompt of a point. */
typedef struct ct_prompt {
    ct_niah_request request; /* cleared when no cell needs it any more */
    char hash[CT_HASH_HEX];  /* of its ids; of its text if it could not be encoded */
    char *error;             /* why no cell of it can run (a needle that is not there); or NULL */
    size_t cells_left;       /* that will still be run or written */
} ct_prompt;

typedef struct ct_work {
    const ct_study *study;
    size_t at; /* the model's place in the study */
    const ct_run_options *options;
    ct_run_result *result; /* of all models together */
    int64_t limit;         /* cells that may still be run */
    int64_t tokens;        /* computed so far, of all models */
    int64_t later;         /* cells of models that come after this one, as far as they may be run */
    bool hidden;           /* some stored cell of the study is not shown to readers yet */
    double begin_ms, run_begin_ms; /* of this model, of all */
    ct_grid grid;
    ct_devices devices; /* of each copy of the model */
    ct_model **copies;
    size_t n_copies;
    ct_model **lanes; /* [n_lanes] the copy that each computes with, borrowed from `copies` */
    size_t n_lanes;
    ct_model *model; /* the first copy: what is true of one is true of all */
    const ct_model_info *info;
    ct_tokenizer *tokenizer;
    ct_semantics semantics;
    char semantics_text[512];
    ct_prompt *prompts;         /* by point */
    char (*keys)[CT_HASH_HEX];  /* by cell */
    ct_store *store;            /* borrowed; NULL: a dry run without one */
    ct_record_options *records; /* by cell, `what` 0 where nothing is recorded; NULL: none is */
    const char *recordings;     /* borrowed; the folder of their files, in the run's */
} ct_work;

/* Fills the work of a model: its grid, the model, its prompts; and checks all that would make every
 * cell fail, with the study's line. No weight is read yet. */
ct_status ct_work_open(ct_work *work, ct_err *err) CT_CHECK;
/* Opens a copy of the model on each of the options' devices, all at the same time (for a dry run,
 * without their weights), and fills in devices, copies, lanes, model and info. CT_ERR_USAGE if they
 * would not all give the same bits. */
ct_status ct_work_open_copies(ct_work *work, const char *dir, const ct_model_options *options,
                              ct_err *err) CT_CHECK;
void ct_work_close_copies(ct_work *work);
/* Bytes that the states of one lane may take: the same for all lanes. */
int64_t ct_work_memory(const ct_work *work, bool *of_device);
/* Hashes the weights, makes the cells' keys and says which of them are recorded. */
ct_status ct_work_identify(ct_work *work, ct_err *err) CT_CHECK;
void ct_work_clear(ct_work *work);

/* The engine's request for a cell; prompt and spans are borrowed from the work. */
void ct_work_request(const ct_work *work, uint32_t cell, ct_generate_request *out);
/* Why a cell cannot run at all, or NULL. */
const char *ct_work_refusal(const ct_work *work, uint32_t cell);
/* All that determines a cell's outcome, and its place in the grid, as text: what its key hashes. */
ct_status ct_work_key_text(const ct_work *work, uint32_t cell, ct_buf *out, ct_err *err) CT_CHECK;
/* CT_ERR_VALUE if `record` chooses no cell of the model, or layers that have no attention. */
ct_status ct_work_check_records(const ct_work *work, ct_err *err) CT_CHECK;
/* Sets work->records from the study and the grid. */
ct_status ct_work_choose_records(ct_work *work, ct_err *err) CT_CHECK;
/* The path of a recorded cell's file, named by its key; the caller frees. NULL: out of memory. */
char *ct_work_recording_path(const ct_work *work, uint32_t cell, ct_err *err);
/* The cell's row for the store without its outcome; text is borrowed from the work. */
void ct_work_cell(const ct_work *work, uint32_t cell, ct_cell *out);

/* True if the caller asked to stop. */
bool ct_work_stopped(const ct_work *work);

/* A cell that is stored as failed without being run. */
typedef struct ct_refused {
    uint32_t cell;
    char *why;
} ct_refused;

/* The plans of stretches, in the order in which lanes take them. */
typedef struct ct_plans {
    ct_plan *list;
    size_t n;
} ct_plans;

/* Plans the items, which it sorts, for the work's lanes; fills in what the result says of a plan. */
ct_status ct_work_plan(ct_work *work, ct_plan_item *items, size_t n, ct_plans *out,
                       ct_err *err) CT_CHECK;
void ct_plans_clear(ct_plans *plans);

/* Runs the plans' cells and stores them with those of `refused`, which only have an error. Ends
 * early with CT_ERR_INTERRUPTED, or when the engine or the store fails; what is finished is stored
 * in every case. Fills result->done, failed and first_error. */
ct_status ct_work_execute(ct_work *work, const ct_plans *plans, const ct_refused *refused,
                          size_t n_refused, ct_err *err) CT_CHECK;

/* Bytes of memory that are free (those of files in the cache are): of the machine, or of the control
 * group (a container) that this process is in, whichever has less. */
int64_t ct_memory_free(void);
/* CPU model, cores and kernel in one line, then the devices that computed. The caller frees; NULL if
 * out of memory. */
char *ct_machine(const char *devices, ct_err *err);

#endif
