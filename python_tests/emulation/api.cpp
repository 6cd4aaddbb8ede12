// SPDX-License-Identifier: Apache-2.0
// The launchers of csrc/cuda as C functions, for ctypes. Each returns null, or what was thrown.
#include <initializer_list>
#include <string>

#include "cuda/cell_mass.h"
#include "cuda/device.h"
#include "cuda/heights_adam_solve.h"
#include "cuda/heights_adam_step.h"
#include "cuda/power_argmax.h"
#include "cuda/power_argmax_screen.h"
#include "cuda/power_topk.h"
#include "cuda/range64.h"
#include "cuda/rans32.h"
#include "cuda/source_samples.h"
#include "planted.h"

namespace {
using namespace otcuda;

std::string message;

template <class F>
const char* guarded(F f) {
  try {
    f();
    return nullptr;
  } catch (const std::exception& e) {
    return (message = e.what()).c_str();
  }
}

TensorView view(void* data, DType dtype, std::initializer_list<int64_t> shape) {
  TensorView v;
  v.data = data;
  v.dtype = dtype;
  v.device = Device::cuda;
  for (int64_t n : shape) v.shape[v.ndim++] = n;
  for (int64_t k = v.ndim, stride = 1; k-- > 0; stride *= v.shape[k]) v.strides[k] = stride;
  return v;
}
DType integer(int64_t bytes) {
  return bytes == 1 ? DType::u8 : bytes == 2 ? DType::i16 : bytes == 4 ? DType::i32 : DType::i64;
}
// Sizes of tables in the order of native.rans32_shape.
RansShape shape(const int64_t* s) {
  return {s[0], s[1], s[2], int32_t(s[3]), int(s[4]), int(s[5]), s[6] != 0, s[7] != 0};
}
cuda::RansCall rans_call(const int64_t* tables, int64_t n, int64_t symbol_bytes,
                         int64_t index_bytes, int64_t block, int64_t capacity, void* image,
                         void* symbols, void* index, void* data, void* directory, void* size,
                         void* faults) {
  static TensorView index_view;
  const RansShape s = shape(tables);
  index_view = view(index, integer(index_bytes), {n});
  return {s,
          view(image, DType::u32, {s.words()}),
          view(symbols, integer(symbol_bytes), {n}),
          index == nullptr ? nullptr : &index_view,
          block,
          view(data, DType::u8, {capacity}),
          view(directory, DType::u32, {(n + block - 1) / block, 3}),
          view(size, DType::i64, {1}),
          view(faults, DType::i64, {3})};
}
cuda::RangeCall range_call(const int64_t* tables, int64_t n, int64_t messages, int64_t symbol_bytes,
                           int64_t index_bytes, int64_t capacity, void* image, void* symbols,
                           void* index, void* ends, void* data, void* byte_ends, void* faults) {
  static TensorView index_view;
  const RansShape s = shape(tables);
  index_view = view(index, integer(index_bytes), {n});
  return {s,
          view(image, DType::u32, {s.words()}),
          view(symbols, integer(symbol_bytes), {n}),
          index == nullptr ? nullptr : &index_view,
          view(ends, DType::i64, {messages}),
          view(data, DType::u8, {capacity}),
          view(byte_ends, DType::i64, {messages}),
          view(faults, DType::i64, {3})};
}
__global__ void idle_kernel(int) {}
DType real(int64_t is_double) { return is_double ? DType::f64 : DType::f32; }
}  // namespace

