# What a user of the library gets: headers, libcb.so, pkg-config and CMake packages.
include(CMakePackageConfigHelpers)

install(TARGETS cb EXPORT libcb LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

set(CB_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/libcb)
install(EXPORT libcb NAMESPACE libcb:: FILE libcb-targets.cmake DESTINATION ${CB_CMAKE_DIR})
file(CONFIGURE OUTPUT libcb-config.cmake @ONLY CONTENT
    "include(\"\${CMAKE_CURRENT_LIST_DIR}/libcb-targets.cmake\")\n")
write_basic_package_version_file(libcb-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/libcb-config.cmake ${PROJECT_BINARY_DIR}/libcb-config-version.cmake
    DESTINATION ${CB_CMAKE_DIR})

# The .pc files find themselves through ${pcfiledir}, so a tree that was moved still works.
file(RELATIVE_PATH CB_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" CB_PC_PREFIX "${CB_PC_PREFIX}")
configure_file(${PROJECT_SOURCE_DIR}/pkgconfig/libcb.pc.in libcb.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/libcb.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# What Grafana and Prometheus load: made by dashboards/make.py and alerts/make.py, and committed.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/dashboards DESTINATION ${CMAKE_INSTALL_DATADIR}/libcb FILES_MATCHING PATTERN "*.json" PATTERN __pycache__ EXCLUDE)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/alerts DESTINATION ${CMAKE_INSTALL_DATADIR}/libcb
    FILES_MATCHING PATTERN "*.rules.yml" PATTERN tests EXCLUDE PATTERN __pycache__ EXCLUDE)
