/* device.cu - the CUDA backend's table: a device, its memory, and passes.
 *
 * Owns the stream, the image of a batch, and recorded passes. Memory comes from the stream's pool, in
 * the order of the calls, so that giving a block back while a kernel still reads it is safe. A pass of
 * generation whose shape has come before is recorded as a CUDA graph and replayed from then on: its
 * kernels read everything that changes from the image, which lies at one place.
 */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "op/cuda/device.cuh"

static const size_t STAGING = 32 << 20; /* bytes of one pinned buffer, of which there are two */
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
    /* the image: on the host (pinned) and on the device */
    char *host, *device;
    size_t bytes;
    batch_image image;
    char *staging[2];
    cudaEvent_t staged[2];
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

static ct_status fail_cuda(ct_err *err, cudaError_t error, const char *what)
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
    pass_recordings *all = device->recordings;
    for (int i = 0; all && i < all->n; i++) drop_graph(&all->list[i]);
    if (all) {
        cudaFreeHost(all->host);
        cudaFree(all->device);
        for (int i = 0; i < 2; i++) {
            cudaFreeHost(all->staging[i]);
            if (all->staged[i]) cudaEventDestroy(all->staged[i]);
        }
    }
    free(all);
    gemm_plans_free(device->plans);
    cudaFree(device->ones);
    cudaFree(device->lt_workspace);
    if (device->lt) cublasLtDestroy(device->lt);
    if (device->stream) cudaStreamDestroy(device->stream);
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
    device->index = index;
    device->recordings = all;
    device->processors = properties.multiProcessorCount;
    snprintf(device->name, sizeof device->name, "cuda-sm%d%d", properties.major, properties.minor);
    const char *what = "properties";
    if (e == cudaSuccess) what = "choosing the device", e = cudaSetDevice(index);
    if (e == cudaSuccess)
        what = "stream", e = cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking);
    cudaMemPool_t pool;
    if (e == cudaSuccess) what = "memory pool", e = cudaDeviceGetDefaultMemPool(&pool, index);
    uint64_t keep = UINT64_MAX; /* given back when the process ends */
    if (e == cudaSuccess)
        e = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
    if (e == cudaSuccess) what = "workspace", e = cudaMalloc(&device->lt_workspace, LT_WORKSPACE);
    for (int i = 0; i < 2 && e == cudaSuccess; i++) {
        what = "pinned memory";
        e = cudaHostAlloc((void **)&all->staging[i], STAGING, cudaHostAllocDefault);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&all->staged[i], cudaEventDisableTiming);
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

/* ---- memory ---------------------------------------------------------------------------------- */

static void *device_alloc(ct_device *device, size_t bytes)
{
    void *memory = NULL;
    if (bytes == 0) bytes = 1;
    cudaSetDevice(device->index);
    if (cudaMallocAsync(&memory, bytes, device->stream) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    note(device, cudaMemsetAsync(memory, 0, bytes, device->stream), "zeroing memory");
    return memory;
}

static void device_free(ct_device *device, void *memory)
{
    if (!memory) return;
    cudaSetDevice(device->index);
    note(device, cudaFreeAsync(memory, device->stream), "giving memory back");
}

/* Large transfers go through two pinned buffers, one filled while the other is on its way. */
static ct_status device_write(ct_device *device, void *to, const void *from, size_t bytes,
                              ct_err *err)
{
    pass_recordings *all = device->recordings;
    cudaError_t e = cudaSetDevice(device->index);
    for (size_t done = 0, i = 0; done < bytes && e == cudaSuccess; i ^= 1) {
        size_t part = bytes - done < STAGING ? bytes - done : STAGING;
        e = cudaEventSynchronize(all->staged[i]); /* its last transfer */
        if (e != cudaSuccess) break;
        const int64_t pieces = (int64_t)((part + (1 << 20) - 1) >> 20);
        const char *source = (const char *)from + done;
        char *buffer = all->staging[i];
#pragma omp parallel for schedule(static) if (pieces > 1)
        for (int64_t p = 0; p < pieces; p++) {
            size_t begin = (size_t)p << 20, size = part - begin;
            memcpy(buffer + begin, source + begin, size < (1 << 20) ? size : (1 << 20));
        }
        e = cudaMemcpyAsync((char *)to + done, buffer, part, cudaMemcpyHostToDevice, device->stream);
        if (e == cudaSuccess) e = cudaEventRecord(all->staged[i], device->stream);
        done += part;
    }
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, "copying to the device");
}

