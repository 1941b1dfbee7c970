# Every library that cortado uses, as one interface target ct_deps. docs/DEPENDENCIES.md says why each.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)
pkg_check_modules(CT_PKG REQUIRED IMPORTED_TARGET
  jansson yaml-0.1 sqlite3 cairo pangocairo libpcre2-8 libutf8proc libxxhash)
add_library(ct_deps INTERFACE)
target_link_libraries(ct_deps INTERFACE PkgConfig::CT_PKG OpenMP::OpenMP_C Threads::Threads m)
