/* semantics.c - the options in which the thesis's text and its published code differ.
 *
 * Owns the table of options: key, the value that `paper` means, the other value, and what
 * `reference` means for each family. See intervention.h and docs/semantics.md.
 */
#include <string.h>

#include <cortado/intervention.h>

#include "base/buf.h"
#include "base/err.h"
#include "intervene/words.h"

typedef struct option {
    const char *key;
    const char *values[2]; /* [0] is paper's */
    bool griffin, jamba;   /* what `reference` sets for the family */
    size_t offset;         /* of the flag in ct_semantics */
} option;

#define OPTION(key, paper, other, griffin, jamba, field)                                           \
    {                                                                                              \
        key, {paper, other}, griffin, jamba, offsetof(ct_semantics, field)                         \
    }

/* Jamba's published code stages generation as the thesis says, checks the end of text on every
 * token, and has neither a ring nor a search for the needle. */
static const option options[] = {
    OPTION("generation_begins", "after_prompt", "at_last_prompt_token", true, false,
           generation_begins_at_last_prompt_token),
    OPTION("needle_span", "text", "reference", true, false, needle_span_reference),
    OPTION("kv_cache", "on", "off", false, false, kv_cache_off),
    OPTION("needle_outside_window", "zero", "unchanged", true, true,
           needle_outside_window_unchanged),
    OPTION("binary_mean", "per_query", "per_layer", true, true, binary_mean_per_layer),
    OPTION("ring_slots", "positions", "reference", true, false, ring_slots_reference),
    OPTION("prefill_window", "local", "full", false, false, prefill_window_full),
    OPTION("eos_on_first_token", "checked", "ignored", true, false, eos_on_first_token_ignored),
};
enum { N_OPTIONS = sizeof options / sizeof *options };

static bool get(const ct_semantics *semantics, const option *o)
{
    return *(const bool *)((const char *)semantics + o->offset);
}

static void set(ct_semantics *semantics, const option *o, bool value)
{
    *(bool *)((char *)semantics + o->offset) = value;
}

/* 0 griffin, 1 jamba, -1 unknown. */
static int family_index(const char *family)
{
    return strcmp(family, "griffin") == 0 ? 0 : strcmp(family, "jamba") == 0 ? 1 : -1;
}

static ct_semantics reference_for(int family)
{
    ct_semantics semantics = {0};
    for (int i = 0; i < N_OPTIONS; i++)
        set(&semantics, &options[i], family == 1 ? options[i].jamba : options[i].griffin);
    return semantics;
}

ct_status ct_semantics_parse(const char *name, const char *family, ct_semantics *out, ct_err *err)
{
    static const char *const names[] = {"paper", "reference"};
    size_t i = 0;
    ct_status st = ct_word_parse(name, "semantics", names, 2, &i, err);
    if (st != CT_OK) return st;
    int f = family_index(family);
    if (i == 1 && f < 0)
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "semantics: reference is defined for griffin and jamba, not for \"%s\"",
                       family);
    *out = i == 1 ? reference_for(f) : (ct_semantics){0};
    return CT_OK;
}

ct_status ct_semantics_set(ct_semantics *semantics, const char *key, const char *value, ct_err *err)
{
    const char *keys[N_OPTIONS];
    for (int i = 0; i < N_OPTIONS; i++) keys[i] = options[i].key;
    size_t at = 0, chosen = 0;
    ct_status st = ct_word_parse(key, "semantics option", keys, N_OPTIONS, &at, err);
    if (st == CT_OK) st = ct_word_parse(value, key, options[at].values, 2, &chosen, err);
    if (st == CT_OK) set(semantics, &options[at], chosen == 1);
    return st;
}

static bool equal(const ct_semantics *a, const ct_semantics *b)
{
    for (int i = 0; i < N_OPTIONS; i++)
        if (get(a, &options[i]) != get(b, &options[i])) return false;
    return true;
}

void ct_semantics_describe(const ct_semantics *semantics, const char *family, char *out,
                           size_t size)
{
    if (size == 0) return;
    int f = family_index(family);
    ct_semantics paper = {0}, reference = reference_for(f < 0 ? 0 : f);
    if (equal(semantics, &paper)) {
        snprintf(out, size, "paper");
    } else if (f >= 0 && equal(semantics, &reference)) {
        snprintf(out, size, "reference");
    } else {
        size_t used = 0;
        out[0] = 0;
        for (int i = 0; i < N_OPTIONS && used < size; i++)
            used +=
                (size_t)snprintf(out + used, size - used, "%s%s=%s", i ? "," : "", options[i].key,
                                 options[i].values[get(semantics, &options[i])]);
    }
}
