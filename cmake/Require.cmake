# find_package for dependencies that are Debian packages: a missing one is named with the package that brings it.
macro(flash_mla_require name package)
  find_package(${name} QUIET ${ARGN})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${name} was not found. Debian and Ubuntu: apt-get install ${package}")
  endif()
endmacro()
