# Installs the library, its headers and the CMake package FlashMLA with the target flash_mla::flash_mla.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/FlashMLA)
get_target_property(FLASH_MLA_TYPE flash_mla TYPE)

install(TARGETS flash_mla EXPORT FlashMLATargets)
install(DIRECTORY include/flash_mla TYPE INCLUDE)
install(EXPORT FlashMLATargets NAMESPACE flash_mla:: DESTINATION ${package_dir})

configure_package_config_file(cmake/FlashMLAConfig.cmake.in FlashMLAConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(FlashMLAConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/FlashMLAConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/FlashMLAConfigVersion.cmake
        DESTINATION ${package_dir})
