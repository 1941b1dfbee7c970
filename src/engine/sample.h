/* sample.h - choosing a token from logits. */
#ifndef CT_ENGINE_SAMPLE_H
#define CT_ENGINE_SAMPLE_H

#include <stdint.h>

#include <cortado/engine.h>

/* Checks temperature >= 0, 0 <= top_p <= 1, top_k >= 0. */
ct_status ct_sampling_check(const ct_sampling *sampling, ct_err *err) CT_CHECK;

/* *id = the token of generation step `step` from logits [vocab]. Greedy at temperature 0: the first
 * maximum. Else from softmax(logits / temperature), cut to the top_k most probable tokens and then
 * to the fewest of them whose probability reaches top_p, by one uniform number that depends on
 * (seed, step) alone. NaN logits are CT_ERR_VALUE. */
ct_status ct_sample(const ct_sampling *sampling, const float *logits, int64_t vocab, int64_t step,
                    int32_t *id, ct_err *err) CT_CHECK;

/* The error of logits of which `token`'s is not a number: CT_ERR_VALUE. */
ct_status ct_sample_not_a_number(int64_t step, int64_t token, ct_err *err);

#endif
