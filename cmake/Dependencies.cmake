# Third-party libraries, each with the oldest version that libcb works with. All problems are told at once.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

set(CB_DEPENDENCY_PROBLEMS "")
function(cb_need name package version)
    pkg_check_modules(${name} QUIET IMPORTED_TARGET GLOBAL "${package}>=${version}")
    if(${name}_FOUND)
        return()
    endif()
    pkg_check_modules(${name}_ANY QUIET ${package})
    if(${name}_ANY_FOUND)
        set(problem "${package} ${${name}_ANY_VERSION} is too old: ${version} or newer is needed")
    else()
        set(problem "${package} is missing: ${version} or newer is needed")
    endif()
    set(CB_DEPENDENCY_PROBLEMS "${CB_DEPENDENCY_PROBLEMS}\n  ${problem}" PARENT_SCOPE)
endfunction()

cb_need(NGTCP2 libngtcp2 1.11.0)
cb_need(NGTCP2_GNUTLS libngtcp2_crypto_gnutls 1.11.0)
cb_need(NGHTTP3 libnghttp3 1.8.0)
cb_need(GNUTLS gnutls 3.7.9)
cb_need(TASN1 libtasn1 4.19.0)
cb_need(NGHTTP2 libnghttp2 1.52.0)
cb_need(LLHTTP libllhttp 9.0.0)
cb_need(UV libuv 1.44.0)
cb_need(CARES libcares 1.18.0)
cb_need(CJSON libcjson 1.7.15)
cb_need(SQLITE sqlite3 3.40.0)
if(CB_DEPENDENCY_PROBLEMS)
    message(FATAL_ERROR "libcb cannot be built yet:${CB_DEPENDENCY_PROBLEMS}\n"
        "Run `scripts/setup build`: it installs them on Debian 12 and 13. Elsewhere, install them (or set "
        "PKG_CONFIG_PATH to where they are) and configure again.")
endif()

# Optional: faster packet protection on x86-64. Debian's packages have no pkg-config file.
find_path(IPSEC_MB_INCLUDE_DIR intel-ipsec-mb.h)
find_library(IPSEC_MB_LIBRARY IPSec_MB)
mark_as_advanced(IPSEC_MB_INCLUDE_DIR IPSEC_MB_LIBRARY)
option(CB_IPSEC_MB "Protect packets by libipsec-mb where it is installed and wins" ON)

add_library(cb_deps INTERFACE)
if(CB_IPSEC_MB AND IPSEC_MB_INCLUDE_DIR AND IPSEC_MB_LIBRARY)
    message(STATUS "libipsec-mb: ${IPSEC_MB_LIBRARY}")
    target_compile_definitions(cb_deps INTERFACE CB_HAVE_IPSEC_MB)
    target_include_directories(cb_deps INTERFACE ${IPSEC_MB_INCLUDE_DIR})
    target_link_libraries(cb_deps INTERFACE ${IPSEC_MB_LIBRARY})
else()
    message(STATUS "libipsec-mb is not used: GnuTLS protects packets")
endif()
target_link_libraries(cb_deps INTERFACE PkgConfig::NGTCP2 PkgConfig::NGTCP2_GNUTLS PkgConfig::NGHTTP3
    PkgConfig::GNUTLS PkgConfig::TASN1 PkgConfig::NGHTTP2 PkgConfig::LLHTTP PkgConfig::UV PkgConfig::CARES PkgConfig::CJSON PkgConfig::SQLITE
    Threads::Threads m)
