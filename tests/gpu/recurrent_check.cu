/* recurrent_check.cu - the elementwise and recurrent operations on a GPU against loops in double
 * precision, and their bits in other company and after other cuts.
 *
 * Needs a GPU: built by the target gpu_checks, not run by the suite. Makes its own device and images.
 *
 *   recurrent_check [fast | small]         fast: no timings; small: every kernel at the smallest shapes, for
 *                                          compute-sanitizer
 *
 * Bounds, relative to 1 + |value|: a convolution is a sum of five, 1e-6. A gate is a sum of 256 products
 * whose rounding reaches h through a, 2e-5. A scan multiplies by up to 200 exponentials, each within
 * 2^-22, 5e-5. Exits 1 if something is wrong.
 */
#include "recurrent_check.cuh"

static bool small; /* the smallest shapes that meet every kernel */

typedef std::function<void(ct_op_ctx *, const ct_batch *, int64_t from)> operation;

struct result {
    floats out, states;
};

/* The batch in one call; each row alone; each row alone and cut at multiples of 64 positions. */
enum manner { TOGETHER, ALONE, CUT };

static result run_rows(const operation &op, ct_stage stage, ct_compute compute,
                       const std::vector<row> &rows, const floats &states, const float *out,
                       size_t out_floats, manner how)
{
    ct_op_ctx ctx = {NULL, 0, compute, stage, false, &device};
    bool prefill = stage == CT_STAGE_PREFILL;
    float *d = to_device(states);
    size_t each = states.size() / rows.size();
    must(cudaMemset((void *)out, 0xff, out_floats * sizeof(float)), "memset");
    if (how == TOGETHER) {
        batch_of b(rows, d, each, prefill);
        op(&ctx, &b.batch, 0);
        finish("together");
    } else {
        int64_t from = 0;
        for (size_t s = 0; s < rows.size(); s++)
            for (int done = 0; done < rows[s].count;) {
                int left = rows[s].count - done, position = rows[s].position + done;
                int n = how == CUT ? 64 - position % 64 : left;
                if (n > left) n = left;
                batch_of b({{n, position}}, d + s * each, each, prefill);
                op(&ctx, &b.batch, from);
                finish("alone");
                from += n, done += n;
            }
    }
    result r = {to_host(out, out_floats), to_host(d, states.size())};
    cudaFree(d);
    return r;
}

static bool same_bits(const floats &a, const floats &b)
{
    return memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/* Compares with what was expected, and the three manners with one another. */
static void check_rows(const char *what, const char *shape, const operation &op, ct_stage stage,
                       ct_compute compute, const std::vector<row> &rows, const floats &states,
                       const float *out, const std::vector<double> &want_out,
                       const std::vector<double> &want_states, double bound)
{
    bool prefill = stage == CT_STAGE_PREFILL;
    char text[128];
    snprintf(text, sizeof text, "%s, %s", shape, prefill ? "prefill" : "generation");
    result whole = run_rows(op, stage, compute, rows, states, out, want_out.size(), TOGETHER);
    double error = distance(whole.out, want_out), of_state = distance(whole.states, want_states);
    report(what, text, worse(error, of_state), bound);
    const char *names[] = {"", "row alone", "cut at 64s"};
    for (int how = ALONE; how <= (prefill ? CUT : ALONE); how++) {
        result other =
            run_rows(op, stage, compute, rows, states, out, want_out.size(), (manner)how);
        bool same = same_bits(whole.out, other.out) && same_bits(whole.states, other.states);
        if (!same) {
            failures++;
            printf("%-22s %-52s %s: other bits, WRONG\n", what, text, names[how]);
        }
    }
}

static std::vector<row> rows_of(bool prefill)
{
    std::vector<row> rows;
    const int counts[] = {1, 7, 63, 64, 65, 200, 200}, positions[] = {0, 5, 64, 130, 0, 5, 130};
    if (small && prefill) return {{1, 0}, {70, 5}, {2, 64}, {65, 0}};
    for (int i = 0; i < 7; i++) rows.push_back({prefill ? counts[i] : 1, positions[i]});
    if (!prefill)
        for (int i = 0; i < (small ? 10 : 37); i++) rows.push_back({1, 17 * i});
    else rows.push_back({2, 64});
    return rows;
}

/* ---- expected results ---- */

static double sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

static double softplus(double v)
{
    return v > 30 ? v : log1p(exp(v));
}

static double gelu(double v)
{
    return 0.5 * v * (1 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v)));
}

