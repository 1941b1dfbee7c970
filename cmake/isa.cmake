# src/op/cpu/cpu_<isa>.c are compiled for that instruction set. No contraction: the kernels say where a
# product and a sum are fused, so that results do not depend on the build type or on inlining.
set(CT_KERNEL_FLAGS "-O3;-ffp-contract=off;-fopenmp")
set(CT_AVX2_FLAGS "-mavx2;-mfma;-mf16c")
set(CT_AVX512_FLAGS "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma;-mf16c;-mprefer-vector-width=512")
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(CT_AVX2_FLAGS "") # those files then hold nothing
  set(CT_AVX512_FLAGS "")
endif()
foreach(source IN LISTS CT_SOURCES)
  if(source MATCHES "cpu_generic\\.c$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${CT_KERNEL_FLAGS}")
  elseif(source MATCHES "cpu_avx2\\.c$")
    set_source_files_properties(${source} PROPERTIES
      COMPILE_OPTIONS "${CT_KERNEL_FLAGS};${CT_AVX2_FLAGS}")
  elseif(source MATCHES "cpu_avx512\\.c$")
    set_source_files_properties(${source} PROPERTIES
      COMPILE_OPTIONS "${CT_KERNEL_FLAGS};${CT_AVX512_FLAGS}")
  elseif(source MATCHES "(cpu|limits)_amx\\.c$")
    set_source_files_properties(${source} PROPERTIES
      COMPILE_OPTIONS "${CT_KERNEL_FLAGS};${CT_AVX512_FLAGS};-mavx512bf16;-mamx-tile;-mamx-bf16")
  endif()
endforeach()
