# What is installed, and the Debian packages of it: libreprise0, libreprise-dev, reprise-tools.
#
#   cmake --install build/release --prefix /usr/local       or: cpack --config build/release/CPackConfig.cmake
#
# Everything finds its way from where it lies, so a tree that was installed may be moved.
include(CMakePackageConfigHelpers)

set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Reprise)
# Besides the C++ runtime; only who links the archive needs them.
set(static_libraries archive zip capnp kj crypto spdlog fmt lmdb xxhash zstd stdc++ pthread)
list(JOIN static_libraries " -l" static_flags)
set(static_flags "-l${static_flags}")

install(TARGETS libreprise EXPORT Reprise
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library NAMELINK_COMPONENT development)
install(FILES adapters/capi/reprise.h adapters/capi/reprise.hpp
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(FILES ${CMAKE_BINARY_DIR}/adapters/capi/libreprise.a DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(EXPORT Reprise FILE RepriseTargets.cmake NAMESPACE Reprise:: DESTINATION ${cmake_dir} COMPONENT development)
configure_package_config_file(cmake/RepriseConfig.cmake.in ${CMAKE_BINARY_DIR}/RepriseConfig.cmake
  INSTALL_DESTINATION ${cmake_dir} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/RepriseConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/RepriseConfig.cmake ${CMAKE_BINARY_DIR}/RepriseConfigVersion.cmake
  DESTINATION ${cmake_dir} COMPONENT development)

file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
foreach(pc reprise reprise-static)
  configure_file(cmake/${pc}.pc.in ${CMAKE_BINARY_DIR}/${pc}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/${pc}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
endforeach()

install(TARGETS reprise RUNTIME COMPONENT tools)
install(DIRECTORY ${CMAKE_BINARY_DIR}/manual/man1 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT tools)
install(FILES ${CMAKE_BINARY_DIR}/manual/bash/reprise
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT tools)
foreach(component_package library=libreprise${PROJECT_VERSION_MAJOR} development=libreprise-dev tools=reprise-tools)
  string(REPLACE "=" ";" component_package ${component_package})
  list(GET component_package 0 component)
  list(GET component_package 1 package)
  install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package} RENAME copyright COMPONENT ${component})
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${package})
endforeach()

set(CPACK_GENERATOR DEB)
set(CPACK_COMPONENTS_ALL library development tools)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PACKAGE_NAME reprise)
set(CPACK_PACKAGE_CONTACT "The Reprise project <reprise@localhost>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_FILE_NAME reprise)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION utils)
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "filesystems of interpreter instances, kept in step: the library")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "filesystems of interpreter instances, kept in step: headers and archive")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "filesystems of interpreter instances, kept in step: the command line")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS fuse3)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libreprise${PROJECT_VERSION_MAJOR} (= ${PROJECT_VERSION})")
# Who links the archive.
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_RECOMMENDS
  "libarchive-dev, libzip-dev, libcapnp-dev, libssl-dev, libspdlog-dev, libfmt-dev, liblmdb-dev, libxxhash-dev, libzstd-dev")
include(CPack)
