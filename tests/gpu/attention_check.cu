/* attention_check.cu - op/cuda's attention, cache and head selection against the reference, and their
 * speed. Needs a GPU: built by the target gpu_checks, not run by the suite.
 *
 *   attention_check [quick]        quick: no timings
 *
 * Memory that no token was stored to is filled with NaNs, so that nothing may be made of it. Queries,
 * keys and values of bf16 cases are bf16 numbers: what differs from the reference is the rounding of the
 * weights to bf16 (2^-9 each) and f32 arithmetic.
 */
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
ct_status ct_ref_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err);
}

namespace
{

int failures, checks;

void check(bool ok, const std::string &what)
{
    checks++;
    if (ok) return;
    if (failures++ < 60) printf("FAIL %s\n", what.c_str());
}

void cuda_ok(cudaError_t error, const char *what)
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

float as_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
    memcpy(&x, &bits, 4);
    return x;
}

/* About normal: the sum of four uniform numbers. */
float random_value(uint64_t stream, uint64_t i)
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

ct_device device;

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
        image.tile = hold(tile);
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
        return {scratch.at, bytes, s.bf16 ? CT_COMPUTE_BF16 : CT_COMPUTE_F32, stage, false, &device};
    }
};

/* Stores the tokens of positions begin .. end-1 of a sequence as a pass would, and looks at the cache. */
void store_tokens(sequence &of, int64_t begin, int64_t end)
{
    const shape s = of.s;
    int64_t width = (int64_t)s.kv_heads * s.dim;
    pass p(s, CT_STAGE_PREFILL, {{&of, begin, -1, {{end - begin, CT_WEIGHTS_KEEP, 0, 0}}}});
    array<float> k(std::vector<float>(of.k.begin() + begin * width, of.k.begin() + end * width));
    array<float> v(std::vector<float>(of.v.begin() + begin * width, of.v.begin() + end * width));
    memory none(16);
    ct_op_ctx ctx = p.ctx(none, 16);
    ct_place_args args = {nullptr,
                          k.data(),
                          v.data(),
                          0,
                          s.kv_heads,
                          s.dim,
                          0,
                          0,
                          2 * of.block_floats,
                          3 * of.block_floats};
    cuda_place_keys(&ctx, &args, &p.batch);
    cuda_ok(cudaStreamSynchronize(device.stream), "place_keys");
}

void check_cache(const sequence &of)
{
    int64_t bad = 0, width = (int64_t)of.s.kv_heads * of.s.dim;
    std::vector<uint8_t> bytes =
        read<uint8_t>(of.cache.at, (size_t)(of.blocks * 4 * of.block_floats) * of.element());
    for (int64_t i = 0; i < of.blocks * 4 * of.block_floats; i++) {
        int64_t b = i / (4 * of.block_floats), part = i / of.block_floats % 4;
        int64_t at = b * of.block_floats + i % of.block_floats;
        bool stored = part >= 2 && at < of.positions * width;
        uint32_t bits = 0, want = of.s.bf16 ? 0xFFFF : 0xFFFFFFFF;
        memcpy(&bits, bytes.data() + i * of.element(), of.element());
        if (stored) {
            memcpy(&want, part == 2 ? &of.k[at] : &of.v[at], 4);
            if (of.s.bf16) want >>= 16;
        }
        bad += bits != want;
    }
    check(bad == 0, "place_keys: " + std::to_string(bad) + " wrong elements");
}

