/* device.cu - the CUDA backend's table: a device, its memory, and passes.
 *
 * Owns the streams and recorded passes; memory.cu has the memory, image.cu the batch. A pass of
 * generation whose shape has come before is recorded as a CUDA graph and replayed from then on: its
 * kernels read everything that changes from the image, which lies at one place.
 */
#include <stdio.h>
#include <string.h>

#include "op/cuda/device.cuh"

enum {
    RECORDINGS = 48,    /* passes kept; the one unused for longest goes first */
    PASS_TOKENS = 8192,
};

/* ---- recorded passes ------------------------------------------------------------------------- */

/* All that a recording's kernels and arguments depend on. */
struct pass_key {
    int64_t tokens, n_segs, n_runs, n_wanted, most_keys, most_visible;
    uint64_t shape, logits_generation;
    const void *memory, *scratch, *image, *ones;
    int compute;
};

struct pass_recording {
    pass_key key;
    cudaGraphExec_t graph; /* NULL: seen once */
    uint64_t used;
};

struct pass_recordings {
    pass_recording list[RECORDINGS];
    int n;
    uint64_t clock;
    bool recording; /* the pass at hand */
    int at;         /* its place */
};

static pass_recordings *recordings_of(ct_device *device)
{
    return device->recordings;
}

static void drop_graph(pass_recording *r)
{
    if (r->graph) cudaGraphExecDestroy(r->graph);
    r->graph = NULL;
}

/* The place of this key, made if it is new (then its graph is NULL and *fresh true). */
static int find_recording(pass_recordings *all, const pass_key *key, bool *fresh)
{
    *fresh = false;
    all->clock++;
    int oldest = 0;
    for (int i = 0; i < all->n; i++) {
        if (memcmp(&all->list[i].key, key, sizeof *key) == 0) {
            all->list[i].used = all->clock;
            return i;
        }
        if (all->list[i].used < all->list[oldest].used) oldest = i;
    }
    int at = all->n < RECORDINGS ? all->n++ : oldest;
    drop_graph(&all->list[at]);
    all->list[at].key = *key;
    all->list[at].used = all->clock;
    *fresh = true;
    return at;
}

/* ---- devices --------------------------------------------------------------------------------- */

ct_status fail_cuda(ct_err *err, cudaError_t error, const char *what)
{
    cudaGetLastError(); /* not left for the next call */
    return ct_fail(err, error == cudaErrorMemoryAllocation ? CT_ERR_MEMORY : CT_ERR_UNSUPPORTED,
                   "CUDA: %s: %s", what, cudaGetErrorString(error));
}

static void device_close(ct_device *device)
{
    if (!device) return;
    cudaSetDevice(device->index);
    if (device->stream) cudaStreamSynchronize(device->stream);
    if (device->memory_stream) cudaStreamSynchronize(device->memory_stream);
    pass_recordings *all = device->recordings;
    for (int i = 0; all && i < all->n; i++) drop_graph(&all->list[i]);
    cudaFreeHost(device->room.host);
    cudaFree(device->room.device);
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(device->staging[i]);
        if (device->staged[i]) cudaEventDestroy(device->staged[i]);
    }
    free(all);
    gemm_plans_free(device->plans);
    cudaFree(device->ones);
    cudaFree(device->lt_workspace);
    if (device->lt) cublasLtDestroy(device->lt);
    if (device->stream) cudaStreamDestroy(device->stream);
    if (device->memory_stream) cudaStreamDestroy(device->memory_stream);
    if (device->memory_event) cudaEventDestroy(device->memory_event);
    pthread_mutex_destroy(&device->pass_lock);
    pthread_mutex_destroy(&device->memory_lock);
    free(device);
}

static int device_count(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();
    return 0;
}

