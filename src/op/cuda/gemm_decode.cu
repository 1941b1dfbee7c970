/* gemm_decode.cu - bf16 products for few tokens: how gemm_stream.cuh's kernel is launched, in groups of
 * up to 128 tokens, and what it cannot take (gemm_plain.cu). The cut of the columns follows from the
 * weights' shape alone; tiles, stages and blocks, which also follow from the tokens, change no sum.
 *
 * Maps of weights promote nothing to whole lines of 256 bytes in L2: on an H200 that cost 3 % of a step.
 */
#include "op/cuda/gemm_stream.cuh"

/* y = bf16(x), eight at once where both are aligned; y always is. */
static __global__ void __launch_bounds__(256)
    round_tokens(bf16 *y, const float *x, int64_t count, bool aligned)
{
    let_next_kernel_start();
    wait_for_previous_kernel();
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= count) return; /* whole pieces: columns are a multiple of 8 */
    if (aligned) {
        *(uint4 *)(y + i) = pack(*(const float4 *)(x + i), *(const float4 *)(x + i + 4));
        return;
    }
    for (int j = 0; j < 8; j++) y[i + j] = __float2bfloat16_rn(x[i + j]);
}

typedef void (*decode_kernel)(decode_args);

static decode_kernel kernel_of(int tokens)
{
    switch (tokens) {
    case 8:
        return decode_product<8>;
    case 16:
        return decode_product<16>;
    case 32:
        return decode_product<32>;
    case 64:
        return decode_product<64>;
    default:
        return decode_product<128>;
    }
}

/* Into how many parts the columns are cut; more where there are few rows to keep a GPU busy. */
static int parts_of(const ct_matrix *w)
{
    int64_t steps = ceil_div(w->cols, STEP);
    if (steps >= 128 && w->rows <= 512) return 8;
    return steps >= 16 ? 4 : steps >= 8 ? 2 : 1;
}

/* Bytes of shared memory with as many stages as leave room for other blocks; 0: not even two fit. */
static size_t plan_shared(decode_args *a, int tokens, int blocks)
{
    const size_t step = (size_t)tokens * STEP * sizeof(bf16) * (a->split ? 2 : 1);
    const size_t stage = 2 * BOX_BYTES + (a->resident ? 0 : step);
    const size_t rest =
        (a->resident ? a->steps * step : 0) + sums_bytes(tokens) + BARRIERS_BYTES + ALIGN_BYTES;
    for (; blocks > 0; blocks--) {
        size_t room = SHARED_OF_SM / blocks - 1024;
        if (room < rest + (blocks > 1 ? 3 : 2) * stage) continue;
        size_t stages = (room - rest) / stage;
        a->stages = stages < MOST_STAGES ? (int32_t)stages : (int32_t)MOST_STAGES;
        return rest + a->stages * stage;
    }
    return 0;
}

cudaLaunchConfig_t cluster_config(ct_op_ctx *ctx, cudaLaunchAttribute *attr, unsigned blocks,
                                  unsigned threads, size_t shared, int parts)
{
    cudaLaunchConfig_t config = {};
    attr[0].id = cudaLaunchAttributeClusterDimension;
    attr[0].val.clusterDim.x = (unsigned)parts;
    attr[0].val.clusterDim.y = attr[0].val.clusterDim.z = 1;
    attr[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr[1].val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = ctx->device->stream;
    config.attrs = attr;
    config.numAttrs = 2;
    return config;
}

int clusters_of(ct_op_ctx *ctx, gemm_plans *plans, const void *kernel, int threads, int blocks,
                size_t shared)
{
    ct_device *device = ctx->device;
    for (int i = 0; i < plans->rooms; i++) {
        const decode_room *r = &plans->room[i];
        if (r->kernel == kernel && r->blocks == blocks && r->shared == shared) return r->clusters;
    }
    int clusters = 0;
    cudaLaunchAttribute attr[2] = {};
    cudaLaunchConfig_t config =
        cluster_config(ctx, attr, (unsigned)blocks, (unsigned)threads, shared, blocks);
    config.numAttrs = 1;
    cudaFuncAttributes of = {};
    note(device, cudaFuncGetAttributes(&of, kernel), "shared memory of a product");
    note(device,
         cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              SHARED_MOST - (int)of.sharedSizeBytes),
         "shared memory of a product");
    note(device,
         cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared),
         "shared memory of a product");
    note(device, cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "clusters at once");
    if (clusters < 1) clusters = 1;
    if (plans->rooms < MOST_ROOMS) plans->room[plans->rooms++] = {kernel, blocks, shared, clusters};
    return clusters;
}

