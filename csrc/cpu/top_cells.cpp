// SPDX-License-Identifier: Apache-2.0
// Packing, threads and choice of level; the kernel is top_cells_body.h.
#include "cpu/top_cells.h"

#include <algorithm>
#include <limits>

#include "common/alloc.h"
#include "common/backend_info.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/top_cells_kernel.h"

namespace otcuda::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kPanelBytes = 1 << 18;  // targets that pass over the samples of a run at a time
constexpr int64_t kRunBlocks = 16;        // plain blocks of a run: their lists stay in L2
constexpr int64_t kRunGroups = 4;         // product groups of a run: y is read once for all of them
constexpr double kNanosecondsPerFma = 0.03;

TopCellsKernels kernels(int64_t B) {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      count_backend_path(BackendPath::top_cells_avx512, B);
      return top_cells_avx512();
    case SimdLevel::avx2:
      count_backend_path(BackendPath::top_cells_avx2, B);
      return top_cells_avx2();
#endif
    default:
      count_backend_path(BackendPath::top_cells_portable, B);
      return top_cells_portable();
  }
}

void write_list(const Shortlist& list, const TopCells& p, int64_t sample) {
  const float* const score = list.score + Shortlist::kBefore;
  for (int k = 0; k < p.K; ++k) {
    const bool there = score[k] > -kInfinity;
    p.index[sample * p.K + k] = there ? list.index[Shortlist::kBefore + k] : 0;
    p.inner[sample * p.K + k] = there ? list.inner[Shortlist::kBefore + k] : -kInfinity;
  }
  p.cut[sample] = score[p.K];
}

// Thresholds and lists of `samples` samples, and what passes over them.
class Run {
 public:
  // `first`: samples of a block whose lists get thresholds from the first targets.
  Run(const TopCells& problem, int64_t samples, int64_t packed, int64_t first)
      : p_(problem),
        x_(packed),
        threshold_(samples, -kInfinity),
        first_(first * std::min(problem.N, kFirstTargets)),
        lists_(samples) {
    for (Shortlist& list : lists_) {
      std::fill_n(list.score, Shortlist::kBefore, kInfinity);
      std::fill_n(list.score + Shortlist::kBefore, Shortlist::kRoom, -kInfinity);
    }
  }

  float* x() { return x_.data(); }
  const Shortlist& list(int64_t sample) const { return lists_[sample]; }

  // `block` samples at a time, each with its own `stride` numbers of x.
  void scan(int64_t blocks, int64_t block, int64_t stride, void (*kernel)(const TopCellsPanel&)) {
    const int64_t row = std::max<int64_t>(1, p_.D) * int64_t(sizeof(float));
    const int64_t panel = std::clamp<int64_t>(kPanelBytes / row, 96, 4096) / 24 * 24;
    for (int64_t i = 0; i < p_.N; i += panel) {
      for (int64_t k = 0; k < blocks; ++k) {
        kernel({x_.data() + k * stride, p_.y + i * p_.D, p_.h + i, std::min(panel, p_.N - i), p_.D,
                p_.L, i, threshold_.data() + k * block, lists_.data() + k * block, p_.K,
                first_.data()});
        heartbeat();
      }
    }
  }

 private:
  const TopCells& p_;
  Buffer<float> x_, threshold_, first_;
  Buffer<Shortlist> lists_;
};

}  // namespace

void top_cells(const TopCells& p, Poll* poll) {
  if (p.B == 0) return;
  const TopCellsKernels level = kernels(p.B);
  const int threads = threads_for(kNanosecondsPerFma * double(p.B) * double(p.N) * double(p.D + 4));
  const int64_t blocks = (p.B + level.samples - 1) / level.samples;
  const int64_t share = std::clamp<int64_t>((blocks + threads - 1) / threads, 1, kRunBlocks);
  const auto one = [&](int64_t task, int64_t) {
    const int64_t begin = task * share * level.samples;
    const int64_t count = std::min(p.B - begin, share * level.samples);
    const int64_t used = (count + level.samples - 1) / level.samples;
    const int64_t stride = level.samples * p.D;
    Run run(p, used * level.samples, std::max<int64_t>(1, used * stride), level.samples);
    for (int64_t k = 0; k < used; ++k) {
      for (int64_t q = 0; q < level.samples; ++q) {
        const int64_t b = k * level.samples + q;
        for (int64_t d = 0; d < p.D; ++d) {
          run.x()[k * stride + d * level.samples + q] =
              b < count ? p.x[(begin + b) * p.D + d] : 0.0f;
        }
      }
    }
    run.scan(used, level.samples, stride, level.plain);
    for (int64_t b = 0; b < count; ++b) write_list(run.list(b), p, begin + b);
  };
  parallel_for((blocks + share - 1) / share, 1, one, poll, threads);
}

void top_cells_product(const TopCells& p, Poll* poll) {
  constexpr int64_t kGroup = kHalves * kHalves;
  if (p.B == 0) return;
  const TopCellsKernels level = kernels(p.B * kGroup);
  const double work = double(p.N) * double(p.D * 2 * kHalves + kGroup);
  const int threads = threads_for(kNanosecondsPerFma * double(p.B) * work);
  const int64_t share = std::clamp<int64_t>((p.B + threads - 1) / threads, 1, kRunGroups);
  const auto one = [&](int64_t task, int64_t) {
    const int64_t begin = task * share, groups = std::min(p.B - begin, share);
    const int64_t stride = kHalves * p.D;
    Run run(p, groups * kGroup, groups * stride, 0);
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t k = 0; k < kHalves; ++k) {
        for (int64_t d = 0; d < p.D; ++d) {
          run.x()[g * stride + d * kHalves + k] = p.x[(begin + g) * stride + k * p.D + d];
        }
      }
    }
    run.scan(groups, kGroup, stride, level.product);
    for (int64_t s = 0; s < groups * kGroup; ++s) {
      // Lists lie as [right][left].
      const int64_t group = s / kGroup, left = s / kHalves % kHalves, right = s % kHalves;
      write_list(run.list(group * kGroup + right * kHalves + left), p, begin * kGroup + s);
    }
  };
  parallel_for((p.B + share - 1) / share, 1, one, poll, threads);
}

}  // namespace otcuda::cpu
