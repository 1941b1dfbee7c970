/* gemm_check.cu - the GPU's products against the host's in double, and their independence of company bit by
 * bit. Needs a GPU: built by the target gpu_checks, not run by the suite.
 *
 *   gemm_check [check | small | own | time | time-generation]
 *                                                          small: every kernel at the smallest shapes, for
 *                                                          compute-sanitizer; own: without cuBLASLt's
 *   gemm_check product TOKENS ROWS COLUMNS                 one product of generation in bf16, likewise
 *
 * Exit status 1 if anything differs.
 */
#include "gemm_check.cuh"

static bool small; /* the smallest shapes that meet every kernel */
static int processors;

/* ---- against double -------------------------------------------------------------------------- */

/* An output may be off by the rounding of a sum of K terms: half an ulp of the partial sum for each
 * addition, which add up as sqrt(K); tensor cores cut instead of rounding, hence the 4. */
static void check_product(const mode *m, int64_t M, int64_t N, int64_t K, bool with_bias,
                          bool accumulate)
{
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(M * K, 1), y = random_vec(M * N, 1), bias = random_vec(N, 1);
    mat w = random_mat(N, K, m->dtype, 1);
    need_ok(cuda_matmul(&ctx, y.d, x.d, M, &w.d, with_bias ? bias.d : NULL, accumulate, &err),
            m->name);
    float *got = to_host(y.d, M * N);
    int64_t bad = -1;
    for (int64_t t = 0; t < M; t++)
        for (int64_t n = 0; n < N; n++) {
            double sum = 0, size = 1;
            for (int64_t k = 0; k < K; k++) {
                float u = x.h[t * K + k];
                if (m->compute == CT_COMPUTE_BF16) u = round_bf16(u);
                sum += (double)u * w.h[n * K + k];
                size += fabs((double)u * w.h[n * K + k]);
            }
            if (with_bias) sum += bias.h[n];
            if (accumulate) sum += y.h[t * N + n];
            double off = fabs(got[t * N + n] - sum);
            if (!(off <= 4 * 6e-8 * sqrt((double)K + 4) * size) && bad < 0) bad = t * N + n;
        }
    char what[128];
    snprintf(what, sizeof what, "%s%s%s%s%lld", m->name, with_bias ? " +bias" : "",
             accumulate ? " +y" : "", ": first wrong at ", (long long)bad);
    expect(bad < 0, "%s (M %lld N %lld K %lld)", what, M, N, K);
    free(got);
    drop(x), drop(y), drop(bias), drop(w);
}

static double activation_of(double a, ct_activation f)
{
    if (f == CT_SILU) return a / (1 + exp(-a));
    return 0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)));
}

static void check_mlp(const mode *m, int64_t M, int64_t E, int64_t F, ct_activation f, bool biases)
{
    ct_op_ctx ctx = ctx_of(m);
    const bool half = m->compute == CT_COMPUTE_BF16;
    vec x = random_vec(M * E, 1), y = random_vec(M * E, 1);
    vec bg = random_vec(F, 1), bu = random_vec(F, 1), bd = random_vec(E, 1);
    float we = 1.5f / sqrtf((float)E), wf = 1.5f / sqrtf((float)F);
    mat g = random_mat(F, E, m->dtype, we), u = random_mat(F, E, m->dtype, we);
    mat d = random_mat(E, F, m->dtype, wf);
    ct_mlp mlp = {
        f, g.d, u.d, d.d, biases ? bg.d : NULL, biases ? bu.d : NULL, biases ? bd.d : NULL};
    float *hidden = (float *)on_device(NULL, (size_t)((M + 31) / 32 * 32) * F * 8);
    need_ok(cuda_gated_mlp(&ctx, y.d, x.d, M, &mlp, hidden, &err), m->name);
    float *got = to_host(y.d, M * E);
    double *h = (double *)malloc((size_t)F * sizeof *h), worst = 0;
    for (int64_t t = 0; t < M; t++) {
        for (int64_t n = 0; n < F; n++) {
            double a = biases ? bg.h[n] : 0, b = biases ? bu.h[n] : 0;
            for (int64_t k = 0; k < E; k++) {
                float v = x.h[t * E + k];
                if (half) v = round_bf16(v);
                a += (double)v * g.h[n * E + k];
                b += (double)v * u.h[n * E + k];
            }
            h[n] = activation_of(a, f) * b;
        }
        for (int64_t n = 0; n < E; n++) {
            double sum = y.h[t * E + n] + (biases ? bd.h[n] : 0);
            for (int64_t k = 0; k < F; k++) sum += h[k] * d.h[n * F + k];
            double off = fabs(got[t * E + n] - sum);
            if (!(off <= worst)) worst = off;
        }
    }
    /* Hidden values of about 1, rounded to 8 bits a few times, then summed with weights of norm 1. */
    double bound = half ? 4e-2 : 1e-5;
    char what[128];
    snprintf(what, sizeof what, "%s gated, off by %.3g", m->name, worst);
    expect(worst <= bound, "%s (M %lld E %lld F %lld)", what, M, E, F);
    free(got), free(h), cudaFree(hidden);
    drop(x), drop(y), drop(bg), drop(bu), drop(bd), drop(g), drop(u), drop(d);
}

