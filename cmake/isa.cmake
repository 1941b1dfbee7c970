# Files named src/op/cpu/*_avx2.c and *_avx512.c are compiled for that instruction set.
foreach(source IN LISTS CT_SOURCES)
  if(source MATCHES "_avx2\\.c$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
      "-O3;-mavx2;-mfma;-mf16c;-ffp-contract=fast;-fopenmp")
  elseif(source MATCHES "_avx512\\.c$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
      "-O3;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma;-mf16c;-mprefer-vector-width=512;-ffp-contract=fast;-fopenmp")
  endif()
endforeach()
