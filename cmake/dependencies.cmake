# Every library that cortado uses, as one interface target ct_deps. docs/DEPENDENCIES.md says why each.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
# Not find_package(dnnl): Debian's package file asks for OpenCL's headers, which nothing here needs.
find_library(CT_DNNL_LIBRARY dnnl REQUIRED)
find_path(CT_DNNL_INCLUDE oneapi/dnnl/dnnl.h REQUIRED)
pkg_check_modules(CT_PKG REQUIRED IMPORTED_TARGET
  jansson yaml-0.1 sqlite3 cairo pangocairo libpcre2-8 libutf8proc libxxhash)
add_library(ct_deps INTERFACE)
target_include_directories(ct_deps INTERFACE ${CT_DNNL_INCLUDE})
target_link_libraries(ct_deps INTERFACE PkgConfig::CT_PKG ${CT_DNNL_LIBRARY} OpenMP::OpenMP_C m)
