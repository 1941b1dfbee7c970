/* pretokenize.c - pre-tokenizers. See pretokenize.h. */
#include "tok/pretokenize.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tok/fields.h"
#include "tok/list.h"
#include "tok/normalize.h"
#include "tok/unicode.h"

enum { BYTE_LEVEL, METASPACE, SPLIT, DIGITS, PUNCTUATION, N_KINDS };
static const char *const kinds[N_KINDS] = {"ByteLevel", "Metaspace", "Split", "Digits",
                                           "Punctuation"};

/* What becomes of a delimiter. */
typedef enum behavior {
    REMOVED,
    ISOLATED,
    MERGED_WITH_PREVIOUS,
    MERGED_WITH_NEXT,
    CONTIGUOUS,
    N_BEHAVIORS
} behavior;
static const char *const behaviors[N_BEHAVIORS] = {"Removed", "Isolated", "MergedWithPrevious",
                                                   "MergedWithNext", "Contiguous"};

/* GPT-2's expression (its tokenizer's source, encoder.py). */
static const char gpt2_regex[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct ct_pretokenizer_step {
    size_t kind;
    ct_pattern *pattern; /* Split, ByteLevel (NULL: does not cut) */
    behavior behavior;
    bool invert, prefix_space;
    ct_metaspace metaspace;
};

void ct_pretokenizer_clear(ct_pretokenizer *pretokenizer)
{
    for (size_t i = 0; i < pretokenizer->count; i++)
        ct_pattern_free(pretokenizer->steps[i].pattern);
    free(pretokenizer->steps);
    *pretokenizer = (ct_pretokenizer){0};
}

void ct_pretokenizer_work_clear(ct_pretokenizer_work *work)
{
    ct_aligned_clear(&work->texts[0]);
    ct_aligned_clear(&work->texts[1]);
    free(work->words.items);
    free(work->spare.items);
    ct_search_clear(&work->search);
    *work = (ct_pretokenizer_work){0};
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A string that must be one of n names; an absent one leaves *out as it is. */
static ct_status read_choice(ct_scan value, const char *where, const char *name,
                             const char *const *names, size_t n, size_t *out, ct_err *err)
{
    ct_buf known = {0};
    char *text = NULL;
    ct_status st = CT_OK;
    if (!value.at) return CT_OK;
    CT_TRY(ct_field_text(value, where, name, &text, NULL, err));
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            goto done;
        }
        CT_TRY(ct_buf_addf(&known, err, "%s%s", i ? ", " : "", names[i]));
    }
    st = ct_fail(err, CT_ERR_UNSUPPORTED, "%s.%s: expected one of %s, got \"%.*s\"", where, name,
                 known.data, CT_SHOWN(text, strlen(text)));
done:
    free(text);
    ct_buf_clear(&known);
    return st;
}

ct_status ct_metaspace_read(ct_metaspace *metaspace, ct_scan object, const char *where, ct_err *err)
{
    enum { SIGN, PREFIX, SCHEME, SPLITS, N };
    static const char *const names[] = {"replacement", "add_prefix_space", "prepend_scheme",
                                        "split"};
    static const char *const schemes[] = {"always", "first", "never"};
    ct_scan v[N];
    ct_status st = CT_OK;
    char *sign = NULL;
    size_t size, scheme = CT_PREPEND_ALWAYS;
    bool prefix = true;
    uint32_t c;
    metaspace->split = true;
    CT_TRY(ct_fields_read(object, where, names, N, v, err));
    CT_TRY(ct_field_text(v[SIGN], where, names[SIGN], &sign, &size, err));
    CT_TRY(ct_field_bool(v[PREFIX], where, names[PREFIX], &prefix, err));
    CT_TRY(read_choice(v[SCHEME], where, names[SCHEME], schemes, 3, &scheme, err));
    CT_TRY(ct_field_bool(v[SPLITS], where, names[SPLITS], &metaspace->split, err));
    if (size == 0 || ct_utf8_next(sign, size, &c) != size) {
        st = ct_fail(err, CT_ERR_VALUE, "%s.replacement: expected one character, got \"%.*s\"",
                     where, CT_SHOWN(sign, size));
        goto done;
    }
    if (!prefix && scheme != CT_PREPEND_NEVER) {
        st =
            ct_fail(err, CT_ERR_VALUE,
                    "%s: expected prepend_scheme \"never\" with add_prefix_space false, got \"%s\"",
                    where, schemes[scheme]);
        goto done;
    }
    memcpy(metaspace->sign, sign, size);
    metaspace->size = size;
    metaspace->prepend = (ct_prepend)scheme;
done:
    free(sign);
    return st;
}

