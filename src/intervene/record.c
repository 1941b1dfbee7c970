/* record.c - sizes, rows and notes of a recording. See record.h. */
#include "intervene/record.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "intervene/words.h"

/* ---- words ----------------------------------------------------------------------------------- */

ct_status ct_record_what_parse(const char *text, const char *flag, unsigned *out, ct_err *err)
{
    static const char *const words[] = {"weights", "heads", "light"};
    ct_status st = CT_OK;
    *out = 0;
    for (const char *at = text;; at++) {
        size_t n = strcspn(at, "+"), i = 0;
        char *word = ct_strndup(at, n, err);
        if (!word) return CT_ERR_MEMORY;
        st = ct_word_parse(word, flag, words, 3, &i, err);
        free(word);
        if (st != CT_OK) return st;
        *out |= 1u << i;
        at += n;
        if (!*at) return CT_OK;
    }
}

ct_status ct_record_steps_parse(const char *text, const char *flag, ct_record_steps *out,
                                ct_err *err)
{
    static const char *const words[] = {"last", "first", "all"};
    size_t i = 0;
    ct_status st = ct_word_parse(text, flag, words, 3, &i, err);
    if (st == CT_OK) *out = (ct_record_steps)i;
    return st;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static int64_t rows_of(const ct_record_options *o, const ct_record_shape *s, ct_stage stage)
{
    if (!o->stages[stage]) return 0;
    int64_t all = stage == CT_STAGE_PREFILL ? s->prefill : s->tokens - s->prefill;
    return o->steps == CT_RECORD_ALL || all == 0 ? all : 1;
}

static int64_t keys_of(const ct_record_shape *s, ct_stage stage)
{
    return stage == CT_STAGE_PREFILL ? s->prefill : s->tokens;
}

static int64_t layers_of(const ct_record_options *o, const ct_record_shape *s)
{
    return o->n_layers ? (int64_t)o->n_layers : s->n_attention;
}

int64_t ct_record_bytes(const ct_record_options *o, const ct_record_shape *s)
{
    int64_t per_head = (o->what & CT_RECORD_LIGHT ? 20 : 0) + (o->what & CT_RECORD_HEADS ? 1 : 0);
    int64_t total = 0;
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        int64_t bytes = o->what & CT_RECORD_WEIGHTS ? 8 * keys_of(s, (ct_stage)stage) : 0;
        bytes += per_head;
        if (__builtin_mul_overflow(bytes, s->heads * layers_of(o, s), &bytes) ||
            __builtin_mul_overflow(bytes, rows_of(o, s, (ct_stage)stage), &bytes) ||
            __builtin_add_overflow(total, bytes, &total))
            return INT64_MAX;
    }
    return total;
}

ct_status ct_record_check(const ct_record_options *o, const ct_record_shape *s, ct_err *err)
{
    if (o->what == 0 || o->what > (CT_RECORD_WEIGHTS | CT_RECORD_HEADS | CT_RECORD_LIGHT) ||
        (unsigned)o->steps > CT_RECORD_ALL ||
        (!o->stages[CT_STAGE_PREFILL] && !o->stages[CT_STAGE_GENERATION]))
        return ct_fail(err, CT_ERR_USAGE, "recording: expected something to record and a stage");
    if (s->n_attention == 0)
        return ct_fail(err, CT_ERR_INTERVENTION,
                       "recording: expected a model with attention layers, got one without");
    for (size_t i = 0; i < o->n_layers; i++) {
        bool found = false;
        for (int64_t a = 0; a < s->n_attention; a++)
            found |= s->attention_layers[a] == o->layers[i];
        if (!found || (i > 0 && o->layers[i] <= o->layers[i - 1]))
            return ct_fail(err, CT_ERR_VALUE,
                           "recording: layers: expected attention layers in ascending order (the "
                           "model has %" PRId64 ", the first is layer %" PRId64 "), got %" PRId64,
                           s->n_attention, s->attention_layers[0], o->layers[i]);
    }
    for (size_t i = 0; i < o->n_needle; i++)
        if (o->needle[i].begin < (i ? o->needle[i - 1].end : 0) ||
            o->needle[i].end <= o->needle[i].begin || o->needle[i].end > s->tokens)
            return ct_fail(err, CT_ERR_VALUE,
                           "recording: needle: expected sorted, disjoint positions inside the "
                           "prompt, got %" PRId64 "-%" PRId64,
                           o->needle[i].begin, o->needle[i].end - 1);
    int64_t bytes = ct_record_bytes(o, s),
            limit = o->limit > 0 ? o->limit : CT_RECORD_DEFAULT_LIMIT;
    if (bytes <= limit) return CT_OK;
    return ct_fail(err, CT_ERR_LIMIT,
                   "recording: expected at most %" PRId64 " MiB, got %" PRId64
                   " MiB for what is asked; record fewer steps, layers or stages, only light, or "
                   "raise the limit",
                   limit >> 20, (bytes >> 20) + 1);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void *zeroed(int64_t count, size_t size, bool *failed)
{
    void *p = calloc((size_t)count + 1, size); /* pages that are never written take no memory */
    *failed |= !p;
    return p;
}

ct_status ct_recording_new(const ct_record_options *o, const ct_record_shape *s, ct_recording **out,
                           ct_err *err)
{
    ct_recording *r = calloc(1, sizeof *r);
    if (!r) return ct_fail_memory(err, "recording", sizeof *r);
    bool failed = false;
    r->what = o->what;
    r->steps = o->steps;
    memcpy(r->stages, o->stages, sizeof r->stages);
    r->n_layers = layers_of(o, s);
    r->heads = s->heads;
    r->head_dim = s->head_dim;
    r->prefill = s->prefill;
    r->n_needle = o->n_needle;
    r->layers = zeroed(r->n_layers, sizeof *r->layers, &failed);
    r->needle = zeroed((int64_t)o->n_needle, sizeof *r->needle, &failed);
    const int64_t *layers = o->n_layers ? o->layers : s->attention_layers;
    for (int64_t i = 0; !failed && i < r->n_layers; i++) r->layers[i] = layers[i];
    for (size_t i = 0; !failed && i < o->n_needle; i++) r->needle[i] = o->needle[i];
    int64_t heads = r->n_layers * r->heads;
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        ct_record_track *t = &r->tracks[stage];
        t->capacity = rows_of(o, s, (ct_stage)stage);
        t->keys = keys_of(s, (ct_stage)stage);
        int64_t n = t->capacity * heads;
        t->position = zeroed(t->capacity, sizeof *t->position, &failed);
        if (r->what & CT_RECORD_WEIGHTS) {
            t->before = zeroed(n * t->keys, sizeof(float), &failed);
            t->after = zeroed(n * t->keys, sizeof(float), &failed);
        }
        if (r->what & CT_RECORD_LIGHT) {
            t->entropy_bits = zeroed(n, sizeof(float), &failed);
            t->needle_before = zeroed(n, sizeof(float), &failed);
            t->needle_after = zeroed(n, sizeof(float), &failed);
            t->peak_weight = zeroed(n, sizeof(float), &failed);
            t->peak = zeroed(n, sizeof(int32_t), &failed);
        }
        if (r->what & CT_RECORD_HEADS) t->heads_kept = zeroed(n, 1, &failed);
    }
    if (r->steps == CT_RECORD_LAST && r->tracks[CT_STAGE_GENERATION].before) {
        r->query.q = zeroed(heads * r->head_dim, sizeof(float), &failed);
        r->query.marked = zeroed(s->tokens, 1, &failed);
        r->query.means = zeroed(r->n_layers, sizeof(float), &failed);
    }
    if (failed) {
        ct_recording_free(r);
        return ct_fail_memory(err, "recording", (size_t)ct_record_bytes(o, s));
    }
    *out = r;
    return CT_OK;
}

