/* recurrent_check.cu - the elementwise and recurrent operations on a GPU against loops in double
 * precision, their bits in other company and after other cuts, and their times.
 *
 * Needs a GPU: built by the target gpu_checks, not run by the suite. Makes its own device and images.
 *
 *   recurrent_check [fast]         fast: no timings
 *
 * Bounds, relative to 1 + |value|: a convolution is a sum of five, 1e-6. A gate is a sum of 256 products
 * whose rounding reaches h through a, 2e-5. A scan multiplies by up to 200 exponentials, each within
 * 2^-22, 5e-5. Exits 1 if something is wrong.
 */
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "op/cuda/device.cuh"

/* All that the operations need of base/. */
extern "C" ct_status ct_fail(ct_err *err, ct_status status, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    return err->status = status;
}

typedef std::vector<float> floats;

static int failures;
static ct_device device;

static void must(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    printf("%s: %s\n", what, cudaGetErrorString(error));
    exit(2);
}

static void finish(const char *what)
{
    must(device.failed, device.failed_at);
    must(cudaStreamSynchronize(device.stream), what);
}

template <typename T> static T *to_device(const std::vector<T> &from)
{
    T *to;
    must(cudaMalloc(&to, (from.size() + 1) * sizeof(T)), "malloc");
    must(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
    return to;
}

template <typename T> static std::vector<T> to_host(const T *from, size_t n)
{
    std::vector<T> to(n);
    must(cudaMemcpy(to.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return to;
}

static uint64_t seed = 1;

static float uniform(float low, float high)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (float)(seed >> 40) / (float)(1 << 24);
}

static floats noise(size_t n, float low, float high)
{
    floats v(n);
    for (float &x : v) x = uniform(low, high);
    return v;
}

static std::vector<bf16> as_bf16(floats &v) /* and rounds v itself */
{
    std::vector<bf16> to(v.size());
    for (size_t i = 0; i < v.size(); i++) {
        to[i] = __float2bfloat16(v[i]);
        v[i] = __bfloat162float(to[i]);
    }
    return to;
}

static void report(const char *what, const char *shape, double error, double bound)
{
    bool good = error <= bound; /* false for NaN */
    if (!good) failures++;
    printf("%-22s %-52s %9.2e %s\n", what, shape, error, good ? "ok" : "WRONG");
}

/* The larger; not a number if one is not. */
static double worse(double a, double b)
{
    return a >= b || std::isnan(a) ? a : b;
}

static double distance(const floats &got, const std::vector<double> &want)
{
    double most = 0;
    for (size_t i = 0; i < want.size(); i++) {
        double d = fabs((double)got[i] - want[i]) / (1 + fabs(want[i]));
        most = worse(most, d);
    }
    return most;
}

/* ---- a batch and its image ---- */

struct row {
    int count, position;
};

struct batch_of {
    batch_image image;
    ct_batch batch;
    std::vector<void *> owned;

    template <typename T> const T *put(const std::vector<T> &v)
    {
        T *p = to_device(v);
        owned.push_back(p);
        return p;
    }

    /* Row r's state is states + r * state_floats. */
    batch_of(const std::vector<row> &rows, float *states, size_t state_floats, bool prefill)
    {
        std::vector<image_token> tokens;
        std::vector<image_seg> segs;
        std::vector<image_chunk> chunks;
        std::vector<int32_t> seg_chunk;
        for (size_t s = 0; s < rows.size(); s++) {
            row r = rows[s];
            image_seg seg = {};
            seg.first = (int32_t)tokens.size(), seg.count = r.count, seg.position = r.position;
            seg.state = states + s * state_floats;
            segs.push_back(seg);
            seg_chunk.push_back((int32_t)chunks.size());
            for (int t = 0; t < r.count; t++) {
                if (t == 0 || (r.position + t) % CHUNK_TOKENS == 0)
                    chunks.push_back({(int32_t)s, (int32_t)tokens.size(), 0});
                chunks.back().count++;
                tokens.push_back({(int32_t)s, 0, r.position + t});
            }
        }
        if (!prefill) chunks.clear();
        memset(&image, 0, sizeof image);
        memset(&batch, 0, sizeof batch);
        image.tokens = (int32_t)tokens.size(), image.n_segs = (int32_t)rows.size();
        image.n_chunks = (int32_t)chunks.size();
        image.token = put(tokens), image.seg = put(segs), image.chunk = put(chunks);
        image.seg_chunk = put(seg_chunk);
        batch.image = &image;
    }
    ~batch_of()
    {
        for (void *p : owned) cudaFree(p);
    }
};

/* An operation with a state on its inputs, tokens `from` on of all that were made. */
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
    for (int i = 0; i < 7; i++) rows.push_back({prefill ? counts[i] : 1, positions[i]});
    if (!prefill)
        for (int i = 0; i < 37; i++) rows.push_back({1, 17 * i});
    else rows.push_back({2, 64});
    return rows;
}

static int64_t tokens_of(const std::vector<row> &rows)
{
    int64_t n = 0;
    for (row r : rows) n += r.count;
    return n;
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
    enum { CHAIN = 6, REPLAYS = 50 };
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
        for (int i = 0; i < CHAIN; i++) {
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

/* ---- times ---- */

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
    ct_op_ctx ctx = {NULL, 0, compute, prefill ? CT_STAGE_PREFILL : CT_STAGE_GENERATION, false, &device};
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
    ct_op_ctx ctx = {NULL, 0, CT_COMPUTE_BF16, prefill ? CT_STAGE_PREFILL : CT_STAGE_GENERATION,
                     false, &device};
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

int main(int argc, char **argv)
{
    must(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking), "stream");
    for (int64_t width : {1, 24, 100, 2560}) check_rest(width);
    check_norm(16, 288, 0), check_norm(7, 9, 1), check_norm(256, 256, 0), check_norm(100, 100, 1);
    check_norm(2560, 2560, 1), check_norm(513, 600, 0), check_norm(4096, 4100, 0);
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
    if (argc < 2 || strcmp(argv[1], "fast")) {
        time_rglru(1, 4096, CT_COMPUTE_BF16);
        time_rglru(1, 4096, CT_COMPUTE_F32);
        for (int n : {1, 16, 128}) time_rglru(n, 0, CT_COMPUTE_BF16);
        time_mamba(1, 4096);
        for (int n : {1, 16, 128}) time_mamba(n, 0);
        time_elementwise(4096), time_elementwise(16), time_elementwise(1);
    }
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
