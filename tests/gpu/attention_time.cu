/* attention_time.cu - how long op/cuda's attention takes, alone and within a recorded pass; see
 * attention_check.cu. */
#include "attention_check.cuh"

namespace
{

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
        constexpr int COPIES = 16;
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

void time_all()
{
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
}
