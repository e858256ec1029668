# Included where GRAFT_CUDA is on: finds the toolkit and makes device_cuda, the kernels as objects.
if(NOT CMAKE_CUDA_COMPILER)
  find_program(nvcc nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
  if(NOT nvcc)
    message(FATAL_ERROR "preset cuda: no nvcc found; install NVIDIA's CUDA toolkit (12 or later) "
                        "or name the compiler with -DCMAKE_CUDA_COMPILER=")
  endif()
  set(CMAKE_CUDA_COMPILER ${nvcc})
endif()
# Machine code for sm_80 and sm_90, and sm_90's intermediate form for what comes after.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
if(NOT TARGET CUDA::cublas)
  message(FATAL_ERROR "preset cuda: the toolkit of ${CMAKE_CUDA_COMPILER} has no libcublas.so; "
                      "install NVIDIA's cuBLAS or name a toolkit with -DCUDAToolkit_ROOT=")
endif()
# CMake 3.25 does not know that NVIDIA's compiler has this standard, and by which option.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()

add_library(device_cuda OBJECT ${device})
# fmt 9 takes NVIDIA's compiler for one without constant expressions, and checks formats by
# functions that the compiler then cannot run.
target_compile_definitions(device_cuda PRIVATE FMT_CONSTEVAL= FMT_USE_CONSTEXPR=1)
set_target_properties(device_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
# Not what the other sources are compiled with: NVIDIA's compiler takes other options.
set_property(TARGET device_cuda PROPERTY COMPILE_OPTIONS --expt-relaxed-constexpr
             $<$<NOT:$<BOOL:${GRAFT_PACK}>>:-Werror=all-warnings>
             -Xcompiler=-Wall,-Wextra,-Wno-unused-parameter)
target_link_libraries(device_cuda PRIVATE fmt::fmt CUDA::cudart_static)