static ct_status device_open(int index, ct_device **out, ct_err *err)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess) {
        cudaGetLastError();
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "device cuda: no GPU can be used here (%s); use --device cpu",
                       cudaGetErrorString(e));
    }
    if (index >= count)
        return ct_fail(err, CT_ERR_UNSUPPORTED, "device cuda:%d: expected a number below %d, the GPUs here",
                       index, count);
    cudaDeviceProp properties;
    e = cudaGetDeviceProperties(&properties, index);
    if (e == cudaSuccess && properties.major != 9)
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "device cuda:%d: %s has compute capability %d.%d; the kernels here are for 9.0 "
                       "(H100, H200)",
                       index, properties.name, properties.major, properties.minor);
    ct_device *device = (ct_device *)calloc(1, sizeof *device);
    pass_recordings *all = (pass_recordings *)calloc(1, sizeof *all);
    if (!device || !all) {
        free(device);
        free(all);
        return ct_fail_memory(err, "CUDA device", sizeof *device + sizeof *all);
    }
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&device->pass_lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_mutex_init(&device->memory_lock, NULL);
    device->index = index;
    device->recordings = all;
    device->processors = properties.multiProcessorCount;
    snprintf(device->name, sizeof device->name, "cuda-sm%d%d", properties.major, properties.minor);
    const char *what = "properties";
    if (e == cudaSuccess) what = "choosing the device", e = cudaSetDevice(index);
    if (e == cudaSuccess)
        what = "stream", e = cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaStreamCreateWithFlags(&device->memory_stream, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaEventCreateWithFlags(&device->memory_event, cudaEventDisableTiming);
    cudaMemPool_t pool;
    if (e == cudaSuccess) what = "memory pool", e = cudaDeviceGetDefaultMemPool(&pool, index);
    uint64_t keep = UINT64_MAX; /* given back when the process ends */
    if (e == cudaSuccess)
        e = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
    if (e == cudaSuccess) what = "workspace", e = cudaMalloc(&device->lt_workspace, LT_WORKSPACE);
    for (int i = 0; i < 2 && e == cudaSuccess; i++) {
        what = "pinned memory";
        e = cudaHostAlloc((void **)&device->staging[i], STAGING, cudaHostAllocDefault);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&device->staged[i], cudaEventDisableTiming);
    }
    if (e != cudaSuccess) {
        device_close(device);
        return fail_cuda(err, e, what);
    }
    if (cublasLtCreate(&device->lt) != CUBLAS_STATUS_SUCCESS) {
        device_close(device);
        return ct_fail(err, CT_ERR_UNSUPPORTED, "CUDA: cuBLASLt could not be started; is its library, of the toolkit that this was "
                       "built with, where the loader finds it (LD_LIBRARY_PATH)?");
    }
    *out = device;
    return CT_OK;
}

static const char *class_name(const ct_device *device)
{
    return device ? device->name : "cuda";
}

static ct_compute choose_compute(ct_dtype stored)
{
    return stored == CT_BF16 ? CT_COMPUTE_BF16 : CT_COMPUTE_F32;
}

static ct_dtype cache_dtype(ct_compute compute)
{
    return compute == CT_COMPUTE_BF16 ? CT_BF16 : CT_F32;
}

static size_t scratch_bytes(const ct_op_sizes *s)
{
    size_t most = matmul_scratch_bytes(s->tokens, s->max_rows, s->max_cols);
    size_t attention = attention_scratch_bytes(s->tokens, s->heads, s->head_dim);
    size_t experts =
        s->experts_used > 0 ? experts_scratch_bytes(s->tokens, s->width, s->ffn, s->experts_used) : 0;
    most = attention > most ? attention : most;
    return experts > most ? experts : most;
}

/* ---- passes ---------------------------------------------------------------------------------- */

static ct_status make_room_for_logits(ct_device *device, const ct_batch *batch, ct_err *err)
{
    int64_t full = 0;
    for (int64_t i = 0; i < batch->n_wanted; i++) full += batch->logits[i] != NULL;
    ct_logits_args args = {};
    args.n = batch->n_wanted;
    args.head.rows = batch->vocab;
    args.logits = batch->logits;
    args.greedy = batch->greedy;
    if (args.n == 0) return CT_OK;
    ct_status st = cuda_logits_reserve(device, full, args.n, batch->vocab, err);
    return st == CT_OK ? cuda_logits_targets(device, &args, err) : st;
}

/* A pass of generation of one token a row is worth recording when its shape comes again. The caller holds
 * pass_lock. */
static ct_status begin_pass(ct_op_ctx *ctx, ct_batch *batch, const void *memory, uint64_t shape,
                            bool *replayed, ct_err *err)
{
    ct_device *device = ctx->device;
    pass_recordings *all = recordings_of(device);
    const bool prefill = ctx->stage == CT_STAGE_PREFILL;
    *replayed = false;
    all->recording = false;
    device->fresh = true;
    cudaError_t e = cudaSetDevice(device->index);
    if (e == cudaSuccess) e = order_after_memory(device);
    ct_status st = make_room_for_logits(device, batch, err);
    if (st != CT_OK) return st;
    if (e == cudaSuccess) e = make_image(device, batch, prefill, ctx->compute == CT_COMPUTE_BF16);
    if (e != cudaSuccess) return fail_cuda(err, e, "beginning a pass");
    batch->image = &device->room.image;
    if (prefill || ctx->plain) return CT_OK;

    pass_key key;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.tokens = batch->tokens;
    key.n_segs = batch->n_segs;
    key.n_runs = batch->n_runs;
    key.n_wanted = batch->n_wanted;
    key.most_keys = device->room.image.most_keys;
    key.most_visible = device->room.image.most_visible;
    key.shape = shape << 1 | (batch->rules != NULL);
    key.logits_generation = cuda_logits_generation(device);
    key.memory = memory;
    key.scratch = ctx->scratch;
    key.image = device->room.device;
    key.ones = device->room.image.mean ? device->ones : NULL;
    key.compute = (int)ctx->compute;
    bool fresh;
    all->at = find_recording(all, &key, &fresh);
    pass_recording *r = &all->list[all->at];
    if (r->graph) {
        e = cudaGraphLaunch(r->graph, device->stream);
        *replayed = true;
    } else if (!fresh) {
        e = cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal);
        all->recording = e == cudaSuccess;
    }
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, "replaying a pass");
}

