/* keywords.c - the keywords of a scoring. See keywords.h. */
#include "report/keywords.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/yaml.h"

/* The thesis's Table 2.1; its published code wants "on a sunny day" and has no rule for a needle
 * with its grammar put right. */
static const struct {
    const char *text;
    double points;
    bool set, in_table, in_reference;
} thesis[] = {
    {"eat a sandwich", 1, false, true, true},
    {"dolores park", 0.5, false, true, true},
    {"sit in dolores park", 0.5, false, true, true},
    {"sunny day", 1, false, true, false},
    {"on a sunny day", 1, false, false, true},
    {"is to eat a sandwich and sit in dolores park on a sunny day", 4, true, true, false},
};
static const char thesis_needle[] = "The best thing to do in San Francisco is eat a sandwich and "
                                    "sit in Dolores Park on a sunny day.";
enum { N_THESIS = sizeof thesis / sizeof *thesis };

static ct_status add(ct_keywords *k, const char *text, double points, bool set, ct_err *err)
{
    ct_scored_keyword *items = realloc(k->items, (k->count + 1) * sizeof *items);
    if (!items) return ct_fail_memory(err, "keywords", (k->count + 1) * sizeof *items);
    k->items = items;
    char *copy = ct_strdup(text, err);
    if (!copy) return CT_ERR_MEMORY;
    items[k->count++] = (ct_scored_keyword){copy, points, set};
    return CT_OK;
}

/* task.niah of a study file, or NULL. What is not as it should be is not there: the run layer has
 * checked the file, and a page is made all the same if it was not one of its own. */
static const ct_yaml_node *niah_of(const ct_yaml *yaml)
{
    const ct_yaml_node *task = yaml->root ? ct_yaml_get(yaml->root, "task") : NULL;
    const ct_yaml_node *niah = task && task->kind == CT_YAML_MAP ? ct_yaml_get(task, "niah") : NULL;
    return niah && niah->kind == CT_YAML_MAP ? niah : NULL;
}

static ct_status add_own(ct_keywords *k, const ct_yaml *yaml, const ct_yaml_node *list, ct_err *err)
{
    ct_err ignored = {0};
    for (const ct_yaml_node *n = list->first; n; n = n->next) {
        if (n->kind != CT_YAML_MAP) continue;
        const ct_yaml_node *text = ct_yaml_get(n, "text"), *points = ct_yaml_get(n, "points");
        const ct_yaml_node *set = ct_yaml_get(n, "set");
        double value = 0;
        bool sets = false;
        if (!text || text->kind != CT_YAML_SCALAR || !points ||
            ct_yaml_real(yaml, points, "points", 0, 1e9, &value, &ignored) != CT_OK ||
            (set && ct_yaml_bool(yaml, set, "set", &sets, &ignored) != CT_OK))
            continue;
        ct_status st = add(k, text->text, value, sets, err);
        if (st != CT_OK) return st;
    }
    return CT_OK;
}

ct_status ct_keywords_new(const char *scoring, double max_score, const char *study_text,
                          ct_keywords *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_yaml yaml = {0};
    ct_err ignored = {0};
    *out = (ct_keywords){0};
    bool parsed = study_text &&
                  ct_yaml_parse(study_text, strlen(study_text), "study", &yaml, &ignored) == CT_OK;
    const ct_yaml_node *niah = parsed ? niah_of(&yaml) : NULL;
    const ct_yaml_node *own = niah ? ct_yaml_get(niah, "keywords") : NULL;
    const ct_yaml_node *needle = niah ? ct_yaml_get(niah, "needle") : NULL;
    bool table = strcmp(scoring, "table") == 0, reference = strcmp(scoring, "reference") == 0;
    if (own && own->kind == CT_YAML_LIST && (table || reference)) {
        CT_TRY(add_own(out, &yaml, own, err));
    } else {
        for (size_t i = 0; i < N_THESIS; i++)
            if ((table && thesis[i].in_table) || (reference && thesis[i].in_reference))
                CT_TRY(add(out, thesis[i].text, thesis[i].points, thesis[i].set, err));
    }
    bool given = needle && needle->kind == CT_YAML_SCALAR && needle->text;
    CT_TRY(add(out, given ? needle->text : thesis_needle, max_score, true, err));
done:
    ct_yaml_clear(&yaml);
    if (st != CT_OK) ct_keywords_clear(out);
    return st;
}

void ct_keywords_clear(ct_keywords *keywords)
{
    for (size_t i = 0; i < keywords->count; i++) free(keywords->items[i].text);
    free(keywords->items);
    *keywords = (ct_keywords){0};
}
