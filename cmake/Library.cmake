# libcb: compiled once, linked twice. libcb.so exports what the public headers mark CB_API and nothing else; the static
# library, for tests only and never installed, shows everything.

# Reads a sources file (`path floor` lines, # comments) into a list of paths.
function(cb_read_sources file out)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(STRINGS ${file} lines REGEX "^[^#]")
    set(sources "")
    foreach(line IN LISTS lines)
        if(NOT line MATCHES "^([^ ]+\\.c) +F[0-3]$")
            message(FATAL_ERROR "${file}: `${line}`: expected `folder/file.c F0` (floors F0 to F3)")
        endif()
        list(APPEND sources ${PROJECT_SOURCE_DIR}/libcb/${CMAKE_MATCH_1})
    endforeach()
    list(REMOVE_DUPLICATES sources)
    set(${out} ${sources} PARENT_SCOPE)
endfunction()

# Writes a linker version script with one node for every CB_API function of the headers.
function(cb_write_version_script node output)
    set(names "")
    foreach(header IN LISTS ARGN)
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${header})
        file(READ ${header} text)
        string(REGEX MATCHALL "CB_API[^;(]*[ *\n]cb_[a-z0-9_]+\\(" found "${text}")
        foreach(declaration IN LISTS found)
            string(REGEX REPLACE ".*[ *\n](cb_[a-z0-9_]+)\\($" "\\1" name "${declaration}")
            list(APPEND names ${name})
        endforeach()
    endforeach()
    list(REMOVE_DUPLICATES names)
    list(SORT names)
    set(body "")
    foreach(name IN LISTS names)
        string(APPEND body "        ${name};\n")
    endforeach()
    file(CONFIGURE OUTPUT ${output} CONTENT "${node} {\n    global:\n${body}    local:\n        *;\n};\n" @ONLY)
endfunction()

cb_read_sources(${PROJECT_SOURCE_DIR}/libcb/sources.txt CB_SOURCES)
file(GLOB CB_HEADERS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/cb.h ${PROJECT_SOURCE_DIR}/include/cb/*.h)
set(CB_XDP_HEADERS ${PROJECT_SOURCE_DIR}/include/cb/xdp.h # what libcb-xdp exports (cmake/Xdp.cmake)
    ${PROJECT_SOURCE_DIR}/include/cb/forward.h ${PROJECT_SOURCE_DIR}/include/cb/xsk.h)
list(REMOVE_ITEM CB_HEADERS ${CB_XDP_HEADERS})

add_library(cb_objects OBJECT ${CB_SOURCES})
target_include_directories(cb_objects PRIVATE ${PROJECT_SOURCE_DIR}/libcb PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
target_link_libraries(cb_objects PRIVATE cb_flags cb_warnings cb_deps)
set_target_properties(cb_objects PROPERTIES C_VISIBILITY_PRESET hidden)

set(CB_MAP ${PROJECT_BINARY_DIR}/libcb.map)
cb_write_version_script(LIBCB_0.1 ${CB_MAP} ${CB_HEADERS})
add_library(cb SHARED $<TARGET_OBJECTS:cb_objects>)
target_include_directories(cb PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(cb PRIVATE $<BUILD_INTERFACE:cb_flags> $<BUILD_INTERFACE:cb_shared_flags> $<BUILD_INTERFACE:cb_deps>)
target_link_options(cb PRIVATE -Wl,--version-script=${CB_MAP} -Wl,--as-needed)
if(NOT CB_SANITIZE AND NOT CB_FUZZERS)
    target_link_options(cb PRIVATE -Wl,-z,defs)
endif()
set_target_properties(cb PROPERTIES
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${CB_MAP} LINKER_LANGUAGE C)
add_library(libcb::cb ALIAS cb)

add_library(cb_static STATIC $<TARGET_OBJECTS:cb_objects>)
target_include_directories(cb_static PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/libcb)
target_link_libraries(cb_static PUBLIC cb_flags cb_deps)
set_target_properties(cb_static PROPERTIES LINKER_LANGUAGE C OUTPUT_NAME cb_internal)
