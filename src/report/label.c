/* label.c - labels, captions and file names of versions. See label.h. */
#include "report/label.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"

static bool same(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static unsigned differing(const ct_stats_version *a, const ct_stats_version *b)
{
    unsigned mask = 0;
    if (!same(a->model, b->model)) mask |= CT_FIELD_MODEL;
    if (!same(a->study, b->study)) mask |= CT_FIELD_STUDY;
    /* Without a selection there are no stages and no metric in which to differ. */
    if (!*a->stages != !*b->stages) mask |= CT_FIELD_SELECTION;
    else if (!same(a->stages, b->stages)) mask |= CT_FIELD_STAGES;
    if (!same(a->metric, b->metric) && *a->metric && *b->metric) mask |= CT_FIELD_METRIC;
    if (!same(a->weights_generation, b->weights_generation) ||
        !same(a->weights_prefill, b->weights_prefill))
        mask |= CT_FIELD_WEIGHTS;
    if (!same(a->template_name, b->template_name)) mask |= CT_FIELD_TEMPLATE;
    if (a->read_twice != b->read_twice) mask |= CT_FIELD_READ_TWICE;
    if (!same(a->semantics, b->semantics)) mask |= CT_FIELD_SEMANTICS;
    if (!same(a->scoring, b->scoring)) mask |= CT_FIELD_SCORING;
    return mask;
}

unsigned ct_label_differing(const ct_stats *stats, const size_t *indices, size_t n, unsigned *all)
{
    unsigned mask = 0;
    bool study_needed = false;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            unsigned d = differing(&stats->versions[indices ? indices[i] : i],
                                   &stats->versions[indices ? indices[j] : j]);
            mask |= d;
            study_needed |= d == CT_FIELD_STUDY;
        }
    *all = mask;
    return study_needed ? mask : mask & ~(unsigned)CT_FIELD_STUDY;
}

static const char *stages_text(const ct_stats_version *v)
{
    if (same(v->stages, "prefill+generation")) return "prefill + generation";
    if (same(v->stages, "prefill")) return "prefill only";
    return v->stages;
}

static const char *metric_text(const ct_stats_version *v)
{
    if (same(v->metric, "entropy-inverted")) return "inverted entropy";
    if (same(v->metric, "random")) return "random heads";
    if (same(v->metric, "l2")) return "L2 norm";
    return v->metric;
}

static bool edits(const ct_stats_version *v)
{
    return !same(v->weights_generation, "keep") || !same(v->weights_prefill, "keep");
}

static ct_status part(ct_buf *out, size_t begin, const char *separator, const char *text,
                      ct_err *err)
{
    if (!*text) return CT_OK;
    return ct_buf_addf(out, err, "%s%s", out->size > begin ? separator : "", text);
}

ct_status ct_label_version(const ct_stats_version *v, unsigned mask, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t begin = out->size;
    const unsigned heads = CT_FIELD_SELECTION | CT_FIELD_STAGES | CT_FIELD_METRIC;
    if (!mask) mask = edits(v) ? CT_FIELD_WEIGHTS : CT_FIELD_STAGES;
    const bool both = mask & heads && mask & CT_FIELD_WEIGHTS;
    if (!*v->stages && mask & heads) mask = (mask & ~heads) | CT_FIELD_STAGES;
    else if ((mask & heads) == CT_FIELD_SELECTION) mask |= CT_FIELD_STAGES;
    /* Among versions that differ in both, each is told by what was done to it. */
    if (both && !*v->stages && edits(v)) mask &= ~heads;
    if (both && !edits(v)) mask &= ~(unsigned)CT_FIELD_WEIGHTS;
    const char *unselected = both ? "no intervention" : "no head selection";
    if (mask & CT_FIELD_MODEL) CT_TRY(part(out, begin, ", ", v->model, err));
    if (mask & CT_FIELD_STUDY) CT_TRY(part(out, begin, ", ", v->study, err));
    if (mask & CT_FIELD_STAGES)
        CT_TRY(part(out, begin, ", ", *v->stages ? stages_text(v) : unselected, err));
    if (mask & CT_FIELD_METRIC) CT_TRY(part(out, begin, ", ", metric_text(v), err));
    if (mask & CT_FIELD_WEIGHTS) {
        CT_TRY(part(out, begin, ", ", both ? "weights " : v->weights_generation, err));
        if (both) CT_TRY(ct_buf_adds(out, v->weights_generation, err));
        CT_TRY(ct_buf_addf(out, err, " \xE2\x80\x93 %s", v->weights_prefill));
    }
    if (mask & CT_FIELD_TEMPLATE) {
        CT_TRY(part(out, begin, ", ", v->template_name, err));
        CT_TRY(ct_buf_adds(out, " prompts", err));
    }
    if (mask & CT_FIELD_READ_TWICE)
        CT_TRY(part(out, begin, ", ", v->read_twice ? "read twice" : "read once", err));
    if (mask & CT_FIELD_SEMANTICS) CT_TRY(part(out, begin, ", ", v->semantics, err));
    if (mask & CT_FIELD_SCORING) CT_TRY(part(out, begin, ", scored by ", v->scoring, err));
done:
    return st;
}

