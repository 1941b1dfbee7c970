/* study.c - reads a study file against its schema. See study.h; the keys: docs/STUDIES.md.
 *
 * The order of work: bytes to tree (io/yaml.h), tree to numbers and words with every value checked,
 * the number of cells from the counts alone, and only then the lists themselves, so that a grid of
 * 10^9 cells costs nothing before it is refused.
 */
#include "run/study.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "io/file.h"
#include "run/study_lists.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *const figure_names[] = {"accuracy_by_heads", "accuracy_by_weights",
                                           "retrieval_map"};

static ct_status parse_metric(const char *word, const char *what, void *out, ct_err *err)
{
    return ct_metric_parse(word, what, out, err);
}

static ct_status parse_mode(const char *word, const char *what, void *out, ct_err *err)
{
    return ct_weights_mode_parse(word, what, out, err);
}

static ct_status parse_stages(const char *word, const char *what, void *out, ct_err *err)
{
    bool *active = out;
    ct_status st = ct_head_stages_parse(word, what, active, err);
    if (st == CT_OK && !active[CT_STAGE_PREFILL] && !active[CT_STAGE_GENERATION])
        return ct_fail(err, CT_ERR_VALUE,
                       "%s: expected a stage, got \"%s\"; write `heads: none` for no selection",
                       what, word);
    return st;
}

/* ---- the parts of a study -------------------------------------------------------------------- */

