/* heads.c - choosing heads by score, and zeroing the others. */
#include <math.h>
#include <string.h>

#include "op/ref/ref.h"

void ct_ref_select_heads(uint8_t *keep, const float *score, const int32_t *k, int64_t tokens,
                         int64_t heads)
{
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t h = 0; h < heads; h++) {
            const float *row = score + t * heads;
            float own = isnan(row[h]) ? -INFINITY : row[h];
            int64_t better = 0;
            for (int64_t o = 0; o < heads; o++) {
                float other = isnan(row[o]) ? -INFINITY : row[o];
                better += other > own || (other == own && o < h);
            }
            keep[t * heads + h] = k[t] < 0 || better < k[t];
        }
}

void ct_ref_mask_heads(float *x, const uint8_t *keep, int64_t tokens, int64_t heads,
                       int64_t head_dim)
{
    for (int64_t i = 0; i < tokens * heads; i++)
        if (!keep[i]) memset(x + i * head_dim, 0, (size_t)head_dim * sizeof *x);
}
