// SPDX-License-Identifier: Apache-2.0
// Which path really ran, and on how many items: tests assert it, benchmarks store it. A path is
// counted once a call, without locks.
#pragma once

#include <cstdint>

namespace otcuda {

enum class BackendPath : int {
  power_argmax_portable,
  power_argmax_avx2,
  power_argmax_avx512,
  power_argmax_cuda,
  power_argmax_cuda_screen,
  power_argmax_cuda_wgmma,
  power_argmax_tree,              // samples
  power_argmax_tree_scores,       // targets that they were compared with
  power_argmax_screen,            // samples
  power_argmax_screen_vnni,       // of these, the ones whose bytes VNNI multiplied
  power_argmax_screen_bfloat16,   // of these, the ones that bfloat16 screened
  power_argmax_screen_pairs,      // targets that the integers did not rule out at once
  power_argmax_screen_chains,     // of these, the ones whose scores were computed
  power_argmax_screen_fallbacks,  // samples of the blocked loop after a screen was tried
  power_topk_portable,
  power_topk_avx2,
  power_topk_avx512,
  power_topk_cuda,
  power_topk_screen,            // samples
  power_topk_screen_pairs,      // targets that the integers did not rule out at once
  power_topk_screen_chains,     // of these, the ones whose scores were computed
  power_topk_screen_fallbacks,  // samples of the blocked loop after a screen was tried
  power_topk_tree,              // samples
  power_topk_tree_scores,       // targets that they were compared with
  cell_mass_cpu,
  cell_mass_cuda,
  heights_adam_step_cpu,
  heights_adam_step_cuda,
  source_samples_cpu,
  source_samples_cuda,
  rans32_portable,
  rans32_avx2,
  rans32_avx512,
  rans32_avx512_tree,  // of these, symbols of one small table, decoded in registers
  rans32_cuda,
  range64_cuda,
  top_cells_portable,
  top_cells_avx2,
  top_cells_avx512,
  top_cells_screen,            // samples
  top_cells_screen_chains,     // targets whose scores were computed for them
  top_cells_screen_fallbacks,  // samples of the plain loop after a screen was tried
  count,                       // how many there are
};

const char* backend_path_name(BackendPath path);  // "power_argmax/avx2"
void count_backend_path(BackendPath path, int64_t items);
int64_t backend_path_calls(BackendPath path);
int64_t backend_path_items(BackendPath path);
void reset_backend_paths();

}  // namespace otcuda