/* A matrix [rows, cols] of which boxes of box_rows x STEP are fetched. */
ct_status map_matrix(gemm_plans *plans, CUtensorMap *map, const void *data, int64_t rows,
                     int64_t cols, int box_rows, ct_err *err)
{
    typedef decltype(&cuTensorMapEncodeTiled) encode;
    if (!plans->encode) {
        cudaDriverEntryPointQueryResult found;
        if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &plans->encode, 12000,
                                             cudaEnableDefault, &found))
            plans->encode = NULL;
    }
    const cuuint64_t size[2] = {(cuuint64_t)cols, (cuuint64_t)rows};
    const cuuint64_t pitch[1] = {(cuuint64_t)cols * sizeof(bf16)};
    const cuuint32_t box[2] = {STEP, (cuuint32_t)box_rows}, stride[2] = {1, 1};
    CUresult st = CUDA_ERROR_NOT_SUPPORTED;
    if (plans->encode)
        st = ((encode)plans->encode)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)data, size,
                                     pitch, box, stride, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                     CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (st == CUDA_SUCCESS) return CT_OK;
    return ct_fail(err, CT_ERR_UNSUPPORTED,
                   "product on the GPU: no map of a matrix [%lld, %lld] (error %d)",
                   (long long)rows, (long long)cols, (int)st);
}

/* Chooses who has which parts of the columns for n tokens, cuts rows into tiles, and maps the matrices. */
static ct_status cut(gemm_plans *plans, decode_args *a, const ct_matrix *const *of, int n,
                     ct_err *err)
{
    a->split = a->parts >= 2 && n <= MOST_SPLIT;
    a->blocks = a->split ? a->parts / 2 : a->parts;
    const int box = a->split && a->hidden ? HALF_ROWS / 2 : HALF_ROWS;
    const int rows = (a->split ? HALF_ROWS : TILE_ROWS) / (a->hidden ? 2 : 1);
    a->tiles = 0;
    for (int i = 0; i < a->n; i++) {
        a->list[i].first_tile = a->tiles;
        if (!a->hidden || i == 0) a->tiles += (int32_t)ceil_div(of[i]->rows, rows);
        ct_status st = map_matrix(plans, &a->w[i], of[i]->data, of[i]->rows, of[i]->cols, box, err);
        if (st != CT_OK) return st;
    }
    return CT_OK;
}

/* a holds all but the cut of rows and columns and the tokens of a launch: groups of as many as fit. */
static ct_status run(ct_op_ctx *ctx, gemm_plans *plans, decode_args a, const ct_matrix *const *of,
                     int64_t tokens, ct_err *err)
{
    const size_t rounded_bytes = (size_t)tokens * (size_t)a.k * sizeof(bf16);
    int most = MOST_TOKENS;
    a.parts = parts_of(of[0]);
    a.steps = (int32_t)ceil_div(ceil_div(a.k, STEP), a.parts);
    a.resident = !(a.x_bf16 && a.x_aligned);
    const int n_resident = tokens <= 8 ? 8 : tokens <= 16 ? 16 : 32;
    ct_status st = cut(plans, &a, of, n_resident, err);
    if (st != CT_OK) return st;
    const int64_t kept = (int64_t)n_resident * a.steps * STEP * sizeof(bf16) * (a.split ? 2 : 1);
    const bool fits = tokens <= MOST_RESIDENT && kept <= RESIDENT_BYTES;
    if (a.resident && !a.x_bf16 && !fits && is_aligned(ctx->scratch) &&
        ctx->scratch_bytes >= rounded_bytes) {
        int64_t count = tokens * a.k;
        cudaLaunchAttribute attr[2] = {};
        cudaLaunchConfig_t config =
            cluster_config(ctx, attr, (unsigned)ceil_div(count, 8 * 256), 256, 0, 1);
        note(ctx->device,
             cudaLaunchKernelEx(&config, round_tokens, (bf16 *)ctx->scratch, (const float *)a.x,
                                count, a.x_aligned),
             "round_tokens");
        a.x = ctx->scratch;
        a.x_bf16 = a.x_aligned = true;
        a.resident = false;
    }
    if (a.resident) most = MOST_RESIDENT;
    a.split = false; /* takes the least memory */
    while (most > 8 && plan_shared(&a, most, 1) == 0) most /= 2;
    if (plan_shared(&a, most, 1) == 0)
        return ct_fail(err, CT_ERR_UNSUPPORTED, "product on the GPU: %lld columns are too many",
                       (long long)a.k);

    for (int64_t done = 0; done < tokens; done += a.tokens) {
        int64_t left = tokens - done;
        int n = 8;
        while (n < most && n < left) n *= 2;
        a.tokens = (int32_t)(left < n ? left : n);
        st = cut(plans, &a, of, n, err);
        if (st == CT_OK && a.split && plan_shared(&a, n, 1) == 0)
            st = cut(plans, &a, of, MOST_SPLIT + 1, err); /* whole */
        if (st == CT_OK && !a.resident) st = map_matrix(plans, &a.xs, a.x, a.tokens, a.k, n, err);
        if (st != CT_OK) return st;
        /* Where a block for each multiprocessor does all, it may fill its memory: no two blocks share
         * one then while another has none. */
        const bool few = a.tiles * a.blocks <= ctx->device->processors * (a.split ? 4 : 3) / 4;
        size_t shared = plan_shared(&a, n, few ? 1 : blocks_of(n));
        /* As many clusters as run at once, each with the same number of tiles. */
        int64_t at_once =
            clusters_of(ctx, plans, (const void *)kernel_of(n), threads_of(n), a.blocks, shared);
        int64_t clusters = ceil_div(a.tiles, ceil_div(a.tiles, at_once));
        cudaLaunchAttribute attr[2] = {};
        cudaLaunchConfig_t config = cluster_config(ctx, attr, (unsigned)(clusters * a.blocks),
                                                   (unsigned)threads_of(n), shared, a.blocks);
        note(ctx->device, cudaLaunchKernelEx(&config, kernel_of(n), a), "decode_product");
        a.x = (const char *)a.x + a.tokens * a.k * (a.x_bf16 ? sizeof(bf16) : sizeof(float));
        if (a.hidden) a.hidden += (int64_t)a.tokens * a.list[0].rows;
        else
            for (int i = 0; i < a.n; i++) a.list[i].y += (int64_t)a.tokens * a.list[i].rows;
    }
    return CT_OK;
}