static ct_status read_name(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    ct_status st = ct_yaml_text(&s->yaml, node, "study", &s->name, err);
    if (st != CT_OK) return st;
    size_t n = strlen(s->name);
    size_t good = strspn(s->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-");
    if (good == n && n <= 100 && s->name[0] != '.' && s->name[0] != '-') return CT_OK;
    return ct_yaml_fail(&s->yaml, node, "study", err,
                        "a name of at most 100 letters, digits, '.', '_' and '-', for a folder");
}

static ct_status read_models(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    const ct_yaml *y = &s->yaml;
    ct_status st = CT_OK;
    bool list = node->kind == CT_YAML_LIST;
    if (list && (node->count == 0 || node->count > CT_STUDY_MAX_MODELS))
        return ct_yaml_fail(y, node, "model", err, "1 to %d models", CT_STUDY_MAX_MODELS);
    for (const ct_yaml_node *n = list ? node->first : node; n; n = list ? n->next : NULL) {
        const char *name;
        CT_TRY(ct_yaml_text(y, n, "model", &name, err));
        for (size_t i = 0; i < s->n_models; i++)
            if (strcmp(name, s->models[i].name) == 0) {
                st = ct_yaml_fail(y, n, "model", err, "each model once");
                goto done;
            }
        s->models[s->n_models++] = (ct_study_model){.name = name, .line = n->line};
    }
done:
    return st;
}

/* The models' names, for errors and for keys that name one. */
static size_t model_names(const ct_study *s, const char *names[CT_STUDY_MAX_MODELS])
{
    for (size_t i = 0; i < s->n_models; i++) names[i] = s->models[i].name;
    return s->n_models;
}

/* Which models a part of the study is for. */
static ct_status read_for_models(const ct_study *s, const ct_yaml_node *node, const char *what,
                                 uint32_t *out, ct_err *err)
{
    const char *names[CT_STUDY_MAX_MODELS];
    size_t n = model_names(s, names);
    return ct_study_read_choices(&s->yaml, node, what, names, n, out, err);
}

static ct_status read_one_template(const ct_study *s, const ct_yaml_node *node,
                                   ct_niah_template *out, ct_err *err)
{
    const char *word;
    ct_status st = ct_yaml_text(&s->yaml, node, "task.niah.template", &word, err);
    if (st != CT_OK) return st;
    *out = strcmp(word, "instruct") == 0 ? CT_NIAH_INSTRUCT : CT_NIAH_BASE;
    if (*out == CT_NIAH_INSTRUCT || strcmp(word, "base") == 0) return CT_OK;
    return ct_yaml_fail(&s->yaml, node, "task.niah.template", err, "base or instruct");
}

/* One for all models, or a map of those that have another one than `base`. */
static ct_status read_template(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    const char *names[CT_STUDY_MAX_MODELS];
    const ct_yaml_node *value;
    ct_status st = CT_OK;
    if (node->kind == CT_YAML_MAP)
        CT_TRY(ct_yaml_check_keys(&s->yaml, node, "task.niah.template", names,
                                  model_names(s, names), err));
    for (size_t i = 0; i < s->n_models; i++) {
        value = node->kind == CT_YAML_MAP ? ct_yaml_get(node, s->models[i].name) : node;
        if (value) CT_TRY(read_one_template(s, value, &s->models[i].template_kind, err));
    }
done:
    return st;
}

static ct_status read_keywords(ct_study *s, const ct_yaml_node *list, ct_err *err)
{
    static const char *const keys[] = {"text", "points", "set"};
    const char *what = "task.niah.keywords";
    const ct_yaml *y = &s->yaml;
    ct_status st = CT_OK;
    if (list->kind != CT_YAML_LIST || list->count == 0)
        return ct_yaml_fail(y, list, what, err, "a list of {text, points}");
    s->keywords = calloc(list->count, sizeof *s->keywords);
    if (!s->keywords) return ct_fail_memory(err, what, list->count * sizeof *s->keywords);
    for (const ct_yaml_node *n = list->first; n; n = n->next) {
        ct_keyword *k = &s->keywords[s->n_keywords++];
        const ct_yaml_node *value;
        CT_TRY(ct_yaml_check_keys(y, n, what, keys, COUNT(keys), err));
        CT_TRY(ct_yaml_need(y, n, what, "text", &value, err));
        CT_TRY(ct_yaml_text(y, value, what, &k->text, err));
        CT_TRY(ct_yaml_need(y, n, what, "points", &value, err));
        CT_TRY(ct_yaml_real(y, value, what, 0, 1e6, &k->points, err));
        if ((value = ct_yaml_get(n, "set"))) CT_TRY(ct_yaml_bool(y, value, what, &k->set, err));
    }
done:
    return st;
}

static ct_status read_haystack(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    const char *what = "task.niah.haystack";
    ct_status st = CT_OK;
    bool list = node->kind == CT_YAML_LIST;
    size_t n = list ? node->count : 1;
    s->haystack_line = node->line;
    if (n == 0) return ct_yaml_fail(&s->yaml, node, what, err, "at least one file or folder");
    s->haystack = calloc(n, sizeof *s->haystack);
    if (!s->haystack) return ct_fail_memory(err, what, n * sizeof *s->haystack);
    for (const ct_yaml_node *i = list ? node->first : node; i; i = list ? i->next : NULL) {
        const char *name;
        CT_TRY(ct_yaml_text(&s->yaml, i, what, &name, err));
        s->haystack[s->n_haystack] = ct_study_path(s, name, err);
        if (!s->haystack[s->n_haystack++]) {
            st = CT_ERR_MEMORY;
            goto done;
        }
    }
done:
    return st;
}

static ct_status read_lengths(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                              bool expand, ct_study_axis *out, ct_err *err)
{
    return ct_study_read_axis(y, node, what, 1, CT_STUDY_MAX_LENGTH, false, expand, out, err);
}

static ct_status read_depths(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                             bool expand, ct_study_axis *out, ct_err *err)
{
    return ct_study_read_axis(y, node, what, 0, 100, false, expand, out, err);
}

static ct_status read_niah(ct_study *s, const ct_yaml_node *niah, ct_err *err)
{
    static const char *const keys[] = {"haystack", "needle", "question", "template", "read_twice",
                                       "lengths",  "depths", "scoring",  "keywords", "buffer"};
    const ct_yaml *y = &s->yaml;
    const ct_yaml_node *value;
    const char *word;
    ct_status st;
    CT_TRY(ct_yaml_check_keys(y, niah, "task.niah", keys, COUNT(keys), err));
    CT_TRY(ct_yaml_need(y, niah, "task.niah", "haystack", &value, err));
    CT_TRY(read_haystack(s, value, err));
    CT_TRY(ct_yaml_need(y, niah, "task.niah", "needle", &value, err));
    CT_TRY(ct_yaml_text(y, value, "task.niah.needle", &s->needle, err));
    CT_TRY(ct_yaml_need(y, niah, "task.niah", "question", &value, err));
    CT_TRY(ct_yaml_text(y, value, "task.niah.question", &s->question, err));
    CT_TRY(ct_yaml_need(y, niah, "task.niah", "lengths", &value, err));
    CT_TRY(read_lengths(y, value, "task.niah.lengths", false, &s->lengths, err));
    CT_TRY(ct_yaml_need(y, niah, "task.niah", "depths", &value, err));
    CT_TRY(read_depths(y, value, "task.niah.depths", false, &s->depths, err));
    if ((value = ct_yaml_get(niah, "template"))) CT_TRY(read_template(s, value, err));
    if ((value = ct_yaml_get(niah, "read_twice")))
        CT_TRY(ct_study_read_bools(y, value, "task.niah.read_twice", s->read_twice, &s->n_readings,
                                   err));
    if ((value = ct_yaml_get(niah, "buffer")))
        CT_TRY(ct_yaml_int(y, value, "task.niah.buffer", 0, CT_STUDY_MAX_LENGTH, &s->buffer, err));
    s->scoring_line = niah->line;
    if ((value = ct_yaml_get(niah, "scoring"))) {
        s->scoring_line = value->line;
        CT_TRY(ct_yaml_text(y, value, "task.niah.scoring", &word, err));
        CT_TRY(ct_study_at_line(
            y, value->line, ct_scoring_parse(word, "task.niah.scoring", &s->scoring, err), err));
    }
    if ((value = ct_yaml_get(niah, "keywords"))) CT_TRY(read_keywords(s, value, err));
    CT_TRY(ct_study_at_line(y, s->scoring_line,
                            ct_score_check(s->scoring, s->keywords, s->n_keywords, s->needle, err),
                            err));
done:
    return st;
}

static ct_status read_generate(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    static const char *const keys[] = {"max_new_tokens", "ignore_eos"};
    const ct_yaml *y = &s->yaml;
    const ct_yaml_node *value;
    int64_t n = s->max_new_tokens;
    ct_status st;
    CT_TRY(ct_yaml_check_keys(y, node, "generate", keys, COUNT(keys), err));
    if ((value = ct_yaml_get(node, "max_new_tokens")))
        CT_TRY(ct_yaml_int(y, value, "generate.max_new_tokens", 1, 1000000, &n, err));
    s->max_new_tokens = (int32_t)n;
    if ((value = ct_yaml_get(node, "ignore_eos")))
        CT_TRY(ct_yaml_bool(y, value, "generate.ignore_eos", &s->ignore_eos, err));
done:
    return st;
}

static ct_status read_semantics_base(ct_study *s, const ct_yaml_node *node, const char *what,
                                     const char *choices, ct_err *err)
{
    ct_status st = ct_yaml_text(&s->yaml, node, what, &s->semantics, err);
    if (st != CT_OK || strcmp(s->semantics, "paper") == 0 || strcmp(s->semantics, "reference") == 0)
        return st;
    return ct_yaml_fail(&s->yaml, node, what, err, "%s", choices);
}

/* One for all, or single options that differ from the one that `base` names. The options are only
 * checked for their names and values here: what `reference` means depends on the model's family. */
static ct_status read_semantics(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    const ct_yaml *y = &s->yaml;
    ct_status st = CT_OK;
    if (node->kind == CT_YAML_SCALAR)
        return read_semantics_base(s, node, "semantics", "paper, reference, or single options",
                                   err);
    if (node->kind == CT_YAML_LIST || node->count == 0)
        return ct_yaml_fail(y, node, "semantics", err, "paper, reference, or single options");
    s->options = calloc(node->count, sizeof *s->options);
    if (!s->options) return ct_fail_memory(err, "semantics", node->count * sizeof *s->options);
    ct_semantics scratch = {0};
    for (const ct_yaml_node *n = node->first; n; n = n->next) {
        if (strcmp(n->name, "base") == 0) {
            CT_TRY(read_semantics_base(s, n, "semantics.base", "paper or reference", err));
            continue;
        }
        ct_study_option *option = &s->options[s->n_options++];
        option->key = n->name;
        option->line = n->line;
        CT_TRY(ct_yaml_text(y, n, "semantics", &option->value, err));
        CT_TRY(ct_study_at_line(y, n->line,
                                ct_semantics_set(&scratch, option->key, option->value, err), err));
    }
done:
    return st;
}

static ct_status read_compute(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    static const char *const names[] = {"auto", "f32", "bf16"};
    static const ct_compute_choice choices[] = {CT_CHOOSE_AUTO, CT_CHOOSE_F32, CT_CHOOSE_BF16};
    const char *word;
    ct_status st = ct_yaml_text(&s->yaml, node, "compute", &word, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < COUNT(names); i++)
        if (strcmp(word, names[i]) == 0) {
            s->compute = choices[i];
            return CT_OK;
        }
    return ct_yaml_fail(&s->yaml, node, "compute", err, "auto, f32 or bf16");
}

static ct_status read_heads(ct_study *s, const ct_yaml_node *heads, bool expand, ct_study_entry *e,
                            ct_err *err)
{
    static const char *const keys[] = {"keep", "metric", "stages", "seed"};
    const ct_yaml *y = &s->yaml;
    const ct_yaml_node *value;
    ct_status st;
    if (heads->kind == CT_YAML_SCALAR && strcmp(heads->text, "none") == 0) return CT_OK;
    if (heads->kind != CT_YAML_MAP)
        return ct_yaml_fail(y, heads, "heads", err, "{keep, metric, stages} or none");
    e->selects_heads = true;
    CT_TRY(ct_yaml_check_keys(y, heads, "heads", keys, COUNT(keys), err));
    CT_TRY(ct_yaml_need(y, heads, "heads", "keep", &value, err));
    CT_TRY(ct_study_read_axis(y, value, "heads.keep", 0, 65536, true, expand, &e->keep, err));
    CT_TRY(ct_yaml_need(y, heads, "heads", "metric", &value, err));
    CT_TRY(ct_study_read_words(y, value, "heads.metric", parse_metric, e->metrics,
                               sizeof *e->metrics, CT_STUDY_MAX_METRICS, &e->n_metrics, err));
    CT_TRY(ct_yaml_need(y, heads, "heads", "stages", &value, err));
    CT_TRY(ct_study_read_words(y, value, "heads.stages", parse_stages, e->stages, sizeof *e->stages,
                               CT_STUDY_MAX_STAGES, &e->n_stages, err));
    bool random = false;
    for (size_t i = 0; i < e->n_metrics; i++) random |= e->metrics[i] == CT_METRIC_RANDOM;
    if ((value = ct_yaml_get(heads, "seed"))) {
        CT_TRY(
            ct_study_read_axis(y, value, "heads.seed", 0, INT32_MAX, true, expand, &e->seeds, err));
        if (!random)
            st = ct_yaml_fail(y, value, "heads.seed", err, "no seed, since no metric is random");
    }
done:
    return st;
}

static ct_status read_entry(ct_study *s, const ct_yaml_node *node, bool expand, ct_study_entry *e,
                            ct_err *err)
{
    static const char *const keys[] = {"heads", "weights", "prompts", "models"};
    static const char *const stages[CT_STAGE_COUNT] = {
        [CT_STAGE_PREFILL] = "prefill", [CT_STAGE_GENERATION] = "generation"};
    static const char *const axes[] = {"lengths", "depths"};
    const ct_yaml *y = &s->yaml;
    const ct_yaml_node *value, *part;
    ct_status st;
    e->line = node->line;
    e->models = UINT32_MAX;
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) e->n_modes[stage] = 1; /* keep */
    CT_TRY(ct_yaml_check_keys(y, node, "interventions", keys, COUNT(keys), err));
    if (!ct_yaml_get(node, "heads") && !ct_yaml_get(node, "weights")) {
        st = ct_fail(err, CT_ERR_VALUE,
                     "interventions: expected `heads` or `weights` in each entry, got neither; "
                     "write `heads: none` for a run without intervention (%s, line %d)",
                     y->where, node->line);
        goto done;
    }
    if ((value = ct_yaml_get(node, "heads"))) CT_TRY(read_heads(s, value, expand, e, err));
    if ((value = ct_yaml_get(node, "weights"))) {
        CT_TRY(ct_yaml_check_keys(y, value, "weights", stages, COUNT(stages), err));
        if (value->count == 0) {
            st = ct_yaml_fail(y, value, "weights", err, "generation or prefill");
            goto done;
        }
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++)
            if ((part = ct_yaml_get(value, stages[stage])))
                CT_TRY(ct_study_read_words(y, part, "weights", parse_mode, e->modes[stage],
                                           sizeof *e->modes[stage], CT_STUDY_MAX_MODES,
                                           &e->n_modes[stage], err));
    }
    if ((value = ct_yaml_get(node, "models")))
        CT_TRY(read_for_models(s, value, "interventions.models", &e->models, err));
    if ((value = ct_yaml_get(node, "prompts"))) {
        CT_TRY(ct_yaml_check_keys(y, value, "prompts", axes, COUNT(axes), err));
        if ((part = ct_yaml_get(value, "lengths")))
            CT_TRY(read_lengths(y, part, "prompts.lengths", expand, &e->lengths, err));
        if ((part = ct_yaml_get(value, "depths")))
            CT_TRY(read_depths(y, part, "prompts.depths", expand, &e->depths, err));
    }
