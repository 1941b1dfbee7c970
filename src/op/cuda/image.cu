/* image.cu - the image of a batch: everything that kernels read of it, made in pinned memory and sent to the
 * device by one copy, to one place, so that a recorded pass finds it there again.
 */
#include <string.h>

#include "op/cuda/device.cuh"

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
    int64_t tiles, chunks, most_chunks, most_keys, most_visible, blocks, marked, needles;
    bool means, light;
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
        c.light |= run->n_light > 0;
        c.needles += (int64_t)run->n_needle;
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
static cudaError_t reserve_image(image_room *room, size_t bytes)
{
    if (bytes <= room->bytes) return cudaSuccess;
    size_t want = bytes > 2 * room->bytes ? bytes : 2 * room->bytes;
    cudaFreeHost(room->host);
    cudaFree(room->device);
    room->host = room->device = NULL;
    room->bytes = 0;
    cudaError_t e = cudaHostAlloc((void **)&room->host, want, cudaHostAllocDefault);
    if (e == cudaSuccess) e = cudaMalloc((void **)&room->device, want);
    if (e == cudaSuccess) room->bytes = want;
    return e;
}

/* A row's runs share its list of blocks, and rows follow one another. Lists of ones are each run's own. */
static void fill_runs(const ct_device *device, const ct_batch *batch, image_run *to,
                      image_run *means, image_mean *mean, size_t blocks_at, size_t marked_at)
{
    const image_room *room = &device->room;
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
            memcpy(room->host + blocks_at, run->k, (size_t)n * sizeof *run->k);
            blocks_at += (size_t)n * sizeof *run->k;
        }
        const void *const *blocks = (const void *const *)(room->device + last_at);
        to[r] = {(int32_t)run->seg.first,    (int32_t)run->seg.count, (int32_t)run->seg.position,
                 (int32_t)run->window,       (int32_t)run->edit,      0,
                 NULL,                       blocks,                  blocks};
        if (is_marked(run)) {
            to[r].marked_count = (int32_t)run->marked_count;
            to[r].marked = (const uint8_t *)room->device + marked_at;
            if (run->marked_count > 0)
                memcpy(room->host + marked_at, run->marked, (size_t)run->marked_count);
            marked_at += (size_t)round_up(run->marked_count, 16);
        }
        if (!means) continue;
        means[r] = to[r];
        means[r].edit = run->mean ? CT_WEIGHTS_ONLY : CT_WEIGHTS_NULL;
        mean[r] = {};
        if (!run->mean) continue;
        mean[r] = {1, (int32_t)run->mean->columns, (int32_t)run->mean->begin, (int32_t)run->mean->end};
        const void **ones = (const void **)(room->host + blocks_at);
        for (int64_t b = 0; b < n; b++) {
            int64_t twice = run->mean->twice, twos = CT_KV_BLOCK;
            if (twice >= 0 && twice / CT_KV_BLOCK == b) twos = twice % CT_KV_BLOCK;
            ones[b] = (const char *)device->ones + (size_t)twos * ones_bytes;
        }
        means[r].v_blocks = (const void *const *)(room->device + blocks_at);
        blocks_at += (size_t)n * sizeof *ones;
        last = NULL; /* a list that follows begins anew */
    }
}

/* `spans`: where the needles of all runs go, one after another, and the same place on the device. */
static void fill_light(const ct_batch *batch, image_light *to, image_span *spans,
                       const image_span *on_device)
{
    int64_t n = 0;
    for (int64_t r = 0; r < batch->n_runs; r++) {
        const ct_attn_row *run = &batch->runs[r];
        to[r] = {(int32_t)run->light_first, (int32_t)run->n_light, (int32_t)run->n_needle,
                 on_device + n};
        for (size_t i = 0; i < run->n_needle; i++)
            spans[n++] = {(int32_t)run->needle[i].begin, (int32_t)run->needle[i].end};
    }
}

/* The arrays whose size a recording's key does not tell (lists of blocks, marks) come last. */
cudaError_t make_image(ct_device *device, const ct_batch *batch, bool prefill, bool rounded)
{
    image_room *room = &device->room;
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
    const size_t light = place(&l, c.light ? (size_t)batch->n_runs * sizeof(image_light) : 0);
    const size_t needles = place(&l, c.light ? (size_t)c.needles * sizeof(image_span) : 0);
    cudaError_t e = reserve_image(room, l.at);
    if (e != cudaSuccess) return e;

    char *h = room->host, *d = room->device;
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
    if (c.light)
        fill_light(batch, (image_light *)(h + light), (image_span *)(h + needles),
                   (const image_span *)(d + needles));
    room->image = {.tokens = (int32_t)batch->tokens,
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
                  .light = c.light ? (const image_light *)(d + light) : NULL,
                  .tile = (const image_tile *)(d + tiles),
                  .chunk = (const image_chunk *)(d + chunks),
                  .seg_chunk = (const int32_t *)(d + seg_chunk),
                  .wanted = (const int32_t *)(d + wanted)};
    return cudaMemcpyAsync(d, h, l.at, cudaMemcpyHostToDevice, device->stream);
}
