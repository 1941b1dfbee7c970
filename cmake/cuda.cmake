# The CUDA backend, where a toolkit is found (CT_CUDA: AUTO), or in any case or not at all (ON, OFF). Its
# kernels are for Hopper (compute capability 9.0); a GPU is needed to run them, not to build them.
set(CT_CUDA AUTO CACHE STRING "Build the CUDA backend: ON, OFF, or AUTO where the toolkit is found")
set_property(CACHE CT_CUDA PROPERTY STRINGS AUTO ON OFF)
option(CT_RACECHECK "Kernels for compute-sanitizer's racecheck: a little slower (src/op/cuda/gemm_copy.cuh)" OFF)
set(CT_HAS_CUDA OFF)
if(NOT CT_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER AND NOT CT_SANITIZE)
    enable_language(CUDA)
    find_package(CUDAToolkit 12.8)
    if(CUDAToolkit_FOUND AND TARGET CUDA::cublasLt)
      set(CT_HAS_CUDA ON)
    endif()
  endif()
  if(CT_CUDA STREQUAL ON AND NOT CT_HAS_CUDA)
    message(FATAL_ERROR "CT_CUDA is ON, but no CUDA toolkit (12.8 or later, with cuBLASLt) was found, or CT_SANITIZE is set")
  endif()
endif()
message(STATUS "CUDA backend: ${CT_HAS_CUDA}")
if(CT_HAS_CUDA)
  file(GLOB CT_CUDA_SOURCES CONFIGURE_DEPENDS src/op/cuda/*.cu)
  add_library(ct_cuda OBJECT ${CT_CUDA_SOURCES})
  set_target_properties(ct_cuda PROPERTIES CUDA_ARCHITECTURES 90a CUDA_VISIBILITY_PRESET hidden
                        POSITION_INDEPENDENT_CODE ON)
  target_include_directories(ct_cuda PRIVATE include src)
  target_compile_options(ct_cuda PRIVATE -std=c++20 -O3 -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers,-fopenmp
                         $<$<BOOL:${CT_WERROR}>:-Werror=all-warnings>)
  target_link_libraries(ct_cuda PRIVATE CUDA::toolkit)
  target_compile_definitions(ct_cuda PRIVATE CT_CUDA_LIBRARY_DIR="${CUDAToolkit_LIBRARY_DIR}"
                                             $<$<BOOL:${CT_RACECHECK}>:CT_RACECHECK>)
  target_link_libraries(ct_deps INTERFACE CUDA::cudart_static ${CMAKE_DL_LIBS}) # cuBLASLt is loaded when it is used
endif()
