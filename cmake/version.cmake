# Writes ct_version.h with the version and the commit, only when they changed. Runs at build time.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
                OUTPUT_VARIABLE COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT COMMIT)
  set(COMMIT unknown)
endif()
set(TEXT "#define CT_VERSION \"${VERSION}\"\n#define CT_COMMIT \"${COMMIT}\"\n")
if(EXISTS ${OUT})
  file(READ ${OUT} OLD)
endif()
if(NOT "${TEXT}" STREQUAL "${OLD}")
  file(WRITE ${OUT} "${TEXT}")
endif()
