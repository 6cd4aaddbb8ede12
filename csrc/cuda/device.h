// SPDX-License-Identifier: Apache-2.0
// What every launcher needs: the right device, errors as exceptions, and pieces of the caller's
// workspace.
//
// Launchers allocate nothing and wait for nothing: outputs and workspace come from the caller, work
// goes onto the caller's stream.
#pragma once

#include <cstdint>
#include <string>

#include "common/check.h"
#include "cuda/shim.cuh"

namespace otcuda::cuda {

// cudaStream_t as Python hands it over: torch.cuda.current_stream().cuda_stream.
inline cudaStream_t stream_of(uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw DeviceError(std::string(what) + ": CUDA says \"" + cudaGetErrorString(error) + "\"");
}

// After each launch: a refused launch is an exception here, not a riddle at the next sync. It names
// the kernel and the shape of the launch.
inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  const Launch& launch = last_launch;
  const auto number = [](unsigned long long n) { return std::to_string(n); };
  throw DeviceError(std::string(op) + ": CUDA says \"" + cudaGetErrorString(error) + "\" of " +
                    launch.kernel + ", grid " + number(launch.grid[0]) + " x " +
                    number(launch.grid[1]) + ", " + number(launch.threads) + " threads, " +
                    number(launch.shared_bytes) + " bytes of shared memory");
}

// Makes the device of a tensor current while this lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(const TensorView& view) {
    check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
    if (view.device_index != before_) check_cuda(cudaSetDevice(view.device_index), "cudaSetDevice");
    now_ = view.device_index;
  }
  ~DeviceGuard() {
    if (now_ != before_) (void)cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0, now_ = 0;
};

// Deals out a workspace front to back in pieces aligned to 256 bytes; from null it only counts.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const char* op, const TensorView& view)
      : op_(op), data_(view.write<char>()), size_(view.size() * dtype_bytes(view.dtype)) {}

  template <class T>
  T* take(int64_t count) {
    const int64_t begin = used_;
    used_ += (count * int64_t(sizeof(T)) + 255) / 256 * 256 + OTCUDA_WORKSPACE_GAP;
    if (data_ == nullptr) return nullptr;
    OTCUDA_CHECK(used_ <= size_, std::string(op_) + ": workspace has " + std::to_string(size_) +
                                     " bytes, expected at least " + std::to_string(used_));
    OTCUDA_WORKSPACE_PIECE(data_ + begin, size_t(count) * sizeof(T), sizeof(T));
    return reinterpret_cast<T*>(data_ + begin);
  }
  int64_t used() const { return used_; }
  int64_t left() const { return size_ - used_; }

 private:
  const char* op_ = "";
  char* data_ = nullptr;
  int64_t size_ = 0, used_ = 0;
};

// Multiprocessors of the current device.
inline int processors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  return count;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace otcuda::cuda
