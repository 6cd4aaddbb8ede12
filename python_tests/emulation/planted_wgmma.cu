// SPDX-License-Identifier: Apache-2.0
#include "cuda/shim.cuh"
#include "planted.h"

namespace {
enum Bug {
  none,
  no_product_wait,
  newest_left,
  no_product_fence,
  no_full_wait,
  no_empty_wait,
  early_release,
  too_few_bytes,
  too_many_bytes,
  wrong_parity,
  no_sync_after_init,
  no_proxy_fence,
  changed_operand,
  unaligned_tile,
  misaligned_copy,
  warp_without_product,
  other_tile,
  too_many_arrivals,
  copy_left,
  product_left,
  written_tile,
  copy_over_copy,
  own_data_unawaited,
  bugs
};

constexpr int kTiles = 5, kStages = 2, kRows = 64;

// Rows of 8 x chunks numbers, in the pattern of `swizzle`: 1 is of 128 bytes, 2 of 64, 3 of 32.
template <int swizzle>
constexpr int kChunks = 16 >> swizzle;
template <int swizzle>
struct Shared {
  uint16_t b[kStages][kRows * 8 * kChunks<swizzle>];
  Mbarrier full[kStages], empty[kStages];
};

template <int bug, int swizzle>
__device__ void produce(const uint16_t* b, Shared<swizzle>& s) {
  constexpr unsigned kBytes = sizeof s.b[0];
  constexpr int kShort = bug == too_few_bytes ? -16 : bug == too_many_bytes ? 16 : 0;
  for (int i = 0; i < kTiles; ++i) {
    const int stage = i % kStages;
    if (bug != no_empty_wait) mbarrier_wait(&s.empty[stage], unsigned(i / kStages % 2 ^ 1));
    mbarrier_arrive_expect(&s.full[stage], unsigned(int(kBytes) + kShort));
    bulk_copy(s.b[stage], b + i * kBytes / 2 + (bug == misaligned_copy), kBytes, &s.full[stage]);
    if (bug == copy_over_copy) bulk_copy(s.b[stage], b, 16, &s.full[stage]);
    if (bug == own_data_unawaited && s.b[stage][0] == 77) mbarrier_arrive(&s.full[stage]);
    if (bug == too_many_arrivals) mbarrier_arrive(&s.full[stage]);
  }
}

template <int bug, int swizzle>
__device__ void consume(const uint16_t* a, Shared<swizzle>& s, float* out) {
  constexpr int kK = kChunks<swizzle> / 2;  // products of 16 dimensions
  const int t = int(threadIdx.x), lane = t % 32, row = t / 32 * 16 + lane / 4;
  uint32_t x[kK][4];
  for (int k = 0; k < kK; ++k) {
    for (int i = 0; i < 4; ++i) {
      const int at = (row + i % 2 * 8) * 16 * kK + 16 * k + i / 2 * 8 + lane % 4 * 2;
      x[k][i] = *reinterpret_cast<const uint32_t*>(a + at);
    }
  }
  for (int tile = 0; tile < kTiles - (bug == copy_left); ++tile) {
    const int stage = tile % kStages;
    const unsigned parity = unsigned(tile / kStages % 2 ^ (bug == wrong_parity));
    if (bug != no_full_wait) mbarrier_wait(&s.full[stage], parity);
    if (bug == written_tile && t == 0) s.b[stage][0] = 0;
    float sum[32];
    for (int i = 0; i < 32; ++i) sum[i] = float(tile);
    if (bug != no_product_fence || tile == 0) wgmma_fence(sum);
    const unsigned from = shared_address(s.b[stage]) & 0x3ffff;
    const uint64_t shape = uint64_t(swizzle) << 62 | uint64_t(8 * kChunks<swizzle>) << 32 | 1 << 16;
    for (int k = 0; k < kK; ++k) {
      const bool other = bug == other_tile && t >= 96;
      if (bug == warp_without_product && t >= 96 && tile + k == kTiles + kK - 2) continue;
      wgmma_bf16_64x64x16(sum, x[k], shape | (from + 32 * unsigned(other ? 0 : k)) >> 4);
    }
    if (bug == early_release && lane == 0) mbarrier_arrive(&s.empty[stage]);
    wgmma_commit();
    if (bug == changed_operand) x[0][1] = 0;
    if (bug == newest_left) wgmma_wait<1>(sum);
    if (bug != no_product_wait && bug != product_left && bug != newest_left) wgmma_wait<0>(sum);
    if (bug == product_left) return;
    __syncwarp();
    if (bug != early_release && lane == 0) mbarrier_arrive(&s.empty[stage]);
    for (int i = 0; i < 32; ++i) {
      const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      out[(tile * 64 + row + i / 2 % 2 * 8) * 64 + column] = sum[i];
    }
  }
}

template <int bug, int swizzle>
__global__ void planted_wgmma_kernel(const uint16_t* a, const uint16_t* b, float* out) {
  OTCUDA_SWIZZLED_SHARED(Shared<swizzle>, aligned);
  Shared<swizzle>& s = bug == unaligned_tile
                           ? *reinterpret_cast<Shared<swizzle>*>(aligned->b[0] + 128 / 2)
                           : *aligned;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&s.full[i], 1);
      mbarrier_init(&s.empty[i], 4);
    }
    if (bug != no_proxy_fence) fence_proxy_async();
  }
  if (bug != no_sync_after_init) __syncthreads();
  if (threadIdx.x < 128) {
    consume<bug, swizzle>(a, s, out);
  } else if (threadIdx.x == 128) {
    produce<bug, swizzle>(b, s);
  }
}

template <int bug, int swizzle>
void launch(const uint16_t* a, const uint16_t* b, float* out) {
  OTCUDA_LAUNCH((planted_wgmma_kernel<bug, swizzle>), dim3{1}, dim3{160},
                sizeof(Shared<swizzle>) + 128, nullptr, a, b, out);
}

template <int bug>
void launch_bug(int which, const uint16_t* a, const uint16_t* b, float* out) {
  if constexpr (bug < bugs) {
    which == bug ? launch<bug, 1>(a, b, out) : launch_bug<bug + 1>(which, a, b, out);
  }
}
}  // namespace

void planted_wgmma(int bug, int swizzle, const uint16_t* a, const uint16_t* b, float* out) {
  if (swizzle == 2) return launch<none, 2>(a, b, out);
  if (swizzle == 3) return launch<none, 3>(a, b, out);
  launch_bug<none>(bug, a, b, out);
}
