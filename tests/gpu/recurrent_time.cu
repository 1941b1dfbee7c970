/* recurrent_time.cu - how long the elementwise and recurrent operations take on a GPU; see
 * recurrent_check.cu. */
#include "recurrent_check.cuh"

/* Microseconds of one of `copies` calls, recorded together as a graph and replayed. */
static double time_us(int copies, const std::function<void(int)> &call)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    must(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < copies; i++) call(i);
    must(cudaStreamEndCapture(device.stream, &graph), "capture");
    must(device.failed, device.failed_at);
    must(cudaGraphInstantiate(&exec, graph, 0), "graph");
    cudaEvent_t begin, end;
    cudaEventCreate(&begin), cudaEventCreate(&end);
    float best = 1e30f;
    for (int i = 0; i < 12; i++) {
        float ms;
        cudaEventRecord(begin, device.stream);
        must(cudaGraphLaunch(exec, device.stream), "graph");
        cudaEventRecord(end, device.stream);
        must(cudaEventSynchronize(end), "replay");
        cudaEventElapsedTime(&ms, begin, end);
        if (ms < best) best = ms;
    }
    cudaEventDestroy(begin), cudaEventDestroy(end);
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    return (double)best * 1000 / copies;
}

static void told(const char *what, double us, double bytes)
{
    printf("%-52s %8.1f us %7.0f GB/s\n", what, us, bytes / us / 1000);
}

static std::vector<row> generation_rows(int n)
{
    return std::vector<row>(n, row{1, 1000});
}

/* Calls go around LAYERS copies of weights and states, more than a cache holds. */
enum { LAYERS = 26 };

static void time_rglru(int n_rows, int tokens, ct_compute compute)
{
    const int64_t width = 2560, blocks = 10, taps = 4, n = 256;
    bool prefill = tokens > 0;
    ct_op_ctx ctx = {NULL,  0,      compute, prefill ? CT_STAGE_PREFILL : CT_STAGE_GENERATION,
                     false, &device};
    std::vector<row> rows = generation_rows(n_rows);
    if (prefill) rows = {{tokens, 0}};
    int64_t all = tokens_of(rows), layers = prefill ? 2 : LAYERS;
    floats gate = noise(layers * width * n, -0.1f, 0.1f);
    bf16 *gx = to_device(as_bf16(gate)), *ga = to_device(as_bf16(gate));
    float *x = to_device(noise(all * width, -1, 1)), *y = to_device(noise(all * width, -1, 1));
    float *out = to_device(floats(all * width)), *work = to_device(floats(3 * all * width));
    float *conv = to_device(noise(width * taps, -1, 1)), *bias = to_device(noise(width, -9, 0));
    int64_t each = layers * taps * width;
    float *states = to_device(noise(n_rows * each, -1, 1));
    batch_of b(rows, states, each, prefill);
    double us = time_us((int)layers, [&](int i) {
        ct_rglru w = {width,
                      taps,
                      blocks,
                      conv,
                      bias,
                      {gx + i * width * n, CT_BF16, width, n},
                      {ga + i * width * n, CT_BF16, width, n},
                      bias,
                      bias,
                      bias};
        ct_err err;
        if (cuda_rglru(&ctx, out, x, y, &w, work, &b.batch, i * taps * width, &err) != CT_OK)
            failures++;
    });
    char text[96];
    snprintf(text, sizeof text, "rglru 2B, %s, %lld tokens, %d rows",
             compute == CT_COMPUTE_BF16 ? "bf16" : "f32", (long long)all, n_rows);
    told(text, us, 4.0 * 3 * all * width + 2.0 * 2 * width * n + 8.0 * n_rows * taps * width);
    for (void *p : {(void *)gx, (void *)ga, (void *)x, (void *)y, (void *)out, (void *)work,
                    (void *)conv, (void *)bias, (void *)states})
        cudaFree(p);
}

static void time_mamba(int n_rows, int tokens)
{
    const int64_t width = 8192, states_n = 16, taps = 4;
    bool prefill = tokens > 0;
    ct_op_ctx ctx = {
        NULL, 0, CT_COMPUTE_BF16, prefill ? CT_STAGE_PREFILL : CT_STAGE_GENERATION, false, &device};
    std::vector<row> rows = generation_rows(n_rows);
    if (prefill) rows = {{tokens, 0}};
    int64_t all = tokens_of(rows), each = (states_n + taps - 1) * width;
    int layers = prefill ? 2 : LAYERS; /* states only; a_log stays cached */
    float *x = to_device(noise(all * width, -1, 1)), *dt = to_device(noise(all * width, -5, 1));
    float *b_in = to_device(noise(all * states_n, -1, 1)), *y = to_device(floats(all * width));
    float *a_log = to_device(noise(width * states_n, 0, 2.7f)),
          *w = to_device(noise(width * taps, -1, 1));
    float *states = to_device(floats((size_t)n_rows * layers * each));
    batch_of b(rows, states, layers * each, prefill);
    ct_scan scan = {x, dt, b_in, b_in, a_log, w, width, states_n};
    char text[96];
    double us =
        time_us(layers, [&](int i) { cuda_selective_scan(&ctx, y, &scan, &b.batch, i * each); });
    snprintf(text, sizeof text, "selective_scan Jamba-Mini, %lld tokens, %d rows", (long long)all,
             n_rows);
    told(text, us, 4.0 * 3 * all * width + 8.0 * n_rows * states_n * width);
    us = time_us(layers, [&](int i) {
        cuda_conv1d(&ctx, y, x, width, taps, w, w, &b.batch, i * each + states_n * width);
    });
    snprintf(text, sizeof text, "conv1d Jamba-Mini, %lld tokens, %d rows", (long long)all, n_rows);
    told(text, us, 4.0 * 2 * all * width + 8.0 * n_rows * (taps - 1) * width);
    for (float *p : {x, dt, b_in, y, a_log, w, states}) cudaFree(p);
}

static void time_elementwise(int64_t tokens)
{
    ct_op_ctx ctx = {NULL, 0, CT_COMPUTE_BF16, CT_STAGE_PREFILL, false, &device};
    const int64_t width = 2560;
    float *x = to_device(noise(tokens * width, -1, 1)),
          *y = to_device(noise(tokens * width, -1, 1));
    batch_of b({{(int)tokens, 0}}, NULL, 0, true);
    char text[96];
    snprintf(text, sizeof text, "rms_norm, %lld x 2560", (long long)tokens);
    told(text,
         time_us(32, [&](int) { cuda_rms_norm(&ctx, y, x, width, tokens, width, x, 1e-6f, 1); }),
         8.0 * tokens * width);
    snprintf(text, sizeof text, "silu_mul, %lld x 2560", (long long)tokens);
    told(text, time_us(32, [&](int) { cuda_silu_mul(&ctx, y, x, y, tokens * width); }),
         12.0 * tokens * width);
    cudaFree(x), cudaFree(y);
}

void time_all()
{
    time_rglru(1, 4096, CT_COMPUTE_BF16);
    time_rglru(1, 4096, CT_COMPUTE_F32);
    for (int n : {1, 16, 128}) time_rglru(n, 0, CT_COMPUTE_BF16);
    time_mamba(1, 4096);
    for (int n : {1, 16, 128}) time_mamba(n, 0);
    time_elementwise(4096), time_elementwise(16), time_elementwise(1);
}
