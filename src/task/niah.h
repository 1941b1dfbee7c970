/* niah.h - needle in a haystack: prompts with their needle's place, and scores.
 *
 * Owns the prompt builder (that of the thesis's code, byte for byte), the templates, read-twice
 * (JRT), the needle's token span in the ids as fed, and the three scorings. Knows nothing of models
 * or studies. Formulas: docs/semantics.md.
 */
#ifndef CT_TASK_NIAH_H
#define CT_TASK_NIAH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/engine.h>

typedef enum ct_niah_template { CT_NIAH_BASE, CT_NIAH_INSTRUCT } ct_niah_template;

typedef struct ct_niah_options {
    /* Paths of UTF-8 text files, joined in this order without separators; a folder stands for its
     * *.txt files in byte order of their names. */
    const char *const *haystack;
    size_t n_haystack;
    const char *needle, *question;
    ct_niah_template template_kind;
    bool read_twice;
    int64_t buffer; /* tokens left free for template and answer; 200 in the thesis */
} ct_niah_options;

/* The loaded haystack for one tokenizer: text read and encoded once, whatever the number of
 * prompts. */
typedef struct ct_niah ct_niah;

/* Reads and encodes as much of the haystack as prompts up to max_length (at most 2^24) need: 64 KiB
 * and 16 bytes a token, more if their first half gives too few tokens, and whole passes again where
 * it is too short. "\r\n" and "\r" are read as "\n", as Python's text mode does. Strings are
 * copied; the tokenizer is borrowed until ct_niah_close. Empty haystack, needle or question, text
 * that is not UTF-8 (as far as it was read; file and offset are named) or has a NUL: errors. */
ct_status ct_niah_open(const ct_niah_options *options, const ct_tokenizer *tokenizer,
                       int64_t max_length, ct_niah **out, ct_err *err) CT_CHECK;
void ct_niah_close(ct_niah *niah);

/* One prompt. `content` is the text before any chat template (for INSTRUCT: the user's message). */
typedef struct ct_niah_prompt {
    char *content; /* the caller's; ct_niah_prompt_clear frees */
    int64_t length, depth;
} ct_niah_prompt;

/* Builds the prompt of `length` tokens with the needle at `depth` (0 .. 100) per cent of the
 * context, moved back to just behind a full stop, or to the beginning if there is none. A length
 * too short for the needle and the buffer is CT_ERR_VALUE with the least length that works. Several
 * threads may build from one ct_niah. */
ct_status ct_niah_build(const ct_niah *niah, int64_t length, int64_t depth, ct_niah_prompt *out,
                        ct_err *err) CT_CHECK;
void ct_niah_prompt_clear(ct_niah_prompt *prompt);

/* The prompt file of the thesis's code: JSON, indent 2, ASCII-only escapes as json.dump writes
 * them. File name: <tokenizer_name>_<length>_<depth>_prompts.json. The caller frees both. */
ct_status ct_niah_file(const ct_niah *niah, const ct_niah_prompt *prompt, const char *model_name,
                       const char *tokenizer_name, char **file_name, char **json,
                       ct_err *err) CT_CHECK;

/* What the engine is fed: ids with BOS, and the needle in them. */
typedef struct ct_niah_request {
    char *text; /* as encoded, chat template applied */
    size_t text_size;
    int32_t *ids;
    size_t n_ids;
    /* Token spans in ids, sorted, one a copy (one for copies that share a token). NULL if
     * needle_missing. */
    ct_span *needle;
    size_t n_needle;
    size_t needle_begin,
        needle_end;      /* bytes of the first copy in text, white space around it left out */
    bool needle_missing; /* only under needle_span: reference */
} ct_niah_request;

/* Encodes a prompt as it is fed, with exactly one BOS and for INSTRUCT in the tokenizer's chat
 * template, and finds the needle. By its characters (paper): every token that shares one with a
 * copy. As the published code does (needle_span_reference): the first match of the needle's ids
 * without their first and last one, counted without BOS and so one too small. A needle that is not
 * found is CT_ERR_NOT_FOUND under `paper`. */
ct_status ct_niah_request_new(const ct_niah *niah, const ct_niah_prompt *prompt,
                              bool needle_span_reference, ct_niah_request *out,
                              ct_err *err) CT_CHECK;
void ct_niah_request_clear(ct_niah_request *request);
/* The same search for any text and needle (for the command line). */
ct_status ct_needle_find(const ct_tokenizer *tokenizer, const char *text, size_t text_size,
                         const char *needle, bool reference, ct_span **spans, size_t *n_spans,
                         ct_err *err) CT_CHECK;

/* ---- scoring --------------------------------------------------------------------------------- */

typedef enum ct_scoring { CT_SCORING_TABLE, CT_SCORING_REFERENCE, CT_SCORING_BINARY } ct_scoring;

ct_status ct_scoring_parse(const char *name, const char *what, ct_scoring *out,
                           ct_err *err) CT_CHECK;
const char *ct_scoring_name(ct_scoring scoring);

/* A keyword of a scoring: adds points (or sets the score to them) where its cleaned text is in the
 * cleaned answer. */
typedef struct ct_keyword {
    const char *text;
    double points; /* finite, not negative */
    bool set;      /* set the score instead of adding; keywords are taken in their order */
} ct_keyword;

/* Score of an answer (`size` bytes) and the most that it could be. An answer that contains the
 * needle gets *max_score; any other gets what its keywords give, at most *max_score.
 *   keywords NULL: those of the thesis's needle for `scoring`, maximum 5 (`table`: the thesis's
 *     Table 2.1; `reference`: its published code). Another needle is CT_ERR_VALUE, but for
 * `binary`. keywords given: the maximum is what they give to the needle itself. `binary`:
 * *max_score or 0; keywords only set the maximum. Bytes of the answer that are not UTF-8 count as
 * no word characters. */
ct_status ct_score(ct_scoring scoring, const ct_keyword *keywords, size_t n_keywords,
                   const char *needle, const char *answer, size_t size, double *score,
                   double *max_score, ct_err *err) CT_CHECK;
/* Checks needle and keywords as ct_score does, so that a study fails before its first cell. */
ct_status ct_score_check(ct_scoring scoring, const ct_keyword *keywords, size_t n_keywords,
                         const char *needle, ct_err *err) CT_CHECK;
/* What is compared: lower case, everything deleted that is neither word character nor white space,
 * runs of white space one blank, none at the ends; Python's lower(), \w and \s. The caller frees
 * *out. */
ct_status ct_score_clean(const char *text, size_t size, char **out, ct_err *err) CT_CHECK;

#endif