done:
    return st;
}

static ct_status parse_what(const char *word, const char *what, void *out, ct_err *err)
{
    return ct_record_what_parse(word, what, out, err);
}

static ct_status read_record(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    static const char *const keys[] = {"what",   "stages",        "steps",     "layers", "lengths",
                                       "depths", "interventions", "limit_mib", "models"};
    enum { WORDS = 3, MIB = 20, MAX_MIB = 1 << 30 };
    ct_study_record *r = &s->record;
    const ct_yaml *y = &s->yaml;
    const ct_yaml_node *value;
    const char *word;
    unsigned what[WORDS];
    size_t n = 0;
    ct_status st;
    CT_TRY(ct_yaml_check_keys(y, node, "record", keys, COUNT(keys), err));
    r->line = node->line;
    r->limit = CT_RECORD_DEFAULT_LIMIT;
    r->stages[CT_STAGE_GENERATION] = true;
    r->models = UINT32_MAX;
    if ((value = ct_yaml_get(node, "models")))
        CT_TRY(read_for_models(s, value, "record.models", &r->models, err));
    CT_TRY(ct_yaml_need(y, node, "record", "what", &value, err));
    CT_TRY(ct_study_read_words(y, value, "record.what", parse_what, what, sizeof *what, WORDS, &n,
                               err));
    for (size_t i = 0; i < n; i++) r->what |= what[i];
    if ((value = ct_yaml_get(node, "stages"))) {
        CT_TRY(ct_yaml_text(y, value, "record.stages", &word, err));
        CT_TRY(ct_study_at_line(y, value->line, parse_stages(word, "record.stages", r->stages, err),
                                err));
    }
    if ((value = ct_yaml_get(node, "steps"))) {
        CT_TRY(ct_yaml_text(y, value, "record.steps", &word, err));
        CT_TRY(ct_study_at_line(y, value->line,
                                ct_record_steps_parse(word, "record.steps", &r->steps, err), err));
    }
    if ((value = ct_yaml_get(node, "layers"))) {
        CT_TRY(ct_study_read_axis(y, value, "record.layers", 0, 4095, true, true, &r->layers, err));
        qsort(r->layers.values, r->layers.count, sizeof *r->layers.values, ct_compare_int64);
    }
    if ((value = ct_yaml_get(node, "lengths")))
        CT_TRY(read_lengths(y, value, "record.lengths", true, &r->lengths, err));
    if ((value = ct_yaml_get(node, "depths")))
        CT_TRY(read_depths(y, value, "record.depths", true, &r->depths, err));
    if ((value = ct_yaml_get(node, "interventions")))
        CT_TRY(ct_study_read_axis(y, value, "record.interventions", 1, (int64_t)s->n_entries, true,
                                  true, &r->entries, err));
    if ((value = ct_yaml_get(node, "limit_mib"))) {
        int64_t mib;
        CT_TRY(ct_yaml_int(y, value, "record.limit_mib", 1, MAX_MIB, &mib, err));
        r->limit = mib << MIB;
    }
done:
    return st;
}

