/* cublaslt.cu - cuBLASLt, loaded when a GPU is first used.
 *
 * Linked, the library would take a quarter of a second and 200 MB at every start of the program, also where
 * only the CPU computes. So its functions stand here under their own names and pass each call on.
 */
#include <dlfcn.h>

#include "op/cuda/device.cuh"

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

namespace
{

/* Where the loader looks, then where the toolkit was when this was built. */
void *open_library()
{
    const char name[] = "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR);
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    return library ? library
                   : dlopen(CT_CUDA_LIBRARY_DIR "/libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
                            RTLD_NOW | RTLD_LOCAL);
}

void *entry(const char *name)
{
    static void *const library = open_library();
    return library ? dlsym(library, name) : NULL;
}

} // namespace

#define PASS_ON(name, parameters, ...)                                                             \
    cublasStatus_t name parameters                                                                 \
    {                                                                                              \
        auto *function = (decltype(&name))entry(#name);                                            \
        return function ? function(__VA_ARGS__) : CUBLAS_STATUS_NOT_INITIALIZED;                   \
    }

PASS_ON(cublasLtCreate, (cublasLtHandle_t * handle), handle)
PASS_ON(cublasLtDestroy, (cublasLtHandle_t handle), handle)
PASS_ON(cublasLtMatmulDescInit_internal,
        (cublasLtMatmulDesc_t desc, size_t size, cublasComputeType_t compute, cudaDataType_t scale),
        desc, size, compute, scale)
PASS_ON(cublasLtMatmulDescCreate,
        (cublasLtMatmulDesc_t * desc, cublasComputeType_t compute, cudaDataType_t scale), desc,
        compute, scale)
PASS_ON(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t desc), desc)
PASS_ON(cublasLtMatmulDescSetAttribute,
        (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value,
         size_t size),
        desc, attribute, value, size)
PASS_ON(cublasLtMatrixLayoutInit_internal,
        (cublasLtMatrixLayout_t layout, size_t size, cudaDataType type, uint64_t rows, uint64_t cols,
         int64_t ld),
        layout, size, type, rows, cols, ld)
PASS_ON(cublasLtMatrixLayoutCreate,
        (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t cols,
         int64_t ld),
        layout, type, rows, cols, ld)
PASS_ON(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), layout)
PASS_ON(cublasLtMatmulPreferenceInit_internal, (cublasLtMatmulPreference_t preference, size_t size),
        preference, size)
PASS_ON(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference), preference)
PASS_ON(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference), preference)
PASS_ON(cublasLtMatmulPreferenceSetAttribute,
        (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const void *value, size_t size),
        preference, attribute, value, size)
PASS_ON(cublasLtMatmulAlgoConfigGetAttribute,
        (const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute,
         void *value, size_t size, size_t *written),
        algorithm, attribute, value, size, written)
PASS_ON(cublasLtMatmulAlgoGetHeuristic,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
         cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
         cublasLtMatmulPreference_t preference, int most, cublasLtMatmulHeuristicResult_t *found,
         int *count),
        handle, desc, a, b, c, d, preference, most, found, count)
PASS_ON(cublasLtMatmul,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
         cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
         const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
         cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
         size_t workspace_bytes, cudaStream_t stream),
        handle, desc, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,
        workspace, workspace_bytes, stream)

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    auto *function = (decltype(&cublasLtGetStatusString))entry("cublasLtGetStatusString");
    return function ? function(status) : "cuBLASLt is not there";
}