static ct_status begin(ct_op_ctx *ctx, ct_batch *batch, const void *memory, uint64_t shape,
                       bool *replayed, ct_err *err)
{
    pthread_mutex_lock(&ctx->device->pass_lock);
    ct_status st = begin_pass(ctx, batch, memory, shape, replayed, err);
    if (st != CT_OK) pthread_mutex_unlock(&ctx->device->pass_lock); /* there will be no end */
    return st;
}

/* Ends the capture, and sends what was captured on its way; a pass that is not whole is not kept. */
static cudaError_t end_recording(ct_device *device, bool whole)
{
    pass_recordings *all = device->recordings;
    cudaGraph_t graph = NULL;
    all->recording = false;
    cudaError_t e = cudaStreamEndCapture(device->stream, &graph);
    if (!whole) {
        if (graph) cudaGraphDestroy(graph);
        return e;
    }
    if (e == cudaSuccess) e = cudaGraphInstantiate(&all->list[all->at].graph, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (e == cudaSuccess) e = cudaGraphLaunch(all->list[all->at].graph, device->stream);
    return e;
}

static ct_status end_pass(ct_op_ctx *ctx, ct_batch *batch, ct_err *err)
{
    ct_device *device = ctx->device;
    batch->image = NULL;
    cudaError_t e = cudaSetDevice(device->index);
    const char *where = "a recorded pass";
    if (recordings_of(device)->recording) e = end_recording(device, err != NULL);
    cudaError_t waited = cudaStreamSynchronize(device->stream);
    if (e == cudaSuccess && device->failed != cudaSuccess) {
        e = device->failed;
        where = device->failed_at;
    }
    device->failed = cudaSuccess;
    if (e == cudaSuccess && waited != cudaSuccess) {
        e = waited;
        where = "a pass";
    }
    if (e != cudaSuccess) return fail_cuda(err, e, where);
    cuda_logits_finish(device);
    if (batch->back_bytes == 0) return CT_OK;
    return memory_read(device, batch->back, batch->back_from, batch->back_bytes, err);
}

static ct_status end(ct_op_ctx *ctx, ct_batch *batch, ct_err *err)
{
    ct_status st = end_pass(ctx, batch, err);
    pthread_mutex_unlock(&ctx->device->pass_lock);
    return st;
}

extern "C" const ct_ops *ct_ops_cuda(void)
{
    static const ct_ops ops = {
        .name = "cuda",
        .host_memory = false,
        .one_kind = true,
        .pass_tokens = PASS_TOKENS,
        .decode_rows = 256,
        .class_name = class_name,
        .choose_compute = choose_compute,
        .cache_dtype = cache_dtype,
        .scratch_bytes = scratch_bytes,
        .count = device_count,
        .open = device_open,
        .close = device_close,
        .alloc = memory_alloc,
        .free = memory_free,
        .write = memory_write,
        .read = memory_read,
        .copy = memory_copy,
        .transfer = memory_transfer,
        .free_bytes = memory_free_bytes,
        .fill_random = memory_fill_random,
        .sync = memory_sync,
        .limits = cuda_limits,
        .begin = begin,
        .end = end,
        .matmul = cuda_matmul,
        .products = cuda_products,
        .gated_mlp = cuda_gated_mlp,
        .experts = cuda_experts,
        .embed = cuda_embed,
        .rms_norm = cuda_rms_norm,
        .silu_mul = cuda_silu_mul,
        .pick = cuda_pick,
        .logits = cuda_logits,
        .conv1d = cuda_conv1d,
        .rglru = cuda_rglru,
        .selective_scan = cuda_selective_scan,
        .place_keys = cuda_place_keys,
        .attention = cuda_attention,
        .layer_mean = cuda_layer_mean,
        .keep_heads = cuda_keep_heads,
        .attention_weights = cuda_attention_weights,
    };
    return &ops;
}
