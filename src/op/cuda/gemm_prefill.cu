/* gemm_prefill.cu - bf16 products of many tokens, by cuBLASLt, with one algorithm for each shape of
 * weights.
 *
 * The algorithm is chosen when a shape is met first: among what the library's heuristic offers for many
 * rows, without a split of the columns, the fastest whose rows have the same bits alone and in company
 * (tried on random data). It is then used for any number of rows. In a recording nothing can be timed:
 * there the heuristic's first is taken.
 *
 * cuBLASLt counts in columns: y[T,N] is its N x T, w[N,K] transposed times x[T,K].
 */
#include "op/cuda/gemm.cuh"

#include <stdlib.h>
#include <string.h>

enum { PLAN_TOKENS = 4096, PLAN_CANDIDATES = 16, PLAN_REPEATS = 3 };
static const size_t PLAN_ROOM = (size_t)512 << 20; /* bytes of outputs to time with, at most */

struct lt_call {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t w, x, y;
};

gemm_plans *plans_of(ct_device *device)
{
    if (!device->plans) device->plans = (gemm_plans *)calloc(1, sizeof *device->plans);
    return device->plans;
}

void gemm_plans_free(gemm_plans *plans)
{
    if (!plans) return;
    logits_room_free(plans->logits);
    free(plans);
}

bool prefill_fits(const ct_matrix *w, const void *y, const float *bias)
{
    return w->cols % 8 == 0 && w->rows % 8 == 0 && is_aligned(w->data) && is_aligned(y) &&
           is_aligned(bias);
}

static cublasStatus_t lt_init(lt_call *c, const gemm_plan *p, int64_t tokens, const float *bias)
{
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t out = p->bf16_out ? CUDA_R_16BF : CUDA_R_32F, bias_type = CUDA_R_32F;
    cublasStatus_t st = cublasLtMatmulDescInit(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!st)
        st = cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                            sizeof transposed);
    if (!st && p->bias)
        st = cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                            sizeof epilogue);
    if (!st && p->bias)
        st = cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                            &bias_type, sizeof bias_type);
    if (!st && p->bias)
        st = cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                            sizeof bias);
    if (!st) st = cublasLtMatrixLayoutInit(&c->w, CUDA_R_16BF, p->k, p->n, p->k);
    if (!st) st = cublasLtMatrixLayoutInit(&c->x, CUDA_R_16BF, p->k, tokens, p->k);
    if (!st) st = cublasLtMatrixLayoutInit(&c->y, out, p->n, tokens, p->n);
    return st;
}

static cublasStatus_t lt_run(ct_device *device, const gemm_plan *p, void *y, const bf16 *x,
                             const void *w, const float *bias, int64_t tokens)
{
    lt_call c;
    float one = 1, beta = p->accumulate ? 1 : 0;
    cublasStatus_t st = lt_init(&c, p, tokens, bias);
    if (!st)
        st = cublasLtMatmul(device->lt, &c.desc, &one, w, &c.w, x, &c.x, &beta, y, &c.y, y, &c.y,
                            &p->algo, device->lt_workspace, LT_WORKSPACE, device->stream);
    return st;
}