results attend(pass &p, bool stats = true, size_t scratch_bytes = 0, bool select = false)
{
    size_t n = p.q.size(), rows = (size_t)p.tokens * p.s.heads;
    if (scratch_bytes == 0) scratch_bytes = attention_scratch_bytes(p.tokens, p.s.heads, p.s.dim);
    array<float> q(p.q);
    memory out(n * 4, 0xFF), entropy(rows * 4, 0xFF), l2(rows * 4, 0xFF),
        scratch(scratch_bytes, 0xFF);
    memory keep(rows, 0xFF);
    ct_attn_args args = p.args();
    args.q = q.data(), args.out = (float *)out.at;
    if (stats) args.entropy_bits = (float *)entropy.at, args.l2 = (float *)l2.at;
    int64_t block = (int64_t)64 * p.s.kv_heads * p.s.dim;
    args.k_offset = 2 * block, args.v_offset = 3 * block;
    ct_op_ctx ctx = p.ctx(scratch, scratch_bytes);
    ct_err err = {};
    ct_status st = cuda_attention(&ctx, &args, &err);
    check(st == CT_OK, std::string("attention: ") + err.text);
    if (select) {
        ct_keep_args rule = {p.s.heads, p.s.dim, 3, (float *)entropy.at, (float *)l2.at};
        cuda_keep_heads(&ctx, (uint8_t *)keep.at, (float *)out.at, &rule, &p.batch);
    }
    cuda_ok(cudaStreamSynchronize(device.stream), "attention");
    cuda_ok(device.failed, device.failed_at ? device.failed_at : "launch");
    return {read<float>(out.at, n), read<float>(entropy.at, rows), read<float>(l2.at, rows),
            read<uint8_t>(keep.at, rows)};
}

/* The same by the reference, a token at a time on all processors. */
results reference(const pass &p)
{
    size_t rows = (size_t)p.tokens * p.s.heads;
    results r = {
        std::vector<float>(p.q.size()), std::vector<float>(rows), std::vector<float>(rows), {}};
    std::vector<ct_attn_row> tokens;
    for (const ct_attn_row &run : p.runs)
        for (int64_t t = 0; t < run.seg.count; t++) {
            tokens.push_back(run);
            tokens.back().seg = {run.seg.first + t, 1, run.seg.position + t};
        }
    int n = (int)std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::thread> threads;
    for (int i = 0; i < n; i++)
        threads.emplace_back([&, i] {
            std::vector<double> scratch(p.s.dim);
            ct_op_ctx ctx = {scratch.data(), scratch.size() * 8, CT_COMPUTE_F32, p.stage, false, nullptr};
            for (size_t t = i; t < tokens.size(); t += n) {
                ct_attn_args args = p.args();
                args.q = p.q.data(), args.out = r.out.data();
                args.entropy_bits = r.entropy.data(), args.l2 = r.l2.data();
                args.rows = &tokens[t], args.n_rows = 1;
                ct_err err = {};
                if (ct_ref_attention(&ctx, &args, &err)) abort();
            }
        });
    for (std::thread &t : threads) t.join();
    return r;
}

void compare(const std::string &name, const std::vector<float> &got, const std::vector<float> &want,
             double bound)
{
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < got.size(); i++) {
        double error =
            std::fabs((double)got[i] - want[i]) / std::max(1.0, std::fabs((double)want[i]));
        if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error, at = i;
    }
    char text[300];
    snprintf(text, sizeof text, "%s: error %.3g at %zu (%g, expected %g), bound %.3g", name.c_str(),
             worst, at, at < got.size() ? got[at] : 0, at < want.size() ? want[at] : 0, bound);
    check(worst <= bound, text);
}

bool same(const std::vector<float> &a, const std::vector<float> &b, size_t from = 0)
{
    return from + b.size() <= a.size() && memcmp(a.data() + from, b.data(), b.size() * 4) == 0;
}

bool same(const results &a, const results &b, size_t row = 0, size_t dim = 0)
{
    return same(a.out, b.out, row * dim) && same(a.entropy, b.entropy, row) &&
           same(a.l2, b.l2, row);
}

std::string name_of(shape s, ct_stage stage, int64_t window, const char *what)
{
    char text[160];
    snprintf(text, sizeof text, "H %d G %d D %d %s %s window %lld: %s", s.heads, s.kv_heads, s.dim,
             s.bf16 ? "bf16" : "f32", stage == CT_STAGE_PREFILL ? "prefill" : "generation",
             (long long)window, what);
    return text;
}

const char *const EDIT_NAMES[] = {"keep", "null", "only", "binary", "omit"};
const ct_weights_mode EDITS[] = {CT_WEIGHTS_KEEP, CT_WEIGHTS_NULL, CT_WEIGHTS_ONLY,
                                 CT_WEIGHTS_BINARY, CT_WEIGHTS_OMIT};

