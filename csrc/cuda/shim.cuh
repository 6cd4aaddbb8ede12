// SPDX-License-Identifier: Apache-2.0
// The only file that knows which compiler is at work, and the only inline PTX. Kernels are CUDA C++
// plus these few names; g++ gets the same ones from python_tests/emulation/cuda_emu.h, which runs
// kernels on a CPU.
#pragma once

// As cuda_runtime.h has it, for headers that bindings include.
struct CUstream_st;
using cudaStream_t = CUstream_st*;

#ifdef __CUDACC__
#include <cuda_runtime.h>

#define OTCUDA_LAUNCH(kernel, grid, block, smem, stream, ...) \
  kernel<<<grid, block, smem, stream>>>(__VA_ARGS__)
// The second argument is a type, arrays such as float[4][8] included.
template <class T>
using otcuda_type = T;
#define OTCUDA_SHARED(name, ...) __shared__ otcuda_type<__VA_ARGS__> name
// An array of as many bytes as the launch gives; one a kernel.
#define OTCUDA_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char otcuda_shared[]; \
  type* name = reinterpret_cast<type*>(otcuda_shared)

// The emulator holds kernels to the bounds of each piece of a workspace; hardware knows none.
#define OTCUDA_WORKSPACE_PIECE(pointer, bytes, item) ((void)0)

// Copies 16 bytes, both ends aligned to 16, past the registers; done when a wait says so.
__device__ __forceinline__ void cp_async16(void* shared, const void* global) {
  const unsigned to = unsigned(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Returns when all but the newest groups of this thread have landed; other threads need a barrier
// on top.
template <int newest_left>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(newest_left) : "memory");
}
#elif !defined(OTCUDA_WORKSPACE_PIECE)
#define OTCUDA_WORKSPACE_PIECE(pointer, bytes, item) ((void)0)
#endif