static ct_status read_figures(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf buf = {0};
    bool list = node && node->kind == CT_YAML_LIST;
    for (const ct_yaml_node *n = list ? node->first : node; n; n = list ? n->next : NULL) {
        const char *word;
        CT_TRY(ct_yaml_text(&s->yaml, n, "figures", &word, err));
        size_t i = 0;
        while (i < COUNT(figure_names) && strcmp(word, figure_names[i]) != 0) i++;
        if (i == COUNT(figure_names)) {
            const char *near = ct_nearest(word, figure_names, COUNT(figure_names));
            st = ct_yaml_fail(&s->yaml, n, "figures", err,
                              "accuracy_by_heads, accuracy_by_weights or retrieval_map%s%s",
                              near ? "; nearest: " : "", near ? near : "");
            goto done;
        }
        CT_TRY(ct_buf_addf(&buf, err, "%s%s", buf.size ? "," : "", word));
    }
    s->figures = ct_buf_take(&buf);
    if (!s->figures) st = ct_fail_memory(err, "figures", 1);
done:
    ct_buf_clear(&buf);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

const ct_study_axis *ct_study_lengths(const ct_study *study, const ct_study_entry *entry)
{
    return entry->lengths.count ? &entry->lengths : &study->lengths;
}

const ct_study_axis *ct_study_depths(const ct_study *study, const ct_study_entry *entry)
{
    return entry->depths.count ? &entry->depths : &study->depths;
}

bool ct_study_has_model(uint32_t models, size_t model)
{
    return models & UINT32_C(1) << model;
}

/* Cells of an entry; a double, since it only has to be right where it is small or printed. */
static double count_cells(const ct_study *s, const ct_study_entry *e)
{
    double versions = (double)e->n_modes[0] * (double)e->n_modes[1];
    if (e->selects_heads) {
        double selections = 0;
        for (size_t i = 0; i < e->n_metrics; i++)
            selections +=
                e->metrics[i] == CT_METRIC_RANDOM && e->seeds.count ? (double)e->seeds.count : 1;
        versions *= selections * (double)e->keep.count * (double)e->n_stages;
    }
    double models = 0;
    for (size_t m = 0; m < s->n_models; m++) models += ct_study_has_model(e->models, m);
    return versions * models * (double)s->n_readings * (double)ct_study_lengths(s, e)->count *
           (double)ct_study_depths(s, e)->count;
}

/* Reads all entries; with `expand`, also their lists. */
static ct_status read_entries(ct_study *s, const ct_yaml_node *list, bool expand, ct_err *err)
{
    ct_status st = CT_OK;
    if (!list) { /* one version without intervention */
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++) s->entries[0].n_modes[stage] = 1;
        s->entries[0].line = s->yaml.root->line;
        s->entries[0].models = UINT32_MAX;
        return CT_OK;
    }
    size_t i = 0;
    for (const ct_yaml_node *n = list->first; n; n = n->next)
        CT_TRY(read_entry(s, n, expand, &s->entries[i++], err));
done:
    return st;
}

