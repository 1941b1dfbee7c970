/* study.h - a study file, parsed and checked: what run/ works on.
 *
 * Owns the study's keys and their limits. Everything that can be known without a model is checked
 * when the file is read; what needs one (k beyond the heads, lengths too short for the needle,
 * options of another family) is checked when the run begins, with the line kept here.
 */
#ifndef CT_RUN_STUDY_H
#define CT_RUN_STUDY_H

#include <cortado/lab.h>

#include "io/yaml.h"
#include "task/niah.h"

enum {
    CT_STUDY_MAX_CELLS = 1000000,
    CT_STUDY_MAX_LENGTH = 1 << 24,
    CT_STUDY_MAX_METRICS = 4,
    CT_STUDY_MAX_STAGES = 3,
    CT_STUDY_MAX_MODES = 5,
    CT_STUDY_MAX_MODELS = 16,
};

/* Whole numbers, as the file gives them: a number, a list, or from-to with a count or a step. */
typedef struct ct_study_axis {
    int64_t *values;
    size_t count;
    int line;
} ct_study_axis;

/* A model of the study, and what is its own. */
typedef struct ct_study_model {
    const char *name;
    int line;
    ct_niah_template template_kind;
} ct_study_model;

/* One entry under `interventions`: each combination of what it lists is a version. */
typedef struct ct_study_entry {
    int line;
    uint32_t models;    /* those that it is for, bits by place; all: UINT32_MAX */
    bool selects_heads; /* false: keep, seeds, metrics and stages are empty */
    ct_study_axis keep, seeds;
    ct_metric metrics[CT_STUDY_MAX_METRICS];
    size_t n_metrics;
    bool stages[CT_STUDY_MAX_STAGES][CT_STAGE_COUNT];
    size_t n_stages;
    ct_weights_mode modes[CT_STAGE_COUNT][CT_STUDY_MAX_MODES];
    size_t n_modes[CT_STAGE_COUNT];
    ct_study_axis lengths, depths; /* of its own `prompts`; count 0: the task's */
} ct_study_entry;

typedef struct ct_study_option {
    const char *key, *value;
    int line;
} ct_study_option;

/* `record`: which cells are recorded, and what of them. */
typedef struct ct_study_record {
    int line; /* 0: nothing is recorded */
    unsigned what;
    bool stages[CT_STAGE_COUNT];
    ct_record_steps steps;
    ct_study_axis layers;          /* count 0: all */
    ct_study_axis lengths, depths; /* count 0: all points */
    uint32_t models;               /* as in an entry */
    ct_study_axis entries;         /* of `interventions`, from 1; count 0: all versions */
    int64_t limit;                 /* bytes of all files of the run together */
} ct_study_record;

struct ct_study {
    ct_yaml yaml; /* strings below are borrowed from it */
    char *path, *dir;
    char *text; /* the file as it is */
    size_t text_size;
    char hash[33];
    const char *name;
    ct_study_model models[CT_STUDY_MAX_MODELS];
    size_t n_models;

    char **haystack; /* paths, resolved by ct_study_path */
    size_t n_haystack;
    int haystack_line;
    const char *needle, *question;
    bool read_twice[2]; /* the values that it takes, in the file's order */
    size_t n_readings;
    int64_t buffer;
    ct_study_axis lengths, depths;
    ct_scoring scoring;
    int scoring_line;
    ct_keyword *keywords;
    size_t n_keywords;

    int32_t max_new_tokens;
    bool ignore_eos;
    const char *semantics; /* "paper" or "reference"; options differ from it */
    ct_study_option *options;
    size_t n_options;
    ct_compute_choice compute;
    int64_t window_visible; /* 0: the model's */

    ct_study_entry *entries;
    size_t n_entries;
    ct_study_record record;
    char *figures; /* "accuracy_by_heads,retrieval_map"; "" if none */
};

/* The lengths and depths of an entry. */
const ct_study_axis *ct_study_lengths(const ct_study *study, const ct_study_entry *entry);
const ct_study_axis *ct_study_depths(const ct_study *study, const ct_study_entry *entry);
/* A path that the file gives: beside the file, or from the current folder if it is only there. The
 * caller frees; NULL if out of memory. */
char *ct_study_path(const ct_study *study, const char *name, ct_err *err);
/* Whether an entry's or record's models have the model at this place. */
bool ct_study_has_model(uint32_t models, size_t model);
/* The folder of one of its models: under model_root (may be NULL), beside the study, in the current folder
 * or its models, in ../models of the study, or among those installed. The caller frees *out. */
ct_status ct_study_model_dir(const ct_study *study, size_t model, const char *model_root,
                             char **out, ct_err *err) CT_CHECK;
/* The options of its prompts for one model, borrowed from the study; the haystack must be there. */
ct_status ct_study_niah_options(const ct_study *study, size_t model, bool read_twice,
                                ct_niah_options *out, ct_err *err) CT_CHECK;
/* Order of two int64_t for qsort. */
int ct_compare_int64(const void *a, const void *b);

#endif