static ct_status device_read(ct_device *device, void *to, const void *from, size_t bytes,
                             ct_err *err)
{
    pass_recordings *all = device->recordings;
    cudaError_t e = cudaSetDevice(device->index);
    for (size_t done = 0; done < bytes && e == cudaSuccess;) {
        size_t part = bytes - done < STAGING ? bytes - done : STAGING;
        e = cudaEventSynchronize(all->staged[0]);
        if (e == cudaSuccess)
            e = cudaMemcpyAsync(all->staging[0], (const char *)from + done, part,
                                cudaMemcpyDeviceToHost, device->stream);
        if (e == cudaSuccess) e = cudaStreamSynchronize(device->stream);
        if (e == cudaSuccess) memcpy((char *)to + done, all->staging[0], part);
        done += part;
    }
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, "copying from the device");
}

static void device_copy(ct_device *device, void *to, const void *from, size_t bytes)
{
    cudaSetDevice(device->index);
    note(device, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device->stream),
         "copying on the device");
}

/* What the driver has, and what the pool holds for later. */
static int64_t device_free_bytes(const ct_device *device)
{
    size_t free_now = 0, total = 0;
    uint64_t reserved = 0, used = 0;
    cudaMemPool_t pool;
    cudaSetDevice(device->index);
    if (cudaMemGetInfo(&free_now, &total) != cudaSuccess) return 0;
    if (cudaDeviceGetDefaultMemPool(&pool, device->index) == cudaSuccess) {
        cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
        cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used);
    }
    return (int64_t)(free_now + (reserved - used));
}

static ct_status device_sync(ct_device *device, ct_err *err)
{
    cudaError_t e = cudaSetDevice(device->index);
    if (e == cudaSuccess) e = cudaStreamSynchronize(device->stream);
    const char *where = "waiting for the device";
    if (device->failed != cudaSuccess) {
        e = device->failed;
        where = device->failed_at;
        device->failed = cudaSuccess;
    }
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, where);
}

/* ---- the image of a batch -------------------------------------------------------------------- */

/* Places arrays one after another, first to count, then to fill. */
struct layout {
    size_t at;
};

static size_t place(layout *l, size_t bytes)
{
    size_t at = l->at;
    l->at = (at + bytes + 255) / 256 * 256;
    return at;
}

static int64_t round_up(int64_t x, int64_t step)
{
    return (x + step - 1) / step * step;
}

/* Pieces of [position, position + count) that are cut at multiples of `size`. */
static int64_t pieces_of(const ct_seg *seg, int64_t size)
{
    return (seg->position + seg->count + size - 1) / size - seg->position / size;
}

struct counts {
    int64_t tiles, chunks, most_chunks, most_keys, most_visible, blocks, marked;
    bool means;
};

static int64_t blocks_of(const ct_attn_row *run)
{
    return (run->seg.position + run->seg.count + CT_KV_BLOCK - 1) / CT_KV_BLOCK;
}

static bool is_marked(const ct_attn_row *run)
{
    return run->mean || (run->edit != CT_WEIGHTS_KEEP && run->edit != CT_WEIGHTS_NULL);
}

