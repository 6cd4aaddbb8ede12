// SPDX-License-Identifier: Apache-2.0
// Mutation harness of rans32: fuzz_rans32 CASES SEED [COPIES].
//
// Each case makes tables, codes a message with adversarial symbols at every level this CPU has,
// reads it back, and then reads damaged copies of blocks and directory, all in heap blocks of their
// exact size. Built with -fsanitize=address,undefined by python_tests/coding/test_fuzz.py.
#include "cpu/rans32.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cases.h"
#include "common/check.h"
#include "common/simd.h"
#include "common/threads.h"

namespace {

using namespace otcuda;
using namespace otcuda::fuzz;

uint64_t noticed = 0, missed = 0;

void read_damaged(const cpu::Tables& tables, std::vector<uint8_t> message, int64_t block,
                  std::vector<cpu::RansBlock> blocks, std::vector<int64_t> index,
                  const std::vector<int64_t>& symbols) {
  const uint64_t kind = below(8);
  if (kind == 0 && !blocks.empty()) {
    uint32_t* field = &blocks[below(blocks.size())].words;
    field[below(3)] += static_cast<uint32_t>(one_in(2) ? below(5) - 2 : generator());
  } else if (kind == 1 && !index.empty()) {
    int64_t& t = index[below(index.size())];
    t = (t + 1) % tables.count();
  } else {
    message = damaged(message);
  }
  const Exact exact(message);
  std::vector<int64_t> decoded(symbols.size());
  const TensorView tables_of = view(index);
  Poll nobody;
  try {
    cpu::rans32_decode(tables, exact.data.get(), static_cast<int64_t>(exact.size), &tables_of,
                       block, blocks.data(), view(decoded), nobody);
    if (decoded != symbols) ++missed;
  } catch (const CorruptDataError&) {
    ++noticed;
  }
}

void one_case(const cpu::Tables& tables, uint64_t copies) {
  const size_t n = below(one_in(10) ? 5000 : 400);
  const int64_t block = 32 * static_cast<int64_t>(1 + below(one_in(3) ? 64 : 4));
  std::vector<int64_t> symbols(n), index(n), decoded(n);
  for (int64_t& t : index) t = static_cast<int64_t>(below(tables.count()));
  for (int64_t& s : symbols) s = random_symbol(tables);
  std::vector<cpu::RansBlock> blocks((n + block - 1) / block);
  const TensorView tables_of = view(index);
  Poll nobody;
  std::vector<uint8_t> message;
  const auto levels = simd_levels();
  for (const SimdLevel level : levels) {
    set_simd_level(simd_level_name(level));
    std::vector<uint8_t> again;
    for (const auto& part :
         cpu::rans32_encode(tables, view(symbols), &tables_of, block, blocks.data(), nobody)) {
      again.insert(again.end(), part.begin(), part.end());
    }
    if (level != levels[0] && again != message) fail("levels differ");
    message = again;
    const Exact exact(message);
    cpu::rans32_decode(tables, exact.data.get(), static_cast<int64_t>(exact.size), &tables_of,
                       block, blocks.data(), view(decoded), nobody);
    if (decoded != symbols) fail("a round trip");
    for (uint64_t k = 0; k < copies; ++k)
      read_damaged(tables, message, block, blocks, index, symbols);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t cases = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000;
  generator.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0);
  const uint64_t copies = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 6;
  set_num_threads(1);
  for (uint64_t k = 0; k < cases; ++k) {
    std::unique_ptr<cpu::Tables> tables;
    try {
      tables = random_tables(16);
    } catch (const ArgumentError&) {
      continue;  // it may ask for the impossible
    }
    one_case(*tables, copies);
  }
  std::printf("%llu cases, %llu noticed, %llu missed\n", static_cast<unsigned long long>(cases),
              static_cast<unsigned long long>(noticed), static_cast<unsigned long long>(missed));
}
