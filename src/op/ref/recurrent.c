/* recurrent.c - reference causal convolution, RG-LRU (Griffin, De et al. 2024, section 2.4), and
 * selective scan (Mamba, Gu and Dao 2023, section 3.2).
 */
#include <math.h>

#include "op/ref/ref.h"

void ct_ref_conv1d(ct_op_ctx *ctx, float *y, const float *x, int64_t width, int64_t taps,
                   const float *w, const float *bias, const ct_batch *batch, int64_t state_offset)
{
    (void)ctx;
    const ct_seg *segs = batch->segs;
    for (int64_t s = 0; s < batch->n_segs; s++) {
        float *state = batch->states[s] + state_offset;
        const float *in = x + segs[s].first * width;
        float *out = y + segs[s].first * width;
        int64_t count = segs[s].count, kept = taps - 1;
        for (int64_t t = 0; t < count; t++)
            for (int64_t j = 0; j < width; j++) {
                double sum = bias ? (double)bias[j] : 0;
                for (int64_t k = 0; k < taps; k++) {
                    int64_t from = t - kept + k; /* < 0: before this call, in the state */
                    float v = from < 0 ? state[(from + kept) * width + j] : in[from * width + j];
                    sum += (double)w[j * taps + k] * (double)v;
                }
                out[t * width + j] = (float)sum;
            }
        for (int64_t i = 0; i < kept; i++) { /* ascending: a source row is read before its turn */
            int64_t from = count - kept + i;
            const float *row = from < 0 ? state + (from + kept) * width : in + from * width;
            for (int64_t j = 0; j < width; j++) state[i * width + j] = row[j];
        }
    }
}

static double sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

static double softplus(double v)
{
    return v > 20 ? v : log1p(exp(v));
}

void ct_ref_rg_lru(ct_op_ctx *ctx, float *y, const float *x, const float *gate_x,
                   const float *gate_a, const float *param, int64_t width, const ct_batch *batch,
                   int64_t state_offset)
{
    (void)ctx;
    const ct_seg *segs = batch->segs;
    for (int64_t s = 0; s < batch->n_segs; s++)
        for (int64_t t = 0; t < segs[s].count; t++)
            for (int64_t j = 0; j < width; j++) {
                int64_t at = (segs[s].first + t) * width + j;
                double log_a = -8 * sigmoid((double)gate_a[at]) * softplus((double)param[j]);
                double in = sigmoid((double)gate_x[at]) * (double)x[at];
                bool reset = segs[s].position + t == 0;
                float *state = batch->states[s] + state_offset + j;
                double h = reset ? in : exp(log_a) * (double)*state + sqrt(-expm1(2 * log_a)) * in;
                *state = (float)h;
                y[at] = (float)h;
            }
}

void ct_ref_selective_scan(ct_op_ctx *ctx, float *y, const ct_scan *scan, const ct_batch *batch,
                           int64_t state_offset)
{
    (void)ctx;
    const ct_seg *segs = batch->segs;
    int64_t width = scan->width, states = scan->states;
    for (int64_t s = 0; s < batch->n_segs; s++)
        for (int64_t t = segs[s].first; t < segs[s].first + segs[s].count; t++)
            for (int64_t j = 0; j < width; j++) {
                double x = (double)scan->x[t * width + j];
                double step = softplus((double)scan->dt[t * width + j]);
                double sum = (double)scan->skip[j] * x;
                for (int64_t n = 0; n < states; n++) {
                    float *h = batch->states[s] + state_offset + n * width + j;
                    double rate = exp((double)scan->a_log[j * states + n]);
                    double b = (double)scan->b[t * states + n], c = (double)scan->c[t * states + n];
                    double now = exp(-step * rate) * (double)*h + step * b * x;
                    *h = (float)now;
                    sum += c * now;
                }
                y[t * width + j] = (float)sum;
            }
}