/* What the heuristic offers that does not split the columns; returns how many. */
static int candidates_of(ct_device *device, const gemm_plan *p, int64_t tokens, const float *bias,
                         cublasLtMatmulAlgo_t *list)
{
    lt_call c;
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t found[PLAN_CANDIDATES];
    size_t workspace = LT_WORKSPACE;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = 16;
    int n = 0, kept = 0;
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};

    cublasStatus_t st = lt_init(&c, p, tokens, bias);
    if (!st) st = cublasLtMatmulPreferenceInit(&preference);
    if (!st)
        st = cublasLtMatmulPreferenceSetAttribute(
            &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    if (!st)
        st = cublasLtMatmulPreferenceSetAttribute(
            &preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
    for (int i = 0; i < 4 && !st; i++)
        st = cublasLtMatmulPreferenceSetAttribute(&preference, alignments[i], &alignment,
                                                  sizeof alignment);
    if (!st)
        st = cublasLtMatmulAlgoGetHeuristic(device->lt, &c.desc, &c.w, &c.x, &c.y, &c.y,
                                            &preference, PLAN_CANDIDATES, found, &n);
    if (st) return 0;
    for (int i = 0; i < n; i++) {
        int32_t splits = 0;
        size_t written;
        if (found[i].state) continue;
        st = cublasLtMatmulAlgoConfigGetAttribute(&found[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                                  &splits, sizeof splits, &written);
        if (!st && splits <= 1) list[kept++] = found[i].algo;
    }
    return kept;
}

/* ---- choosing -------------------------------------------------------------------------------- */

static __global__ void fill_random(bf16 *x, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    uint32_t h = (uint32_t)i * 2654435761u + 12345u;
    h = (h ^ h >> 15) * 2246822519u;
    h = (h ^ h >> 13) * 3266489917u;
    x[i] = __float2bfloat16_rn((float)(h >> 8) / 8388608.0f - 1.0f);
}

static __global__ void count_differences(const unsigned char *a, const unsigned char *b,
                                         int64_t bytes, int32_t *n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < bytes && a[i] != b[i]) atomicAdd(n, 1);
}

/* What there is to choose with; pointers into one allocation. */
struct plan_trial {
    int64_t tokens;
    bf16 *x;
    void *y, *few;
    int32_t *differences;
    cudaEvent_t start, stop;
};

/* Milliseconds of a product, or -1 where it fails or where rows are not the same in fewer. */
static float try_plan(ct_device *device, const gemm_plan *p, const plan_trial *t, const void *w,
                      const float *bias)
{
    static const int64_t few[] = {1, 7, 65};
    const int64_t row = p->n * (p->bf16_out ? sizeof(bf16) : sizeof(float));
    float ms = -1;
    int32_t differences = 0;
    if (cudaMemsetAsync(t->y, 0, (size_t)(t->tokens * row), device->stream)) return -1;
    if (lt_run(device, p, t->y, t->x, w, bias, t->tokens)) return -1;
    cudaMemsetAsync(t->differences, 0, sizeof differences, device->stream);
    for (size_t i = 0; i < sizeof few / sizeof *few; i++) {
        if (few[i] > t->tokens) continue;
        int64_t bytes = few[i] * row;
        const bf16 *x = t->x + (t->tokens - few[i]) * p->k; /* another place in its tile */
        cudaMemsetAsync(t->few, 0, (size_t)bytes, device->stream);
        if (lt_run(device, p, t->few, x, w, bias, few[i])) return -1;
        count_differences<<<(unsigned)ceil_div(bytes, 256), 256, 0, device->stream>>>(
            (unsigned char *)t->y + (t->tokens - few[i]) * row, (unsigned char *)t->few, bytes,
            t->differences);
    }
    cudaMemcpyAsync(&differences, t->differences, sizeof differences, cudaMemcpyDeviceToHost,
                    device->stream);
    cudaEventRecord(t->start, device->stream);
    for (int i = 0; i < PLAN_REPEATS; i++)
        if (lt_run(device, p, t->y, t->x, w, bias, t->tokens)) return -1;
    cudaEventRecord(t->stop, device->stream);
    if (cudaEventSynchronize(t->stop)) return -1;
    if (cudaEventElapsedTime(&ms, t->start, t->stop)) return -1;
    return differences ? -1 : ms;
}

/* Times the candidates; false where there is no room for it. *best stays -1 where none will do. */
static bool choose(ct_device *device, gemm_plan *p, const void *w, const float *bias, int *best)
{
    cublasLtMatmulAlgo_t list[PLAN_CANDIDATES];
    plan_trial t = {};
    char *room = NULL;
    const size_t row = (size_t)p->n * (p->bf16_out ? sizeof(bf16) : sizeof(float));
    float best_ms = 0;
    *best = -1;
    for (t.tokens = PLAN_TOKENS; t.tokens > 128 && t.tokens * row > PLAN_ROOM;) t.tokens /= 2;
    for (; t.tokens >= 128; t.tokens /= 2) {
        size_t x_bytes = (size_t)t.tokens * p->k * sizeof(bf16), y_bytes = t.tokens * row;
        if (cudaMalloc(&room, x_bytes + y_bytes + 65 * row + 256) == cudaSuccess) {
            t.x = (bf16 *)room; /* multiples of 16 bytes each: K and N are multiples of 8 */
            t.y = room + x_bytes;
            t.few = room + x_bytes + y_bytes;
            t.differences = (int32_t *)(room + x_bytes + y_bytes + 65 * row);
            break;
        }
        cudaGetLastError();
        room = NULL;
    }
    if (!room) return false;
    cudaEventCreate(&t.start);
    cudaEventCreate(&t.stop);
    int64_t count = t.tokens * p->k;
    fill_random<<<(unsigned)ceil_div(count, 256), 256, 0, device->stream>>>(t.x, count);
    int n = candidates_of(device, p, t.tokens, bias, list);
    for (int i = 0; i < n; i++) {
        gemm_plan candidate = *p;
        candidate.algo = list[i];
        float ms = try_plan(device, &candidate, &t, w, bias);
        if (ms >= 0 && (*best < 0 || ms < best_ms)) {
            *best = i;
            best_ms = ms;
            p->algo = list[i];
        }
    }
    cudaStreamSynchronize(device->stream);
    note(device, cudaGetLastError(), "choosing cuBLASLt's algorithm");
    cudaEventDestroy(t.start);
    cudaEventDestroy(t.stop);
    cudaFree(room);
    return true;
}

/* What devices of this process have pinned. Which candidate is the fastest may be told otherwise by two
 * devices of one kind, or twice by one, and candidates may differ in bits; but layers of a model lie on
 * several devices, and cells are computed on any. */
static struct {
    pthread_mutex_t lock;
    int count;
    gemm_plan table[MOST_PLANS];
    int processors[MOST_PLANS];
} pinned = {PTHREAD_MUTEX_INITIALIZER, 0, {}, {}};

static bool is_same_shape(const gemm_plan *a, const gemm_plan *b)
{
    return a->n == b->n && a->k == b->k && a->bf16_out == b->bf16_out && a->bias == b->bias &&
           a->accumulate == b->accumulate;
}

/* The first device to ask chooses, others of its kind wait and take the same. As choose otherwise. */
static bool choose_once(ct_device *device, gemm_plan *p, const void *w, const float *bias, int *best)
{
    pthread_mutex_lock(&pinned.lock);
    bool done = false;
    for (int i = 0; i < pinned.count && !done; i++) {
        if (pinned.processors[i] != device->processors || !is_same_shape(&pinned.table[i], p))
            continue;
        p->algo = pinned.table[i].algo;
        *best = 0;
        done = true;
    }
    if (!done) {
        done = choose(device, p, w, bias, best);
        if (done && *best >= 0 && pinned.count < MOST_PLANS) {
            pinned.processors[pinned.count] = device->processors;
            pinned.table[pinned.count++] = *p;
        }
    }
    pthread_mutex_unlock(&pinned.lock);
    return done;
}

static ct_status plan_for(ct_device *device, const ct_matrix *w, bool bf16_out, const float *bias,
                          bool accumulate, const gemm_plan **out, ct_err *err)
{
    gemm_plans *plans = plans_of(device);
    cudaStreamCaptureStatus recording = cudaStreamCaptureStatusNone;
    cublasLtMatmulAlgo_t list[PLAN_CANDIDATES];
    int best = -1;
    if (!plans) return ct_fail_memory(err, "plans of products", sizeof *plans);
    for (int i = 0; i < plans->count; i++) {
        const gemm_plan *p = &plans->table[i];
        if (p->n == w->rows && p->k == w->cols && p->bf16_out == bf16_out && p->bias == !!bias &&
            p->accumulate == accumulate) {
            *out = p;
            return CT_OK;
        }
    }
    if (plans->count == MOST_PLANS)
        return ct_fail(err, CT_ERR_LIMIT, "products on the GPU: more than %d shapes", MOST_PLANS);
    gemm_plan *p = &plans->table[plans->count];
    *p = {w->rows, w->cols, bf16_out, bias != NULL, accumulate, {}};
    cudaStreamIsCapturing(device->stream, &recording);
    if (recording != cudaStreamCaptureStatusNone || !choose_once(device, p, w->data, bias, &best)) {
        if (candidates_of(device, p, PLAN_TOKENS, bias, list) > 0) {
            p->algo = list[0];
            best = 0;
        }
    }
    if (best < 0)
        return ct_fail(
            err, CT_ERR_UNSUPPORTED,
            "products on the GPU: cuBLASLt has no algorithm for weights [%lld, %lld] whose rows "
            "do not depend on their number",
            (long long)w->rows, (long long)w->cols);
    plans->count++;
    *out = p;
    return CT_OK;
}

ct_status product_prefill(ct_op_ctx *ctx, void *y, bool y_bf16, const bf16 *x, int64_t tokens,
                          const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    const gemm_plan *p = NULL;
    ct_status status = plan_for(ctx->device, w, y_bf16, bias, accumulate, &p, err);
    if (status != CT_OK) return status;
    cublasStatus_t st = lt_run(ctx->device, p, y, x, w->data, bias, tokens);
    if (st != CUBLAS_STATUS_SUCCESS)
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "product on the GPU: cuBLASLt: %s for %lld rows, weights [%lld, %lld]",
                       cublasLtGetStatusString(st), (long long)tokens, (long long)w->rows,
                       (long long)w->cols);
    return CT_OK;
}
