/* attention_check.cuh - what attention_check.cu and attention_time.cu share: memory on the device, random
 * numbers, and passes: rows of sequences, with their image on the device, made without device.cu.
 *
 * Memory that no token was stored to is filled with NaNs, so that nothing may be made of it.
 */
#ifndef CT_TESTS_GPU_ATTENTION_CHECK_CUH
#define CT_TESTS_GPU_ATTENTION_CHECK_CUH

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "op/cuda/device.cuh"

extern "C" {
#include "base/rng.h"
}

inline int failures, checks;

inline void check(bool ok, const std::string &what)
{
    checks++;
    if (ok) return;
    if (failures++ < 60) printf("FAIL %s\n", what.c_str());
}

inline void cuda_ok(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    printf("FAIL %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

struct memory { /* on the device, freed at the end of its scope */
    void *at = nullptr;
    explicit memory(size_t bytes, int fill = 0)
    {
        cuda_ok(cudaMalloc(&at, bytes + 256), "malloc");
        cuda_ok(cudaMemset(at, fill, bytes + 256), "memset");
    }
    memory(const memory &) = delete;
    ~memory()
    {
        cudaFree(at);
    }
};

template <typename T> struct array : memory {
    explicit array(const std::vector<T> &from) : memory(from.size() * sizeof(T))
    {
        cuda_ok(cudaMemcpy(at, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice),
                "write");
    }
    T *data() const
    {
        return (T *)at;
    }
};

template <typename T> std::vector<T> read(const void *from, size_t n)
{
    std::vector<T> to(n);
    cuda_ok(cudaMemcpy(to.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost), "read");
    return to;
}

inline float as_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
    memcpy(&x, &bits, 4);
    return x;
}

/* About normal: the sum of four uniform numbers. */
inline float random_value(uint64_t stream, uint64_t i)
{
    uint64_t bits = ct_rng_u64(7, stream, i), sum = 0;
    for (int k = 0; k < 64; k += 16) sum += bits >> k & 0xFFFF;
    return ((float)sum / 65536 - 2) * 1.7f;
}

struct shape {
    int heads, kv_heads, dim;
    bool bf16;
};

/* A sequence's cache, on the host (f32, keys and values apart) and on the device (two layers to a block,
 * of which the second is used). */
struct sequence {
    shape s;
    uint64_t stream;
    int64_t positions, blocks, block_floats;
    std::vector<float> k, v;
    std::vector<const void *> k_host, v_host;
    memory cache;
    array<const void *> list;

    static std::vector<const void *> pointers(void *at, int64_t blocks, size_t bytes)
    {
        std::vector<const void *> list;
        for (int64_t b = 0; b < blocks; b++) list.push_back((char *)at + b * bytes);
        return list;
    }
    size_t element() const
    {
        return s.bf16 ? 2 : 4;
    }
    /* known: with values on the host, to be stored by the test. */
    sequence(shape s_, uint64_t stream_, int64_t positions_, bool known = true)
        : s(s_), stream(stream_), positions(positions_), blocks((positions_ + 63) / 64),
          block_floats((int64_t)64 * s_.kv_heads * s_.dim),
          cache((size_t)(blocks * 4 * block_floats) * (s_.bf16 ? 2 : 4), 0xFF),
          list(pointers(cache.at, blocks, (size_t)(4 * block_floats) * (s_.bf16 ? 2 : 4)))
    {
        int64_t width = (int64_t)s.kv_heads * s.dim;
        if (!known) return;
        k.resize(blocks * block_floats), v.resize(blocks * block_floats);
        for (int64_t i = 0; i < positions * width; i++) {
            k[i] = random_value(2 * stream, i), v[i] = random_value(2 * stream + 1, i);
            if (s.bf16) k[i] = as_bf16(k[i]), v[i] = as_bf16(v[i]);
        }
        for (int64_t b = 0; b < blocks; b++) {
            k_host.push_back(k.data() + b * block_floats);
            v_host.push_back(v.data() + b * block_floats);
        }
    }
};

struct run_of {
    int64_t count;
    ct_weights_mode edit;
    int64_t marked_begin, marked_end;
};

struct row_of {
    sequence *of;
    int64_t position, window;
    std::vector<run_of> runs;
    ct_head_rule rule = {-1, CT_METRIC_ENTROPY, 0};
    int64_t count() const
    {
        int64_t n = 0;
        for (const run_of &r : runs) n += r.count;
        return n;
    }
};

struct results {
    std::vector<float> out, entropy, l2;
    std::vector<uint8_t> keep;
};

inline ct_device device;

/* Of every pass, for the light recorder: where each run's needle is, and which of its tokens are recorded
 * (from LIGHT_FIRST on, where there are as many). */
inline const ct_span NEEDLE[] = {{3, 20}, {60, 129}};
constexpr int64_t LIGHT_FIRST = 2;

/* A batch, with its image on the device. */
struct pass {
    shape s;
    ct_stage stage;
    int64_t tokens = 0;
    std::vector<ct_seg> segs;
    std::vector<ct_attn_row> runs;
    std::vector<std::vector<uint8_t>> marks;
    std::vector<float> q;
    std::vector<std::unique_ptr<memory>> held;
    batch_image image = {};
    ct_batch batch = {};

    template <typename T> T *hold(const std::vector<T> &from)
    {
        auto *copy = new array<T>(from);
        held.emplace_back(copy);
        return copy->data();
    }

    pass(shape s_, ct_stage stage_, const std::vector<row_of> &rows) : s(s_), stage(stage_)
    {
        std::vector<image_token> token;
        std::vector<image_seg> seg;
        std::vector<image_run> run;
        std::vector<image_tile> tile;
        std::vector<image_light> light;
        std::vector<image_span> needle;
        for (const ct_span &span : NEEDLE) needle.push_back({(int)span.begin, (int)span.end});
        const image_span *needle_at = hold(needle);
        for (size_t r = 0; r < rows.size(); r++) {
            const row_of &row = rows[r];
            sequence *of = row.of;
            int64_t position = row.position;
            segs.push_back({tokens, row.count(), position});
            seg.push_back({(int)tokens, (int)row.count(), (int)position, row.rule.keep,
                           (int)row.rule.metric, row.rule.seed, nullptr});
            for (const run_of &one : row.runs) {
                std::vector<uint8_t> marked(one.marked_end);
                for (int64_t i = one.marked_begin; i < one.marked_end; i++) marked[i] = 1;
                const uint8_t *marked_at = hold(marked);
                marks.push_back(std::move(marked));
                runs.push_back({{tokens, one.count, position},
                                row.window,
                                of->k_host.data(),
                                of->v_host.data(),
                                one.edit,
                                marks.back().data(),
                                one.marked_end});
                int64_t first = one.count > LIGHT_FIRST ? LIGHT_FIRST : 0;
                runs.back().needle = NEEDLE, runs.back().n_needle = needle.size();
                runs.back().light_first = first, runs.back().n_light = one.count - first;
                light.push_back(
                    {(int)first, (int)(one.count - first), (int)needle.size(), needle_at});
                run.push_back({(int)tokens, (int)one.count, (int)position, (int)row.window,
                               (int)one.edit, (int)one.marked_end, marked_at, of->list.data(),
                               of->list.data()});
                for (int64_t t = 0; t < one.count; t++) {
                    int64_t p = position + t;
                    token.push_back({(int)r, (int)run.size() - 1, (int)p});
                    bool begins = t == 0 || p % TILE_TOKENS == 0;
                    if (begins) tile.push_back({(int)run.size() - 1, (int)(tokens + t), 0});
                    tile.back().count++;
                    int64_t visible = row.window < 0 || row.window > p ? p + 1 : row.window + 1;
                    image.most_keys = std::max(image.most_keys, (int)p + 1);
                    image.most_visible = std::max(image.most_visible, (int)visible);
                    for (int64_t i = 0; i < (int64_t)s.heads * s.dim; i++) {
                        float x = 1.5f * random_value(1000 + of->stream, p * s.heads * s.dim + i);
                        q.push_back(s.bf16 ? as_bf16(x) : x);
                    }
                }
                tokens += one.count, position += one.count;
            }
        }
        if (stage == CT_STAGE_GENERATION) {
            tile.clear();
            image.most_keys = (int)ceil_div(image.most_keys, KEYS_STEP) * KEYS_STEP;
            image.most_visible = (int)ceil_div(image.most_visible, KEYS_STEP) * KEYS_STEP;
        }
        image.tokens = (int)tokens, image.n_segs = (int)seg.size(), image.n_runs = (int)run.size();
        image.n_tiles = (int)tile.size();
        image.token = hold(token), image.seg = hold(seg), image.run = hold(run);
        image.tile = hold(tile), image.light = hold(light);
        batch.tokens = tokens, batch.n_segs = (int64_t)segs.size(),
        batch.n_runs = (int64_t)runs.size();
        batch.segs = segs.data(), batch.runs = runs.data(), batch.image = &image;
    }

    ct_attn_args args() const
    {
        ct_attn_args a = {};
        a.tokens = tokens, a.heads = s.heads, a.kv_heads = s.kv_heads, a.head_dim = s.dim;
        a.scale = 1 / std::sqrt((float)s.dim);
        a.rows = runs.data(), a.n_rows = (int64_t)runs.size(), a.batch = &batch;
        return a;
    }
    ct_op_ctx ctx(const memory &scratch, size_t bytes) const
    {
        return {scratch.at, bytes, s.bf16 ? CT_COMPUTE_BF16 : CT_COMPUTE_F32,
                stage,      false, &device};
    }
};

/* attention_time.cu */
void time_all();

#endif
