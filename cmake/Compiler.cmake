# Warnings, hardening and sanitizers. Every flag that a compiler may not know is probed first.
include(CheckCCompilerFlag)
include(CheckCSourceCompiles)
include(CheckLinkerFlag)
include(CheckPIESupported)

add_library(cb_flags INTERFACE)      # for all our own code
add_library(cb_warnings INTERFACE)   # the stricter part, not for tests (Criterion's macros)

function(cb_probe_flag target flag)
    string(MAKE_C_IDENTIFIER "CB_HAS${flag}" have)
    check_c_compiler_flag("-Werror ${flag}" ${have})
    if(${have})
        target_compile_options(${target} INTERFACE ${flag})
    endif()
endfunction()

function(cb_probe_link_flag target flag)
    string(MAKE_C_IDENTIFIER "CB_LINKS${flag}" have)
    check_linker_flag(C "${flag}" ${have})
    if(${have})
        target_link_options(${target} INTERFACE ${flag})
    endif()
endfunction()

target_compile_definitions(cb_flags INTERFACE _GNU_SOURCE)
target_compile_options(cb_flags INTERFACE -Wall -Wextra)
if(CB_WERROR)
    target_compile_options(cb_flags INTERFACE -Werror)
endif()
foreach(flag -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla -Wundef -Wpointer-arith
        -Wwrite-strings -Wformat=2 -Wlogical-op -Wduplicated-cond)
    cb_probe_flag(cb_warnings ${flag})
endforeach()

foreach(flag -fstack-protector-strong -fstack-clash-protection -fcf-protection -fno-common -fno-plt)
    cb_probe_flag(cb_flags ${flag})
endforeach()
foreach(flag -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
    cb_probe_link_flag(cb_flags ${flag})
endforeach()
check_pie_supported(LANGUAGES C)

# Calls from libcb to its own public functions need no detour through the dynamic linker.
cb_probe_flag(cb_flags -fno-semantic-interposition)
add_library(cb_shared_flags INTERFACE)
cb_probe_link_flag(cb_shared_flags -Wl,-Bsymbolic-functions)

# Fortified libc calls need the optimiser and get in the way of sanitizers. Level 3 needs a compiler that knows the
# size of an object at run time.
if(NOT CB_SANITIZE AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
    check_c_source_compiles("
        #ifndef __has_builtin
        #error no __has_builtin
        #elif !__has_builtin(__builtin_dynamic_object_size)
        #error no dynamic object size
        #endif
        int main(void) { return 0; }" CB_HAS_FORTIFY_3)
    if(CB_HAS_FORTIFY_3)
        set(level 3)
    else()
        set(level 2)
    endif()
    target_compile_options(cb_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=${level})
endif()

if(CB_SANITIZE)
    target_compile_options(cb_flags INTERFACE -fsanitize=${CB_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(cb_flags INTERFACE -fsanitize=${CB_SANITIZE})
    if(CB_SANITIZE MATCHES "undefined")
        target_compile_options(cb_flags INTERFACE -fno-sanitize-recover=undefined)
    endif()
endif()
if(CB_FUZZERS)
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "CB_FUZZERS needs clang: use `cmake --preset fuzz`, or set CMAKE_C_COMPILER=clang")
    endif()
    target_compile_options(cb_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(CB_LTO)
    include(CheckIPOSupported)
    check_ipo_supported(RESULT CB_HAS_LTO LANGUAGES C)
    set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ${CB_HAS_LTO})
endif()