ct_status ct_label_shared(const ct_stats_version *v, unsigned mask, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t begin = out->size;
    unsigned told = ~mask;
    if (told & CT_FIELD_MODEL) CT_TRY(part(out, begin, "; ", v->model, err));
    if (told & CT_FIELD_STUDY && *v->study) {
        CT_TRY(part(out, begin, "; ", "study ", err));
        CT_TRY(ct_buf_adds(out, v->study, err));
    }
    if (told & CT_FIELD_STAGES && *v->stages) {
        CT_TRY(part(out, begin, "; ", "heads selected in ", err));
        CT_TRY(ct_buf_adds(out, stages_text(v), err));
    }
    if (told & CT_FIELD_METRIC && *v->metric) {
        CT_TRY(part(out, begin, "; ", "heads kept by ", err));
        CT_TRY(ct_buf_adds(out, same(v->metric, "random") ? "chance" : metric_text(v), err));
    }
    if (told & CT_FIELD_WEIGHTS && edits(v)) {
        CT_TRY(part(out, begin, "; ", "weights ", err));
        CT_TRY(ct_buf_addf(out, err, "%s in generation, %s in prefill", v->weights_generation,
                           v->weights_prefill));
    }
    if (told & CT_FIELD_TEMPLATE && *v->template_name) {
        CT_TRY(part(out, begin, "; ", v->template_name, err));
        CT_TRY(ct_buf_adds(out, " prompts", err));
    }
    if (told & CT_FIELD_READ_TWICE && v->read_twice)
        CT_TRY(part(out, begin, "; ", "context read twice", err));
    if (told & CT_FIELD_SEMANTICS && *v->semantics) {
        CT_TRY(part(out, begin, "; ", "semantics: ", err));
        CT_TRY(ct_buf_adds(out, v->semantics, err));
    }
    if (told & CT_FIELD_SCORING && *v->scoring) {
        CT_TRY(part(out, begin, "; ", "scoring: ", err));
        CT_TRY(ct_buf_adds(out, v->scoring, err));
    }
done:
    return st;
}

/* ---- file names ------------------------------------------------------------------------------ */

enum { SLUG_MAX = 100 };

static ct_status slug_part(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    if (!*text) return CT_OK;
    if (out->size) CT_TRY(ct_buf_adds(out, "_", err));
    bool dash = true; /* none at the beginning, never two */
    for (; *text; text++) {
        char c = *text;
        if (c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '.' && !dash);
        if (!plain && dash) continue;
        CT_TRY(ct_buf_add(out, plain ? &c : "-", 1, err));
        dash = !plain;
    }
    while (out->size && out->data[out->size - 1] == '-') out->data[--out->size] = 0;
done:
    return st;
}