/* One row; state at its convolution's part. */
static void want_conv(double *y, double *state, const float *x, int count, int64_t width, int taps,
                      const float *w, const float *bias)
{
    int kept = taps - 1;
    std::vector<double> all((size_t)(kept + count) * width);
    for (int64_t i = 0; i < kept * width; i++) all[i] = state[i];
    for (int64_t i = 0; i < count * width; i++) all[kept * width + i] = x[i];
    for (int t = 0; t < count; t++)
        for (int64_t j = 0; j < width; j++) {
            double sum = bias ? bias[j] : 0;
            for (int k = 0; k < taps; k++) sum += w[j * taps + k] * all[(t + k) * width + j];
            y[t * width + j] = sum;
        }
    for (int64_t i = 0; i < kept * width; i++) state[i] = all[count * width + i];
}

/* ---- checks ---- */

static void check_conv(int64_t width, int taps, bool prefill, bool with_bias)
{
    std::vector<row> rows = rows_of(prefill);
    int64_t tokens = tokens_of(rows), offset = 12; /* state_offset */
    size_t each = (size_t)(offset + (taps - 1) * width);
    floats x = noise(tokens * width, -2, 2), w = noise(width * taps, -1, 1);
    floats bias = noise(width, -1, 1), states = noise(each * rows.size(), -2, 2);
    std::vector<double> y(tokens * width), after(states.begin(), states.end());
    int64_t first = 0;
    for (size_t s = 0; s < rows.size(); first += rows[s++].count)
        want_conv(&y[first * width], after.data() + s * each + offset, &x[first * width],
                  rows[s].count, width, taps, w.data(), with_bias ? bias.data() : NULL);
    float *dx = to_device(x), *dw = to_device(w), *db = to_device(bias), *dy = to_device(x);
    char shape[64];
    snprintf(shape, sizeof shape, "R %lld, C %d%s", (long long)width, taps,
             with_bias ? "" : ", no bias");
    check_rows(
        "conv1d", shape,
        [&](ct_op_ctx *ctx, const ct_batch *batch, int64_t from) {
            cuda_conv1d(ctx, dy + from * width, dx + from * width, width, taps, dw,
                        with_bias ? db : NULL, batch, offset);
        },
        prefill ? CT_STAGE_PREFILL : CT_STAGE_GENERATION, CT_COMPUTE_F32, rows, states, dy, y,
        after, 1e-6);
    for (float *p : {dx, dw, db, dy}) cudaFree(p);
}

