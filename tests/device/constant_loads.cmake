# Fails if a kernel reads global memory past coherence (ld.global.nc, __ldg): the kernel before may have written it just
# now. Needs no GPU.      cmake -DNVCC=... -DROOT=... -DSOURCES="a.cu;b.cu" -DPTX=file -P constant_loads.cmake
foreach(source ${SOURCES})
  execute_process(COMMAND ${NVCC} -std=c++20 -arch=sm_90a -ptx -I${ROOT}/src -I${ROOT}/include ${source} -o ${PTX}
                  ERROR_VARIABLE errors RESULT_VARIABLE status TIMEOUT 120)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${source} did not compile: ${errors}")
  endif()
  file(READ ${PTX} ptx)
  if(NOT ptx MATCHES "ld\\.(global|param)")
    message(FATAL_ERROR "${source}: this is no PTX of a kernel")
  endif()
  if(ptx MATCHES "[^\n]*ld\\.global\\.(nc|[a-z0-9_:.]*\\.nc)[^\n]*")
    message(FATAL_ERROR "${source} reads past coherence: ${CMAKE_MATCH_0}")
  endif()
endforeach()