/* Every field, so that two versions never hash the same. */
static ct_hash identity(const ct_stats_version *v)
{
    char heads[32];
    snprintf(heads, sizeof heads, "%lld %d", (long long)v->heads, v->read_twice);
    const char *const fields[] = {
        v->study,           v->model,         v->metric,    v->stages,  v->weights_generation,
        v->weights_prefill, v->template_name, v->semantics, v->scoring, heads};
    ct_hash h = {0, 0};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        ct_hash next = ct_hash_bytes(fields[i], strlen(fields[i]));
        uint64_t both[4] = {h.high, h.low, next.high, next.low};
        h = ct_hash_bytes(both, sizeof both);
    }
    return h;
}

static ct_status slug(const ct_stats_version *v, bool hashed, char **out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf buf = {0};
    char *weights = NULL;
    CT_TRY(slug_part(&buf, v->model, err));
    CT_TRY(slug_part(&buf, *v->stages ? v->stages : "all-heads", err));
    CT_TRY(slug_part(&buf, v->metric, err));
    if (edits(v)) {
        weights = ct_strf(err, "%s-%s", v->weights_generation, v->weights_prefill);
        CT_TRY(weights ? slug_part(&buf, weights, err) : CT_ERR_MEMORY);
    }
    if (!same(v->template_name, "base")) CT_TRY(slug_part(&buf, v->template_name, err));
    if (v->read_twice) CT_TRY(slug_part(&buf, "read-twice", err));
    if (!same(v->semantics, "paper")) CT_TRY(slug_part(&buf, v->semantics, err));
    if (hashed || buf.size > SLUG_MAX) {
        char hex[CT_HASH_HEX];
        ct_hash_hex(identity(v), hex);
        if (buf.size > SLUG_MAX - 9) buf.data[buf.size = SLUG_MAX - 9] = 0;
        CT_TRY(ct_buf_addf(&buf, err, "_%.8s", hex));
    }
    *out = ct_buf_take(&buf);
    if (!*out) st = ct_fail_memory(err, "file name", SLUG_MAX);
done:
    free(weights);
    ct_buf_clear(&buf);
    return st;
}

ct_status ct_label_slugs(const ct_stats *stats, char ***out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t n = stats->n_versions;
    bool *hashed = calloc(n + 1, sizeof *hashed);
    char **slugs = calloc(n + 1, sizeof *slugs);
    if (!slugs || !hashed) {
        st = ct_fail_memory(err, "file names", n * sizeof *slugs);
        goto done;
    }
    for (size_t i = 0; i < n; i++) CT_TRY(slug(&stats->versions[i], false, &slugs[i], err));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (same(slugs[i], slugs[j])) hashed[i] = hashed[j] = true;
    for (size_t i = 0; i < n; i++) {
        if (!hashed[i]) continue;
        free(slugs[i]);
        slugs[i] = NULL;
        CT_TRY(slug(&stats->versions[i], true, &slugs[i], err));
    }
    *out = slugs;
    slugs = NULL;
done:
    free(hashed);
    ct_slugs_free(slugs, n);
    return st;
}

void ct_slugs_free(char **slugs, size_t n)
{
    for (size_t i = 0; slugs && i < n; i++) free(slugs[i]);
    free(slugs);
}

ct_status ct_label_fixed(ct_buf *out, double value, int digits, ct_err *err)
{
    CT_ASSERT(isfinite(value) && fabs(value) < 1e15 && digits >= 0 && digits <= 6);
    static const long long powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000};
    /* 1e15 * 1e6 is beyond long long, so large values lose decimals that they do not have. */
    if (fabs(value) > 1e12 && digits > 3) digits = 3;
    long long scaled = llround(fabs(value) * (double)powers[digits]);
    const char *sign = value < 0 && scaled ? "-" : "";
    if (!digits) return ct_buf_addf(out, err, "%s%lld", sign, scaled);
    return ct_buf_addf(out, err, "%s%lld.%0*lld", sign, scaled / powers[digits], digits,
                       scaled % powers[digits]);
}
