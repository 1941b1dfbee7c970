# Turns files into one C file: const char ct_asset_<name>_<ending>[] and its size, for each. Called at build time:
# cmake -DFILES="a.css;b.js" -DOUT=assets.c -P embed.cmake
set(text "/* Made from files of src/report by cmake/embed.cmake. */\n#include \"report/assets.h\"\n")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  string(MAKE_C_IDENTIFIER ${name} name)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
  string(APPEND text "const unsigned char ct_asset_${name}[] = {\n${bytes}0};\n")
  string(APPEND text "const size_t ct_asset_${name}_size = sizeof ct_asset_${name} - 1;\n")
endforeach()
file(WRITE ${OUT} "${text}")
