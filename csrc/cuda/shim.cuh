// SPDX-License-Identifier: Apache-2.0
// The only file that knows which compiler is at work, and the only inline PTX. Kernels are CUDA C++
// plus these few names; g++ gets the same ones from python_tests/emulation/cuda_emu.h, which runs
// kernels on a CPU.
#pragma once

// As cuda_runtime.h has it, for headers that bindings include.
struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace otcuda::cuda {
// The last launch of this thread, for the error it may meet.
struct Launch {
  const char* kernel;
  unsigned grid[2], threads;
  unsigned long long shared_bytes;
};
inline thread_local Launch last_launch = {};
template <class Dim3>
void note_launch(const char* kernel, const Dim3& grid, const Dim3& block,
                 unsigned long long shared_bytes) {
  last_launch = {kernel, {grid.x, grid.y}, block.x, shared_bytes};
}
}  // namespace otcuda::cuda

#ifdef __CUDACC__
#include <cuda_runtime.h>

#include <cstdint>

#define OTCUDA_LAUNCH(kernel, grid, block, smem, stream, ...) \
  (::otcuda::cuda::note_launch(#kernel, grid, block, smem),   \
   kernel<<<grid, block, smem, stream>>>(__VA_ARGS__))
// The second argument is a type, arrays such as float[4][8] included.
template <class T>
using otcuda_type = T;
#define OTCUDA_SHARED(name, ...) __shared__ otcuda_type<__VA_ARGS__> name
// An array of as many bytes as the launch gives; one a kernel.
#define OTCUDA_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char otcuda_shared[]; \
  type* name = reinterpret_cast<type*>(otcuda_shared)

// The emulator holds kernels to the bounds of each piece of a workspace, and leaves bytes between
// pieces so that a step beyond one is not a step into the next; hardware knows neither.
#define OTCUDA_WORKSPACE_PIECE(pointer, bytes, item) ((void)0)
#define OTCUDA_WORKSPACE_GAP 0

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

// Four 8 x 8 matrices of 16-bit numbers: lane l gives the address of row l % 8 of matrix l / 8, and
// gets numbers 2 (l % 4) and the next of row l / 4 of each.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&to)[4], const void* row) {
  const unsigned from = unsigned(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
// d = a b + c for a of 16 x 16 and b of 16 x 8 bfloat16; how the sums are rounded is not promised.
__device__ __forceinline__ void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                               uint32_t b1, const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
}
#elif !defined(OTCUDA_WORKSPACE_PIECE)
#define OTCUDA_WORKSPACE_PIECE(pointer, bytes, item) ((void)0)
#define OTCUDA_WORKSPACE_GAP 0
#endif