static ct_status read_step(void *into, ct_scan object, ct_err *err)
{
    static const char where[] = "pre_tokenizer";
    enum { PATTERN, BEHAVIOR, INVERT, PREFIX, REGEX, SINGLE, N };
    static const char *const names[] = {"pattern",          "behavior",  "invert",
                                        "add_prefix_space", "use_regex", "individual_digits"};
    ct_pretokenizer *pretokenizer = into;
    ct_scan v[N];
    ct_status st = CT_OK;
    bool flag = true;
    size_t chosen = ISOLATED;
    ct_pretokenizer_step *steps =
        ct_list_grow(pretokenizer->steps, pretokenizer->count, sizeof *steps);
    if (!steps) return ct_fail_memory(err, where, sizeof *steps);
    pretokenizer->steps = steps;
    ct_pretokenizer_step *step = &steps[pretokenizer->count++];
    *step = (ct_pretokenizer_step){.behavior = ISOLATED};
    CT_TRY(ct_field_kind(object, where, kinds, N_KINDS, &step->kind, err));
    CT_TRY(ct_fields_read(object, where, names, N, v, err));
    switch (step->kind) {
    case BYTE_LEVEL:
        step->prefix_space = true;
        CT_TRY(ct_field_bool(v[PREFIX], where, names[PREFIX], &step->prefix_space, err));
        CT_TRY(ct_field_bool(v[REGEX], where, names[REGEX], &flag, err));
        if (flag)
            CT_TRY(ct_pattern_new_regex(gpt2_regex, sizeof gpt2_regex - 1, where, &step->pattern,
                                        err));
        break;
    case METASPACE:
        CT_TRY(ct_metaspace_read(&step->metaspace, object, where, err));
        step->behavior = MERGED_WITH_NEXT;
        if (step->metaspace.split)
            CT_TRY(ct_pattern_new_string(step->metaspace.sign, step->metaspace.size, where,
                                         &step->pattern, err));
        break;
    case SPLIT:
        CT_TRY(ct_pattern_read(v[PATTERN], "pre_tokenizer.pattern", &step->pattern, err));
        CT_TRY(
            read_choice(v[BEHAVIOR], where, names[BEHAVIOR], behaviors, N_BEHAVIORS, &chosen, err));
        step->behavior = (behavior)chosen;
        CT_TRY(ct_field_bool(v[INVERT], where, names[INVERT], &step->invert, err));
        break;
    case DIGITS:
        flag = false;
        CT_TRY(ct_field_bool(v[SINGLE], where, names[SINGLE], &flag, err));
        step->behavior = flag ? ISOLATED : CONTIGUOUS;
        break;
    case PUNCTUATION:
        CT_TRY(
            read_choice(v[BEHAVIOR], where, names[BEHAVIOR], behaviors, N_BEHAVIORS, &chosen, err));
        step->behavior = (behavior)chosen;
        break;
    }
done:
    return st;
}

ct_status ct_pretokenizer_read(ct_pretokenizer *pretokenizer, ct_scan value, ct_err *err)
{
    if (!value.at) return CT_OK;
    return ct_fields_flatten(value, "pre_tokenizer", "pretokenizers", read_step, pretokenizer, err);
}

/* ---- cutting --------------------------------------------------------------------------------- */

