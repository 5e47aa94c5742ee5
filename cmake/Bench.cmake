# tests/bench/NAME.c: the programs that scripts/bench needs of our own. They use the public headers only
# and are built on demand: `cmake --build --preset release --target bench_programs`.
include(CheckIncludeFile)
file(GLOB CB_BENCH_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/bench/*.c)
add_library(bench_lab OBJECT EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/bench/lab/lab.c)
target_link_libraries(bench_lab PRIVATE cb cb_flags)
add_custom_target(bench_programs)
if(NOT CB_BENCH_SKELETON)
    list(FILTER CB_BENCH_SOURCES EXCLUDE REGEX "/forward.*_speed.c$")
endif()
foreach(source IN LISTS CB_BENCH_SOURCES)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} EXCLUDE_FROM_ALL ${source})
    target_link_libraries(${name} PRIVATE cb cb_flags)
    if(name MATCHES "^cc") # the congestion laboratory
        target_sources(${name} PRIVATE $<TARGET_OBJECTS:bench_lab>)
        target_link_libraries(${name} PRIVATE m)
    endif()
    if(name MATCHES "^(auth|ca)_") # measures GnuTLS by itself too
        target_link_libraries(${name} PRIVATE PkgConfig::GNUTLS)
    endif()
    if(name MATCHES "^forward_") # the datapath's program under the kernel's test run
        target_sources(${name} PRIVATE ${CB_BENCH_SKELETON})
        target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/bpf)
        target_include_directories(${name} SYSTEM PRIVATE ${PROJECT_BINARY_DIR}/bpf)
        target_link_libraries(${name} PRIVATE PkgConfig::BPF)
    endif()
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/bench)
    add_dependencies(bench_programs ${name})
endforeach()

# The hot paths whose instructions scripts/budgets counts; it looks inside, and needs callgrind's header.
check_include_file(valgrind/callgrind.h CB_HAS_CALLGRIND_H)
if(CB_HAS_CALLGRIND_H)
    file(GLOB CB_BUDGET_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/bench/budgets/*.c)
    add_executable(budget_paths EXCLUDE_FROM_ALL ${CB_BUDGET_SOURCES})
    target_link_libraries(budget_paths PRIVATE cb_static cb_flags)
    set_target_properties(budget_paths PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/bench)
endif()