static counts count_batch(const ct_batch *batch, bool prefill)
{
    counts c = {};
    for (int64_t s = 0; s < batch->n_segs; s++) {
        int64_t chunks = pieces_of(&batch->segs[s], CHUNK_TOKENS);
        c.chunks += chunks;
        c.most_chunks = chunks > c.most_chunks ? chunks : c.most_chunks;
    }
    for (int64_t r = 0; r < batch->n_runs; r++) {
        const ct_attn_row *run = &batch->runs[r];
        int64_t end = run->seg.position + run->seg.count;
        int64_t seen = run->window < 0 || run->window + 1 > end ? end : run->window + 1;
        c.most_keys = end > c.most_keys ? end : c.most_keys;
        c.most_visible = seen > c.most_visible ? seen : c.most_visible;
        c.tiles += pieces_of(&run->seg, TILE_TOKENS);
        c.blocks += blocks_of(run) * (run->mean ? 2 : 1);
        c.marked += is_marked(run) ? round_up(run->marked_count, 16) : 0;
        c.means |= run->mean != NULL;
    }
    if (!prefill) {
        c.tiles = c.chunks = c.most_chunks = 0;
        c.most_keys = round_up(c.most_keys, KEYS_STEP);
        c.most_visible = round_up(c.most_visible, KEYS_STEP);
    }
    return c;
}

/* Room for the image on both sides. A larger one lies elsewhere: recordings of the old are of no use,
 * and no key has its address. */
static cudaError_t reserve_image(pass_recordings *all, size_t bytes)
{
    if (bytes <= all->bytes) return cudaSuccess;
    size_t want = bytes > 2 * all->bytes ? bytes : 2 * all->bytes;
    cudaFreeHost(all->host);
    cudaFree(all->device);
    all->host = all->device = NULL;
    all->bytes = 0;
    cudaError_t e = cudaHostAlloc((void **)&all->host, want, cudaHostAllocDefault);
    if (e == cudaSuccess) e = cudaMalloc((void **)&all->device, want);
    if (e == cudaSuccess) all->bytes = want;
    return e;
}

/* A row's runs share its list of blocks, and rows follow one another. Lists of ones are each run's own. */
static void fill_runs(const ct_device *device, const ct_batch *batch, image_run *to,
                      image_run *means, image_mean *mean, size_t blocks_at, size_t marked_at)
{
    pass_recordings *all = device->recordings;
    const size_t ones_bytes = (size_t)(CT_KV_BLOCK * device->ones_width) *
                              (device->ones_rounded ? sizeof(bf16) : sizeof(float));
    const void *const *last = NULL;
    size_t last_at = 0;
    int64_t last_blocks = 0;
    for (int64_t r = 0; r < batch->n_runs; r++) {
        const ct_attn_row *run = &batch->runs[r];
        int64_t n = blocks_of(run);
        if (run->k != last || n > last_blocks) {
            last = run->k;
            last_at = blocks_at;
            last_blocks = n;
            memcpy(all->host + blocks_at, run->k, (size_t)n * sizeof *run->k);
            blocks_at += (size_t)n * sizeof *run->k;
        }
        const void *const *blocks = (const void *const *)(all->device + last_at);
        to[r] = {(int32_t)run->seg.first,    (int32_t)run->seg.count, (int32_t)run->seg.position,
                 (int32_t)run->window,       (int32_t)run->edit,      0,
                 NULL,                       blocks,                  blocks};
        if (is_marked(run)) {
            to[r].marked_count = (int32_t)run->marked_count;
            to[r].marked = (const uint8_t *)all->device + marked_at;
            if (run->marked_count > 0)
                memcpy(all->host + marked_at, run->marked, (size_t)run->marked_count);
            marked_at += (size_t)round_up(run->marked_count, 16);
        }
        if (!means) continue;
        means[r] = to[r];
        means[r].edit = run->mean ? CT_WEIGHTS_ONLY : CT_WEIGHTS_NULL;
        mean[r] = {};
        if (!run->mean) continue;
        mean[r] = {1, (int32_t)run->mean->columns, (int32_t)run->mean->begin, (int32_t)run->mean->end};
        const void **ones = (const void **)(all->host + blocks_at);
        for (int64_t b = 0; b < n; b++) {
            int64_t twice = run->mean->twice, twos = CT_KV_BLOCK;
            if (twice >= 0 && twice / CT_KV_BLOCK == b) twos = twice % CT_KV_BLOCK;
            ones[b] = (const char *)device->ones + (size_t)twos * ones_bytes;
        }
        means[r].v_blocks = (const void *const *)(all->device + blocks_at);
        blocks_at += (size_t)n * sizeof *ones;
        last = NULL; /* a list that follows begins anew */
    }
}