static ct_status add_word(ct_words *words, size_t begin, size_t end, ct_err *err)
{
    if (begin == end) return CT_OK;
    if (words->count == words->capacity) {
        size_t capacity = words->capacity ? words->capacity * 2 : 64;
        ct_word *items = realloc(words->items, capacity * sizeof *items);
        if (!items) return ct_fail_memory(err, "words", capacity * sizeof *items);
        words->items = items;
        words->capacity = capacity;
    }
    words->items[words->count++] = (ct_word){begin, end};
    return CT_OK;
}

/* Turns the pieces of one word, delimiters and what lies between, into words. The last one waits
 * until it is known whether the next joins it. */
typedef struct cutter {
    ct_words *out;
    behavior behavior;
    ct_word last;
    bool any, last_matched; /* last_matched also tells of a delimiter that was removed */
} cutter;

static ct_status cut_end(cutter *cut, ct_err *err)
{
    bool any = cut->any;
    cut->any = false;
    return any ? add_word(cut->out, cut->last.begin, cut->last.end, err) : CT_OK;
}

static ct_status cut_add(cutter *cut, size_t begin, size_t end, bool matched, ct_err *err)
{
    bool joins = false, before = cut->last_matched;
    if (cut->behavior == CONTIGUOUS) joins = matched == before;
    if (cut->behavior == MERGED_WITH_PREVIOUS) joins = matched && !before;
    if (cut->behavior == MERGED_WITH_NEXT) joins = !matched && before;
    cut->last_matched = matched;
    if (joins && cut->any) {
        cut->last.end = end;
        return CT_OK;
    }
    ct_status st = cut_end(cut, err);
    cut->any = cut->behavior != REMOVED || !matched;
    cut->last = (ct_word){begin, end};
    return st;
}

/* Cuts text[word) at the pattern's matches. */
static ct_status cut_pattern(const ct_pretokenizer_step *step, const char *text, ct_word word,
                             ct_search *search, ct_words *out, ct_err *err)
{
    cutter cut = {.out = out, .behavior = step->behavior};
    size_t size = word.end - word.begin, done_to = 0;
    bool found;
    ct_status st = CT_OK;
    ct_search_start(search, step->pattern, text + word.begin, size);
    for (;;) {
        CT_TRY(ct_search_next(search, &found, err));
        if (!found) break;
        size_t from = word.begin + search->begin, to = word.begin + search->end;
        if (done_to != search->begin)
            CT_TRY(cut_add(&cut, word.begin + done_to, from, step->invert, err));
        CT_TRY(cut_add(&cut, from, to, !step->invert, err));
        done_to = search->end;
    }
    if (done_to != size) CT_TRY(cut_add(&cut, word.begin + done_to, word.end, step->invert, err));
    CT_TRY(cut_end(&cut, err));
done:
    return st;
}

/* Cuts text[word) at the characters of a class. */
static ct_status cut_class(const ct_pretokenizer_step *step, const char *text, ct_word word,
                           ct_words *out, ct_err *err)
{
    cutter cut = {.out = out, .behavior = step->behavior};
    size_t done_to = word.begin;
    ct_status st = CT_OK;
    for (size_t i = word.begin, end; i < word.end; i = end) {
        uint32_t c;
        end = i + ct_utf8_next(text + i, word.end - i, &c);
        if (!(step->kind == DIGITS ? ct_is_numeric(c) : ct_is_punctuation(c))) continue;
        if (done_to < i) CT_TRY(cut_add(&cut, done_to, i, false, err));
        CT_TRY(cut_add(&cut, i, end, true, err));
        done_to = end;
    }
    if (done_to < word.end) CT_TRY(cut_add(&cut, done_to, word.end, false, err));
    CT_TRY(cut_end(&cut, err));
done:
    return st;
}

/* ---- steps that change the text -------------------------------------------------------------- */