/* ---- bits ------------------------------------------------------------------------------------ */

static bool same_rows(const float *few, const float *all, int64_t first, int64_t M, int64_t N)
{
    return memcmp(few, all + first * N, (size_t)(M * N) * 4) == 0;
}

static void check_rows(const mode *m, int64_t N, int64_t K)
{
    static const int64_t counts[] = {1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 128, 129, 500};
    const int64_t ALL = small ? 130 : 500;
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(ALL * K, 1), bias = random_vec(N, 1);
    mat w = random_mat(N, K, m->dtype, 1), w2 = random_mat(N + 3, K, m->dtype, 1);
    float *y = (float *)on_device(NULL, ALL * (N + 3) * 4),
          *y2 = (float *)on_device(NULL, ALL * (N + 3) * 4);
    need_ok(cuda_matmul(&ctx, y, x.d, ALL, &w.d, bias.d, false, &err), m->name);
    float *whole = to_host(y, ALL * N);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i += small ? 4 : 1)
        for (int end = small; end < 2 && counts[i] <= ALL; end++) {
            int64_t M = counts[i], first = end ? ALL - M : 0;
            cudaMemsetAsync(y, 0xFF, ALL * N * 4, device.stream);
            need_ok(cuda_matmul(&ctx, y, x.d + first * K, M, &w.d, bias.d, false, &err), m->name);
            float *few = to_host(y, M * N);
            expect(same_rows(few, whole, first, M, N),
                   "%s: rows differ in company of M %lld (N %lld K %lld)", m->name, M, N, K);
            free(few);
            /* With another matrix in front of it. */
            cudaMemsetAsync(y, 0xFF, ALL * N * 4, device.stream);
            ct_product list[] = {{y2, &w2.d, NULL}, {y, &w.d, bias.d}};
            need_ok(cuda_products(&ctx, list, 2, x.d + first * K, M, &err), m->name);
            few = to_host(y, M * N);
            expect(same_rows(few, whole, first, M, N),
                   "%s: products differ from matmul (M %lld N %lld K %lld)", m->name, M, N, K);
            free(few);
            /* Generation does without scratch. */
            if (m->stage != CT_STAGE_GENERATION) continue;
            ct_op_ctx bare = {NULL, 0, m->compute, m->stage, false, &device};
            cudaMemsetAsync(y, 0xFF, ALL * N * 4, device.stream);
            need_ok(cuda_matmul(&bare, y, x.d + first * K, M, &w.d, bias.d, false, &err), m->name);
            few = to_host(y, M * N);
            expect(same_rows(few, whole, first, M, N),
                   "%s: rows differ without scratch (M %lld N %lld K %lld)", m->name, M, N, K);
            free(few);
        }
    free(whole), cudaFree(y), cudaFree(y2);
    drop(x), drop(bias), drop(w), drop(w2);
}

/* Products of one another's results: kernels start before the one in front of them has ended, and must
 * not read what it has not written. */
