/* logits.cu - the product with the head, the soft cap, the choice of the highest, and the way of the
 * results to the host.
 *
 * Results go straight to pinned memory of the host, written by the kernel that caps and chooses: rows
 * that are wanted whole into slots, ids of all rows into a list. Which row has which slot stands in
 * pinned memory as well, so that a recorded pass serves any choice. cuda_logits_targets fills it before
 * a pass, cuda_logits_finish hands the results out after the stream was waited for.
 */
#include "op/cuda/gemm.cuh"

#include <stdlib.h>
#include <string.h>

enum { ROOM_ROWS = 128, CHUNK = 4096, THREADS = 256 };

/* The best of some ids of a row: the highest logit, its first id, and the first that is no number. */
struct choice {
    float value;
    int32_t id, nan;
};

/* Results of a device's pass; capacities are those of the last reservation that grew. */
struct logits_room {
    uint64_t generation;
    int64_t n_full, n, vocab;   /* capacities */
    float *logits;              /* device: [ROOM_ROWS, vocab] */
    choice *partial;            /* device: [ROOM_ROWS, chunks of vocab] */
    unsigned *done;             /* device: [ROOM_ROWS] chunks that are chosen, 0 between kernels */
    int32_t *slot, *greedy;     /* pinned: [n] each; slot < 0: the row is not wanted whole */
    float *rows;                /* pinned: [n_full, vocab] */
    float **logits_to;          /* [n] the caller's */
    int32_t **greedy_to;        /* [n] */
    int64_t noted, noted_vocab; /* rows of the pass under way, their width */
};

struct cap_args {
    const float *logits;
    float cap;
    int32_t vocab, first;
    const int32_t *slot;
    int32_t *greedy;
    float *rows;
    choice *partial;
    unsigned *done;
};

static __device__ choice better(choice a, choice b)
{
    choice c = b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
    c.nan = a.nan < b.nan ? a.nan : b.nan;
    return c;
}

static __device__ choice best_of_block(choice c)
{
    __shared__ choice all[THREADS / 32];
    for (int d = 16; d; d /= 2) {
        choice o = {__shfl_xor_sync(~0u, c.value, d), __shfl_xor_sync(~0u, c.id, d),
                    __shfl_xor_sync(~0u, c.nan, d)};
        c = better(c, o);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) all[threadIdx.x / 32] = c;
    __syncthreads();
    for (int i = 0; i < THREADS / 32; i++) c = better(c, all[i]);
    return c;
}

/* Block (chunk, row): caps its chunk, writes it out if it is wanted, and finds its best; the last block
 * of a row finds the row's. */
