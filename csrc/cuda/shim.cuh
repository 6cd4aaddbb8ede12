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
// ---- sm_90a only: kernels that use these names are empty elsewhere
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define OTCUDA_SM90A 1
#endif
// As OTCUDA_DYNAMIC_SHARED, where the swizzles of 128 bytes begin.
#define OTCUDA_SWIZZLED_SHARED(type, name)                           \
  extern __shared__ __align__(1024) unsigned char otcuda_swizzled[]; \
  type* name = reinterpret_cast<type*>(otcuda_swizzled)

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return unsigned(__cvta_generic_to_shared(shared));
}

// A phase ends when so many threads arrived and all bytes they announced have landed.
struct alignas(8) Mbarrier {
  unsigned long long word;
};
__device__ __forceinline__ void mbarrier_init(Mbarrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
// After mbarrier_init, by the same thread: copies may name the barrier.
__device__ __forceinline__ void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(Mbarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect(Mbarrier* barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Returns when the last phase of this parity is over; of a new barrier phase 1 is over.
__device__ __forceinline__ void mbarrier_wait(Mbarrier* barrier, unsigned parity) {
  const unsigned address = shared_address(barrier);
  unsigned done = 0;
  while (!done) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
  }
}
// Copies bytes, ends and count multiples of 16, and tells the barrier when they have landed.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, unsigned bytes,
                                          Mbarrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// Sums that products of a warpgroup add to: clang-format off for the lists of registers.
// clang-format off
#define OTCUDA_SUMS(d)                                                                           \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),            \
  "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),        \
  "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),     \
  "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),     \
  "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
// clang-format on

// After sums were changed by anything else, before the next product adds to them. They are named
// here and in the wait so that no compiler moves what changes or reads them past either.
__device__ __forceinline__ void wgmma_fence(float (&d)[32]) {
  asm volatile("wgmma.fence.sync.aligned;" : OTCUDA_SUMS(d)::"memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Returns when all but the newest groups of products are done; those of d must be among them.
template <int newest_left>
__device__ __forceinline__ void wgmma_wait(float (&d)[32]) {
  asm volatile("wgmma.wait_group.sync.aligned %32;" : OTCUDA_SUMS(d) : "n"(newest_left) : "memory");
}
// d += a b for a of 64 x 16, 16 rows a warp as in mma_bf16_16816, and b of 16 x 64 bfloat16 in
// shared memory, by a descriptor; runs until a wait, and how sums are rounded is not promised.
__device__ __forceinline__ void wgmma_bf16_64x64x16(float (&d)[32], const uint32_t (&a)[4],
                                                    uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, "
      "%9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, "
      "%27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
      : OTCUDA_SUMS(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#elif !defined(OTCUDA_WORKSPACE_PIECE)
#define OTCUDA_WORKSPACE_PIECE(pointer, bytes, item) ((void)0)
#define OTCUDA_WORKSPACE_GAP 0
#endif