static void check_rglru(int64_t width, int64_t blocks, int taps, bool prefill, ct_dtype dtype,
                        ct_compute compute)
{
    std::vector<row> rows = rows_of(prefill);
    int64_t tokens = tokens_of(rows), n = width / blocks, offset = 8;
    size_t each = (size_t)(offset + taps * width);
    float scale = 3 / sqrtf((float)n);
    floats x = noise(tokens * width, -2, 2), y = noise(tokens * width, -4, 4);
    floats conv = noise(width * taps, -1, 1), conv_bias = noise(width, -1, 1);
    floats gx = noise(width * n, -scale, scale), ga = noise(width * n, -scale, scale);
    floats bx = noise(width, -1, 1), ba = noise(width, -1, 1), param = noise(width, -9, 1);
    floats states = noise(each * rows.size(), -2, 2);
    void *dgx, *dga;
    if (dtype == CT_BF16) dgx = to_device(as_bf16(gx)), dga = to_device(as_bf16(ga));
    else dgx = to_device(gx), dga = to_device(ga);

    std::vector<double> want(tokens * width), after(states.begin(), states.end());
    std::vector<double> c(tokens * width), sum_x(n), sum_a(n);
    int64_t first = 0;
    for (size_t s = 0; s < rows.size(); first += rows[s++].count) {
        double *h = after.data() + s * each + offset;
        want_conv(&c[first * width], h + width, &x[first * width], rows[s].count, width, taps,
                  conv.data(), conv_bias.data());
        for (int64_t t = first; t < first + rows[s].count; t++)
            for (int64_t b = 0; b < blocks; b++) {
                for (int64_t j = 0; j < n; j++) sum_x[j] = bx[b * n + j], sum_a[j] = ba[b * n + j];
                for (int64_t i = 0; i < n; i++) {
                    double v = c[t * width + b * n + i];
                    const float *wx = &gx[(b * n + i) * n], *wa = &ga[(b * n + i) * n];
                    for (int64_t j = 0; j < n; j++) sum_x[j] += v * wx[j], sum_a[j] += v * wa[j];
                }
                for (int64_t j = 0; j < n; j++) {
                    int64_t channel = b * n + j;
                    double log_a = -8 * sigmoid(sum_a[j]) * softplus(param[channel]);
                    double in = sigmoid(sum_x[j]) * c[t * width + channel];
                    bool reset = rows[s].position + (t - first) == 0;
                    h[channel] =
                        reset ? in : exp(log_a) * h[channel] + sqrt(-expm1(2 * log_a)) * in;
                    want[t * width + channel] = h[channel] * gelu(y[t * width + channel]);
                }
            }
    }
    float *dx = to_device(x), *dy = to_device(y), *out = to_device(x), *dconv = to_device(conv);
    float *dconv_bias = to_device(conv_bias), *dbx = to_device(bx), *dba = to_device(ba);
    float *dparam = to_device(param), *work = to_device(floats(3 * tokens * width));
    ct_rglru w = {
        width, taps, blocks, dconv, dconv_bias, {dgx, dtype, width, n}, {dga, dtype, width, n},
        dbx,   dba,  dparam};
    char shape[64];
    snprintf(shape, sizeof shape, "R %lld / %lld, C %d, %s in %s", (long long)width,
             (long long)blocks, taps, dtype == CT_BF16 ? "bf16" : "f32",
             compute == CT_COMPUTE_BF16 ? "bf16" : "f32");
    check_rows(
        "rglru", shape,
        [&](ct_op_ctx *ctx, const ct_batch *batch, int64_t from) {
            ct_err err = {};
            if (cuda_rglru(ctx, out + from * width, dx + from * width, dy + from * width, &w, work,
                           batch, offset, &err) != CT_OK) {
                failures++;
                printf("rglru: %s\n", err.text);
            }
        },
        prefill ? CT_STAGE_PREFILL : CT_STAGE_GENERATION, compute, rows, states, out, want, after,
        2e-5);
    for (void *p : {(void *)dx, (void *)dy, (void *)out, (void *)dconv, (void *)dconv_bias,
                    (void *)dbx, (void *)dba, (void *)dparam, (void *)work, dgx, dga})
        cudaFree(p);
}

static void check_scan(int64_t width, int64_t states_n, bool prefill)
{
    std::vector<row> rows = rows_of(prefill);
    int64_t tokens = tokens_of(rows), offset = 4;
    size_t each = (size_t)(offset + states_n * width);
    floats x = noise(tokens * width, -2, 2), dt = noise(tokens * width, -8, 3);
    floats b = noise(tokens * states_n, -1, 1), c = noise(tokens * states_n, -1, 1);
    floats a_log = noise(width * states_n, -2, 3), skip = noise(width, -1, 1);
    floats states = noise(each * rows.size(), -2, 2);
    std::vector<double> want(tokens * width), after(states.begin(), states.end());
    int64_t first = 0;
    for (size_t s = 0; s < rows.size(); first += rows[s++].count)
        for (int64_t t = first; t < first + rows[s].count; t++)
            for (int64_t j = 0; j < width; j++) {
                double d = softplus(dt[t * width + j]), in = x[t * width + j], sum = skip[j] * in;
                for (int64_t n = 0; n < states_n; n++) {
                    double *h = &after[s * each + offset + n * width + j];
                    *h = exp(-d * exp(a_log[j * states_n + n])) * *h + d * b[t * states_n + n] * in;
                    sum += c[t * states_n + n] * *h;
                }
                want[t * width + j] = sum;
            }
    float *dx = to_device(x), *ddt = to_device(dt), *db = to_device(b), *dc = to_device(c);
    float *da = to_device(a_log), *dskip = to_device(skip), *y = to_device(x);
    char shape[64];
    snprintf(shape, sizeof shape, "R %lld, N %lld, y = x", (long long)width, (long long)states_n);
    check_rows(
        "selective_scan", shape,
        [&](ct_op_ctx *ctx, const ct_batch *batch, int64_t from) {
            size_t bytes = (size_t)batch_image(*(batch_image *)batch->image).tokens * width * 4;
            must(cudaMemcpyAsync(y + from * width, dx + from * width, bytes,
                                 cudaMemcpyDeviceToDevice, device.stream),
                 "copy");
            ct_scan scan = {y + from * width,
                            ddt + from * width,
                            db + from * states_n,
                            dc + from * states_n,
                            da,
                            dskip,
                            width,
                            states_n};
            cuda_selective_scan(ctx, y + from * width, &scan, batch, offset);
        },
        prefill ? CT_STAGE_PREFILL : CT_STAGE_GENERATION, CT_COMPUTE_F32, rows, states, y, want,
        after, 5e-5);
    for (float *p : {dx, ddt, db, dc, da, dskip, y}) cudaFree(p);
}