/* A model that no entry is for would only look as if it were run. */
static ct_status check_models_used(const ct_study *s, ct_err *err)
{
    for (size_t m = 0; m < s->n_models; m++) {
        size_t i = 0;
        while (i < s->n_entries && !ct_study_has_model(s->entries[i].models, m)) i++;
        if (i == s->n_entries)
            return ct_fail(err, CT_ERR_VALUE,
                           "interventions: expected an entry for each model, got none for %s (%s, "
                           "line %d)",
                           s->models[m].name, s->yaml.where, s->models[m].line);
    }
    return CT_OK;
}

static ct_status read_study(ct_study *s, ct_err *err)
{
    static const char *const keys[] = {"study",     "model",   "task",           "generate",
                                       "semantics", "compute", "window_visible", "interventions",
                                       "figures",   "record"};
    static const char *const tasks[] = {"niah"};
    const ct_yaml *y = &s->yaml;
    const ct_yaml_node *root = y->root, *value, *niah;
    ct_status st;
    CT_TRY(ct_yaml_check_keys(y, root, "study", keys, COUNT(keys), err));
    CT_TRY(ct_yaml_need(y, root, "study", "study", &value, err));
    CT_TRY(read_name(s, value, err));
    CT_TRY(ct_yaml_need(y, root, "study", "model", &value, err));
    CT_TRY(read_models(s, value, err));
    CT_TRY(ct_yaml_need(y, root, "study", "task", &value, err));
    CT_TRY(ct_yaml_check_keys(y, value, "task", tasks, COUNT(tasks), err));
    CT_TRY(ct_yaml_need(y, value, "task", "niah", &niah, err));
    CT_TRY(read_niah(s, niah, err));
    if ((value = ct_yaml_get(root, "generate"))) CT_TRY(read_generate(s, value, err));
    if ((value = ct_yaml_get(root, "semantics"))) CT_TRY(read_semantics(s, value, err));
    if ((value = ct_yaml_get(root, "compute"))) CT_TRY(read_compute(s, value, err));
    if ((value = ct_yaml_get(root, "window_visible")))
        CT_TRY(
            ct_yaml_int(y, value, "window_visible", 1, INT64_C(1) << 31, &s->window_visible, err));
    CT_TRY(read_figures(s, ct_yaml_get(root, "figures"), err));

    const ct_yaml_node *list = ct_yaml_get(root, "interventions");
    if (list && (list->kind != CT_YAML_LIST || list->count == 0)) {
        st = ct_yaml_fail(y, list, "interventions", err, "a list of heads and weights");
        goto done;
    }
    s->n_entries = list ? list->count : 1;
    s->entries = calloc(s->n_entries, sizeof *s->entries);
    if (!s->entries) {
        st = ct_fail_memory(err, "interventions", s->n_entries * sizeof *s->entries);
        goto done;
    }
    CT_TRY(read_entries(s, list, false, err));
    CT_TRY(check_models_used(s, err));
    double cells = 0;
    for (size_t i = 0; i < s->n_entries; i++) cells += count_cells(s, &s->entries[i]);
    if (cells > CT_STUDY_MAX_CELLS) {
        st = ct_fail(err, CT_ERR_LIMIT,
                     "study: expected at most %d cells, got %.0f: make lengths, depths or "
                     "interventions fewer (%s)",
                     CT_STUDY_MAX_CELLS, cells, y->where);
        goto done;
    }
    CT_TRY(read_entries(s, list, true, err));
    CT_TRY(read_lengths(y, ct_yaml_get(niah, "lengths"), "lengths", true, &s->lengths, err));
    CT_TRY(read_depths(y, ct_yaml_get(niah, "depths"), "depths", true, &s->depths, err));
    if ((value = ct_yaml_get(root, "record"))) CT_TRY(read_record(s, value, err));
done:
    return st;
}

