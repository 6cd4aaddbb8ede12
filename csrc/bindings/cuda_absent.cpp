// SPDX-License-Identifier: Apache-2.0
// csrc/cuda for a build without nvcc: the same functions, which say what is missing. So bindings,
// and the signatures that Python sees, are the same in every build.
#include "common/check.h"
#include "cuda/cell_mass.h"
#include "cuda/heights_adam_solve.h"
#include "cuda/heights_adam_step.h"
#include "cuda/power_argmax.h"
#include "cuda/power_argmax_screen.h"
#include "cuda/power_topk.h"
#include "cuda/range64.h"
#include "cuda/rans32.h"
#include "cuda/source_samples.h"

#if !OTCUDA_HAVE_CUDA
namespace otcuda::cuda {
namespace {

[[noreturn]] void absent(const char* op) {
  throw BackendError(std::string(op) + ": no CUDA kernels here, " + OTCUDA_CUDA_ABSENT_REASON +
                     "; move the tensors with .cpu() or rebuild with OTCUDA_CUDA=ON");
}

}  // namespace

int64_t power_argmax_workspace(DType, int64_t, int64_t, int64_t) { absent("power_argmax"); }
void power_argmax(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                  const TensorView&, const TensorView&, uintptr_t) {
  absent("power_argmax");
}

int64_t power_argmax_screen_workspace(int64_t, int64_t, int64_t) { absent("power_argmax"); }
void power_argmax_screen(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                         const TensorView&, const TensorView&, uintptr_t, ScreenBy) {
  absent("power_argmax");
}
bool power_argmax_has_wgmma(int) { absent("power_argmax"); }

int64_t power_topk_workspace(DType, int64_t, int64_t, int64_t) { absent("power_topk"); }
void power_topk(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                const TensorView&, const TensorView&, uintptr_t) {
  absent("power_topk");
}
void power_argmax_gap(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                      const TensorView&, const TensorView&, const TensorView&, uintptr_t) {
  absent("power_topk");
}

int64_t cell_mass_workspace(int64_t, bool) { absent("cell_mass"); }
void cell_mass_counts(const TensorView&, const TensorView&, const TensorView&, uintptr_t) {
  absent("cell_mass");
}
void cell_mass_sums(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                    uintptr_t) {
  absent("cell_mass");
}

void source_samples(const SampleSequence&, const TensorView&, uintptr_t) {
  absent("source_samples");
}

void heights_adam_step(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                       const TensorView&, const AdamSettings&, int64_t, uintptr_t) {
  absent("heights_adam_step");
}

int64_t heights_adam_solve_workspace(DType, int64_t, int64_t, int64_t) {
  absent("heights_adam_solve");
}
void heights_adam_solve(const SolveArguments&, const TensorView&, Poll*, uintptr_t) {
  absent("heights_adam_solve");
}

int64_t range64_bound(const RansShape&, DType, int64_t, int64_t) { absent("range64"); }
int64_t range64_encode_workspace(const RansShape&, DType, int64_t, int64_t) { absent("range64"); }
int64_t range64_decode_workspace() { absent("range64"); }
void range64_encode(const RangeCall&, const TensorView&, uintptr_t) { absent("range64"); }
void range64_decode(const RangeCall&, const TensorView&, uintptr_t) { absent("range64"); }

int64_t rans32_bound(const RansShape&, int64_t, int64_t) { absent("rans32"); }
int64_t rans32_encode_workspace(const RansShape&, int64_t, int64_t) { absent("rans32"); }
int64_t rans32_decode_workspace(int64_t, int64_t) { absent("rans32"); }
void rans32_encode(const RansCall&, const TensorView&, uintptr_t) { absent("rans32"); }
void rans32_decode(const RansCall&, const TensorView&, uintptr_t) { absent("rans32"); }

}  // namespace otcuda::cuda
#endif
