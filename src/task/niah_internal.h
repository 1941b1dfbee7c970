/* niah_internal.h - the opened haystack, shared by the builder and the request. */
#ifndef CT_TASK_NIAH_INTERNAL_H
#define CT_TASK_NIAH_INTERNAL_H

#include "task/niah.h"

struct ct_niah {
    const ct_tokenizer *tokenizer; /* borrowed */
    char *needle, *question;
    ct_niah_template template_kind;
    bool read_twice;
    int64_t buffer, max_length;
    int32_t *ids; /* the haystack's first max_length + 1 tokens, without BOS */
    size_t n_ids;
    int32_t *needle_ids; /* the needle's, as they are inserted */
    size_t n_needle_ids;
    int32_t *stop_ids; /* those of ".", behind which a needle may stand */
    size_t n_stop_ids;
};

/* The needle without the white space around it, borrowed. Not UTF-8 or nothing left: an error. */
ct_status ct_needle_core(const char *needle, const char **core, size_t *size, ct_err *err) CT_CHECK;

#endif
