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
#include "task/grid.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *const figure_names[] = {"accuracy_by_heads", "accuracy_by_weights",
                                           "retrieval_map"};

/* ---- lists of numbers ------------------------------------------------------------------------ */

int ct_compare_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A value twice would be the same cells twice. */
static ct_status check_distinct(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                                const int64_t *values, size_t n, ct_err *err)
{
    int64_t *sorted = malloc(n * sizeof *sorted);
    if (!sorted) return ct_fail_memory(err, what, n * sizeof *sorted);
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, ct_compare_int64);
    ct_status st = CT_OK;
    for (size_t i = 1; i < n && st == CT_OK; i++)
        if (sorted[i] == sorted[i - 1])
            st = ct_fail(err, CT_ERR_VALUE,
                         "%s: expected each value once, got %lld twice (%s, line %d)", what,
                         (long long)sorted[i], y->where, node->line);
    free(sorted);
    return st;
}

/* from, to and how many numbers that gives; *step 0: evenly spread, rounded. */
static ct_status read_range(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                            int64_t min, int64_t max, bool step_is_one, int64_t *from,
                            int64_t *step, size_t *count, ct_err *err)
{
    static const char *const keys[] = {"from", "to", "count", "step"};
    ct_status st;
    const ct_yaml_node *value;
    int64_t to, n;
    CT_TRY(ct_yaml_check_keys(y, node, what, keys, COUNT(keys), err));
    CT_TRY(ct_yaml_need(y, node, what, "from", &value, err));
    CT_TRY(ct_yaml_int(y, value, what, min, max, from, err));
    CT_TRY(ct_yaml_need(y, node, what, "to", &value, err));
    CT_TRY(ct_yaml_int(y, value, what, min, max, &to, err));
    if (to < *from) {
        st = ct_yaml_fail(y, value, what, err, "`to` not below `from` (%lld)", (long long)*from);
        goto done;
    }
    const ct_yaml_node *count_node = ct_yaml_get(node, "count");
    const ct_yaml_node *step_node = ct_yaml_get(node, "step");
    if ((count_node && step_node) || (!count_node && !step_node && !step_is_one)) {
        st = ct_yaml_fail(y, node, what, err, "either `count` or `step` beside `from` and `to`");
    } else if (count_node) {
        /* More numbers than there are between the ends would repeat some. One alone must be both.
         */
        CT_TRY(ct_yaml_int(y, count_node, what, to > *from ? 2 : 1, to - *from + 1, &n, err));
        *count = (size_t)n;
        *step = 0;
    } else {
        *step = 1;
        if (step_node) CT_TRY(ct_yaml_int(y, step_node, what, 1, INT32_MAX, step, err));
        *count = (size_t)((to - *from) / *step + 1);
    }
done:
    return st;
}

/* A number, a list of numbers, or a range. With `expand` false only the count is found (and every
 * value checked); with it true the values are made, the caller having seen that they are not too
 * many. */
static ct_status read_axis(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                           int64_t min, int64_t max, bool step_is_one, bool expand,
                           ct_study_axis *out, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t from = 0, to = 0, step = 0;
    out->line = node->line;
    if (node->kind == CT_YAML_MAP) {
        CT_TRY(read_range(y, node, what, min, max, step_is_one, &from, &step, &out->count, err));
        if (!expand) return CT_OK;
        if (out->count > CT_STUDY_MAX_CELLS) /* an axis of no cell: all entries have their own */
            return ct_yaml_fail(y, node, what, err, "at most %d values", CT_STUDY_MAX_CELLS);
        if (step == 0) {
            CT_TRY(ct_yaml_int(y, ct_yaml_get(node, "to"), what, min, max, &to, err));
            return ct_grid_linspace(from, to, (int64_t)out->count, what, &out->values, err);
        }
        out->values = malloc(out->count * sizeof *out->values);
        if (!out->values) return ct_fail_memory(err, what, out->count * sizeof *out->values);
        for (size_t i = 0; i < out->count; i++) out->values[i] = from + (int64_t)i * step;
        return CT_OK;
    }
    out->count = node->kind == CT_YAML_LIST ? node->count : 1;
    if (out->count == 0) return ct_yaml_fail(y, node, what, err, "at least one value");
    out->values = malloc(out->count * sizeof *out->values);
    if (!out->values) return ct_fail_memory(err, what, out->count * sizeof *out->values);
    const ct_yaml_node *item = node->kind == CT_YAML_LIST ? node->first : node;
    for (size_t i = 0; i < out->count; i++, item = item->next)
        CT_TRY(ct_yaml_int(y, item, what, min, max, &out->values[i], err));
    CT_TRY(check_distinct(y, node, what, out->values, out->count, err));
done:
    if (!expand || st != CT_OK) {
        free(out->values);
        out->values = NULL;
    }
    return st;
}

/* ---- lists of words -------------------------------------------------------------------------- */

