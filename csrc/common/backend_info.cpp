// SPDX-License-Identifier: Apache-2.0
#include "common/backend_info.h"

#include <atomic>

namespace otcuda {
namespace {

constexpr int kPaths = static_cast<int>(BackendPath::count);
constexpr const char* kNames[] = {
    "power_argmax/portable",
    "power_argmax/avx2",
    "power_argmax/avx512",
    "power_argmax/cuda",
    "power_argmax/cuda_screen",
    "power_argmax/cuda_wgmma",
    "power_argmax/tree",
    "power_argmax/tree_scores",
    "power_argmax/screen",
    "power_argmax/screen_vnni",
    "power_argmax/screen_bfloat16",
    "power_argmax/screen_pairs",
    "power_argmax/screen_chains",
    "power_argmax/screen_fallbacks",
    "power_topk/portable",
    "power_topk/avx2",
    "power_topk/avx512",
    "power_topk/cuda",
    "power_topk/screen",
    "power_topk/screen_pairs",
    "power_topk/screen_chains",
    "power_topk/screen_fallbacks",
    "power_topk/tree",
    "power_topk/tree_scores",
    "cell_mass/cpu",
    "cell_mass/cuda",
    "heights_adam_step/cpu",
    "heights_adam_step/cuda",
    "source_samples/cpu",
    "source_samples/cuda",
    "rans32/portable",
    "rans32/avx2",
    "rans32/avx512",
    "rans32/avx512_tree",
    "rans32/cuda",
    "range64/cuda",
    "top_cells/portable",
    "top_cells/avx2",
    "top_cells/avx512",
    "top_cells/screen",
    "top_cells/screen_chains",
    "top_cells/screen_fallbacks",
};
static_assert(sizeof kNames / sizeof *kNames == kPaths, "a name for each path, in order");

std::atomic<int64_t> calls[kPaths];
std::atomic<int64_t> items[kPaths];

}  // namespace

const char* backend_path_name(BackendPath path) { return kNames[static_cast<int>(path)]; }

void count_backend_path(BackendPath path, int64_t n) {
  calls[static_cast<int>(path)].fetch_add(1, std::memory_order_relaxed);
  items[static_cast<int>(path)].fetch_add(n, std::memory_order_relaxed);
}

int64_t backend_path_calls(BackendPath path) { return calls[static_cast<int>(path)].load(); }
int64_t backend_path_items(BackendPath path) { return items[static_cast<int>(path)].load(); }

void reset_backend_paths() {
  for (int k = 0; k < kPaths; ++k) {
    calls[k].store(0);
    items[k].store(0);
  }
}

}  // namespace otcuda