static void check_norm(int64_t width, int64_t stride, float offset)
{
    ct_op_ctx ctx = {NULL, 0, CT_COMPUTE_F32, CT_STAGE_PREFILL, false, &device};
    int64_t tokens = 37;
    floats x = noise(tokens * stride, -3, 3), w = noise(width, -1, 1);
    std::vector<double> want(tokens * width);
    for (int64_t t = 0; t < tokens; t++) {
        double sum = 0;
        for (int64_t i = 0; i < width; i++) sum += (double)x[t * stride + i] * x[t * stride + i];
        double scale = 1 / sqrt(sum / width + 1e-6);
        for (int64_t i = 0; i < width; i++)
            want[t * width + i] = x[t * stride + i] * scale * ((double)offset + w[i]);
    }
    float *dx = to_device(x), *dw = to_device(w), *dy = to_device(floats(tokens * width + 1));
    cuda_rms_norm(&ctx, dy, dx, stride, tokens, width, dw, 1e-6f, offset);
    finish("rms_norm");
    floats whole = to_host(dy, tokens * width);
    char shape[64];
    snprintf(shape, sizeof shape, "width %lld, stride %lld", (long long)width, (long long)stride);
    report("rms_norm", shape, distance(whole, want), 3e-6);
    /* Another border, another company: the same bits. */
    cuda_rms_norm(&ctx, dy + 1, dx + stride, stride, 1, width, dw, 1e-6f, offset);
    finish("rms_norm");
    floats one = to_host(dy + 1, width);
    if (memcmp(one.data(), &whole[width], width * sizeof(float))) {
        failures++;
        printf("rms_norm: other bits alone, WRONG\n");
    }
    for (float *p : {dx, dw, dy}) cudaFree(p);
}

static void check_rest(int64_t width)
{
    ct_op_ctx ctx = {NULL, 0, CT_COMPUTE_F32, CT_STAGE_PREFILL, false, &device};
    char shape[64];
    snprintf(shape, sizeof shape, "width %lld", (long long)width);
    const std::vector<int32_t> ids = {3, 0, 12, 3, 7}, wanted = {1, 4};
    floats table = noise(13 * width, -2, 2);
    std::vector<bf16> narrow = as_bf16(table); /* exact in bf16; and in f16 once cut to 7 bits */
    std::vector<__half> half(table.size());
    for (size_t i = 0; i < table.size(); i++) half[i] = __float2half(table[i]);
    void *tables[] = {to_device(table), to_device(half), to_device(narrow)};
    const ct_dtype types[] = {CT_F32, CT_F16, CT_BF16};
    const char *names[] = {"embed f32", "embed f16", "embed bf16"};
    float *x = to_device(floats(5 * width)), *y = to_device(floats(5 * width));
    batch_of b({{5, 0}}, NULL, 0, true);
    b.image.ids = b.put(ids), b.image.wanted = b.put(wanted), b.image.n_wanted = 2;
    for (int k = 0; k < 3; k++) {
        std::vector<double> want;
        for (int32_t id : ids)
            for (int64_t i = 0; i < width; i++)
                want.push_back(
                    (k == 1 ? __half2float(half[id * width + i]) : table[id * width + i]) * 1.5f);
        ct_matrix matrix = {tables[k], types[k], 13, width};
        cuda_embed(&ctx, x, &b.batch, &matrix, 1.5f);
        finish("embed");
        report(names[k], shape, distance(to_host(x, want.size()), want), 0);
    }
    floats rows = to_host(x, 5 * width);
    std::vector<double> want;
    for (int32_t t : wanted)
        for (int64_t i = 0; i < width; i++) want.push_back(rows[t * width + i]);
    cuda_pick(&ctx, y, x, &b.batch, width);
    finish("pick");
    report("pick", shape, distance(to_host(y, want.size()), want), 0);
    floats a = noise(5 * width, -30, 30);
    for (int with = 0; with < 2; with++) {
        want.clear();
        for (size_t i = 0; i < a.size(); i++)
            want.push_back(a[i] * sigmoid(a[i]) * (with ? (double)rows[i] : 1.0));
        must(cudaMemcpy(y, a.data(), a.size() * sizeof(float), cudaMemcpyHostToDevice), "copy");
        cuda_silu_mul(&ctx, y, y, with ? x : NULL, (int64_t)a.size());
        finish("silu_mul");
        report("silu_mul", shape, distance(to_host(y, want.size()), want), 2e-6);
    }
    for (void *p : {tables[0], tables[1], tables[2], (void *)x, (void *)y}) cudaFree(p);
}

