# SPDX-License-Identifier: MIT
include(CMakePackageConfigHelpers)

set(mproc_cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/mproc")

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
    FILES_MATCHING PATTERN "*.h")
install(TARGETS mproc mproc_shared
    EXPORT mproc-targets
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT mproc-targets
    NAMESPACE mproc::
    DESTINATION "${mproc_cmake_dir}")

# What mproc::mproc means where find_package does not say it by a component.
if(BUILD_SHARED_LIBS)
    set(MPROC_DEFAULT_KIND shared)
else()
    set(MPROC_DEFAULT_KIND static)
endif()
configure_package_config_file(
    "${PROJECT_SOURCE_DIR}/cmake/mproc-config.cmake.in"
    "${PROJECT_BINARY_DIR}/mproc-config.cmake"
    INSTALL_DESTINATION "${mproc_cmake_dir}"
    NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/mproc-config-version.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES
    "${PROJECT_BINARY_DIR}/mproc-config.cmake"
    "${PROJECT_BINARY_DIR}/mproc-config-version.cmake"
    DESTINATION "${mproc_cmake_dir}")

# mproc.pc finds its prefix from its own place, so that the prefix may be
# chosen when installing and the tree may be moved.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}"
        OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(MPROC_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
    set(MPROC_PC_LIBDIR "${CMAKE_INSTALL_FULL_LIBDIR}")
    set(MPROC_PC_INCLUDEDIR "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()
    file(RELATIVE_PATH up
        "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
    string(REGEX REPLACE "/$" "" up "${up}")
    set(MPROC_PC_PREFIX "\${pcfiledir}/${up}")
    set(MPROC_PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
    set(MPROC_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/mproc.pc.in"
    "${PROJECT_BINARY_DIR}/mproc.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/mproc.pc"
    DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
