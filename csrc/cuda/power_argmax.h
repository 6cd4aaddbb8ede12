// SPDX-License-Identifier: Apache-2.0
// power_argmax on a CUDA device; contract in common/power_argmax.h, how it is fast in docs/cuda.md.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "common/tensor_view.h"
#include "cuda/shim.cuh"

namespace otcuda::cuda {

// Bytes of workspace that a call with these shapes works best with: O((B + N) D), never B x N. With
// less, down to one panel of samples, it works in more and smaller chunks.
int64_t power_argmax_workspace(DType dtype, int64_t B, int64_t N, int64_t D);

// x [B, D], y [N, D], h [N], float32 or float64 -> value [B], index [B] int64; workspace: bytes,
// any contents.
void power_argmax(const TensorView& x, const TensorView& y, const TensorView& h,
                  const TensorView& value, const TensorView& index, const TensorView& workspace,
                  uintptr_t stream);

// Sizes that indices and grids can hold: y [N, D].
void check_sizes(const char* op, const TensorView& y);

// ---- the pieces, for ops that keep samples and targets packed from call to call

// Rows lie in panels of 128, panel after panel, each [D][128]: what a block copies to shared memory
// is one run of bytes. The place of a row in its panel is shuffled (see panel_place), and the last
// panel is padded.
constexpr int kPanelRows = 128;

struct Panels {
  float* data;
  int64_t rows, D;
  int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t floats() const { return panels() * kPanelRows * D; }
};

// Where row r of a panel lies: rows 8 g .. 8 g + 7 belong to one thread of the tile kernel, which
// reads them as two vectors of four that lie 64 apart, so that neither read meets a bank conflict.
OTCUDA_HD int panel_place(int r) { return r / 8 * 4 + r % 4 + r / 4 % 2 * 64; }
OTCUDA_HD int panel_row(int place) { return place % 64 / 4 * 8 + place % 4 + place / 64 * 4; }

// rows [rows, D] row-major -> panels.
void pack_panels(const float* rows, const Panels& panels, cudaStream_t stream);

// heights [N] -> [panels * 128] in panel order, -inf where there is no target.
void pack_heights(const float* heights, int64_t N, float* packed, cudaStream_t stream);

using PanelKey = unsigned long long;  // CUDA's name for the 64 bits of an atomic

// Where the winners go: value [B], index [B], and counts [N] that grow by one a sample. Any may be
// null. With places, that of sample b is places[b].
template <class T>
struct Winners {
  T* value;
  int64_t* index;
  PanelKey* counts;
  const int* places = nullptr;
};

// keys [x.rows]: scratch. With limit, a number on the device, only so many of the rows count.
void panels_argmax(const Panels& x, const Panels& y, const float* packed_heights, PanelKey* keys,
                   const Winners<float>& winners, cudaStream_t stream, const int* limit = nullptr);

// The same for float64 rows as they are: x [B, D], y [N, D], h [N]; values and indices are
// scratch, each of plain_scratch numbers for up to that many samples.
int64_t plain_scratch(int64_t most_samples, int64_t N);
struct PlainProblem {
  const double *x, *y, *h;
  int64_t B, N, D;
  double* values;
  int64_t* indices;
};
void plain_argmax(const PlainProblem& problem, const Winners<double>& winners, cudaStream_t stream);

}  // namespace otcuda::cuda