/* What keep_heads should have made of a pass's outputs. */
void check_heads(const std::string &name, const std::vector<row_of> &rows, const pass &p,
                 const results &plain, const results &kept)
{
    int H = p.s.heads, D = p.s.dim, bad = 0;
    for (size_t r = 0; r < rows.size(); r++)
        for (int64_t t = 0; t < p.segs[r].count; t++) {
            const ct_head_rule &rule = rows[r].rule;
            int64_t token = p.segs[r].first + t, position = p.segs[r].position + t;
            std::vector<float> score(H);
            for (int h = 0; h < H; h++) {
                float e = plain.entropy[token * H + h];
                score[h] = rule.metric == CT_METRIC_ENTROPY ? -e
                           : rule.metric == CT_METRIC_L2    ? plain.l2[token * H + h]
                           : rule.metric == CT_METRIC_ENTROPY_INVERTED
                               ? e
                               : ct_rng_f32(rule.seed, 3, (uint64_t)(position * H + h));
            }
            for (int h = 0; h < H; h++) {
                int better = 0;
                for (int o = 0; o < H; o++)
                    better += score[o] > score[h] || (score[o] == score[h] && o < h);
                bool keep = rule.keep < 0 || better < rule.keep;
                bad += kept.keep[token * H + h] != keep;
                for (int d = 0; d < D; d++) {
                    int64_t at = (token * H + h) * D + d;
                    bad += kept.out[at] != (keep ? plain.out[at] : 0);
                }
            }
        }
    check(bad == 0, name + " keep_heads: " + std::to_string(bad) + " wrong");
}

void check_shape(shape s, int64_t window)
{
    double out_bound = s.bf16 ? 6e-3 : 1e-5, stat_bound = s.bf16 ? 1e-3 : 2e-5;
    /* Positions around blocks, parts and the window's edge. */
    int64_t far = window > 512 ? window + 37 : 700;
    sequence a(s, 1, 200), b(s, 2, far + 3), c(s, 3, 130), d(s, 4, 7);
    for (sequence *of : {&a, &b, &c, &d}) {
        int64_t half = of->positions / 2;
        store_tokens(*of, 0, half);
        store_tokens(*of, half, of->positions);
        check_cache(*of);
    }
    /* Prompts: whole, a late piece, one that changes its edit within a tile, a short one. */
    int64_t late = (far / 64 - 1) * 64, end = far + 3 - late;
    for (ct_stage stage : {CT_STAGE_PREFILL, CT_STAGE_GENERATION})
        for (ct_weights_mode edit : EDITS) {
            if (edit != CT_WEIGHTS_KEEP && s.dim > 16 && window != 100) continue;
            std::vector<row_of> rows;
            if (stage == CT_STAGE_PREFILL)
                rows = {{&a, 0, window, {{200, edit, 5, 90}}, {1, CT_METRIC_ENTROPY, 0}},
                        {&b, late, window, {{end, edit, 60, 65}}, {2, CT_METRIC_RANDOM, 11}},
                        {&c,
                         0,
                         window,
                         {{70, CT_WEIGHTS_KEEP, 0, 0}, {60, edit, 1, 100}},
                         {1, CT_METRIC_L2, 0}},
                        {&d, 0, window, {{7, CT_WEIGHTS_KEEP, 0, 0}}}};
            else
                rows = {{&a, 199, window, {{1, edit, 5, 190}}, {1, CT_METRIC_ENTROPY, 0}},
                        {&b,
                         far,
                         window,
                         {{1, CT_WEIGHTS_KEEP, 0, 0}, {2, edit, far - 60, far - 2}},
                         {2, CT_METRIC_RANDOM, 11}},
                        {&c, 127, window, {{1, edit, 1, 100}}, {0, CT_METRIC_L2, 0}},
                        {&c, 128, window, {{1, edit, 0, 129}}, {1, CT_METRIC_ENTROPY_INVERTED, 0}},
                        {&d, 0, window, {{1, edit, 0, 1}}},
                        {&d, 6, window, {{1, CT_WEIGHTS_KEEP, 0, 0}}}};
            pass p(s, stage, rows);
            results want = reference(p), got = attend(p);
            std::string name = name_of(s, stage, window, EDIT_NAMES[edit]);
            compare(name + " out", got.out, want.out, out_bound);
            compare(name + " entropy", got.entropy, want.entropy, stat_bound);
            compare(name + " l2", got.l2, want.l2, stat_bound);

            check(same(got.out, attend(p, false).out), name + ": statistics change bits");
            for (size_t r = 0; r < rows.size(); r++) {
                pass alone(s, stage, {rows[r]});
                check(same(got, attend(alone), p.segs[r].first * s.heads, s.dim),
                      name + ": row " + std::to_string(r) + " alone differs in bits");
            }
            check_heads(name, rows, p, got, attend(p, true, 0, true));
            if (stage == CT_STAGE_GENERATION) {
                size_t one = (size_t)(ceil_div(p.image.most_keys, 128) * s.heads * (s.dim + 8)) * 4;
                check(same(got, attend(p, true, one)), name + ": little scratch changes bits");
                continue;
            }
            /* Cut at multiples of 64, and with runs that end anywhere. */
            for (int64_t cut = 64; cut < 200; cut += 64) {
                pass tail(s, stage, {{&a, cut, window, {{200 - cut, edit, 5, 90}}}});
                check(same(got, attend(tail), cut * s.heads, s.dim),
                      name + ": a cut prompt differs");
            }
            pass split(
                s, stage,
                {{&a, 0, window, {{30, edit, 5, 90}, {81, edit, 5, 90}, {89, edit, 5, 90}}}});
            results whole = attend(split);
            check(memcmp(whole.out.data(), got.out.data(), whole.out.size() * 4) == 0 &&
                      same(got, whole),
                  name + ": other runs differ in bits");
        }
}

