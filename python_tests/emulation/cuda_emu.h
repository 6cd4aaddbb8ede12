// SPDX-License-Identifier: Apache-2.0
// The CUDA names that our kernels use, for g++: every CUDA thread is a fiber, barriers and warp
// collectives switch fibers. Force-included when g++ compiles a .cu file; nvcc never sees it.
//
// Written for kernels of csrc/cuda: a name that is missing here is a compile error, not a surprise.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#define OTCUDA_EMULATED 1
#define OTCUDA_WGMMA 1
#define __global__ [[maybe_unused]]
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace emu {
// What kernel code may see of the running CUDA thread.
struct Thread {
  dim3 tid;
  int linear, warp, lane;
};
extern Thread* self;  // null while host code runs
extern dim3 block_idx, block_dim, grid_dim;

enum class Collective { syncwarp, shuffle, vote, match, reduce, ldmatrix, mma, wgmma, wgmma_wait };
enum class Access : uint8_t {
  read,
  write,
  atomic,
  copy_issued,
  copy_lands,
  bulk_issued,
  tile_read
};
using Resolve = void (*)(void* mine, void* const* all, unsigned mask, int lane);

// Blocks until every lane of `mask` came with the same op and mask; the last one resolves them all.
void collective(Collective op, unsigned mask, void* mine, Resolve resolve, int line);
void block_barrier(int line);
// The same address for all threads of a block; what it holds at the start of a block is not data.
void* shared(const void* key, size_t bytes, size_t granule, const char* name, size_t align);
void* dynamic_shared(size_t granule, size_t align);
void access(const void* p, size_t n, Access kind, const void* pc);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void launch_erased(const void* kernel, const char* name, dim3 grid, dim3 block, size_t smem,
                   void (*body)(const void*), const void* args, size_t args_size);
void cp_async(void* dst, const void* src, int bytes);
void workspace_piece(const void* p, size_t bytes, size_t item);
void cp_async_commit();
void cp_async_wait(int newest_left);

template <class F>
void launch(const void* kernel, const char* name, dim3 grid, dim3 block, size_t smem, const F& f) {
  launch_erased(
      kernel, name, grid, block, smem, [](const void* p) { (*static_cast<const F*>(p))(); }, &f,
      sizeof f);
}
template <class T>
using type = T;
template <class T>
constexpr size_t granule =
    alignof(std::remove_all_extents_t<T>) < 4 ? alignof(std::remove_all_extents_t<T>) : 4;
}  // namespace emu

#define threadIdx (emu::self->tid)
#define blockIdx emu::block_idx
#define blockDim emu::block_dim
#define gridDim emu::grid_dim