static __global__ void __launch_bounds__(THREADS) cap_and_choose(const __grid_constant__ cap_args a)
{
    const int row = blockIdx.y, chunks = gridDim.x;
    const float *logits = a.logits + (int64_t)row * a.vocab;
    const int32_t slot = a.slot[a.first + row];
    const choice none = {-INFINITY, INT32_MAX, INT32_MAX};
    __shared__ bool is_last;
    let_next_begin();
    wait_for_earlier();
    choice best = none;
    float v[CHUNK / THREADS];
#pragma unroll
    for (int i = 0; i < CHUNK / THREADS; i++) {
        int id = (int)blockIdx.x * CHUNK + i * THREADS + (int)threadIdx.x;
        v[i] = id < a.vocab ? logits[id] : 0;
    }
#pragma unroll
    for (int i = 0; i < CHUNK / THREADS; i++) {
        int id = (int)blockIdx.x * CHUNK + i * THREADS + (int)threadIdx.x;
        if (id >= a.vocab) break;
        float x = a.cap > 0 ? a.cap * tanhf(v[i] / a.cap) : v[i];
        if (slot >= 0) a.rows[(int64_t)slot * a.vocab + id] = x;
        choice c = {x, id, INT32_MAX};
        if (isnan(x)) c = {-INFINITY, INT32_MAX, id};
        best = better(best, c);
    }
    best = best_of_block(best);
    if (threadIdx.x == 0) {
        a.partial[(int64_t)row * chunks + blockIdx.x] = best;
        __threadfence();
        is_last = atomicInc(&a.done[row], (unsigned)chunks - 1) == (unsigned)chunks - 1;
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    best = none;
    for (int i = threadIdx.x; i < chunks; i += THREADS) {
        const volatile choice *p = &a.partial[(int64_t)row * chunks + i];
        choice c = {p->value, p->id, p->nan};
        best = better(best, c);
    }
    best = best_of_block(best);
    if (threadIdx.x == 0) a.greedy[a.first + row] = best.nan < INT32_MAX ? -1 - best.nan : best.id;
}

ct_status cuda_logits(ct_op_ctx *ctx, const ct_logits_args *args, ct_err *err)
{
    const gemm_plans *plans = ctx->device->plans;
    const logits_room *room = plans ? plans->logits : NULL;
    const int64_t vocab = args->head.rows, width = args->head.cols;
    if (args->n == 0) return CT_OK;
    if (!room || args->n > room->n || vocab > room->vocab)
        return ct_fail(err, CT_ERR_LIMIT,
                       "logits on the GPU: no room was made for %lld rows of %lld",
                       (long long)args->n, (long long)vocab);
    for (int64_t first = 0; first < args->n; first += ROOM_ROWS) {
        int64_t n = args->n - first < ROOM_ROWS ? args->n - first : (int64_t)ROOM_ROWS;
        ct_status st = cuda_matmul(ctx, room->logits, args->normed + first * width, n, &args->head,
                                   NULL, false, err);
        if (st != CT_OK) return st;
        cap_args a = {room->logits, args->cap,  (int32_t)vocab, (int32_t)first, room->slot,
                      room->greedy, room->rows, room->partial,  room->done};
        LAUNCH_DEPENDENT(ctx, cap_and_choose, dim3((unsigned)ceil_div(vocab, CHUNK), (unsigned)n),
                         THREADS, 0, a);
    }
    return CT_OK;
}

/* ---- the host's side ------------------------------------------------------------------------- */

static void empty(logits_room *room)
{
    cudaFree(room->logits);
    cudaFree(room->partial);
    cudaFree(room->done);
    cudaFreeHost(room->slot);
    cudaFreeHost(room->greedy);
    cudaFreeHost(room->rows);
    free(room->logits_to);
    free(room->greedy_to);
    uint64_t generation = room->generation;
    memset(room, 0, sizeof *room);
    room->generation = generation;
}

void logits_room_free(logits_room *room)
{
    if (!room) return;
    empty(room);
    free(room);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

ct_status cuda_logits_reserve(ct_device *device, int64_t n_full, int64_t n, int64_t vocab,
                              ct_err *err)
{
    gemm_plans *plans = plans_of(device);
    if (plans && !plans->logits) plans->logits = (logits_room *)calloc(1, sizeof *plans->logits);
    if (!plans || !plans->logits) return ct_fail_memory(err, "room for logits", sizeof *plans);
    logits_room *room = plans->logits;
    if (n_full <= room->n_full && n <= room->n && vocab <= room->vocab) return CT_OK;

    cudaError_t e = cudaStreamSynchronize(device->stream);
    n_full = larger(n_full, room->n_full);
    n = larger(larger(n, room->n), ROOM_ROWS);
    vocab = larger(vocab, room->vocab);
    empty(room);
    room->generation++;
    const size_t chunks = (size_t)ceil_div(vocab, CHUNK), row = (size_t)vocab * sizeof(float);
    const size_t ids = (size_t)n * sizeof(int32_t);
    if (!e) e = cudaMalloc(&room->logits, ROOM_ROWS * row);
    if (!e) e = cudaMalloc(&room->partial, ROOM_ROWS * chunks * sizeof(choice));
    if (!e) e = cudaMalloc(&room->done, ROOM_ROWS * sizeof(unsigned));
    if (!e) e = cudaMemsetAsync(room->done, 0, ROOM_ROWS * sizeof(unsigned), device->stream);
    if (!e) e = cudaStreamSynchronize(device->stream);
    if (!e) e = cudaHostAlloc((void **)&room->slot, ids, cudaHostAllocMapped);
    if (!e) e = cudaHostAlloc((void **)&room->greedy, ids, cudaHostAllocMapped);
    if (!e && n_full > 0)
        e = cudaHostAlloc((void **)&room->rows, (size_t)n_full * row, cudaHostAllocMapped);
    room->logits_to = (float **)calloc((size_t)n, sizeof *room->logits_to);
    room->greedy_to = (int32_t **)calloc((size_t)n, sizeof *room->greedy_to);
    if (e || !room->logits_to || !room->greedy_to) {
        cudaGetLastError();
        empty(room);
        return ct_fail_memory(err, "room for logits",
                              (ROOM_ROWS + (unsigned long long)n_full) * row);
    }
    for (int64_t i = 0; i < n; i++) room->slot[i] = -1;
    room->n_full = n_full;
    room->n = n;
    room->vocab = vocab;
    return CT_OK;
}

uint64_t cuda_logits_generation(const ct_device *device)
{
    return device->plans && device->plans->logits ? device->plans->logits->generation : 0;
}

ct_status cuda_logits_targets(ct_device *device, const ct_logits_args *args, ct_err *err)
{
    logits_room *room = device->plans ? device->plans->logits : NULL;
    int64_t full = 0;
    for (int64_t i = 0; i < args->n; i++) full += args->logits && args->logits[i];
    if (args->n == 0) return CT_OK;
    if (!room || args->n > room->n || full > room->n_full || args->head.rows > room->vocab)
        return ct_fail(err, CT_ERR_LIMIT, "logits on the GPU: no room was made for %lld rows",
                       (long long)args->n);
    full = 0;
    for (int64_t i = 0; i < args->n; i++) {
        room->logits_to[i] = args->logits ? args->logits[i] : NULL;
        room->greedy_to[i] = args->greedy ? args->greedy[i] : NULL;
        room->slot[i] = room->logits_to[i] ? (int32_t)full++ : -1;
    }
    room->noted = args->n;
    room->noted_vocab = args->head.rows;
    return CT_OK;
}

void cuda_logits_finish(ct_device *device)
{
    logits_room *room = device->plans ? device->plans->logits : NULL;
    if (!room) return;
    for (int64_t i = 0; i < room->noted; i++) {
        if (room->logits_to[i])
            memcpy(room->logits_to[i], room->rows + room->slot[i] * room->noted_vocab,
                   (size_t)room->noted_vocab * sizeof(float));
        else if (room->greedy_to[i]) *room->greedy_to[i] = room->greedy[i];
    }
    room->noted = 0;
}
