/* device.cuh - what the files of op/cuda share: the device, a batch's image on it, and how kernels are
 * launched.
 *
 * A device has two streams. Passes run on one, in the order of the calls, and each pass ends by waiting for it;
 * one thread at a time has a pass under way (begin takes pass_lock, end gives it back). Memory is given,
 * zeroed, copied and taken back on the other, so that a thread that prepares its sequences waits for no
 * other's pass and its calls are in no other's recording; a pass begins after what was asked there before.
 *
 * A kernel reads sizes that
 * change from step to step (positions, counts, lists of blocks) from the image, never from its
 * arguments, so that a recorded pass (CUDA graph) can be replayed; what the arguments and the grid
 * depend on (tokens, rows, runs, the bound of the keys) is part of the recording's key.
 *
 * Which kernel computes a row depends on the stage and on the shape of the weights, never on how many
 * rows there are: and every sum has one order. Both together make a row's bits independent of its
 * company.
 */
#ifndef CT_OP_CUDA_DEVICE_CUH
#define CT_OP_CUDA_DEVICE_CUH

#include <pthread.h>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#ifndef _Noreturn
#define _Noreturn __attribute__((noreturn)) /* C17's word, in the headers that C and CUDA share */
#endif
extern "C" {
#include "base/err.h"
#include "op/op.h"
}

typedef __nv_bfloat16 bf16;

/* A token of the batch: its row, its run (of equal edits), its absolute position. */
struct image_token {
    int32_t seg, run, position;
};

struct image_seg {
    int32_t first, count, position;
    int32_t keep, metric; /* of the row's head rule; keep < 0: all */
    uint64_t seed;
    float *state; /* the sequence's recurrent state; a layer's part begins at state_offset */
};

/* One ct_attn_row; a layer's keys of positions 64b .. 64b+63 begin at blocks[b] + k_offset elements. */
struct image_run {
    int32_t first, count, position;
    int32_t window; /* W: query p sees p-W .. p; < 0: all */
    int32_t edit;   /* ct_weights_mode */
    int32_t marked_count;
    const uint8_t *marked; /* [marked_count] */
    const void *const *k_blocks, *const *v_blocks;
};

/* One run's ct_mean; is_mean 0: it has none. */
struct image_mean {
    int32_t is_mean, columns, begin, end;
};

/* Of one run: the tokens whose light numbers are read, counted from the run's first, and its needle. */
struct image_span {
    int32_t begin, end;
};
struct image_light {
    int32_t first, count;
    int32_t n_needle;
    const image_span *needle; /* [n_needle] */
};

/* Up to TILE_TOKENS tokens of one run, for kernels that work on tiles; aligned to absolute positions:
 * a tile's tokens have position / TILE_TOKENS in common. */
enum { TILE_TOKENS = 64 };
struct image_tile {
    int32_t run, first, count; /* tokens [first, first + count) of the batch */
};

/* Up to CHUNK_TOKENS tokens of one row, for scans over time; aligned to absolute positions likewise. */
enum { CHUNK_TOKENS = 64 };
struct image_chunk {
    int32_t seg, first, count;
};

/* The image of a ct_batch: arrays in the device's memory, sizes by value. */
struct batch_image {
    int32_t tokens, n_segs, n_runs, n_wanted;
    int32_t n_tiles, n_chunks; /* of a prefill; 0 in generation */
    int32_t most_chunks;       /* of one row */
    int32_t most_keys;    /* bound of position + 1 over all tokens; in generation rounded up to a
                                * multiple of KEYS_STEP, because grids depend on it */
    int32_t most_visible;      /* likewise of the keys that one query sees */
    const int32_t *ids;        /* [tokens] */
    const image_token *token;  /* [tokens] */
    const image_seg *seg;      /* [n_segs] */
    const image_run *run;      /* [n_runs] */
    const image_run *mean_run; /* [n_runs] the same with values of 1, for the masses of means; or NULL */
    const image_mean *mean;    /* [n_runs] or NULL */
    const image_light *light;  /* [n_runs], or NULL: nobody reads light numbers */
    const image_tile *tile;    /* [n_tiles] */
    const image_chunk *chunk;  /* [n_chunks]; those of a row stand one after another */
    const int32_t *seg_chunk;  /* [n_segs] the row's first chunk */
    const int32_t *wanted;     /* [n_wanted] */
};
enum { KEYS_STEP = 512 };

/* Where the image of the pass under way lies: on the host (pinned) and on the device. */
struct image_room {
    char *host, *device;
    size_t bytes;
    batch_image image;
};

struct gemm_plans; /* matmul.cu's: cuBLASLt's algorithm for each shape of weights */