static void check_chain(const mode *m, int64_t M, int64_t E, int64_t F)
{
    const int LINKS = small ? 3 : 24, ROUNDS = small ? 2 : 4;
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(M * E, 1);
    mat w = random_mat(E, E, m->dtype, 1.7f / sqrtf((float)E));
    mat g = random_mat(F, E, m->dtype, 1.5f / sqrtf((float)E)),
        u = random_mat(F, E, m->dtype, 1.5f / sqrtf((float)E)),
        d = random_mat(E, F, m->dtype, 1 / sqrtf((float)F));
    ct_mlp mlp = {CT_SILU, g.d, u.d, d.d, NULL, NULL, NULL};
    float *y[2] = {(float *)on_device(NULL, (size_t)(M * E) * 4),
                   (float *)on_device(NULL, (size_t)(M * E) * 4)};
    float *hidden = (float *)on_device(NULL, (size_t)((M + 31) / 32 * 32) * F * 8);
    float *slow = NULL;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LINKS; i++) {
            const float *from = i ? y[1 - i % 2] : x.d;
            need_ok(cuda_matmul(&ctx, y[i % 2], from, M, &w.d, NULL, false, &err), m->name);
            if (round == 0) wait_for_device("a link");
            need_ok(cuda_gated_mlp(&ctx, y[i % 2], y[i % 2], M, &mlp, hidden, &err), m->name);
            if (round == 0) wait_for_device("a link");
        }
        float *got = to_host(y[(LINKS - 1) % 2], M * E);
        if (!slow) {
            slow = got;
            double size = 0;
            for (int64_t i = 0; i < M * E; i++) size += fabs(got[i]);
            size /= (double)(M * E);
            expect(size > 1e-4 && size < 1e6, "%s: a chain's values are of no use (M %lld E %lld)",
                   m->name, M, E, F);
            continue;
        }
        expect(same_rows(got, slow, 0, M, E), "%s: a chain differs without waits (M %lld E %lld)",
               m->name, M, E, F);
        free(got);
    }
    free(slow), cudaFree(y[0]), cudaFree(y[1]), cudaFree(hidden);
    drop(x), drop(w), drop(g), drop(u), drop(d);
}

/* Rows of a feed-forward, and that it has the bits of its parts where it says so. */
static void check_mlp_rows(const mode *m, int64_t E, int64_t F)
{
    static const int64_t counts[] = {1, 7, 8, 9, 17, 33, 65, 129, 200};
    enum { ALL = 200 };
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(ALL * E, 1), bias = random_vec(F, 1);
    float we = 1 / sqrtf((float)E), wf = 1 / sqrtf((float)F);
    mat g = random_mat(F, E, m->dtype, we), u = random_mat(F, E, m->dtype, we),
        d = random_mat(E, F, m->dtype, wf);
    ct_mlp mlp = {CT_GELU, g.d, u.d, d.d, bias.d, NULL, NULL};
    float *y = (float *)on_device(NULL, ALL * E * 4);
    float *hidden = (float *)on_device(NULL, (size_t)224 * F * 8);
    float *whole = NULL;
    for (int i = sizeof counts / sizeof *counts - 1; i >= 0; i -= small ? 4 : 1) {
        int64_t M = counts[i], first = ALL - M;
        cudaMemsetAsync(y, 0, ALL * E * 4, device.stream);
        need_ok(cuda_gated_mlp(&ctx, y, x.d + first * E, M, &mlp, hidden, &err), m->name);
        float *few = to_host(y, M * E);
        if (!whole) whole = few;
        else {
            expect(same_rows(few, whole, first, M, E),
                   "%s: gated rows differ in company of M %lld (E %lld F %lld)", m->name, M, E, F);
            free(few);
        }
    }
    free(whole), cudaFree(y), cudaFree(hidden);
    drop(x), drop(bias), drop(g), drop(u), drop(d);
}

/* ---- logits ---------------------------------------------------------------------------------- */

