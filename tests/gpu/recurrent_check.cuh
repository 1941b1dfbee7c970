/* recurrent_check.cuh - what recurrent_check.cu and recurrent_time.cu share: the device, random numbers, and
 * batches with their image on the device, made without device.cu. */
#ifndef CT_TESTS_GPU_RECURRENT_CHECK_CUH
#define CT_TESTS_GPU_RECURRENT_CHECK_CUH

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "op/cuda/device.cuh"

typedef std::vector<float> floats;

inline int failures;
inline ct_device device;

inline void must(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    printf("%s: %s\n", what, cudaGetErrorString(error));
    exit(2);
}

inline void finish(const char *what)
{
    must(device.failed, device.failed_at);
    must(cudaStreamSynchronize(device.stream), what);
}

template <typename T> T *to_device(const std::vector<T> &from)
{
    T *to;
    must(cudaMalloc(&to, (from.size() + 1) * sizeof(T)), "malloc");
    must(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
    return to;
}

template <typename T> std::vector<T> to_host(const T *from, size_t n)
{
    std::vector<T> to(n);
    must(cudaMemcpy(to.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return to;
}

inline uint64_t seed = 1;

inline float uniform(float low, float high)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (float)(seed >> 40) / (float)(1 << 24);
}

inline floats noise(size_t n, float low, float high)
{
    floats v(n);
    for (float &x : v) x = uniform(low, high);
    return v;
}

inline std::vector<bf16> as_bf16(floats &v) /* and rounds v itself */
{
    std::vector<bf16> to(v.size());
    for (size_t i = 0; i < v.size(); i++) {
        to[i] = __float2bfloat16(v[i]);
        v[i] = __bfloat162float(to[i]);
    }
    return to;
}

inline void report(const char *what, const char *shape, double error, double bound)
{
    bool good = error <= bound; /* false for NaN */
    if (!good) failures++;
    printf("%-22s %-52s %9.2e %s\n", what, shape, error, good ? "ok" : "WRONG");
}

/* The larger; not a number if one is not. */
inline double worse(double a, double b)
{
    return a >= b || std::isnan(a) ? a : b;
}

inline double distance(const floats &got, const std::vector<double> &want)
{
    double most = 0;
    for (size_t i = 0; i < want.size(); i++) {
        double d = fabs((double)got[i] - want[i]) / (1 + fabs(want[i]));
        most = worse(most, d);
    }
    return most;
}

/* ---- a batch and its image ---- */

struct row {
    int count, position;
};

struct batch_of {
    batch_image image;
    ct_batch batch;
    std::vector<void *> owned;

    template <typename T> const T *put(const std::vector<T> &v)
    {
        T *p = to_device(v);
        owned.push_back(p);
        return p;
    }

    /* Row r's state is states + r * state_floats. */
    batch_of(const std::vector<row> &rows, float *states, size_t state_floats, bool prefill)
    {
        std::vector<image_token> tokens;
        std::vector<image_seg> segs;
        std::vector<image_chunk> chunks;
        std::vector<int32_t> seg_chunk;
        for (size_t s = 0; s < rows.size(); s++) {
            row r = rows[s];
            image_seg seg = {};
            seg.first = (int32_t)tokens.size(), seg.count = r.count, seg.position = r.position;
            seg.state = states + s * state_floats;
            segs.push_back(seg);
            seg_chunk.push_back((int32_t)chunks.size());
            for (int t = 0; t < r.count; t++) {
                if (t == 0 || (r.position + t) % CHUNK_TOKENS == 0)
                    chunks.push_back({(int32_t)s, (int32_t)tokens.size(), 0});
                chunks.back().count++;
                tokens.push_back({(int32_t)s, 0, r.position + t});
            }
        }
        if (!prefill) chunks.clear();
        memset(&image, 0, sizeof image);
        memset(&batch, 0, sizeof batch);
        image.tokens = (int32_t)tokens.size(), image.n_segs = (int32_t)rows.size();
        image.n_chunks = (int32_t)chunks.size();
        image.token = put(tokens), image.seg = put(segs), image.chunk = put(chunks);
        image.seg_chunk = put(seg_chunk);
        batch.image = &image;
    }
    ~batch_of()
    {
        for (void *p : owned) cudaFree(p);
    }
};

inline int64_t tokens_of(const std::vector<row> &rows)
{
    int64_t n = 0;
    for (row r : rows) n += r.count;
    return n;
}

/* recurrent_time.cu */
void time_all();

#endif