/* Adds where the value stands to an error of a parser that does not know the file. */
static ct_status at_line(const ct_yaml *y, int line, ct_status st, ct_err *err)
{
    if (st == CT_OK || !err) return st;
    char old[CT_ERR_TEXT_MAX];
    snprintf(old, sizeof old, "%s", err->text);
    return ct_fail(err, st, "%s (%s, line %d)", old, y->where, line);
}

/* One word or a list of them, each parsed by parse into out[i] of size item bytes. */
static ct_status read_words(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                            ct_status (*parse)(const char *, const char *, void *, ct_err *),
                            void *out, size_t item, size_t max, size_t *count, ct_err *err)
{
    ct_status st = CT_OK;
    bool list = node->kind == CT_YAML_LIST;
    if (list && node->count == 0) return ct_yaml_fail(y, node, what, err, "at least one word");
    *count = 0;
    for (const ct_yaml_node *n = list ? node->first : node; n; n = list ? n->next : NULL) {
        const char *word;
        char *slot = (char *)out + *count * item;
        CT_TRY(ct_yaml_text(y, n, what, &word, err));
        /* There are `max` words in all, so that a longer list has one of them twice. */
        if (*count == max) {
            st = ct_yaml_fail(y, n, what, err, "each word once");
            goto done;
        }
        memset(slot, 0, item);
        CT_TRY(at_line(y, n->line, parse(word, what, slot, err), err));
        for (size_t i = 0; i < *count; i++)
            if (memcmp((char *)out + i * item, slot, item) == 0) {
                st = ct_yaml_fail(y, n, what, err, "each word once");
                goto done;
            }
        ++*count;
    }
done:
    return st;
}

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
    return read_axis(y, node, what, 1, CT_STUDY_MAX_LENGTH, false, expand, out, err);
}

static ct_status read_depths(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                             bool expand, ct_study_axis *out, ct_err *err)
{
    return read_axis(y, node, what, 0, 100, false, expand, out, err);
}