/* ---- kernels that begin before the one ahead of them is done ---- */

/* Layers whose every kernel reads what the last one wrote, or writes what it read: with a wait after each
 * operation, then in stream order, then recorded and replayed. The bits are the same. */
static void check_chain(int n_rows)
{
    enum { CHAIN = 6 };
    const int REPLAYS = small ? 1 : 50, links = small ? 2 : CHAIN;
    const int64_t width = 512, blocks = 2, taps = 4, n = 256, each = (taps + 16) * width;
    ct_op_ctx ctx = {NULL, 0, CT_COMPUTE_BF16, CT_STAGE_GENERATION, false, &device};
    std::vector<row> rows(n_rows, row{1, 77});
    floats gate = noise(width * n, -0.1f, 0.1f);
    bf16 *gates = to_device(as_bf16(gate));
    const floats start = noise(n_rows * width, -1, 1), old = noise(n_rows * CHAIN * each, -1, 1);
    float *x = to_device(start), *states = to_device(old);
    float *y = to_device(start), *u = to_device(start), *z = to_device(start);
    float *work = to_device(floats(3 * start.size()));
    float *conv = to_device(noise(width * taps, -1, 1)), *bias = to_device(noise(width, -9, 0));
    float *a_log = to_device(noise(width * 16, 0, 2)), *gain = to_device(noise(width, -1, 1));
    float *b_in = to_device(noise(n_rows * 16, -1, 1));
    batch_of b(rows, states, CHAIN * each, false);
    std::vector<int32_t> order(n_rows);
    for (int i = 0; i < n_rows; i++) order[i] = n_rows - 1 - i;
    b.image.wanted = b.put(order), b.image.n_wanted = n_rows;
    const ct_rglru w = {
        width, taps, blocks, conv, bias, {gates, CT_BF16, width, n}, {gates, CT_BF16, width, n},
        bias,  bias, bias};
    auto restart = [&] {
        must(cudaMemcpyAsync(x, start.data(), start.size() * 4, cudaMemcpyHostToDevice,
                             device.stream),
             "copy");
        must(cudaMemcpyAsync(states, old.data(), old.size() * 4, cudaMemcpyHostToDevice,
                             device.stream),
             "copy");
    };
    auto chain = [&](bool waits) {
        auto done = [&] {
            if (waits) finish("chain");
        };
        for (int i = 0; i < links; i++) {
            ct_err err;
            cuda_rms_norm(&ctx, y, x, width, n_rows, width, gain, 1e-6f, 1), done();
            cuda_silu_mul(&ctx, u, y, NULL, n_rows * width), done(); /* values must not grow */
            if (cuda_rglru(&ctx, z, y, u, &w, work, &b.batch, i * each, &err)) failures++;
            done();
            cuda_pick(&ctx, y, z, &b.batch, width), done();
            ct_scan scan = {y, u, b_in, b_in, a_log, gain, width, 16};
            cuda_selective_scan(&ctx, y, &scan, &b.batch, i * each + taps * width), done();
            cuda_rms_norm(&ctx, z, y, 64, n_rows * width / 64, 64, gain, 1e-6f, 1), done();
            cuda_silu_mul(&ctx, x, z, y, n_rows * width), done();
        }
    };
    auto result = [&] {
        finish("chain");
        floats all = to_host(x, start.size()), after = to_host(states, old.size());
        all.insert(all.end(), after.begin(), after.end());
        return all;
    };
    restart(), chain(true);
    const floats want = result();
    int wrong = 0;
    for (int i = 0; i < REPLAYS; i++) {
        restart(), chain(false);
        floats got = result();
        wrong += memcmp(got.data(), want.data(), want.size() * 4) != 0;
    }
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    must(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
    chain(false);
    must(cudaStreamEndCapture(device.stream, &graph), "capture");
    must(cudaGraphInstantiate(&exec, graph, 0), "graph");
    for (int i = 0; i < REPLAYS; i++) {
        restart();
        must(cudaGraphLaunch(exec, device.stream), "graph");
        floats got = result();
        wrong += memcmp(got.data(), want.data(), want.size() * 4) != 0;
    }
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    bool number = true;
    for (float v : want) number = number && std::isfinite(v);
    char shape[64];
    snprintf(shape, sizeof shape, "%d rows, %d passes in other bits", n_rows, wrong);
    report("chain", shape, number ? wrong : NAN, 0);
    for (void *p :
         {(void *)gates, (void *)x, (void *)states, (void *)y, (void *)u, (void *)z, (void *)work,
          (void *)conv, (void *)bias, (void *)a_log, (void *)gain, (void *)b_in})
        cudaFree(p);
}

static void check_all(void)
{
    for (int64_t width : {1, 24, 100, 2560}) check_rest(width);
    check_norm(16, 288, 0), check_norm(7, 9, 1), check_norm(256, 256, 0), check_norm(100, 100, 1);
    check_norm(2560, 2560, 1), check_norm(513, 600, 0), check_norm(4096, 4100, 0);
    check_norm(5000, 5000, 1);
    for (int n : {1, 5, 20}) check_chain(n);
    for (int prefill = 0; prefill < 2; prefill++) {
        for (int64_t width : {1, 24, 100, 2560})
            for (int taps = 1; taps <= 5; taps++) check_conv(width, taps, prefill, taps % 2);
        for (int taps = 1; taps <= 5; taps++) {
            check_rglru(24, 2, taps, prefill, CT_F32, CT_COMPUTE_F32);
            check_rglru(100, 1, taps, prefill, CT_BF16, CT_COMPUTE_BF16);
            check_rglru(7, 7, taps, prefill, CT_BF16, CT_COMPUTE_BF16);
            check_rglru(512, 2, taps, prefill, CT_BF16, CT_COMPUTE_BF16);
        }
        check_rglru(2560, 10, 4, prefill, CT_BF16, CT_COMPUTE_BF16);
        check_rglru(2560, 10, 4, prefill, CT_BF16, CT_COMPUTE_F32);
        check_rglru(2560, 10, 4, prefill, CT_F32, CT_COMPUTE_F32);
        for (int64_t width : {1, 24, 100, 1024}) {
            check_scan(width, 16, prefill);
            check_scan(width, 5, prefill);
            check_scan(width, 64, prefill);
        }
    }
}

/* Wide and narrow loads, few and many taps, gates with and without tensor cores (of two blocks, and of one
 * that is cut into slices), states that are unrolled and that are not; more rows than a thread block takes. */
static void check_small(void)
{
    check_rest(24), check_rest(1);
    check_norm(16, 288, 0), check_norm(7, 9, 1), check_norm(2560, 2560, 1), check_norm(513, 600, 0);
    check_norm(4096, 4100, 0), check_norm(5000, 5000, 1);
    check_chain(17);
    for (int prefill = 0; prefill < 2; prefill++) {
        check_conv(1, 4, prefill, true), check_conv(100, 4, prefill, false);
        check_conv(24, 5, prefill, true), check_conv(24, 1, prefill, true);
        check_rglru(7, 7, 4, prefill, CT_BF16, CT_COMPUTE_BF16);
        check_rglru(100, 1, 4, prefill, CT_F32, CT_COMPUTE_F32);
        check_rglru(24, 2, 5, prefill, CT_BF16, CT_COMPUTE_F32);
        check_rglru(512, 2, 4, prefill, CT_BF16, CT_COMPUTE_BF16);
        check_scan(100, 16, prefill), check_scan(24, 5, prefill);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    must(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking), "stream");
    small = !strcmp(what, "small");
    if (small) check_small();
    else check_all();
    if (!*what) time_all();
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
