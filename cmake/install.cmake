# cmake --install: program, library, headers, pkg-config file, man page, completion, models, studies.
install(TARGETS cortado LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET cortado_program)
  install(TARGETS cortado_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY include/cortado DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
configure_file(cmake/cortado.pc.in ${CMAKE_BINARY_DIR}/cortado.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/cortado.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
foreach(dir models studies data)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${dir})
    install(DIRECTORY ${dir}/ DESTINATION ${CMAKE_INSTALL_DATADIR}/cortado/${dir}
            PATTERN "__pycache__" EXCLUDE)
  endif()
endforeach()
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