struct ct_device {
    int index, processors;
    char name[64]; /* "cuda-sm90" */
    cudaStream_t stream;        /* of passes */
    pthread_mutex_t pass_lock;  /* recursive */
    bool fresh;                 /* no kernel of the pass was launched yet */
    pthread_mutex_t memory_lock; /* of what follows, for the length of a call; taken last */
    cudaStream_t memory_stream;
    cudaEvent_t memory_event;
    bool memory_used;          /* since a pass was last told to wait for it */
    cudaError_t memory_failed; /* the first error there that no pass has told yet */
    const char *memory_failed_at;
    char *staging[2]; /* pinned, STAGING bytes each: transfers go through them */
    cudaEvent_t staged[2];
    uint64_t peers; /* devices of which it was asked that their memory can be read directly */
    cublasLtHandle_t lt;
    void *lt_workspace; /* LT_WORKSPACE bytes, of cuBLASLt alone */
    gemm_plans *plans;
    cudaError_t failed; /* the first error of a launch or call since `end` */
    const char *failed_at;
    void *ones;             /* layer_mean.cu's blocks of 1 and 2 in place of values */
    int64_t ones_width;
    bool ones_rounded;
    image_room room;                    /* image.cu's */
    struct pass_recordings *recordings; /* device.cu's: recorded passes */
};
enum { LT_WORKSPACE = 32 << 20 };
inline constexpr size_t STAGING = 32 << 20; /* bytes of one pinned buffer */

static inline const batch_image &image_of(const ct_batch *batch)
{
    return *(const batch_image *)batch->image;
}

/* Keeps the first failure until ct_ops.end tells it. */
static inline void note(ct_device *device, cudaError_t error, const char *where)
{
    if (error != cudaSuccess && device->failed == cudaSuccess) {
        device->failed = error;
        device->failed_at = where;
    }
}

/* Likewise of memory_stream, until a pass or a wait tells it. The caller holds memory_lock. */
static inline void note_memory(ct_device *device, cudaError_t error, const char *where)
{
    if (error != cudaSuccess && device->memory_failed == cudaSuccess) {
        device->memory_failed = error;
        device->memory_failed_at = where;
    }
}

