# At installation: copies the shared libraries that the package's library needs beside it, each under the name that is
# asked for. Left out: what every Linux has (manylinux' list) and what other packages bring (tvm-ffi).
set(folder ${CMAKE_INSTALL_PREFIX}/flash_mla/lib)
file(GET_RUNTIME_DEPENDENCIES
  MODULES ${folder}/libflash_mla_python.so
  RESOLVED_DEPENDENCIES_VAR found
  UNRESOLVED_DEPENDENCIES_VAR missing
  PRE_EXCLUDE_REGEXES "^libtvm_ffi\\.so" "^lib(c|m|dl|rt|pthread|stdc\\+\\+|gcc_s)\\.so" "^ld-linux")
if(missing)
  message(FATAL_ERROR "Shared libraries were not found: ${missing}")
endif()
foreach(library ${found})
  get_filename_component(name ${library} NAME)
  file(REAL_PATH ${library} real)
  message(STATUS "Copying ${real} as ${name}")
  file(COPY_FILE ${real} ${folder}/${name} ONLY_IF_DIFFERENT)

  # Their licences, where the package manager knows them: libdnnl2 of "libdnnl2:amd64: /usr/lib/.../libdnnl.so.2.6".
  execute_process(COMMAND dpkg-query --search ${real} OUTPUT_VARIABLE owner ERROR_QUIET RESULT_VARIABLE unknown)
  string(REGEX MATCH "^[^:]+" owner "${owner}")
  if(NOT unknown AND EXISTS /usr/share/doc/${owner}/copyright)
    file(COPY_FILE /usr/share/doc/${owner}/copyright ${folder}/${owner}.copyright.txt ONLY_IF_DIFFERENT)
  endif()
endforeach()