static void check_logits(const mode *m, int64_t n, int64_t V, int64_t E, float cap, bool recorded)
{
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(n * E, 1);
    mat head = random_mat(V, E, m->dtype, 1);
    /* A row that is no number from its start. */
    if (n > 2) need(cudaMemsetAsync(x.d + 2 * E, 0xFF, 4, device.stream), "a NaN");
    float *y = (float *)on_device(NULL, (size_t)(n * V) * 4);
    float **rows = (float **)calloc((size_t)n, sizeof *rows);
    int32_t **ids = (int32_t **)calloc((size_t)n, sizeof *ids),
            *id = (int32_t *)calloc((size_t)n, 4);
    for (int64_t i = 0; i < n; i++) {
        ids[i] = &id[i];
        if (i % 3 == 1) rows[i] = (float *)malloc((size_t)V * 4);
    }
    ct_logits_args args = {x.d, n, head.d, cap, rows, ids};
    need_ok(cuda_matmul(&ctx, y, x.d, n, &head.d, NULL, false, &err), m->name);
    float *plain = to_host(y, n * V);
    need_ok(cuda_logits_reserve(&device, n, n, V, &err), "reserve");
    cudaGraph_t graph;
    cudaGraphExec_t exec = NULL;
    if (recorded) {
        need(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
        need_ok(cuda_logits(&ctx, &args, &err), "recording logits");
        need(cudaStreamEndCapture(device.stream, &graph), "end of capture");
        need(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    }
    for (int round = 0; round < 2; round++) {
        /* The second round wants other rows whole. */
        if (round == 1 && n > 1) {
            float *moved = rows[1];
            rows[1] = NULL;
            rows[0] = moved;
        }
        memset(id, 0x55, (size_t)n * 4);
        need_ok(cuda_logits_targets(&device, &args, &err), "targets");
        if (recorded) need(cudaGraphLaunch(exec, device.stream), "replay");
        else need_ok(cuda_logits(&ctx, &args, &err), "logits");
        wait_for_device("logits");
        cuda_logits_finish(&device);
        for (int64_t i = 0; i < n; i++) {
            int64_t best = 0, nan = -1;
            double best_value = -INFINITY, worst = 0;
            for (int64_t j = 0; j < V; j++) {
                float v = plain[i * V + j];
                double c = cap > 0 ? cap * tanh((double)v / cap) : v;
                if (isnan(v) && nan < 0) nan = j;
                if (c > best_value) best_value = c, best = j;
                if (rows[i] && !isnan(v) && !(fabs(rows[i][j] - c) <= worst))
                    worst = fabs(rows[i][j] - c);
                if (rows[i] && isnan(v) != isnan(rows[i][j])) worst = INFINITY;
            }
            if (rows[i]) {
                expect(worst <= 2e-6 * (cap > 0 ? cap : 1),
                       "%s: logits of row %lld are off (V %lld, round %lld)", m->name, i, V, round);
                continue;
            }
            /* Values that the cap makes equal in f32 may name an earlier id than double does. */
            bool ok = nan >= 0
                          ? id[i] == -1 - nan
                          : id[i] >= 0 && id[i] < V &&
                                (id[i] == best ||
                                 (cap > 0 && best_value - cap * tanh(plain[i * V + id[i]] / cap) <
                                                 4e-6 * cap));
            expect(ok, "%s: greedy id of row %lld is %lld, expected %lld", m->name, i, id[i],
                   nan >= 0 ? -1 - nan : best);
        }
    }
    if (exec) cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    for (int64_t i = 0; i < n; i++) free(rows[i]);
    free(rows), free(ids), free(id), free(plain), cudaFree(y);
    drop(x), drop(head);
}

static void check_all(void)
{
    static const int64_t odd[] = {1, 7, 63, 65, 100};
    static const int64_t pairs[][2] = {{72, 2560},  {200, 1032}, {2560, 328},
                                       {136, 4104}, {16, 4096},  {96, 7680}};
    for (int m = 0; m < MODES; m++) {
        for (int a = 0; a < 5; a++)
            for (int b = 0; b < 5; b++)
                for (int c = 0; c < 5; c++)
                    check_product(&modes[m], odd[a], odd[b], odd[c], (a + b + c) % 2,
                                  (a + c) % 3 == 0);
        for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++)
            for (int v = 0; v < 4; v++) {
                check_product(&modes[m], 1 + 8 * v, pairs[p][0], pairs[p][1], v & 1, v & 2);
                check_product(&modes[m], 37 + 31 * v, pairs[p][0], pairs[p][1], v & 1, v & 2);
            }
        printf("%s: products done, %d checks, %d failures\n", modes[m].name, checks, failures);
        for (int f = 0; f < 2; f++) {
            ct_activation activation = f ? CT_SILU : CT_GELU;
            check_mlp(&modes[m], 1, 64, 128, activation, f);
            check_mlp(&modes[m], 7, 65, 100, activation, !f);
            check_mlp(&modes[m], 70, 328, 520, activation, f);
            check_mlp(&modes[m], 9, 256, 2056, activation, true);
        }
        static const int64_t shapes[][2] = {{2560, 2560}, {2560, 7680}, {320, 1000},
                                            {65, 100},    {16, 4096},   {4096, 1024}};
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            check_rows(&modes[m], shapes[s][0], shapes[s][1]);
        check_mlp_rows(&modes[m], 640, 1920);
        check_mlp_rows(&modes[m], 100, 63);
        if (m == 3)
            for (int i = 0; i < 6; i++) {
                static const int64_t counts[] = {1, 9, 24, 64, 100, 200};
                check_rows(&modes[m], 256, 12288 - i * 8);
                /* Cut into other parts than the one beside it. */
                check_rows(&modes[m], 512 - i, 8192);
                check_chain(&modes[m], counts[i], 2560, 1024);
                check_chain(&modes[m], counts[i], 328, 520);
            }
        for (int recorded = 0; recorded < 2; recorded++) {
            check_logits(&modes[m], 1, 5000, 64, 0, recorded);
            check_logits(&modes[m], 9, 32000, 128, 30, recorded);
            check_logits(&modes[m], 200, 777, 100, 30, recorded);
        }
        printf("%s: all done, %d checks, %d failures\n", modes[m].name, checks, failures);
    }
}

/* What differs in f32: one warp to an output, and three sizes of tiles, the largest taken as if the GPU were
 * small. In bf16: cuBLASLt or not; columns in 1, 2 and 4 parts and not at the copy engine's borders; as many
 * tokens as each kernel takes, kept in shared memory or fetched; rings that go round and clusters that go on
 * to a second tile. */
static void check_small(bool with_library)
{
    static const int64_t products[][3] = {{5, 63, 65},    {7, 100, 65},   {40, 72, 200},
                                          {513, 130, 17}, {1, 136, 4104}, {9, 136, 1032},
                                          {33, 136, 520}, {70, 72, 200},  {130, 72, 72}};
    static const int64_t streamed[][3] = {
        {1, 8584, 1032}, {17, 4424, 1032}, {33, 4424, 1032}, {8, 33864, 72}};
    small = true;
    for (int m = 0; m < MODES; m++) {
        const bool even = m != 4 || with_library; /* may widths be multiples of 8 */
        device.processors = 4;
        for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
            bool library = m == 4 && products[i][1] % 8 == 0 && products[i][2] % 8 == 0;
            if (library && (i != 7 || !with_library)) continue; /* it tries many algorithms */
            check_product(&modes[m], products[i][0], products[i][1], products[i][2], i % 2,
                          i % 3 == 0);
        }
        device.processors = processors;
        for (size_t i = 0; m == 3 && i < sizeof streamed / sizeof *streamed; i++)
            check_product(&modes[m], streamed[i][0], streamed[i][1], streamed[i][2], i % 2, i % 2);
        check_mlp(&modes[m], 7, 65, 100, CT_SILU, false);
        check_rows(&modes[m], 65, 100);
        if (even) {
            check_mlp(&modes[m], 1, 64, 128, CT_GELU, true);
            check_mlp(&modes[m], 40, 72, 136, CT_SILU, true);
            check_rows(&modes[m], 72, 136);
            check_mlp_rows(&modes[m], 72, 136);
            check_logits(&modes[m], 3, 5000, 64, 0, false);
        }
        if (m == 3) check_chain(&modes[m], 9, 328, 520), check_chain(&modes[m], 64, 72, 136);
        check_logits(&modes[m], 9, 777, 72, 30, true);
        printf("%s: done, %d checks, %d failures\n", modes[m].name, checks, failures);
    }
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was found before a hang is seen */
    cudaDeviceProp prop;
    need(cudaGetDeviceProperties(&prop, 0), "a GPU");
    processors = device.processors = prop.multiProcessorCount;
    need(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking), "stream");
    need(cudaMalloc(&device.lt_workspace, LT_WORKSPACE), "workspace");
    need(cudaMalloc((void **)&scratch, SCRATCH), "scratch");
    if (cublasLtCreate(&device.lt)) return printf("FAILED cublasLtCreate\n"), 1;
    printf("%s, %d processors\n", prop.name, prop.multiProcessorCount);
    if (argc < 2 || !strcmp(argv[1], "check")) check_all();
    if (argc > 1 && (!strcmp(argv[1], "small") || !strcmp(argv[1], "own")))
        check_small(argv[1][0] == 's');
    if (argc > 4 && !strcmp(argv[1], "product"))
        check_product(&modes[3], atoll(argv[2]), atoll(argv[3]), atoll(argv[4]), false, false);
    if (argc < 2 || !strncmp(argv[1], "time", 4))
        time_all(argc > 1 && !strcmp(argv[1], "time-generation"));
    wait_for_device("the end");
    gemm_plans_free(device.plans);
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
