# Each examples/NAME.c is one program that uses the library as a stranger would.
file(GLOB CB_EXAMPLE_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c)
if(NOT CB_EXAMPLE_SOURCES)
    message(STATUS "No examples yet (examples/*.c)")
endif()
foreach(source IN LISTS CB_EXAMPLE_SOURCES)
    get_filename_component(name ${source} NAME_WE)
    add_executable(example_${name} ${source})
    target_link_libraries(example_${name} PRIVATE libcb::cb cb_flags)
    set_target_properties(example_${name} PROPERTIES
        OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
endforeach()
