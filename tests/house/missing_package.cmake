# Asks for a dependency that no machine has; the message must name the package to install.
include(${CMAKE_CURRENT_LIST_DIR}/../../cmake/Require.cmake)
flash_mla_require(no_such_library libnosuch-dev)
