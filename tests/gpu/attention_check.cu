/* attention_check.cu - op/cuda's attention, cache and head selection against the reference. Needs a GPU:
 * built by the target gpu_checks, not run by the suite.
 *
 *   attention_check [quick | small]        quick: no timings; small: every kernel at the smallest shapes, for
 *                                          compute-sanitizer
 *
 * Queries, keys and values of bf16 cases are bf16 numbers: what differs from the reference is the rounding of
 * the weights to bf16 (2^-9 each) and f32 arithmetic.
 */
#include "attention_check.cuh"

extern "C" {
ct_status ct_ref_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err);
ct_status ct_ref_attention_weights(ct_op_ctx *ctx, const ct_attn_args *args,
                                   const ct_weights_out *out, ct_err *err);
}

namespace
{

bool small; /* the smallest shapes that meet every kernel */

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
            ct_op_ctx ctx = {scratch.data(), scratch.size() * 8, CT_COMPUTE_F32, p.stage, false,
                             nullptr};
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
    int64_t far = small ? 200 : window > 512 ? window + 37 : 700;
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
            if (small && edit != CT_WEIGHTS_KEEP && edit != CT_WEIGHTS_BINARY) continue;
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
            for (size_t r = small ? 2 : 0; r < (small ? 3 : rows.size()); r++) {
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
            for (int64_t cut = 64; cut < (small ? 65 : 200); cut += 64) {
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
    enum { CHAIN = 5 };
    const int REPLAYS = small ? 1 : 50;
    std::vector<std::unique_ptr<sequence>> of;
    std::vector<row_of> rows;
    for (int r = 0; r < n_rows; r++) {
        of.emplace_back(new sequence(s, 20 + r, (small ? 420 : 900) + 13 * r));
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

/* ---- what recorders want --------------------------------------------------------------------- */

/* Of all tokens: rows of weights [T, H, keys], before and after; and the light numbers. */
struct recorded {
    std::vector<float> before, after, needle_before, needle_after, peak_weight;
    std::vector<int32_t> peak;
};

int64_t keys_of(const pass &p)
{
    int64_t keys = 0;
    for (const ct_seg &seg : p.segs) keys = std::max(keys, seg.position + seg.count + 3);
    return keys;
}

std::vector<ct_weights_out> places_of(const pass &p, float *before, float *after, int64_t keys)
{
    std::vector<ct_weights_out> out;
    int64_t stride = p.s.heads * keys;
    for (const ct_attn_row &run : p.runs)
        out.push_back(
            {before + run.seg.first * stride, after + run.seg.first * stride, keys, stride});
    return out;
}

recorded record(pass &p)
{
    size_t n = p.q.size(), heads = (size_t)p.tokens * p.s.heads;
    int64_t keys = keys_of(p), block = (int64_t)64 * p.s.kv_heads * p.s.dim;
    size_t scratch_bytes = attention_scratch_bytes(p.tokens, p.s.heads, p.s.dim);
    array<float> q(p.q);
    memory out(n * 4), scratch(scratch_bytes, 0xFF), before(heads * keys * 4),
        after(heads * keys * 4);
    memory mass(heads * 4, 0xFF), left(heads * 4, 0xFF), weight(heads * 4, 0xFF),
        peak(heads * 4, 0xFF);
    ct_attn_light light = {(float *)mass.at, (float *)left.at, (float *)weight.at,
                           (int32_t *)peak.at};
    ct_attn_args args = p.args();
    args.q = q.data(), args.out = (float *)out.at, args.light = &light;
    args.k_offset = 2 * block, args.v_offset = 3 * block;
    ct_op_ctx ctx = p.ctx(scratch, scratch_bytes);
    ct_err err = {};
    check(cuda_attention(&ctx, &args, &err) == CT_OK, std::string("light: ") + err.text);
    std::vector<ct_weights_out> places = places_of(p, (float *)before.at, (float *)after.at, keys);
    check(cuda_attention_weights(&ctx, &args, places.data(), &err) == CT_OK,
          std::string("weights: ") + err.text);
    cuda_ok(cudaStreamSynchronize(device.stream), "recorders");
    cuda_ok(device.failed, device.failed_at ? device.failed_at : "launch");
    return {read<float>(before.at, heads * keys), read<float>(after.at, heads * keys),
            read<float>(mass.at, heads),          read<float>(left.at, heads),
            read<float>(weight.at, heads),        read<int32_t>(peak.at, heads)};
}

recorded record_by_reference(const pass &p)
{
    size_t heads = (size_t)p.tokens * p.s.heads;
    int64_t keys = keys_of(p);
    recorded r = {std::vector<float>(heads * keys), std::vector<float>(heads * keys),
                  std::vector<float>(heads),        std::vector<float>(heads),
                  std::vector<float>(heads),        std::vector<int32_t>(heads)};
    std::vector<float> out(p.q.size());
    std::vector<double> scratch(p.s.dim);
    ct_attn_light light = {r.needle_before.data(), r.needle_after.data(), r.peak_weight.data(),
                           r.peak.data()};
    ct_op_ctx ctx = {scratch.data(), scratch.size() * 8, CT_COMPUTE_F32, p.stage, false, nullptr};
    ct_attn_args args = p.args();
    args.q = p.q.data(), args.out = out.data(), args.light = &light;
    std::vector<ct_weights_out> places = places_of(p, r.before.data(), r.after.data(), keys);
    ct_err err = {};
    if (ct_ref_attention(&ctx, &args, &err)) abort();
    if (ct_ref_attention_weights(&ctx, &args, places.data(), &err)) abort();
    return r;
}

/* Bounds: scores of sums of up to 256 products in f32, of deviation 1.5 to 3; queries and keys are numbers of
 * the cache's type. */
void check_record(shape s, int64_t window)
{
    sequence a(s, 1, 200), b(s, 2, 330), c(s, 3, 130);
    for (sequence *of : {&a, &b, &c}) store_tokens(*of, 0, of->positions);
    for (ct_stage stage : {CT_STAGE_PREFILL, CT_STAGE_GENERATION})
        for (ct_weights_mode edit : EDITS) {
            if (small && edit != CT_WEIGHTS_BINARY) continue;
            std::vector<row_of> rows = {
                {&a, 0, window, {{small ? 66 : 200, edit, 5, 90}}},
                {&b, 320, window, {{10, edit, 2, 300}}},
                {&c, 20, window, {{30, CT_WEIGHTS_KEEP, 0, 0}, {50, edit, 1, 61}}}};
            if (stage == CT_STAGE_GENERATION)
                rows = {{&a, 199, window, {{1, edit, 5, 190}}},
                        {&b, 64, window, {{1, edit, 60, 64}}},
                        {&b, 329, window, {{1, edit, 100, 330}}},
                        {&c, 0, window, {{1, edit, 0, 1}}}};
            pass p(s, stage, rows);
            recorded got = record(p), want = record_by_reference(p);
            std::string name = name_of(s, stage, window, EDIT_NAMES[edit]);
            int64_t keys = keys_of(p), H = s.heads, wrong = 0, lost = 0;
            compare(name + " weights before", got.before, want.before, 1e-5);
            compare(name + " weights after", got.after, want.after, 1e-5);
            for (const ct_attn_row &run : p.runs)
                for (int64_t i = 0; i < run.seg.count * H; i++) {
                    int64_t at = run.seg.first * H + i, t = i / H;
                    const float numbers[] = {got.needle_before[at], got.needle_after[at],
                                             got.peak_weight[at]};
                    const float wanted[] = {want.needle_before[at], want.needle_after[at],
                                            want.peak_weight[at]};
                    bool listed = t >= run.light_first && t < run.light_first + run.n_light;
                    for (int k = 0; k < 3; k++)
                        wrong += listed ? !(std::fabs(numbers[k] - wanted[k]) <= 1e-5f)
                                        : !std::isnan(numbers[k]); /* untouched */
                    if (!listed) continue;
                    int peak = got.peak[at];
                    lost +=
                        peak < 0 || peak >= keys ||
                        !(std::fabs(want.before[at * keys + peak] - want.peak_weight[at]) <= 1e-5f);
                }
            check(wrong == 0, name + " light: " + std::to_string(wrong) + " wrong");
            check(lost == 0, name + " light: " + std::to_string(lost) + " wrong peaks");
            pass alone(s, stage, {rows[1]}); /* the same bits, in columns of its own */
            recorded one = record(alone);
            int64_t own = keys_of(alone), first = p.segs[1].first, other = 0;
            for (int64_t i = 0; i < alone.tokens * H; i++)
                other +=
                    memcmp(&one.before[i * own], &got.before[(first * H + i) * keys], own * 4) ||
                    memcmp(&one.after[i * own], &got.after[(first * H + i) * keys], own * 4) ||
                    memcmp(&one.needle_after[i], &got.needle_after[first * H + i], 4) ||
                    one.peak[i] != got.peak[first * H + i];
            check(other == 0,
                  name + " recorded alone: " + std::to_string(other) + " in other bits");
        }
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
    for (int dim : {0, 257, 264}) {
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

void check_all()
{
    for (bool half : {true, false}) {
        for (int64_t window : {-1, 5, 64, 100, 2048}) {
            int before = failures;
            for (shape s : {shape{5, 1, 16, half}, shape{4, 2, 8, half}, shape{2, 2, 24, half},
                            shape{3, 1, 64, half}, shape{18, 1, 72, half}, shape{10, 1, 256, half},
                            shape{4, 2, 256, half}, shape{2, 2, 256, half}, shape{32, 8, 128, half},
                            shape{2, 2, 128, half}, shape{40, 1, 16, half}, shape{3, 1, 10, half},
                            shape{6, 2, 7, half}, shape{4, 4, 33, half}, shape{2, 1, 250, half}})
                check_shape(s, window);
            for (shape s : {shape{5, 1, 16, half}, shape{3, 1, 10, half}, shape{2, 2, 1, half},
                            shape{4, 2, 24, half}, shape{2, 1, 256, half}})
                check_record(s, window);
            printf("%-5s window %5lld: %s\n", half ? "bf16" : "f32", (long long)window,
                   failures == before ? "ok" : "FAILED");
            fflush(stdout);
        }
    }
    check_errors();
    for (bool half : {true, false}) {
        check_rotation({10, 1, 256, half}, 128), check_rotation({3, 1, 64, half}, 64);
        check_rotation({4, 2, 24, half}, 12), check_rotation({3, 1, 10, half}, 10);
        check_chain({10, 1, 256, half}, 512, 1), check_chain({32, 8, 128, half}, -1, 1);
        check_chain({10, 1, 256, half}, 512, 7), check_chain({5, 1, 16, half}, -1, 7);
        check_chain({3, 1, 10, half}, 100, 3);
    }
}

/* A sanitizer takes its time: what is done so far, line by line. */
void progress(shape s)
{
    printf("H %d G %d D %d: %d checks, %d failures\n", s.heads, s.kv_heads, s.dim, checks,
           failures);
    fflush(stdout);
}

/* Each size that kernels are made for, one and several heads to a kv head, more of them than a thread block
 * takes; a window that ends within blocks. */
void check_small()
{
    for (bool half : {true, false}) {
        for (shape s : {shape{2, 2, 24, half}, shape{3, 1, 64, half}, shape{2, 2, 128, half},
                        shape{4, 2, 128, half}, shape{2, 2, 256, half}, shape{3, 1, 256, half},
                        shape{34, 1, 16, half}, shape{3, 1, 10, half}})
            check_shape(s, 100), progress(s);
        check_shape({3, 1, 16, half}, -1);
        check_record({3, 1, 10, half}, -1), check_record({2, 1, 256, half}, 100);
        check_rotation({3, 1, 64, half}, 64), check_rotation({3, 1, 10, half}, 10);
        check_chain({3, 1, 64, half}, 300, 3);
        printf("%s: %d checks, %d failures\n", half ? "bf16" : "f32", checks, failures);
        fflush(stdout);
    }
    check_errors();
}

} // namespace

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    cuda_ok(cudaStreamCreate(&device.stream), "stream");
    small = what == "small";
    if (small) check_small();
    else check_all();
    if (what.empty()) time_all();
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
