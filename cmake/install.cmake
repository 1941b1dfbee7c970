# cmake --install: program, library, headers, pkg-config file, man page, completion, models, studies, data,
# licence, documents. Training code and tools stay in the source tree.
install(TARGETS cortado LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET cortado_program)
  install(TARGETS cortado_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY include/cortado DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# Relative to the .pc file's own folder, so that it is right under any --prefix and DESTDIR.
file(RELATIVE_PATH CT_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/cortado.pc.in ${CMAKE_BINARY_DIR}/cortado.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/cortado.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
foreach(dir models studies data)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${dir})
    # models/common has nothing but training code.
    install(DIRECTORY ${dir}/ DESTINATION ${CMAKE_INSTALL_DATADIR}/cortado/${dir}
            PATTERN "__pycache__" EXCLUDE PATTERN "*.py" EXCLUDE PATTERN "models/common" EXCLUDE)
  endif()
endforeach()
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES examples/generate.c DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
# The man page is made from the same tables as --help.
if(TARGET cortado_program)
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/cortado.1 DEPENDS cortado_program
    COMMAND $<TARGET_FILE:cortado_program> --man > ${CMAKE_BINARY_DIR}/cortado.1 VERBATIM)
  add_custom_target(ct_man ALL DEPENDS ${CMAKE_BINARY_DIR}/cortado.1)
  install(FILES ${CMAKE_BINARY_DIR}/cortado.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
if(EXISTS ${CMAKE_SOURCE_DIR}/scripts/cortado.bash)
  install(FILES scripts/cortado.bash RENAME cortado
          DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
endif()