ct_status ct_study_parse_bytes(const char *bytes, size_t size, const char *path, ct_study **out,
                               ct_err *err)
{
    *out = NULL;
    ct_status st;
    ct_study *s = calloc(1, sizeof *s);
    if (!s) return ct_fail_memory(err, path, sizeof *s);
    s->buffer = 200;
    s->n_readings = 1; /* once */
    s->max_new_tokens = 40;
    s->semantics = "paper";
    const char *slash = strrchr(path, '/');
    s->path = ct_strdup(path, err);
    s->dir = !slash          ? ct_strdup(".", err)
             : slash == path ? ct_strdup("/", err)
                             : ct_strndup(path, (size_t)(slash - path), err);
    s->text = ct_strndup(bytes, size, err);
    if (!s->path || !s->dir || !s->text) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    s->text_size = size;
    ct_hash_hex(ct_hash_bytes(bytes, size), s->hash);
    CT_TRY(ct_yaml_parse(bytes, size, path, &s->yaml, err));
    CT_TRY(read_study(s, err));
done:
    if (st == CT_OK) *out = s;
    else ct_study_close(s);
    return st;
}

ct_status ct_study_open(const char *path, ct_study **out, ct_err *err)
{
    *out = NULL;
    char *data;
    size_t size;
    ct_status st = ct_file_read(path, CT_YAML_MAX_BYTES, &data, &size, err);
    if (st != CT_OK) return st;
    st = ct_study_parse_bytes(data, size, path, out, err);
    free(data);
    return st;
}

void ct_study_close(ct_study *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n_entries && s->entries; i++) {
        free(s->entries[i].keep.values);
        free(s->entries[i].seeds.values);
        free(s->entries[i].lengths.values);
        free(s->entries[i].depths.values);
    }
    free(s->entries);
    free(s->record.layers.values);
    free(s->record.lengths.values);
    free(s->record.depths.values);
    free(s->record.entries.values);
    free(s->lengths.values);
    free(s->depths.values);
    for (size_t i = 0; i < s->n_haystack; i++) free(s->haystack[i]);
    free(s->haystack);
    free(s->keywords);
    free(s->options);
    free(s->figures);
    free(s->path);
    free(s->dir);
    free(s->text);
    ct_yaml_clear(&s->yaml);
    free(s);
}

const char *ct_study_name(const ct_study *study)
{
    return study->name;
}