/* kernel<<<grid, block, shared>>>(...) on the device's stream; its failure is noted. */
#define LAUNCH(ctx, kernel, grid, block, shared, ...)                                              \
    do {                                                                                           \
        (ctx)->device->fresh = false;                                                              \
        kernel<<<(grid), (block), (shared), (ctx)->device->stream>>>(__VA_ARGS__);                 \
        note((ctx)->device, cudaGetLastError(), #kernel);                                          \
    } while (0)

/* The same for a kernel that begins with let_next_begin and calls wait_for_earlier: its thread blocks
 * may start while the kernel before it still runs, which hides the way from one kernel to the next. It
 * holds in stream order and in recordings; an edge to anything that is no kernel stays a full one, so
 * what a copy wrote (the image, weights) is there from the start. The first kernel of a pass is launched
 * as by LAUNCH all the same. */
#define LAUNCH_DEPENDENT(ctx, kernel, grid, block, shared, ...)                                    \
    do {                                                                                           \
        cudaLaunchAttribute attribute_ = {};                                                       \
        attribute_.id = cudaLaunchAttributeProgrammaticStreamSerialization;                        \
        attribute_.val.programmaticStreamSerializationAllowed = 1;                                 \
        cudaLaunchConfig_t config_ = {};                                                           \
        config_.gridDim = dim3(grid);                                                              \
        config_.blockDim = dim3(block);                                                            \
        config_.dynamicSmemBytes = (size_t)(shared);                                               \
        config_.stream = (ctx)->device->stream;                                                    \
        config_.attrs = &attribute_;                                                               \
        config_.numAttrs = (ctx)->device->fresh ? 0 : 1;                                           \
        (ctx)->device->fresh = false;                                                              \
        note((ctx)->device, cudaLaunchKernelEx(&config_, kernel, __VA_ARGS__), #kernel);           \
    } while (0)

/* The next kernel's thread blocks may start once all of this one's have called this or ended. */
static __device__ __forceinline__ void let_next_begin()
{
    asm volatile("griddepcontrol.launch_dependents;");
}

/* Until all kernels before this one are done and what they wrote can be read. Some thread of every kernel
 * between must have waited too, so each calls this on every way through it: before it reads what an
 * earlier kernel of the pass wrote, and before it writes what an earlier one reads. Weights and the image
 * may be read before. */
static __device__ __forceinline__ void wait_for_earlier()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- operations, one file each --------------------------------------------------------------- */

/* image.cu: everything that kernels read of the batch, on its way to the device by one copy. rounded: what
 * means count with is bf16. */
cudaError_t make_image(ct_device *, const ct_batch *, bool prefill, bool rounded);
/* device.cu */
ct_status fail_cuda(ct_err *, cudaError_t, const char *what);
/* memory.cu: ct_ops' functions of memory. order_after_memory: the stream of passes goes on after what was
 * asked of memory before, and what failed there is noted; the caller holds pass_lock and records nothing. */
void *memory_alloc(ct_device *, size_t);
void memory_free(ct_device *, void *);
ct_status memory_write(ct_device *, void *, const void *, size_t, ct_err *);
ct_status memory_read(ct_device *, void *, const void *, size_t, ct_err *);
void memory_copy(ct_device *, void *, const void *, size_t);
ct_status memory_transfer(ct_device *, ct_device *, void *, const void *, size_t, ct_err *);
int64_t memory_free_bytes(const ct_device *);
ct_status memory_fill_random(ct_device *, void *, const ct_random_fill *, ct_err *);
ct_status memory_sync(ct_device *, ct_err *);
cudaError_t order_after_memory(ct_device *);
/* matmul.cu */
ct_status cuda_matmul(ct_op_ctx *, float *, const float *, int64_t, const ct_matrix *,
                      const float *, bool, ct_err *);
ct_status cuda_products(ct_op_ctx *, const ct_product *, int64_t, const float *, int64_t, ct_err *);
ct_status cuda_gated_mlp(ct_op_ctx *, float *, const float *, int64_t, const ct_mlp *, float *,
                         ct_err *);
void gemm_plans_free(gemm_plans *);
/* Scratch of the products for T tokens and matrices up to rows x cols. */
size_t matmul_scratch_bytes(int64_t tokens, int64_t max_rows, int64_t max_cols);
/* logits.cu: reserve, outside a recording, makes room for n rows of logits of which n_full come back
 * whole; generation changes whenever that room moved, so that older recordings must not be replayed;
 * targets notes where the results of the pass belong, before each pass, replayed or not; finish, after
 * the stream was waited for, takes them there. */
ct_status cuda_logits_reserve(ct_device *, int64_t n_full, int64_t n, int64_t vocab, ct_err *);
uint64_t cuda_logits_generation(const ct_device *);
ct_status cuda_logits(ct_op_ctx *, const ct_logits_args *, ct_err *);
ct_status cuda_logits_targets(ct_device *, const ct_logits_args *, ct_err *);
void cuda_logits_finish(ct_device *);
/* elementwise.cu */
void cuda_embed(ct_op_ctx *, float *, const ct_batch *, const ct_matrix *, float);
void cuda_rms_norm(ct_op_ctx *, float *, const float *, int64_t, int64_t, int64_t, const float *,
                   float, float);
void cuda_silu_mul(ct_op_ctx *, float *, const float *, const float *, int64_t);
void cuda_pick(ct_op_ctx *, float *, const float *, const ct_batch *, int64_t);
/* recurrent.cu */
void cuda_conv1d(ct_op_ctx *, float *, const float *, int64_t, int64_t, const float *,
                 const float *, const ct_batch *, int64_t);
ct_status cuda_rglru(ct_op_ctx *, float *, const float *, float *, const ct_rglru *, float *,
                     const ct_batch *, int64_t, ct_err *);
/* scan.cu */
void cuda_selective_scan(ct_op_ctx *, float *, const ct_scan *, const ct_batch *, int64_t);
/* experts.cu */
ct_status cuda_experts(ct_op_ctx *, float *, const float *, int64_t, const ct_experts *, ct_err *);
/* Scratch of the experts: T tokens, E, F, k. */
size_t experts_scratch_bytes(int64_t tokens, int64_t width, int64_t ffn, int64_t used);
/* attention.cu */
void cuda_place_keys(ct_op_ctx *, const ct_place_args *, const ct_batch *);
ct_status cuda_attention(ct_op_ctx *, const ct_attn_args *, ct_err *);
size_t attention_scratch_bytes(int64_t tokens, int64_t heads, int64_t head_dim);
/* weights.cu */
ct_status cuda_attention_weights(ct_op_ctx *, const ct_attn_args *, const ct_weights_out *, ct_err *);
/* layer_mean.cu: make_ones before the image of a batch that has means; block b < 64 of [64, width] has
 * twos at position b, block 64 has none. */
cudaError_t make_ones(ct_device *, int64_t width, bool rounded);
ct_status cuda_layer_mean(ct_op_ctx *, const ct_attn_args *, float *, float *, const ct_batch *, ct_err *);
void cuda_keep_heads(ct_op_ctx *, uint8_t *, float *, const ct_keep_args *, const ct_batch *);
/* random.cu */
ct_status cuda_fill_random(ct_device *, void *, const ct_random_fill *, ct_err *);
/* limits.cu */
ct_status cuda_limits(ct_device *, ct_device_limits *, ct_err *);

#endif
