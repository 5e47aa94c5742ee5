# libcb-xdp: what needs the right to load BPF programs. The programs (bpf/*.bpf.c) are compiled with clang, put into a
# skeleton header by bpftool and so into the library; nothing is installed beside it.
option(CB_XDP "Build libcb-xdp when libbpf, clang and bpftool are there" ON)
if(NOT CB_XDP)
    return()
endif()

set(CB_BPF_CLANG "" CACHE STRING "clang that compiles BPF programs; empty = search")
pkg_check_modules(BPF QUIET IMPORTED_TARGET GLOBAL "libbpf>=1.0")
find_program(CB_BPFTOOL bpftool HINTS /usr/sbin /sbin)
if(CB_BPF_CLANG)
    set(CB_CLANG_FOUND ${CB_BPF_CLANG})
else()
    find_program(CB_CLANG_FOUND NAMES clang clang-19 clang-16 clang-14)
endif()
if(NOT BPF_FOUND OR NOT CB_BPFTOOL OR NOT CB_CLANG_FOUND)
    message(STATUS "libcb-xdp is not built: it needs libbpf >= 1.0, clang and bpftool (scripts/setup test installs them)")
    return()
endif()

# bpf/NAME.bpf.c, or that of another folder, becomes NAME.skel.h.
set(CB_SKELETONS "")
function(cb_bpf_skeleton name)
    set(folder ${PROJECT_SOURCE_DIR}/bpf)
    if(ARGN)
        set(folder ${ARGN})
    endif()
    set(object ${PROJECT_BINARY_DIR}/bpf/${name}.bpf.o)
    set(header ${PROJECT_BINARY_DIR}/bpf/${name}.skel.h)
    set(multiarch "")
    if(CMAKE_LIBRARY_ARCHITECTURE)
        set(multiarch -I/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}) # <asm/types.h>
    endif()
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/bpf)
    file(GLOB shared CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bpf/*.h)
    set(programs "")
    if(ARGN) # a benchmark's program includes one of ours
        file(GLOB programs CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bpf/*.bpf.c)
    endif()
    add_custom_command(OUTPUT ${object}
        COMMAND ${CB_CLANG_FOUND} -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -fdebug-prefix-map=${PROJECT_SOURCE_DIR}=.
                -I${PROJECT_SOURCE_DIR}/bpf ${multiarch} -c ${folder}/${name}.bpf.c -o ${object}
        DEPENDS ${folder}/${name}.bpf.c ${shared} ${programs} VERBATIM)
    add_custom_command(OUTPUT ${header}
        COMMAND sh -c "\"$1\" gen skeleton \"$2\" name \"$3\" > \"$4\" || { rm -f \"$4\"; exit 1; }" sh
                ${CB_BPFTOOL} ${object} ${name}_bpf ${header}
        DEPENDS ${object} VERBATIM)
    set(CB_SKELETONS ${CB_SKELETONS} ${header} PARENT_SCOPE)
endfunction()
cb_bpf_skeleton(cid_steer)
cb_bpf_skeleton(forward)
cb_bpf_skeleton(xsk)
set(CB_OWN_SKELETONS ${CB_SKELETONS})
cb_bpf_skeleton(forward_bench ${PROJECT_SOURCE_DIR}/tests/bench/bpf)
cb_bpf_skeleton(forward_in_bench ${PROJECT_SOURCE_DIR}/tests/bench/bpf)
set(CB_BENCH_SKELETON ${PROJECT_BINARY_DIR}/bpf/forward_bench.skel.h ${PROJECT_BINARY_DIR}/bpf/forward_in_bench.skel.h)

cb_read_sources(${PROJECT_SOURCE_DIR}/libcb/sources-xdp.txt CB_XDP_SOURCES)
set(own ${CB_XDP_SOURCES})
list(FILTER own EXCLUDE REGEX "/libcb/(base|telemetry)/")
set(copies ${CB_XDP_SOURCES})
list(FILTER copies INCLUDE REGEX "/libcb/(base|telemetry)/")

add_library(cb_xdp_objects OBJECT ${own} ${CB_OWN_SKELETONS})
target_include_directories(cb_xdp_objects
    PRIVATE ${PROJECT_SOURCE_DIR}/libcb ${PROJECT_SOURCE_DIR}/bpf
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
target_include_directories(cb_xdp_objects SYSTEM PRIVATE ${PROJECT_BINARY_DIR}/bpf)
target_link_libraries(cb_xdp_objects PRIVATE cb_flags cb_warnings PkgConfig::BPF Threads::Threads)
set_target_properties(cb_xdp_objects PROPERTIES C_VISIBILITY_PRESET hidden)

set(CB_XDP_MAP ${PROJECT_BINARY_DIR}/libcb-xdp.map)
cb_write_version_script(LIBCB_XDP_0.1 ${CB_XDP_MAP} ${CB_XDP_HEADERS})
add_library(cb-xdp SHARED $<TARGET_OBJECTS:cb_xdp_objects> ${copies})
target_include_directories(cb-xdp PRIVATE ${PROJECT_SOURCE_DIR}/libcb PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(cb-xdp PUBLIC cb
    PRIVATE $<BUILD_INTERFACE:cb_flags> $<BUILD_INTERFACE:PkgConfig::BPF> $<BUILD_INTERFACE:Threads::Threads>)
target_link_options(cb-xdp PRIVATE -Wl,--version-script=${CB_XDP_MAP} -Wl,--as-needed)
if(NOT CB_SANITIZE AND NOT CB_FUZZERS)
    target_link_options(cb-xdp PRIVATE -Wl,-z,defs)
endif()
set_target_properties(cb-xdp PROPERTIES C_VISIBILITY_PRESET hidden
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${CB_XDP_MAP} LINKER_LANGUAGE C)
add_library(libcb::cb-xdp ALIAS cb-xdp)

# For tests only, beside cb_static, which has the base.
add_library(cb_xdp_static STATIC $<TARGET_OBJECTS:cb_xdp_objects>)
target_link_libraries(cb_xdp_static PUBLIC cb_static PkgConfig::BPF)
target_compile_definitions(cb_xdp_static INTERFACE CB_HAVE_XDP=1)
set_target_properties(cb_xdp_static PROPERTIES LINKER_LANGUAGE C OUTPUT_NAME cb_xdp_internal)

install(TARGETS cb-xdp EXPORT libcb LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
configure_file(${PROJECT_SOURCE_DIR}/pkgconfig/libcb-xdp.pc.in libcb-xdp.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/libcb-xdp.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