/* Whether the copy engine can take these weights; depends on shape and alignment, never on tokens. */
static bool can_fetch(const ct_matrix *w)
{
    return w->cols % 8 == 0 && is_aligned(w->data);
}

ct_status product_decode(ct_op_ctx *ctx, const ct_product *list, int64_t n, const void *x,
                         bool x_bf16, int64_t tokens, bool accumulate, ct_err *err)
{
    gemm_plans *plans = plans_of(ctx->device);
    if (!plans) return ct_fail_memory(err, "plans of products", sizeof *plans);
    for (int64_t first = 0; first < n;) {
        decode_args a = {};
        const ct_matrix *of[MOST_LIST];
        a.x = x;
        a.x_bf16 = x_bf16;
        a.accumulate = accumulate;
        a.k = list[first].w->cols;
        a.x_aligned = is_aligned(x);
        for (; first < n && a.n < MOST_LIST; first++) {
            const ct_product *p = &list[first];
            if (a.n > 0 && parts_of(p->w) != parts_of(of[0])) break;
            if (!can_fetch(p->w)) {
                product_plain(ctx, p, x, x_bf16, tokens, accumulate);
                continue;
            }
            bool quads = p->w->rows % 4 == 0 && is_aligned(p->y);
            a.list[a.n] = {p->y, p->bias, (int32_t)p->w->rows, 0, quads};
            of[a.n++] = p->w;
        }
        if (a.n == 0) continue;
        ct_status st = run(ctx, plans, a, of, tokens, err);
        if (st != CT_OK) return st;
    }
    return CT_OK;
}

ct_status gated_decode(ct_op_ctx *ctx, bf16 *hidden, const float *x, int64_t tokens,
                       const ct_mlp *mlp, ct_err *err)
{
    gemm_plans *plans = plans_of(ctx->device);
    if (!plans) return ct_fail_memory(err, "plans of products", sizeof *plans);
    if (!can_fetch(&mlp->gate) || !can_fetch(&mlp->up)) {
        gated_plain(ctx, hidden, x, tokens, mlp);
        return CT_OK;
    }
    const int32_t rows = (int32_t)mlp->gate.rows;
    decode_args a = {};
    a.x = x;
    a.x_aligned = is_aligned(x);
    a.hidden = hidden;
    a.activation = mlp->activation;
    a.k = mlp->gate.cols;
    a.n = 2;
    a.list[0] = {NULL, mlp->gate_bias, rows, 0, rows % 4 == 0 && is_aligned(hidden)};
    a.list[1] = {NULL, mlp->up_bias, rows, 0, false};
    const ct_matrix *const of[] = {&mlp->gate, &mlp->up};
    return run(ctx, plans, a, of, tokens, err);
}
