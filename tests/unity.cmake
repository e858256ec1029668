# Several sources as one compilation, for the presets whose builds are long and seldom repeated: most
# of what a source takes to compile is what its headers take. The cpu preset compiles every source
# alone, so a missing include still shows. Neighbours are of one folder, at most unity_size at a time:
# two of them that give one name to two things want another name, or GRAFT_UNITY=OFF.
set(unity_size 8)

# unity_groups(OUT SOURCE...): OUT becomes a list of "folder|number" for each source, in order.
function(unity_groups out)
  set(groups)
  foreach(source ${ARGN})
    get_filename_component(folder ${source} DIRECTORY)
    string(MAKE_C_IDENTIFIER ${folder} key)
    if(NOT DEFINED count_${key})
      set(count_${key} 0)
    endif()
    math(EXPR number "${count_${key}} / ${unity_size}")
    math(EXPR count_${key} "${count_${key}} + 1")
    string(REPLACE "${CMAKE_SOURCE_DIR}/" "" folder ${folder})
    string(REPLACE "/" "_" folder ${folder})
    list(APPEND groups ${folder}_${number})
  endforeach()
  set(${out} ${groups} PARENT_SCOPE)
endfunction()

# unity_sources(TARGET SOURCE...): compiles these sources of the target in groups.
function(unity_sources target)
  unity_groups(groups ${ARGN})
  foreach(source group IN ZIP_LISTS ARGN groups)
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()

# unity_tests(OUT SOURCE...): OUT becomes a list of files that include these tests, each in a
# namespace of its own: helpers of two tests may have one name. What a test includes comes first, at
# global scope; where the test includes it again, its guard leaves nothing. A test that opens a
# namespace of the project is compiled alone: inside another it would be a new one. So are tests of
# the internals in graft::data, whose name would hide what other tests call data().
function(unity_tests out)
  set(alone)
  set(together)
  foreach(source ${ARGN})
    file(STRINGS ${source} opened REGEX
         "^(namespace graft|#define|#include \"experiments/data/(instruction_templates|row_files|sources|sparse_linear|task_description|task_rows|text_clean)\\.h)")
    if(opened)
      list(APPEND alone ${source})
    else()
      list(APPEND together ${source})
    endif()
  endforeach()
  unity_groups(groups ${together})
  set(files)
  foreach(source group IN ZIP_LISTS together groups)
    if(NOT DEFINED body_${group})
      list(APPEND files ${group})
    endif()
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    file(STRINGS ${source} includes REGEX "^#include ")
    list(APPEND head_${group} ${includes})
    get_filename_component(name ${source} NAME_WE)
    string(APPEND body_${group} "namespace unity_${name} {\n#include \"${source}\"\n}\n")
  endforeach()
  set(made)
  foreach(group ${files})
    list(REMOVE_DUPLICATES head_${group})
    list(JOIN head_${group} "\n" head)
    set(file ${CMAKE_BINARY_DIR}/unity/${group}.cpp)
    file(CONFIGURE OUTPUT ${file} CONTENT "${head}\n${body_${group}}" @ONLY)
    list(APPEND made ${file})
  endforeach()
  set(${out} ${alone} ${made} PARENT_SCOPE)
endfunction()