extern "C" {
int64_t emulated_power_argmax_workspace(int64_t is_double, int64_t B, int64_t N, int64_t D) {
  return cuda::power_argmax_workspace(real(is_double), B, N, D);
}
const char* emulated_power_argmax(int64_t is_double, int64_t B, int64_t N, int64_t D, void* x,
                                  void* y, void* h, void* value, void* index, void* workspace,
                                  int64_t bytes) {
  return guarded([&] {
    const DType t = real(is_double);
    cuda::power_argmax(view(x, t, {B, D}), view(y, t, {N, D}), view(h, t, {N}), view(value, t, {B}),
                       view(index, DType::i64, {B}), view(workspace, DType::u8, {bytes}), 0);
  });
}
int64_t emulated_power_argmax_screen_workspace(int64_t B, int64_t N, int64_t D) {
  return cuda::power_argmax_screen_workspace(B, N, D);
}
const char* emulated_power_argmax_screen(int64_t B, int64_t N, int64_t D, int64_t wgmma, void* x,
                                         void* y, void* h, void* value, void* index,
                                         void* workspace, int64_t bytes) {
  return guarded([&] {
    const DType t = DType::f32;
    cuda::power_argmax_screen(view(x, t, {B, D}), view(y, t, {N, D}), view(h, t, {N}),
                              view(value, t, {B}), view(index, DType::i64, {B}),
                              view(workspace, DType::u8, {bytes}), 0,
                              wgmma ? cuda::ScreenBy::wgmma : cuda::ScreenBy::mma);
  });
}
int64_t emulated_power_topk_workspace(int64_t is_double, int64_t B, int64_t N, int64_t D) {
  return cuda::power_topk_workspace(real(is_double), B, N, D);
}
const char* emulated_power_topk(int64_t is_double, int64_t B, int64_t N, int64_t D, int64_t k,
                                void* x, void* y, void* h, void* value, void* index,
                                void* workspace, int64_t bytes) {
  return guarded([&] {
    const DType t = real(is_double);
    cuda::power_topk(view(x, t, {B, D}), view(y, t, {N, D}), view(h, t, {N}),
                     view(value, t, {B, k}), view(index, DType::i64, {B, k}),
                     view(workspace, DType::u8, {bytes}), 0);
  });
}
const char* emulated_power_argmax_gap(int64_t is_double, int64_t B, int64_t N, int64_t D, void* x,
                                      void* y, void* h, void* value, void* index, void* gap,
                                      void* workspace, int64_t bytes) {
  return guarded([&] {
    const DType t = real(is_double);
    cuda::power_argmax_gap(view(x, t, {B, D}), view(y, t, {N, D}), view(h, t, {N}),
                           view(value, t, {B}), view(index, DType::i64, {B}), view(gap, t, {B}),
                           view(workspace, DType::u8, {bytes}), 0);
  });
}
int64_t emulated_cell_mass_workspace(int64_t N, int64_t weighted) {
  return cuda::cell_mass_workspace(N, weighted != 0);
}
const char* emulated_cell_mass_counts(int64_t B, int64_t N, void* index, void* mass,
                                      void* workspace, int64_t bytes) {
  return guarded([&] {
    cuda::cell_mass_counts(view(index, DType::i64, {B}), view(mass, DType::i64, {N}),
                           view(workspace, DType::u8, {bytes}), 0);
  });
}
const char* emulated_cell_mass_sums(int64_t is_double, int64_t B, int64_t N, void* index,
                                    void* weights, void* mass, void* workspace, int64_t bytes) {
  return guarded([&] {
    cuda::cell_mass_sums(view(index, DType::i64, {B}), view(weights, real(is_double), {B}),
                         view(mass, real(is_double), {N}), view(workspace, DType::u8, {bytes}), 0);
  });
}
const char* emulated_source_samples(int64_t is_double, int64_t B, int64_t D, int64_t source,
                                    uint64_t seed, uint64_t stream, uint64_t offset, void* out) {
  return guarded([&] {
    cuda::source_samples({SourceKind(source), seed, stream, offset},
                         view(out, real(is_double), {B, D}), 0);
  });
}
const char* emulated_heights_adam_step(int64_t is_double, int64_t N, int64_t step, double lr,
                                       double beta1, double beta2, double eps, void* h, void* m,
                                       void* v, void* mass, void* nu) {
  return guarded([&] {
    const DType t = real(is_double);
    cuda::heights_adam_step(view(h, t, {N}), view(m, t, {N}), view(v, t, {N}), view(mass, t, {N}),
                            view(nu, t, {N}), {lr, beta1, beta2, eps}, step, 0);
  });
}
int64_t emulated_heights_adam_solve_workspace(int64_t is_double, int64_t N, int64_t D,
                                              int64_t batch) {
  return cuda::heights_adam_solve_workspace(real(is_double), N, D, batch);
}
// lr and step lie in host memory, so they come as addresses, or step on the device; the callback
// stops after `steps`.
const char* emulated_heights_adam_solve(int64_t is_double, int64_t N, int64_t D, int64_t batch,
                                        int64_t iterations, int64_t source, int64_t seed,
                                        int64_t bias_correction, int64_t stop_after, int64_t lr,
                                        int64_t step, void* y, void* nu, void* h, void* m, void* v,
                                        void* chi2, void* device_step, void* workspace,
                                        int64_t bytes) {
  return guarded([&] {
    const DType t = real(is_double);
    const cuda::SolveArguments arguments{view(y, t, {N, D}),
                                         view(nu, t, {N}),
                                         view(h, t, {N}),
                                         view(m, t, {N}),
                                         view(v, t, {N}),
                                         view(chi2, DType::f64, {iterations}),
                                         reinterpret_cast<const double*>(lr),
                                         reinterpret_cast<int64_t*>(step),
                                         SourceKind(source),
                                         uint64_t(seed),
                                         batch,
                                         bias_correction != 0,
                                         {0.0, 0.9, 0.999, 1e-8},
                                         static_cast<int64_t*>(device_step)};
    Poll poll;
    if (stop_after > 0) {
      // A Poll calls back every 10 ms; this one must not depend on time.
      poll = Poll([&](double progress) { return progress * double(iterations) < stop_after; });
    }
    cuda::heights_adam_solve(arguments, view(workspace, DType::u8, {bytes}), &poll, 0);
  });
}
// `tables` are eight numbers in host memory, so they come as an address.
int64_t emulated_rans32_bound(int64_t tables, int64_t n, int64_t block) {
  return cuda::rans32_bound(shape(reinterpret_cast<const int64_t*>(tables)), n, block);
}
int64_t emulated_rans32_encode_workspace(int64_t tables, int64_t n, int64_t block) {
  return cuda::rans32_encode_workspace(shape(reinterpret_cast<const int64_t*>(tables)), n, block);
}
int64_t emulated_rans32_decode_workspace(int64_t n, int64_t block) {
  return cuda::rans32_decode_workspace(n, block);
}
const char* emulated_rans32_encode(int64_t tables, int64_t n, int64_t symbol_bytes,
                                   int64_t index_bytes, int64_t block, int64_t capacity,
                                   void* image, void* symbols, void* index, void* data,
                                   void* directory, void* size, void* faults, void* workspace,
                                   int64_t bytes) {
  return guarded([&] {
    cuda::rans32_encode(
        rans_call(reinterpret_cast<const int64_t*>(tables), n, symbol_bytes, index_bytes, block,
                  capacity, image, symbols, index, data, directory, size, faults),
        view(workspace, DType::u8, {bytes}), 0);
  });
}
const char* emulated_rans32_decode(int64_t tables, int64_t n, int64_t symbol_bytes,
                                   int64_t index_bytes, int64_t block, int64_t capacity,
                                   void* image, void* symbols, void* index, void* data,
                                   void* directory, void* size, void* faults, void* workspace,
                                   int64_t bytes) {
  return guarded([&] {
    cuda::rans32_decode(
        rans_call(reinterpret_cast<const int64_t*>(tables), n, symbol_bytes, index_bytes, block,
                  capacity, image, symbols, index, data, directory, size, faults),
        view(workspace, DType::u8, {bytes}), 0);
  });
}
int64_t emulated_range64_bound(int64_t tables, int64_t symbol_bytes, int64_t n, int64_t messages) {
  return cuda::range64_bound(shape(reinterpret_cast<const int64_t*>(tables)), integer(symbol_bytes),
                             n, messages);
}
int64_t emulated_range64_encode_workspace(int64_t tables, int64_t symbol_bytes, int64_t n,
                                          int64_t messages) {
  return cuda::range64_encode_workspace(shape(reinterpret_cast<const int64_t*>(tables)),
                                        integer(symbol_bytes), n, messages);
}
int64_t emulated_range64_decode_workspace() { return cuda::range64_decode_workspace(); }
const char* emulated_range64_encode(int64_t tables, int64_t n, int64_t messages,
                                    int64_t symbol_bytes, int64_t index_bytes, int64_t capacity,
                                    void* image, void* symbols, void* index, void* ends, void* data,
                                    void* byte_ends, void* faults, void* workspace, int64_t bytes) {
  return guarded([&] {
    cuda::range64_encode(
        range_call(reinterpret_cast<const int64_t*>(tables), n, messages, symbol_bytes, index_bytes,
                   capacity, image, symbols, index, ends, data, byte_ends, faults),
        view(workspace, DType::u8, {bytes}), 0);
  });
}
const char* emulated_range64_decode(int64_t tables, int64_t n, int64_t messages,
                                    int64_t symbol_bytes, int64_t index_bytes, int64_t capacity,
                                    void* image, void* symbols, void* index, void* ends, void* data,
                                    void* byte_ends, void* faults, void* workspace, int64_t bytes) {
  return guarded([&] {
    cuda::range64_decode(
        range_call(reinterpret_cast<const int64_t*>(tables), n, messages, symbol_bytes, index_bytes,
                   capacity, image, symbols, index, ends, data, byte_ends, faults),
        view(workspace, DType::u8, {bytes}), 0);
  });
}
const char* emulated_planted_wgmma(int64_t bug, int64_t swizzle, void* a, void* b, void* out) {
  return guarded([&] {
    planted_wgmma(int(bug), int(swizzle), static_cast<uint16_t*>(a), static_cast<uint16_t*>(b),
                  static_cast<float*>(out));
  });
}
const char* emulated_refused_launch() {
  return guarded([&] {
    OTCUDA_LAUNCH(idle_kernel, dim3{2}, dim3{2048}, 100, nullptr, 0);
    cuda::check_launch("idle");
  });
}
const char* emulated_planted(int64_t bug, void* in, void* out, int64_t n, void* total) {
  return guarded([&] {
    planted(int(bug), static_cast<const float*>(in), static_cast<float*>(out), int(n),
            static_cast<unsigned*>(total));
  });
}
}