static ct_status read_niah(ct_study *s, const ct_yaml_node *niah, ct_err *err)
{
    static const char *const keys[] = {"haystack", "needle", "question", "template", "read_twice",
                                       "lengths",  "depths", "scoring",  "keywords", "buffer"};
    static const char *const templates[] = {"base", "instruct"};
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
    if ((value = ct_yaml_get(niah, "template"))) {
        CT_TRY(ct_yaml_text(y, value, "task.niah.template", &word, err));
        if (strcmp(word, templates[1]) == 0) s->template_kind = CT_NIAH_INSTRUCT;
        else if (strcmp(word, templates[0]) != 0) {
            st = ct_yaml_fail(y, value, "task.niah.template", err, "base or instruct");
            goto done;
        }
    }
    if ((value = ct_yaml_get(niah, "read_twice")))
        CT_TRY(ct_yaml_bool(y, value, "task.niah.read_twice", &s->read_twice, err));
    if ((value = ct_yaml_get(niah, "buffer")))
        CT_TRY(ct_yaml_int(y, value, "task.niah.buffer", 0, CT_STUDY_MAX_LENGTH, &s->buffer, err));
    s->scoring_line = niah->line;
    if ((value = ct_yaml_get(niah, "scoring"))) {
        s->scoring_line = value->line;
        CT_TRY(ct_yaml_text(y, value, "task.niah.scoring", &word, err));
        CT_TRY(at_line(y, value->line,
                       ct_scoring_parse(word, "task.niah.scoring", &s->scoring, err), err));
    }
    if ((value = ct_yaml_get(niah, "keywords"))) CT_TRY(read_keywords(s, value, err));
    CT_TRY(at_line(y, s->scoring_line,
                   ct_score_check(s->scoring, s->keywords, s->n_keywords, s->needle, err), err));
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

/* The options are only checked for their names and values here: what `reference` means depends on
 * the model's family. */
static ct_status read_semantics(ct_study *s, const ct_yaml_node *node, ct_err *err)
{
    const ct_yaml *y = &s->yaml;
    ct_status st = CT_OK;
    if (node->kind == CT_YAML_SCALAR) {
        CT_TRY(ct_yaml_text(y, node, "semantics", &s->semantics, err));
        if (strcmp(s->semantics, "paper") != 0 && strcmp(s->semantics, "reference") != 0)
            st = ct_yaml_fail(y, node, "semantics", err, "paper, reference, or single options");
        return st;
    }
    if (node->kind == CT_YAML_LIST || node->count == 0)
        return ct_yaml_fail(y, node, "semantics", err, "paper, reference, or single options");
    s->options = calloc(node->count, sizeof *s->options);
    if (!s->options) return ct_fail_memory(err, "semantics", node->count * sizeof *s->options);
    ct_semantics scratch = {0};
    for (const ct_yaml_node *n = node->first; n; n = n->next) {
        ct_study_option *option = &s->options[s->n_options++];
        option->key = n->name;
        option->line = n->line;
        CT_TRY(ct_yaml_text(y, n, "semantics", &option->value, err));
        CT_TRY(
            at_line(y, n->line, ct_semantics_set(&scratch, option->key, option->value, err), err));
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
    CT_TRY(read_axis(y, value, "heads.keep", 0, 65536, true, expand, &e->keep, err));
    CT_TRY(ct_yaml_need(y, heads, "heads", "metric", &value, err));
    CT_TRY(read_words(y, value, "heads.metric", parse_metric, e->metrics, sizeof *e->metrics,
                      CT_STUDY_MAX_METRICS, &e->n_metrics, err));
    CT_TRY(ct_yaml_need(y, heads, "heads", "stages", &value, err));
    CT_TRY(read_words(y, value, "heads.stages", parse_stages, e->stages, sizeof *e->stages,
                      CT_STUDY_MAX_STAGES, &e->n_stages, err));
    bool random = false;
    for (size_t i = 0; i < e->n_metrics; i++) random |= e->metrics[i] == CT_METRIC_RANDOM;
    if ((value = ct_yaml_get(heads, "seed"))) {
        CT_TRY(read_axis(y, value, "heads.seed", 0, INT32_MAX, true, expand, &e->seeds, err));
        if (!random)
            st = ct_yaml_fail(y, value, "heads.seed", err, "no seed, since no metric is random");
    }
done:
    return st;
}

static ct_status read_entry(ct_study *s, const ct_yaml_node *node, bool expand, ct_study_entry *e,
                            ct_err *err)
{
    static const char *const keys[] = {"heads", "weights", "prompts"};
    static const char *const stages[CT_STAGE_COUNT] = {
        [CT_STAGE_PREFILL] = "prefill", [CT_STAGE_GENERATION] = "generation"};
    static const char *const axes[] = {"lengths", "depths"};
    const ct_yaml *y = &s->yaml;
    const ct_yaml_node *value, *part;
    ct_status st;
    e->line = node->line;
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
                CT_TRY(read_words(y, part, "weights", parse_mode, e->modes[stage],
                                  sizeof *e->modes[stage], CT_STUDY_MAX_MODES, &e->n_modes[stage],
                                  err));
    }
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
    static const char *const keys[] = {"what",    "stages", "steps",         "layers",
                                       "lengths", "depths", "interventions", "limit_mib"};
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
    CT_TRY(ct_yaml_need(y, node, "record", "what", &value, err));
    CT_TRY(read_words(y, value, "record.what", parse_what, what, sizeof *what, WORDS, &n, err));
    for (size_t i = 0; i < n; i++) r->what |= what[i];
    if ((value = ct_yaml_get(node, "stages"))) {
        CT_TRY(ct_yaml_text(y, value, "record.stages", &word, err));
        CT_TRY(at_line(y, value->line, parse_stages(word, "record.stages", r->stages, err), err));
    }
    if ((value = ct_yaml_get(node, "steps"))) {
        CT_TRY(ct_yaml_text(y, value, "record.steps", &word, err));
        CT_TRY(at_line(y, value->line, ct_record_steps_parse(word, "record.steps", &r->steps, err),
                       err));
    }
    if ((value = ct_yaml_get(node, "layers"))) {
        CT_TRY(read_axis(y, value, "record.layers", 0, 4095, true, true, &r->layers, err));
        qsort(r->layers.values, r->layers.count, sizeof *r->layers.values, ct_compare_int64);
    }
    if ((value = ct_yaml_get(node, "lengths")))
        CT_TRY(read_lengths(y, value, "record.lengths", true, &r->lengths, err));
    if ((value = ct_yaml_get(node, "depths")))
        CT_TRY(read_depths(y, value, "record.depths", true, &r->depths, err));
    if ((value = ct_yaml_get(node, "interventions")))
        CT_TRY(read_axis(y, value, "record.interventions", 1, (int64_t)s->n_entries, true, true,
                         &r->entries, err));
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
    return versions * (double)ct_study_lengths(s, e)->count * (double)ct_study_depths(s, e)->count;
}

/* Reads all entries; with `expand`, also their lists. */
static ct_status read_entries(ct_study *s, const ct_yaml_node *list, bool expand, ct_err *err)
{
    ct_status st = CT_OK;
    if (!list) { /* one version without intervention */
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++) s->entries[0].n_modes[stage] = 1;
        s->entries[0].line = s->yaml.root->line;
        return CT_OK;
    }
    size_t i = 0;
    for (const ct_yaml_node *n = list->first; n; n = n->next)
        CT_TRY(read_entry(s, n, expand, &s->entries[i++], err));
done:
    return st;
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
    CT_TRY(ct_yaml_text(y, value, "model", &s->model, err));
    s->model_line = value->line;
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
