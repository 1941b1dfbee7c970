/* postprocess.c - post-processors. See postprocess.h. */
#include "tok/postprocess.h"

#include <stdlib.h>
#include <string.h>

#include "tok/fields.h"
#include "tok/list.h"

static const char where[] = "post_processor";

void ct_postprocessor_clear(ct_postprocessor *post)
{
    free(post->ids);
    *post = (ct_postprocessor){0};
}

/* Adds the ids of one entry of "special_tokens". */
static ct_status add_ids(ct_postprocessor *post, ct_scan entry, ct_err *err)
{
    static const char *const names[] = {"ids"};
    ct_scan list;
    bool first = true;
    ct_status st = CT_OK;
    CT_TRY(ct_fields_read(entry, "post_processor.special_tokens", names, 1, &list, err));
    if (!list.at || ct_scan_peek(&list) != '[')
        return ct_fail(err, CT_ERR_FORMAT, "%s.special_tokens: expected an array \"ids\"", where);
    list.at++;
    while (ct_scan_next_element(&list, &first)) {
        int64_t id = 0;
        CT_TRY(ct_field_int(list, "post_processor.special_tokens", "ids", INT32_MAX, &id, err));
        if (ct_vocab_find_id(post->vocab, id) == CT_NO_TOKEN)
            return ct_fail(err, CT_ERR_VALUE,
                           "%s.special_tokens: expected ids of the vocabulary, got %lld", where,
                           (long long)id);
        if (post->count == CT_PARTS_MAX)
            return ct_fail(err, CT_ERR_LIMIT, "%s: expected at most %d ids", where, CT_PARTS_MAX);
        int32_t *ids = ct_list_grow(post->ids, post->count, sizeof *ids);
        if (!ids) return ct_fail_memory(err, where, (post->count + 1) * sizeof *ids);
        post->ids = ids;
        post->ids[post->count++] = (int32_t)id;
        if (!ct_scan_skip(&list)) break;
    }
done:
    return st;
}

/* Adds the ids of the special token named in `piece`, as "special_tokens" lists them. */
static ct_status add_special(ct_postprocessor *post, ct_scan piece, ct_scan specials, ct_err *err)
{
    static const char *const names[] = {"id"};
    ct_scan value;
    ct_scan_text key;
    char *name = NULL;
    bool first = true;
    ct_status st = CT_OK;
    CT_TRY(ct_fields_read(piece, "post_processor.single", names, 1, &value, err));
    CT_TRY(ct_field_text(value, "post_processor.single", "id", &name, NULL, err));
    if (specials.at && ct_scan_peek(&specials) == '{') {
        specials.at++;
        while (ct_scan_next_key(&specials, &first, &key)) {
            if (ct_scan_equal(key, name)) {
                st = add_ids(post, specials, err);
                goto done;
            }
            if (!ct_scan_skip(&specials)) break;
        }
    }
    st = ct_fail(err, CT_ERR_NOT_FOUND,
                 "%s.single: expected a token of special_tokens, got \"%.*s\"", where,
                 CT_SHOWN(name, strlen(name)));
done:
    free(name);
    return st;
}

static ct_status read_part(void *into, ct_scan object, ct_err *err)
{
    static const char *const kinds[] = {"TemplateProcessing", "ByteLevel"};
    enum { SINGLE, SPECIALS, N };
    static const char *const names[] = {"single", "special_tokens"};
    static const char *const pieces[] = {"SpecialToken", "Sequence"};
    static const char *const id[] = {"id"};
    ct_postprocessor *post = into;
    ct_scan v[N], piece[2], which;
    ct_scan_text text;
    size_t kind, texts = 0;
    bool first = true;
    ct_status st = CT_OK;
    CT_TRY(ct_field_kind(object, where, kinds, 2, &kind, err));
    if (kind == 1) return CT_OK;
    if (post->given)
        return ct_fail(err, CT_ERR_UNSUPPORTED, "%s: expected one TemplateProcessing, got two",
                       where);
    post->given = true;
    CT_TRY(ct_fields_read(object, where, names, N, v, err));
    if (!v[SINGLE].at || ct_scan_peek(&v[SINGLE]) != '[')
        return ct_fail(err, CT_ERR_FORMAT, "%s.single: expected an array", where);
    v[SINGLE].at++;
    for (size_t n = 0; ct_scan_next_element(&v[SINGLE], &first); n++) {
        if (n == CT_PARTS_MAX)
            return ct_fail(err, CT_ERR_LIMIT, "%s.single: expected at most %d pieces", where,
                           CT_PARTS_MAX);
        CT_TRY(ct_fields_read(v[SINGLE], "post_processor.single", pieces, 2, piece, err));
        if (piece[0].at) CT_TRY(add_special(post, piece[0], v[SPECIALS], err));
        else {
            CT_TRY(ct_fields_read(piece[1], "post_processor.single", id, 1, &which, err));
            if (!which.at || !ct_scan_string(&which, &text) || !ct_scan_equal(text, "A")) texts = 1;
            texts++;
            post->before = post->count;
        }
        if (!ct_scan_skip(&v[SINGLE])) break;
    }
    if (texts != 1)
        return ct_fail(err, CT_ERR_UNSUPPORTED, "%s.single: expected the sequence A, once", where);
done:
    return st;
}

ct_status ct_postprocessor_read(ct_postprocessor *post, ct_scan value, const ct_vocab *vocab,
                                ct_err *err)
{
    if (!value.at) return CT_OK;
    post->vocab = vocab;
    return ct_fields_flatten(value, where, "processors", read_part, post, err);
}