/* Rotation against f64, and what of it is in the cache. */
void check_rotation(shape s, int rotary)
{
    const int64_t first = 99901, count = 70, half = rotary / 2;
    const int64_t width = (int64_t)s.kv_heads * s.dim, all = (int64_t)s.heads * s.dim;
    sequence of(s, 5, first + count, false);
    of.k_host.resize(of.blocks), of.v_host.resize(of.blocks);
    pass p(s, CT_STAGE_GENERATION, {{&of, first, -1, {{count, CT_WEIGHTS_KEEP, 0, 0}}}});
    std::vector<float> q(count * all), k(count * width), v(count * width);
    for (size_t i = 0; i < q.size(); i++) q[i] = random_value(50, i);
    for (size_t i = 0; i < k.size(); i++) k[i] = random_value(51, i), v[i] = random_value(52, i);
    array<float> dq(q), dk(k), dv(v);
    memory none(16);
    ct_op_ctx ctx = p.ctx(none, 16);
    ct_place_args args = {
        dq.data(), dk.data(),           dv.data(),          s.heads, s.kv_heads, s.dim, rotary,
        10000,     2 * of.block_floats, 3 * of.block_floats};
    cuda_place_keys(&ctx, &args, &p.batch);
    cuda_ok(cudaStreamSynchronize(device.stream), "place_keys");
    cuda_ok(device.failed, "place_keys");
    auto rotate = [&](std::vector<float> &x, int heads) {
        for (int64_t t = 0; t < count; t++)
            for (int64_t j = 0; j < half; j++) {
                double angle = (double)(first + t) * std::pow(10000, -2.0 * j / rotary);
                for (int h = 0; h < heads; h++) {
                    float *at = &x[(t * heads + h) * s.dim + j];
                    double a = at[0], b = at[half];
                    at[0] = (float)(a * std::cos(angle) - b * std::sin(angle));
                    at[half] = (float)(b * std::cos(angle) + a * std::sin(angle));
                }
            }
    };
    rotate(q, s.heads), rotate(k, s.kv_heads);
    std::string name = name_of(s, CT_STAGE_GENERATION, -1, "rotation ") + std::to_string(rotary);
    std::vector<float> got_k = read<float>(dk.at, k.size());
    compare(name + " q", read<float>(dq.at, q.size()), q, 1e-6);
    compare(name + " k", got_k, k, 1e-6);
    std::vector<uint8_t> bytes =
        read<uint8_t>(of.cache.at, (size_t)(of.blocks * 4 * of.block_floats) * of.element());
    int64_t bad = 0;
    for (int64_t i = 0; i < count * width; i++)
        for (int part = 2; part < 4; part++) {
            int64_t position = first + i / width;
            int64_t at = position / 64 * 4 * of.block_floats + part * of.block_floats +
                         position % 64 * width + i % width;
            float want = part == 2 ? got_k[i] : v[i];
            uint32_t bits = 0, expected;
            if (s.bf16) want = as_bf16(want);
            memcpy(&expected, &want, 4);
            if (s.bf16) expected >>= 16;
            memcpy(&bits, bytes.data() + at * of.element(), of.element());
            bad += bits != expected;
        }
    check(bad == 0, name + ": " + std::to_string(bad) + " wrong elements in the cache");
}