void ct_recording_free(ct_recording *r)
{
    if (!r) return;
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        ct_record_track *t = &r->tracks[stage];
        free(t->position);
        free(t->before);
        free(t->after);
        free(t->entropy_bits);
        free(t->needle_before);
        free(t->needle_after);
        free(t->peak_weight);
        free(t->peak);
        free(t->heads_kept);
    }
    free(r->query.q);
    free(r->query.marked);
    free(r->query.means);
    free(r->layers);
    free(r->needle);
    free(r);
}

/* ---- rows ------------------------------------------------------------------------------------ */

ct_record_part ct_recording_take(ct_recording *r, ct_stage stage, int64_t position, int64_t count,
                                 bool ends)
{
    ct_record_part part = {0};
    ct_record_track *t = &r->tracks[stage];
    if (t->capacity == 0) return part;
    if (stage == CT_STAGE_PREFILL && r->steps == CT_RECORD_ALL) {
        part = (ct_record_part){0, count, position};
    } else if (stage == CT_STAGE_PREFILL) {
        int64_t wanted = r->steps == CT_RECORD_FIRST ? 0 : r->prefill - 1;
        if (wanted >= position && wanted < position + count)
            part = (ct_record_part){wanted - position, 1, 0};
    } else if (ends && !(r->steps == CT_RECORD_FIRST && t->rows > 0)) {
        part = (ct_record_part){count - 1, 1, r->steps == CT_RECORD_ALL ? t->rows : 0};
    }
    CT_ASSERT(part.row + part.count <= t->capacity);
    if (part.count > 0 && part.row + part.count > t->rows) t->rows = part.row + part.count;
    for (int64_t i = 0; i < part.count; i++)
        t->position[part.row + i] = (int32_t)(position + part.first + i);
    return part;
}

int64_t ct_recording_layer(const ct_recording *r, int64_t layer)
{
    for (int64_t i = 0; i < r->n_layers; i++)
        if (r->layers[i] == layer) return i;
    return -1;
}

ct_weights_out ct_recording_room(const ct_recording *r, ct_stage stage, int64_t row, int64_t layer)
{
    const ct_record_track *t = &r->tracks[stage];
    int64_t at = (row * r->n_layers + layer) * r->heads * t->keys;
    return (ct_weights_out){t->before + at, t->after + at, t->keys,
                            r->n_layers * r->heads * t->keys};
}

void ct_recording_note(ct_recording *r, ct_stage stage, int64_t row, int64_t layer,
                       const ct_record_values *values)
{
    ct_record_track *t = &r->tracks[stage];
    int64_t at = (row * r->n_layers + layer) * r->heads;
    size_t n = (size_t)r->heads, bytes = n * sizeof(float);
    if (t->heads_kept) {
        if (values->kept) memcpy(t->heads_kept + at, values->kept, n);
        else memset(t->heads_kept + at, 1, n);
    }
    if (!t->peak) return;
    memcpy(t->entropy_bits + at, values->entropy_bits, bytes);
    memcpy(t->needle_before + at, values->light.needle_before, bytes);
    memcpy(t->needle_after + at, values->light.needle_after, bytes);
    memcpy(t->peak_weight + at, values->light.peak_weight, bytes);
    memcpy(t->peak + at, values->light.peak, bytes);
}
