// SPDX-License-Identifier: Apache-2.0
// Matrix instructions by the fragment layouts of the PTX manual. A sum is exact up to its last
// rounding, or as far off as the certificate of the screen allows.
#include <cmath>

#include "common/power_argmax_screen.h"
#include "emulator.h"

namespace {
using namespace emu;

struct Load {
  const char* row;
  uint32_t* to;
};

struct Multiply {
  const uint32_t* a;
  uint32_t b[2];
  const float* c;
  float out[4];
};

double number(uint32_t pair, int which) {
  return otcuda::bfloat16_value(uint16_t(which ? pair >> 16 : pair));
}

// Element (row, column) of the product of 16 x 16 and 16 x 8, from the registers of all lanes.
float element(void* const* all, int row, int column, float c) {
  double sum = c, size = std::fabs(double(c));
  for (int k = 0; k < 16; ++k) {
    auto* of_a = static_cast<Multiply*>(all[row % 8 * 4 + k % 8 / 2]);
    auto* of_b = static_cast<Multiply*>(all[column * 4 + k % 8 / 2]);
    const double a = number(of_a->a[row / 8 + k / 8 * 2], k % 2);
    const double b = number(of_b->b[k / 8], k % 2);
    sum += a * b;
    size += std::fabs(a * b);
  }
  return tensor_sum(sum, size, static_cast<Multiply*>(all[column * 4])->b[0] % 2 != 0);
}
}  // namespace

float emu::tensor_sum(double sum, double size, bool odd) {
  int error = settings.mma_error;
  if (error == 2) error = random_number() % 2 ? 1 : -1;
  if (error == 3) error = odd ? 1 : -1;
  // A little less than documented: rounding the result comes on top.
  if (error != 0 && std::isfinite(size)) sum += error * 0.98 * otcuda::kScreenStep * size;
  return float(sum);
}

void ldmatrix_x4(uint32_t (&to)[4], const void* row, int line) {
  // Each matrix is a request of its own: an instruction byte each, so that conflicts are counted.
  auto* pc = static_cast<const char*>(__builtin_return_address(0)) - 1 - self->lane / 8;
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    fail("misaligned: thread %d gives ldmatrix %s an address that is no multiple of 16",
         self->linear, at(pc).c_str());
  }
  access(row, 16, Access::read, pc);
  Load load{static_cast<const char*>(row), to};
  collective(
      Collective::ldmatrix, ~0u, &load,
      [](void* mine, void* const* all, unsigned, int lane) {
        for (int i = 0; i < 4; ++i) {
          const char* from = static_cast<Load*>(all[8 * i + lane / 4])->row;
          std::memcpy(static_cast<Load*>(mine)->to + i, from + lane % 4 * 4, 4);
        }
      },
      line);
}

void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                    const float (&c)[4], int line) {
  Multiply multiply{a, {b0, b1}, c, {}};
  collective(
      Collective::mma, ~0u, &multiply,
      [](void* mine, void* const* all, unsigned, int lane) {
        auto* m = static_cast<Multiply*>(mine);
        for (int i = 0; i < 4; ++i) {
          m->out[i] = element(all, lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2, m->c[i]);
        }
      },
      line);
  std::memcpy(d, multiply.out, sizeof d);
}