#define OTCUDA_LAUNCH(kernel, grid, block, smem, stream, ...)                      \
  ((void)(stream), otcuda::cuda::note_launch(#kernel, grid, block, smem),          \
   emu::launch(reinterpret_cast<const void*>(&kernel), #kernel, grid, block, smem, \
               [=] { kernel(__VA_ARGS__); }))
#define OTCUDA_SHARED(name, ...)                               \
  static char name##_key;                                      \
  auto& name = *static_cast<emu::type<__VA_ARGS__>*>(          \
      emu::shared(&name##_key, sizeof(emu::type<__VA_ARGS__>), \
                  emu::granule<emu::type<__VA_ARGS__>>, #name, alignof(emu::type<__VA_ARGS__>)))
#define OTCUDA_WORKSPACE_PIECE(pointer, bytes, item) emu::workspace_piece(pointer, bytes, item)
#define OTCUDA_WORKSPACE_GAP 256
#define OTCUDA_DYNAMIC_SHARED(type_, name) \
  auto* name = static_cast<type_*>(emu::dynamic_shared(emu::granule<type_>, 16))
#define OTCUDA_SWIZZLED_SHARED(type_, name) \
  auto* name = static_cast<type_*>(emu::dynamic_shared(emu::granule<type_>, 1024))

// ---- barriers and warp collectives
#define EMU_LINE int line = __builtin_LINE()

inline void __syncthreads(EMU_LINE) { emu::block_barrier(line); }
inline void __syncwarp(unsigned mask = ~0u, EMU_LINE) {
  emu::collective(
      emu::Collective::syncwarp, mask, nullptr, [](void*, void* const*, unsigned, int) {}, line);
}

namespace emu {
template <class T>
struct Shuffle {
  T value, out;
  int source;
};
template <class T>
T shuffle(unsigned mask, T value, int source, int line) {
  Shuffle<T> s{value, value, source};
  collective(
      Collective::shuffle, mask, &s,
      [](void* mine, void* const* all, unsigned m, int) {
        auto* a = static_cast<Shuffle<T>*>(mine);
        if (!(m >> a->source & 1)) {
          fail("shuffle reads lane %d, which is not in mask %08x", a->source, m);
        }
        a->out = static_cast<Shuffle<T>*>(all[a->source])->value;
      },
      line);
  return s.out;
}

template <class T, class F>
struct Fold {
  T value, out;
  F f;  // (value of lane i, mask, lane) -> T
};
template <class T, class F>
T fold(Collective op, unsigned mask, T value, F f, int line) {
  Fold<T, F> s{value, value, f};
  collective(
      op, mask, &s,
      [](void* mine, void* const* all, unsigned m, int lane) {
        auto get = [&](int i) { return static_cast<Fold<T, F>*>(all[i])->value; };
        auto* a = static_cast<Fold<T, F>*>(mine);
        a->out = a->f(get, m, lane);
      },
      line);
  return s.out;
}
inline int lane() { return self->lane; }
}  // namespace emu

template <class T>
T __shfl_sync(unsigned m, T v, int source, int width = 32, EMU_LINE) {
  return emu::shuffle(m, v, (emu::lane() & -width) + (source & (width - 1)), line);
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, int x, int width = 32, EMU_LINE) {
  const int s = emu::lane() ^ x;
  return emu::shuffle(m, v, s / width == emu::lane() / width ? s : emu::lane(), line);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, int delta, int width = 32, EMU_LINE) {
  const int s = emu::lane() - delta;
  return emu::shuffle(m, v, s >= (emu::lane() & -width) ? s : emu::lane(), line);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, int delta, int width = 32, EMU_LINE) {
  const int s = emu::lane() + delta;
  return emu::shuffle(m, v, s < (emu::lane() & -width) + width ? s : emu::lane(), line);
}
inline unsigned __ballot_sync(unsigned m, int p, EMU_LINE) {
  return emu::fold(
      emu::Collective::vote, m, unsigned(p != 0),
      [](auto get, unsigned mask, int) {
        unsigned r = 0;
        for (int i = 0; i < 32; ++i) {
          if (mask >> i & 1) r |= get(i) << i;
        }
        return r;
      },
      line);
}
inline int __any_sync(unsigned m, int p, EMU_LINE) { return __ballot_sync(m, p, line) != 0; }
inline int __all_sync(unsigned m, int p, EMU_LINE) { return __ballot_sync(m, p, line) == m; }

#define EMU_REDUCE(name, expr)              \
  template <class T>                        \
  T name(unsigned m, T v, EMU_LINE) {       \
    return emu::fold(                       \
        emu::Collective::reduce, m, v,      \
        [](auto get, unsigned mask, int) {  \
          int i = __builtin_ctz(mask);      \
          T a = get(i);                     \
          while (++i < 32) {                \
            if (!(mask >> i & 1)) continue; \
            T b = get(i);                   \
            a = (expr);                     \
          }                                 \
          return a;                         \
        },                                  \
        line);                              \
  }
EMU_REDUCE(__reduce_add_sync, a + b)
EMU_REDUCE(__reduce_max_sync, a > b ? a : b)
EMU_REDUCE(__reduce_min_sync, a < b ? a : b)

// ---- atomics: one access each, never instrumented by the compiler
#define EMU_NO_HOOKS __attribute__((no_sanitize_thread, noinline))
#define EMU_ATOMIC(name, expr)                                                   \
  template <class T>                                                             \
  EMU_NO_HOOKS T name(T* p, typename std::enable_if<true, T>::type v) {          \
    emu::access(p, sizeof(T), emu::Access::atomic, __builtin_return_address(0)); \
    T old = *p;                                                                  \
    *p = (expr);                                                                 \
    return old;                                                                  \
  }
EMU_ATOMIC(atomicAdd, old + v)
EMU_ATOMIC(atomicMax, old > v ? old : v)
EMU_ATOMIC(atomicMin, old < v ? old : v)
EMU_ATOMIC(atomicExch, v)

// ---- arithmetic and bits. -ffp-contract=off: what is written is what is rounded
using std::isnan;
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
// As wrong as common/host_device.h allows, one way or the other.
inline float __fdividef(float a, float b) {
  uint32_t bits;
  std::memcpy(&bits, &a, sizeof bits);
  return a / b * (__builtin_parity(bits) == 0 ? 1 + 0x1p-20f : 1 - 0x1p-20f);
}
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
namespace emu {
template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace emu
inline unsigned __float_as_uint(float f) { return emu::bits<unsigned>(f); }
inline float __uint_as_float(unsigned u) { return emu::bits<float>(u); }
inline long long __double_as_longlong(double d) { return emu::bits<long long>(d); }
inline double __longlong_as_double(long long i) { return emu::bits<double>(i); }
template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
T __ldg(const T* p) {
  return *p;
}

// ---- the PTX of shim.cuh
__attribute__((always_inline)) inline void cp_async16(void* smem, const void* gmem) {
  emu::cp_async(smem, gmem, 16);
}
void ldmatrix_x4(uint32_t (&to)[4], const void* row, EMU_LINE);
void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                    const float (&c)[4], EMU_LINE);
inline void cp_async_commit() { emu::cp_async_commit(); }
template <int newest_left>
void cp_async_wait() {
  emu::cp_async_wait(newest_left);
}

#include "hopper_emu.h"

// ---- the runtime calls that launchers make
using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemsetAsync(void* p, int byte, size_t bytes, cudaStream_t stream);
namespace emu {
cudaError_t allow_dynamic_shared(const void* kernel, int bytes);
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return emu::allow_dynamic_shared(reinterpret_cast<const void*>(kernel), bytes);
}
