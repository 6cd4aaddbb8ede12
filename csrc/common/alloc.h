// SPDX-License-Identifier: Apache-2.0
// The only allocator of the core: 64-byte aligned, capped, counted; a test can make the k-th call
// fail.
//
// Memory comes uninitialised. Every failure is a LimitError that names the size asked for, the size
// in use and the limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace otcuda {

constexpr size_t kAlignment = 64;

void* allocate(int64_t bytes);
void deallocate(void* data, int64_t bytes) noexcept;

void set_memory_limit(int64_t bytes);  // of all Buffers together; 0: no limit
int64_t memory_limit();
int64_t memory_in_use();
int64_t memory_peak();  // since the last reset_memory_peak
void reset_memory_peak();
int64_t allocation_count();  // since the process started

void fail_allocation(
    int64_t k);  // the k-th allocate from now on throws (1 is the next one); 0: none

// An owned array of plain values.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : data_(static_cast<T*>(allocate(bytes_of(size)))), size_(size) {}
  Buffer(int64_t size, T value) : Buffer(size) { fill(value); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) deallocate(data_, bytes_of(size_));
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t k) { return data_[k]; }
  const T& operator[](int64_t k) const { return data_[k]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  void fill(T value) {
    for (int64_t k = 0; k < size_; ++k) data_[k] = value;
  }

 private:
  // A negative size or one that does not fit in bytes must not wrap round: allocate refuses -1.
  static int64_t bytes_of(int64_t size) {
    return size < 0 || size > INT64_MAX / int64_t(sizeof(T)) ? -1 : size * int64_t(sizeof(T));
  }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  int64_t size_ = 0;
};

// The same gate for what grows: Vector<T> is a std::vector whose memory is counted and capped.
template <class T>
struct Allocator {
  using value_type = T;
  Allocator() = default;
  template <class Other>
  Allocator(const Allocator<Other>&) {}
  T* allocate(size_t n) {
    return static_cast<T*>(
        otcuda::allocate(n > INT64_MAX / sizeof(T) ? -1 : int64_t(n * sizeof(T))));
  }
  void deallocate(T* data, size_t n) noexcept { otcuda::deallocate(data, int64_t(n * sizeof(T))); }
  template <class Other>
  bool operator==(const Allocator<Other>&) const {
    return true;
  }
  template <class Other>
  bool operator!=(const Allocator<Other>&) const {
    return false;
  }
};
template <class T>
using Vector = std::vector<T, Allocator<T>>;

}  // namespace otcuda