/* Everything that kernels read of the batch, on its way to the device by one copy. The arrays whose
 * size the recording's key does not tell (lists of blocks, marks) come last. */
static cudaError_t make_image(ct_device *device, const ct_batch *batch, bool prefill, bool rounded)
{
    pass_recordings *all = device->recordings;
    const counts c = count_batch(batch, prefill);
    if (c.means) {
        cudaError_t made = make_ones(device, batch->kv_width, rounded);
        if (made != cudaSuccess) return made;
    }
    layout l = {0};
    const size_t ids = place(&l, (size_t)batch->tokens * sizeof(int32_t));
    const size_t tokens = place(&l, (size_t)batch->tokens * sizeof(image_token));
    const size_t segs = place(&l, (size_t)batch->n_segs * sizeof(image_seg));
    const size_t runs = place(&l, (size_t)batch->n_runs * sizeof(image_run));
    const size_t wanted = place(&l, (size_t)batch->n_wanted * sizeof(int32_t));
    const size_t seg_chunk = place(&l, (size_t)batch->n_segs * sizeof(int32_t));
    const size_t of_means = c.means ? (size_t)batch->n_runs : 0;
    const size_t mean_runs = place(&l, of_means * sizeof(image_run));
    const size_t means = place(&l, of_means * sizeof(image_mean));
    const size_t tiles = place(&l, (size_t)c.tiles * sizeof(image_tile));
    const size_t chunks = place(&l, (size_t)c.chunks * sizeof(image_chunk));
    const size_t blocks = place(&l, (size_t)c.blocks * sizeof(void *));
    const size_t marked = place(&l, (size_t)c.marked);
    cudaError_t e = reserve_image(all, l.at);
    if (e != cudaSuccess) return e;

    char *h = all->host, *d = all->device;
    memcpy(h + ids, batch->ids, (size_t)batch->tokens * sizeof(int32_t));
    memcpy(h + wanted, batch->wanted, (size_t)batch->n_wanted * sizeof(int32_t));
    image_token *token = (image_token *)(h + tokens);
    image_seg *seg = (image_seg *)(h + segs);
    image_tile *tile = (image_tile *)(h + tiles);
    image_chunk *chunk = (image_chunk *)(h + chunks);
    int32_t *first_chunk = (int32_t *)(h + seg_chunk);
    int32_t n_chunks = 0, n_tiles = 0;
    for (int64_t s = 0; s < batch->n_segs; s++) {
        const ct_seg *from = &batch->segs[s];
        seg[s] = {(int32_t)from->first, (int32_t)from->count, (int32_t)from->position, -1, 0, 0,
                  batch->states[s]};
        if (batch->rules) {
            seg[s].keep = batch->rules[s].keep;
            seg[s].metric = (int32_t)batch->rules[s].metric;
            seg[s].seed = batch->rules[s].seed;
        }
        for (int64_t t = 0; t < from->count; t++) {
            token[from->first + t].seg = (int32_t)s;
            token[from->first + t].position = (int32_t)(from->position + t);
        }
        first_chunk[s] = n_chunks;
        for (int64_t t = 0; prefill && t < from->count;) {
            int64_t n = CHUNK_TOKENS - (from->position + t) % CHUNK_TOKENS;
            if (n > from->count - t) n = from->count - t;
            chunk[n_chunks++] = {(int32_t)s, (int32_t)(from->first + t), (int32_t)n};
            t += n;
        }
    }
    for (int64_t r = 0; r < batch->n_runs; r++) {
        const ct_seg *from = &batch->runs[r].seg;
        for (int64_t t = 0; t < from->count; t++) token[from->first + t].run = (int32_t)r;
        for (int64_t t = 0; prefill && t < from->count;) {
            int64_t n = TILE_TOKENS - (from->position + t) % TILE_TOKENS;
            if (n > from->count - t) n = from->count - t;
            tile[n_tiles++] = {(int32_t)r, (int32_t)(from->first + t), (int32_t)n};
            t += n;
        }
    }
    fill_runs(device, batch, (image_run *)(h + runs), c.means ? (image_run *)(h + mean_runs) : NULL,
              (image_mean *)(h + means), blocks, marked);
    all->image = {.tokens = (int32_t)batch->tokens,
                  .n_segs = (int32_t)batch->n_segs,
                  .n_runs = (int32_t)batch->n_runs,
                  .n_wanted = (int32_t)batch->n_wanted,
                  .n_tiles = n_tiles,
                  .n_chunks = n_chunks,
                  .most_chunks = (int32_t)c.most_chunks,
                  .most_keys = (int32_t)c.most_keys,
                  .most_visible = (int32_t)c.most_visible,
                  .ids = (const int32_t *)(d + ids),
                  .token = (const image_token *)(d + tokens),
                  .seg = (const image_seg *)(d + segs),
                  .run = (const image_run *)(d + runs),
                  .mean_run = c.means ? (const image_run *)(d + mean_runs) : NULL,
                  .mean = c.means ? (const image_mean *)(d + means) : NULL,
                  .tile = (const image_tile *)(d + tiles),
                  .chunk = (const image_chunk *)(d + chunks),
                  .seg_chunk = (const int32_t *)(d + seg_chunk),
                  .wanted = (const int32_t *)(d + wanted)};
    return cudaMemcpyAsync(d, h, l.at, cudaMemcpyHostToDevice, device->stream);
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

/* A pass of generation of one token a row is worth recording when its shape comes again. */
static ct_status begin(ct_op_ctx *ctx, ct_batch *batch, const void *memory, uint64_t shape,
                       bool *replayed, ct_err *err)
{
    ct_device *device = ctx->device;
    pass_recordings *all = recordings_of(device);
    const bool prefill = ctx->stage == CT_STAGE_PREFILL;
    *replayed = false;
    all->recording = false;
    cudaError_t e = cudaSetDevice(device->index);
    ct_status st = make_room_for_logits(device, batch, err);
    if (st != CT_OK) return st;
    if (e == cudaSuccess) e = make_image(device, batch, prefill, ctx->compute == CT_COMPUTE_BF16);
    if (e != cudaSuccess) return fail_cuda(err, e, "beginning a pass");
    batch->image = &all->image;
    if (prefill || ctx->plain) return CT_OK;

    pass_key key;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.tokens = batch->tokens;
    key.n_segs = batch->n_segs;
    key.n_runs = batch->n_runs;
    key.n_wanted = batch->n_wanted;
    key.most_keys = all->image.most_keys;
    key.most_visible = all->image.most_visible;
    key.shape = shape << 1 | (batch->rules != NULL);
    key.logits_generation = cuda_logits_generation(device);
    key.memory = memory;
    key.scratch = ctx->scratch;
    key.image = all->device;
    key.ones = all->image.mean ? device->ones : NULL;
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

/* Ends the capture, and sends what was captured on its way. */
static cudaError_t end_recording(ct_device *device)
{
    pass_recordings *all = device->recordings;
    cudaGraph_t graph = NULL;
    all->recording = false;
    cudaError_t e = cudaStreamEndCapture(device->stream, &graph);
    if (e == cudaSuccess) e = cudaGraphInstantiate(&all->list[all->at].graph, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (e == cudaSuccess) e = cudaGraphLaunch(all->list[all->at].graph, device->stream);
    return e;
}

static ct_status end(ct_op_ctx *ctx, ct_batch *batch, ct_err *err)
{
    ct_device *device = ctx->device;
    batch->image = NULL;
    cudaError_t e = cudaSetDevice(device->index);
    const char *where = "a recorded pass";
    if (recordings_of(device)->recording) e = end_recording(device);
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
    return CT_OK;
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
        .alloc = device_alloc,
        .free = device_free,
        .write = device_write,
        .read = device_read,
        .copy = device_copy,
        .free_bytes = device_free_bytes,
        .fill_random = cuda_fill_random,
        .sync = device_sync,
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
    };
    return &ops;
}
