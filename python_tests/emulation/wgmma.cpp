// SPDX-License-Identifier: Apache-2.0
// Products of a warpgroup, 64 x 64 x 16 in bfloat16: a from registers, b from shared memory by its
// descriptor. They run from issue to wait: sums may not be touched, nor registers of a changed, nor
// the memory of b written meanwhile. Fragments and descriptors are those of the PTX manual.
#include <cmath>
#include <stdexcept>

#include "common/power_argmax_screen.h"
#include "emulator.h"

namespace emu {
namespace {
constexpr int kRows = 64;  // of b

// The fields of a descriptor of a matrix whose rows run along k.
struct Tile {
  uint32_t start, lead, stride, base, swizzle;

  explicit Tile(uint64_t bits)
      : start(uint32_t(bits & 0x3fff) << 4),
        lead(uint32_t(bits >> 16 & 0x3fff)),
        stride(uint32_t(bits >> 32 & 0x3fff) << 4),
        base(uint32_t(bits >> 49 & 7)),
        swizzle(uint32_t(bits >> 62)) {}

  uint32_t span() const { return 256u >> swizzle; }  // bytes of a row within the pattern
  // Numbers 8 k to 8 k + 7 of a row.
  const char* chunk(int row, int k) const {
    uint32_t place = start + uint32_t(row / 8) * stride + uint32_t(row % 8) * span() + 16u * k;
    place ^= (place >> 7 & (span() / 16 - 1)) << 4;
    return shared_at(place);
  }
};

Tile checked_tile(uint64_t bits, int line) {
  const Tile tile(bits);
  if (tile.swizzle == 0) fail("wgmma at line %d without a swizzle: not emulated", line);
  if (tile.lead != 1) fail("wgmma at line %d: a swizzled tile has leading offset 1", line);
  if (tile.base != 0 || (tile.start >> 7 & (tile.span() / 16 - 1)) != 0) {
    fail("wgmma at line %d: the tile at %#x does not begin where its swizzle does", line,
         tile.start);
  }
  return tile;
}

struct Multiply {
  const uint32_t* a;
  const float* c;
  float* out;
  Tile b;
};

double number(const uint32_t pair, int which) {
  return otcuda::bfloat16_value(uint16_t(which ? pair >> 16 : pair));
}

void multiply(void* mine, void* const* all, unsigned, int lane) {
  auto* m = static_cast<Multiply*>(mine);
  double a[2][16];  // the two rows of this lane
  for (int row = 0; row < 2; ++row) {
    for (int k = 0; k < 16; ++k) {
      auto* holder = static_cast<Multiply*>(all[lane / 4 * 4 + k % 8 / 2]);
      a[row][k] = number(holder->a[row + k / 8 * 2], k % 2);
    }
  }
  for (int column = lane % 4 * 2; column < kRows; column += column % 2 ? 7 : 1) {
    uint16_t b[16];
    for (int k = 0; k < 2; ++k) std::memcpy(b + 8 * k, m->b.chunk(column, k), 16);
    for (int row = 0; row < 2; ++row) {
      const int i = column / 8 * 4 + row * 2 + column % 2;
      double sum = m->c[i], size = std::fabs(sum);
      for (int k = 0; k < 16; ++k) {
        const double product = a[row][k] * otcuda::bfloat16_value(b[k]);
        sum += product;
        size += std::fabs(product);
      }
      m->out[i] = tensor_sum(sum, size, b[0] % 2 != 0);
    }
  }
}

// What each warp issued, by warpgroup and warp: the four must be of one mind.
std::vector<std::vector<uint64_t>> issued;

void note_issue(const Fiber& f, uint64_t b, int line) {
  issued.resize(fibers.size() / 32);
  const size_t first = size_t(f.warp) / 4 * 4;
  if (first + 4 > issued.size()) fail("wgmma at line %d outside of a whole warpgroup", line);
  auto& own = issued[size_t(f.warp)];
  own.push_back(b);
  for (size_t w = first; w < first + 4; ++w) {
    if (issued[w].size() >= own.size() && issued[w][own.size() - 1] != b) {
      fail("warps %d and %zu of a warpgroup name different tiles, line %d", f.warp, w, line);
    }
  }
}

// One lane reads for its warp, when a product begins and again when it surely has ended.
void read_tile(const Tile& tile, const void* pc) {
  for (int row = 0; row < kRows; ++row) {
    for (int k = 0; k < 2; ++k) access(tile.chunk(row, k), 16, Access::tile_read, pc);
  }
}

bool overlap(const void* p, size_t n, const void* q, size_t m) {
  auto *a = static_cast<const char*>(p), *b = static_cast<const char*>(q);
  return a < b + m && b < a + n;
}

Sums& sums_of(Fiber& f, float* d) {
  for (Sums& s : f.sums) {
    if (s.d == d) return s;
  }
  Sums fresh;
  fresh.d = d;
  f.sums.push_back(fresh);
  return f.sums.back();
}
}  // namespace

void wgmma(float* d, const uint32_t* a, uint64_t bits, int line) {
  const void* pc = __builtin_return_address(0);
  Fiber& f = *running();
  const Tile tile = checked_tile(bits, line);
  Sums& sums = sums_of(f, d);
  if (!sums.is_running && !sums.is_fenced) {
    fail("thread %d changed the sums of the wgmma at line %d after the last wgmma_fence", f.linear,
         line);
  }
  if (f.lane == 0) {
    note_issue(f, bits, line);
    read_tile(tile, pc);
  }
  float start[32];  // what an earlier product of the same sums will have left
  std::memcpy(start, sums.is_running ? sums.out : d, sizeof start);
  Multiply m{a, start, sums.out, tile};
  collective(Collective::wgmma, ~0u, &m, multiply, line);
  std::memset(d, 0xff, sizeof start);  // NaN until the wait
  sums.is_running = true;
  sums.group = f.product_group;
  sums.pc = pc;
  if (f.lane == 0) sums.tiles.push_back(bits);
  sums.operands.push_back(a);
}

void wgmma_fence(const float* d) { sums_of(*running(), const_cast<float*>(d)).is_fenced = true; }
void wgmma_commit() { ++running()->product_group; }

void wgmma_wait(int newest_left) {
  Fiber& f = *running();
  for (Sums& s : f.sums) {
    if (!s.is_running || s.group >= f.product_group - newest_left) continue;
    for (uint64_t tile : s.tiles) read_tile(Tile(tile), s.pc);
    std::memcpy(s.d, s.out, sizeof s.out);
    s.is_running = false;
    s.tiles.clear();
    s.operands.clear();
  }
  // What follows is after the products of the whole warp, but for memory: that takes a barrier.
  collective(Collective::wgmma_wait, ~0u, nullptr, [](void*, void* const*, unsigned, int) {}, 0);
}

void check_registers(Fiber& f, const void* p, size_t n, bool is_read, const void* pc) {
  for (Sums& s : f.sums) {
    if (overlap(p, n, s.d, sizeof s.out)) {
      if (s.is_running) {
        fail("thread %d %s %s the sums of the wgmma %s, which may still be running", f.linear,
             is_read ? "reads" : "writes", at(pc).c_str(), at(s.pc).c_str());
      }
      if (!is_read) s.is_fenced = false;
    }
    for (const uint32_t* a : s.operands) {
      if (!is_read && overlap(p, n, a, 16)) {
        fail("thread %d writes %s an operand of the wgmma %s, which may still be running", f.linear,
             at(pc).c_str(), at(s.pc).c_str());
      }
    }
  }
}

void begin_block_products() { issued.clear(); }

void expect_no_products(const Fiber& f) {
  for (auto& s : f.sums) {
    if (!s.is_running) continue;
    fail("thread %d exits while its wgmma %s may still be running", f.linear, at(s.pc).c_str());
  }
}

void end_block_products() {
  for (size_t w = 0; w < issued.size(); ++w) {
    if (issued[w].size() == issued[w / 4 * 4].size()) continue;
    throw std::runtime_error("the warps of a warpgroup issued different numbers of wgmma");
  }
}
}  // namespace emu
