/* heads.c - how many heads a token keeps, and the scores that choose them. See intervene.h.
 *
 * A score is built such that the highest win; equal scores go to the lowest head index in the
 * select_heads operation.
 */
#include "base/rng.h"
#include "intervene/intervene.h"

int32_t ct_heads_keep(const ct_intervention *iv, ct_stage stage)
{
    return iv && iv->heads.active[stage] ? iv->heads.keep : -1;
}

void ct_heads_score(const ct_head_selection *selection, int64_t layer, int64_t position,
                    int64_t heads, const float *entropy_bits, const float *l2, float *score)
{
    switch (selection->metric) {
    case CT_METRIC_ENTROPY:
        for (int64_t h = 0; h < heads; h++) score[h] = -entropy_bits[h];
        break;
    case CT_METRIC_L2:
        for (int64_t h = 0; h < heads; h++) score[h] = l2[h];
        break;
    case CT_METRIC_ENTROPY_INVERTED:
        for (int64_t h = 0; h < heads; h++) score[h] = entropy_bits[h];
        break;
    case CT_METRIC_RANDOM:
        for (int64_t h = 0; h < heads; h++)
            score[h] =
                ct_rng_f32(selection->seed, (uint64_t)layer, (uint64_t)(position * heads + h));
        break;
    }
}