/* Appends a word of `in` with spaces replaced by the sign, and with a sign put in front. */
static ct_status add_metaspaced(const ct_metaspace *meta, const ct_aligned *in, ct_word word,
                                ct_aligned *out, ct_err *err)
{
    ct_status st = CT_OK;
    const char *text = in->text + word.begin;
    size_t size = word.end - word.begin;
    bool has = *text == ' ' || (size >= meta->size && memcmp(text, meta->sign, meta->size) == 0);
    if (!has && (meta->prepend == CT_PREPEND_ALWAYS ||
                 (meta->prepend == CT_PREPEND_FIRST && in->begin[word.begin] == 0))) {
        uint32_t at = in->begin[word.begin];
        CT_TRY(ct_aligned_add(out, meta->sign, meta->size, at, at, err));
    }
    for (size_t i = word.begin; i < word.end;) {
        const char *space = memchr(in->text + i, ' ', word.end - i);
        size_t stop = space ? (size_t)(space - in->text) : word.end;
        CT_TRY(ct_aligned_add_part(out, in, i, stop, err));
        if (space)
            CT_TRY(
                ct_aligned_add(out, meta->sign, meta->size, in->begin[stop], in->end[stop], err));
        i = stop + (space != NULL);
    }
done:
    return st;
}

static ct_status add_prefixed(const ct_aligned *in, ct_word word, ct_aligned *out, ct_err *err)
{
    ct_status st = CT_OK;
    uint32_t at = in->begin[word.begin];
    if (in->text[word.begin] != ' ') CT_TRY(ct_aligned_add(out, " ", 1, at, at, err));
    CT_TRY(ct_aligned_add_part(out, in, word.begin, word.end, err));
done:
    return st;
}

typedef enum change { TO_METASPACE, TO_PREFIXED, TO_BYTES } change;

/* Writes every word anew into the text that is not *text, which becomes *text. */
static ct_status change_words(const ct_pretokenizer_step *step, change what,
                              ct_pretokenizer_work *work, const ct_aligned **text, ct_err *err)
{
    ct_aligned *out = &work->texts[*text == &work->texts[0]];
    ct_status st = CT_OK;
    out->size = 0;
    for (size_t i = 0; i < work->words.count; i++) {
        ct_word *word = &work->words.items[i];
        size_t begin = out->size;
        if (what == TO_METASPACE) CT_TRY(add_metaspaced(&step->metaspace, *text, *word, out, err));
        if (what == TO_PREFIXED) CT_TRY(add_prefixed(*text, *word, out, err));
        if (what == TO_BYTES) CT_TRY(ct_byte_level_add(out, *text, word->begin, word->end, err));
        *word = (ct_word){begin, out->size};
    }
    *text = out;
done:
    return st;
}

ct_status ct_pretokenizer_run(const ct_pretokenizer *pretokenizer, const ct_aligned *in,
                              size_t from, size_t to, ct_pretokenizer_work *work,
                              const ct_aligned **out, ct_err *err)
{
    ct_status st = CT_OK;
    *out = in;
    work->texts[0].max = work->texts[1].max = ct_growth_limit(to - from);
    work->words.count = 0;
    CT_TRY(add_word(&work->words, from, to, err));
    for (size_t i = 0; i < pretokenizer->count; i++) {
        const ct_pretokenizer_step *step = &pretokenizer->steps[i];
        if (step->kind == METASPACE) CT_TRY(change_words(step, TO_METASPACE, work, out, err));
        if (step->prefix_space) CT_TRY(change_words(step, TO_PREFIXED, work, out, err));
        bool by_class = step->kind == DIGITS || step->kind == PUNCTUATION;
        if (step->pattern || by_class) {
            work->spare.count = 0;
            for (size_t j = 0; j < work->words.count; j++) {
                ct_word word = work->words.items[j];
                if (by_class) CT_TRY(cut_class(step, (*out)->text, word, &work->spare, err));
                else
                    CT_TRY(cut_pattern(step, (*out)->text, word, &work->search, &work->spare, err));
            }
            ct_words swap = work->words;
            work->words = work->spare;
            work->spare = swap;
        }
        if (step->kind == BYTE_LEVEL) CT_TRY(change_words(step, TO_BYTES, work, out, err));
    }
done:
    return st;
}