/* Layers of which each takes the last one's outputs as queries: with a wait after each operation, then
 * in stream order, then recorded and replayed. The bits are the same. */
void check_chain(shape s, int64_t window, int n_rows)
{
    enum { CHAIN = 5, REPLAYS = 50 };
    std::vector<std::unique_ptr<sequence>> of;
    std::vector<row_of> rows;
    for (int r = 0; r < n_rows; r++) {
        of.emplace_back(new sequence(s, 20 + r, 900 + 13 * r));
        store_tokens(*of.back(), 0, of.back()->positions);
        rows.push_back({of.back().get(),
                        of.back()->positions - 1,
                        window,
                        {{1, r % 2 ? CT_WEIGHTS_OMIT : CT_WEIGHTS_KEEP, 100, 400}},
                        {r % 3 ? 2 : -1, CT_METRIC_ENTROPY, 0}});
    }
    pass p(s, CT_STAGE_GENERATION, rows);
    size_t n = p.q.size(), heads = (size_t)n_rows * s.heads, width = (size_t)s.kv_heads * s.dim;
    size_t scratch_bytes = attention_scratch_bytes(n_rows, s.heads, s.dim);
    std::vector<float> k_from(n_rows * width), v_from(n_rows * width);
    for (size_t i = 0; i < k_from.size(); i++)
        k_from[i] = random_value(60, i), v_from[i] = random_value(61, i);
    memory one(n * 4), two(n * 4), entropy(heads * 4), l2(heads * 4), keep(heads),
        scratch(scratch_bytes, 0xFF);
    array<float> k(k_from), v(v_from);
    ct_op_ctx ctx = p.ctx(scratch, scratch_bytes);
    int64_t block = (int64_t)64 * s.kv_heads * s.dim;
    auto restart = [&] {
        cuda_ok(cudaMemcpyAsync(one.at, p.q.data(), n * 4, cudaMemcpyHostToDevice, device.stream),
                "copy");
        cuda_ok(cudaMemcpyAsync(k.at, k_from.data(), k_from.size() * 4, cudaMemcpyHostToDevice,
                                device.stream),
                "copy");
    };
    auto chain = [&](bool waits) {
        auto done = [&] {
            if (waits) cuda_ok(cudaStreamSynchronize(device.stream), "chain");
        };
        for (int i = 0; i < CHAIN; i++) {
            float *from = (float *)(i % 2 ? two.at : one.at),
                  *to = (float *)(i % 2 ? one.at : two.at);
            ct_place_args place = {from,  k.data(),  v.data(), s.heads,   s.kv_heads,
                                   s.dim, s.dim / 2, 10000,    2 * block, 3 * block};
            cuda_place_keys(&ctx, &place, &p.batch), done();
            ct_attn_args args = p.args();
            args.q = from, args.out = to;
            args.entropy_bits = (float *)entropy.at, args.l2 = (float *)l2.at;
            args.k_offset = 2 * block, args.v_offset = 3 * block;
            ct_err err = {};
            check(cuda_attention(&ctx, &args, &err) == CT_OK, "chain: attention"), done();
            ct_keep_args rule = {s.heads, s.dim, i, (float *)entropy.at, (float *)l2.at};
            cuda_keep_heads(&ctx, (uint8_t *)keep.at, to, &rule, &p.batch), done();
        }
    };
    auto result = [&] {
        cuda_ok(cudaStreamSynchronize(device.stream), "chain");
        cuda_ok(device.failed, "chain");
        return read<float>(CHAIN % 2 ? two.at : one.at, n);
    };
    restart(), chain(true);
    std::vector<float> want = result();
    int wrong = 0;
    for (int i = 0; i < REPLAYS; i++) {
        restart(), chain(false);
        wrong += !same(result(), want);
    }
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cuda_ok(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
    chain(false);
    cuda_ok(cudaStreamEndCapture(device.stream, &graph), "capture");
    cuda_ok(cudaGraphInstantiate(&exec, graph, 0), "graph");
    for (int i = 0; i < REPLAYS; i++) {
        restart();
        cuda_ok(cudaGraphLaunch(exec, device.stream), "graph");
        wrong += !same(result(), want);
    }
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    double sum = 0;
    for (float x : want) sum += std::fabs(x);
    check(std::isfinite(sum) && sum > 0, "chain: outputs are numbers");
    check(wrong == 0, name_of(s, CT_STAGE_GENERATION, window, "chain: ") + std::to_string(wrong) +
                          " passes in other bits");
}

/* Shapes that there is no kernel for are errors. */
void check_errors()
{
    shape s = {2, 1, 16, true};
    sequence of(s, 1, 64);
    pass p(s, CT_STAGE_GENERATION, {{&of, 63, -1, {{1, CT_WEIGHTS_KEEP, 0, 0}}}});
    memory scratch(1 << 20);
    ct_op_ctx ctx = p.ctx(scratch, 1 << 20), small = p.ctx(scratch, 64);
    ct_attn_args args = p.args();
    ct_err err = {};
    for (int dim : {4, 20, 264}) {
        ct_attn_args odd = args;
        odd.head_dim = dim;
        check(cuda_attention(&ctx, &odd, &err) == CT_ERR_LIMIT,
              "a head size of " + std::to_string(dim));
    }
    ct_attn_args odd = args;
    odd.heads = 3, odd.kv_heads = 2;
    check(cuda_attention(&ctx, &odd, &err) == CT_ERR_LIMIT, "3 heads of 2 kv heads");
    check(cuda_attention(&small, &args, &err) == CT_ERR_LIMIT, "too little scratch");
}

void time_case(const char *name, shape s, ct_stage stage, int64_t n, int64_t keys, int64_t window,
               ct_weights_mode edit, bool stats)
{
    std::vector<std::unique_ptr<sequence>> of;
    std::vector<row_of> rows;
    bool prefill = stage == CT_STAGE_PREFILL;
    double pairs = 0, bytes = 0;
    for (int64_t r = 0; r < (prefill ? 1 : n); r++) {
        of.emplace_back(new sequence(s, 1, prefill ? n : keys, false));
        cuda_ok(cudaMemset(of.back()->cache.at, 0x3C, /* small numbers */
                           (size_t)(of.back()->blocks * 4 * of.back()->block_floats) *
                               of.back()->element()),
                "memset");
        rows.push_back(
            {of.back().get(), prefill ? 0 : keys - 1, window, {{prefill ? n : 1, edit, 100, 200}}});
    }
    pass p(s, stage, rows);
    for (const ct_attn_row &run : p.runs)
        for (int64_t t = 0; t < run.seg.count; t++) {
            int64_t position = run.seg.position + t;
            pairs += (double)(window < 0 || window > position ? position : window) + 1;
        }
    bytes = pairs * s.kv_heads * s.dim * 2 * (s.bf16 ? 2 : 4);
    size_t scratch_bytes = attention_scratch_bytes(p.tokens, s.heads, s.dim);
    memory out(p.q.size() * 4), entropy(p.q.size()), l2(p.q.size()), scratch(scratch_bytes);
    array<float> q(p.q);
    ct_attn_args args = p.args();
    args.q = q.data(), args.out = (float *)out.at;
    if (stats) args.entropy_bits = (float *)entropy.at, args.l2 = (float *)l2.at;
    args.k_offset = 2 * of[0]->block_floats, args.v_offset = 3 * of[0]->block_floats;
    ct_op_ctx ctx = p.ctx(scratch, scratch_bytes);
    cudaEvent_t begin, end;
    cuda_ok(cudaEventCreate(&begin), "event"), cuda_ok(cudaEventCreate(&end), "event");
    std::vector<float> times;
    for (int i = 0; i < 13; i++) {
        ct_err err = {};
        cudaEventRecord(begin, device.stream);
        if (cuda_attention(&ctx, &args, &err)) check(false, err.text);
        cudaEventRecord(end, device.stream);
        cuda_ok(cudaEventSynchronize(end), "timing");
        float ms;
        cudaEventElapsedTime(&ms, begin, end);
        if (i >= 3) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    double ms = times[times.size() / 2];
    if (!prefill) { /* what it costs within a recorded pass */
        enum { COPIES = 16 };
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        ct_err err = {};
        cuda_ok(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
        for (int i = 0; i < COPIES; i++)
            if (cuda_attention(&ctx, &args, &err)) check(false, err.text);
        cuda_ok(cudaStreamEndCapture(device.stream, &graph), "capture");
        cuda_ok(cudaGraphInstantiate(&exec, graph, 0), "graph");
        printf("  alone %.1f us; in a graph: ", ms * 1e3);
        for (int i = 0; i < 8; i++) {
            float took;
            cudaEventRecord(begin, device.stream);
            cuda_ok(cudaGraphLaunch(exec, device.stream), "graph");
            cudaEventRecord(end, device.stream);
            cuda_ok(cudaEventSynchronize(end), "timing");
            cudaEventElapsedTime(&took, begin, end);
            if (i == 0 || took / COPIES < ms) ms = took / COPIES;
        }
        cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    }
    if (prefill)
        printf("%-34s %9.1f us %8.1f TFLOP/s\n", name, ms * 1e3,
               pairs * s.heads * s.dim * 4 / ms * 1e-9);
    else printf("%-34s %9.1f us %8.1f GB/s\n", name, ms * 1e3, bytes / ms * 1e-6);
}

} // namespace

int main(int argc, char **argv)
{
    cuda_ok(cudaStreamCreate(&device.stream), "stream");
    for (bool half : {true, false}) {
        for (int64_t window : {-1, 5, 64, 100, 2048}) {
            int before = failures;
            for (shape s : {shape{5, 1, 16, half}, shape{4, 2, 8, half}, shape{2, 2, 24, half},
                            shape{3, 1, 64, half}, shape{18, 1, 72, half}, shape{10, 1, 256, half},
                            shape{4, 2, 256, half}, shape{2, 2, 256, half}, shape{32, 8, 128, half},
                            shape{2, 2, 128, half}, shape{40, 1, 16, half}})
                check_shape(s, window);
            printf("%-5s window %5lld: %s\n", half ? "bf16" : "f32", (long long)window,
                   failures == before ? "ok" : "FAILED");
            fflush(stdout);
        }
    }
    check_errors();
    for (bool half : {true, false}) {
        check_rotation({10, 1, 256, half}, 128), check_rotation({3, 1, 64, half}, 64);
        check_rotation({4, 2, 24, half}, 12);
        check_chain({10, 1, 256, half}, 512, 1), check_chain({32, 8, 128, half}, -1, 1);
        check_chain({10, 1, 256, half}, 512, 7), check_chain({5, 1, 16, half}, -1, 7);
    }
    printf("%d checks, %d failures\n", checks, failures);
    if (argc > 1 && strcmp(argv[1], "quick") == 0) return failures != 0;

    const shape griffin = {10, 1, 256, true}, jamba = {32, 8, 128, true};
    const ct_stage prefill = CT_STAGE_PREFILL, generation = CT_STAGE_GENERATION;
    const ct_weights_mode keep = CT_WEIGHTS_KEEP;
    time_case("10/1/256 prefill 4096, window 2047", griffin, prefill, 4096, 0, 2047, keep, false);
    time_case("  with statistics", griffin, prefill, 4096, 0, 2047, keep, true);
    time_case("  omit", griffin, prefill, 4096, 0, 2047, CT_WEIGHTS_OMIT, false);
    time_case("32/8/128 prefill 4096", jamba, prefill, 4096, 0, -1, keep, false);
    time_case("  with statistics", jamba, prefill, 4096, 0, -1, keep, true);
    time_case("10/1/256 1 row, window 2048", griffin, generation, 1, 4096, 2048, keep, true);
    time_case("10/1/256 1 row, 4096 keys", griffin, generation, 1, 4096, -1, keep, true);
    time_case("  128 rows", griffin, generation, 128, 4096, -1, keep, true);
    time_case("32/8/128 1 row, 4096 keys", jamba, generation, 1, 4096, -1, keep, true);
    time_case("  128 rows", jamba, generation, 128, 4096, -1, keep, true);
    time_case("10/1/256 f32 prefill 512", {10, 1, 256, false}, prefill, 512, 0, 2047, keep, true);
    time_case("32/8/128 f32 1 row, 4096 keys", {32, 8, 128, false}, generation, 1, 4096, -1, keep,
              true);
    return failures != 0;
}
