// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/rans32_body.h"

namespace otcuda::cpu {
namespace {

// For each set of lanes, by bytes of eight words: which word each of them takes, the others none;
// the lanes that are not in it, in order at the upper end.
struct alignas(16) Shuffles {
  uint8_t take[256][16], pack[256][16];

  constexpr Shuffles() : take(), pack() {
    for (int set = 0; set < 256; ++set) {
      int next = 0, place = 0;
      for (int lane = 0; lane < 8; ++lane) place += set >> lane & 1;
      for (int lane = 0; lane < 8; ++lane) {
        const bool taken = (set >> lane & 1) != 0;
        for (int byte = 0; byte < 2; ++byte) {
          take[set][2 * lane + byte] = static_cast<uint8_t>(taken ? 2 * next + byte : 0x80);
          if (!taken) pack[set][2 * place + byte] = static_cast<uint8_t>(2 * lane + byte);
        }
        next += taken;
        place += !taken;
      }
    }
  }
};
constexpr Shuffles kShuffles;

struct Lanes8 {
  using Vector = __m256i;
  using Mask = __m256i;
  static constexpr int kWidth = 8;

  static Vector fill(uint32_t a) { return _mm256_set1_epi32(static_cast<int>(a)); }
  static Vector load(const uint32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Vector load_half(const uint16_t* from) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store(uint32_t* to, Vector a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a);
  }
  // Loads one by one: half the time of the instruction on Zen 5, less still where its leaks are
  // mended.
  template <class Load>
  static __m128i gather_four(__m128i at, const Load& load) {
    const auto low = static_cast<uint64_t>(_mm_cvtsi128_si64(at));
    const auto high = static_cast<uint64_t>(_mm_extract_epi64(at, 1));
    __m128i four = _mm_cvtsi32_si128(load(static_cast<uint32_t>(low)));
    four = _mm_insert_epi32(four, load(low >> 32), 1);
    four = _mm_insert_epi32(four, load(static_cast<uint32_t>(high)), 2);
    return _mm_insert_epi32(four, load(high >> 32), 3);
  }
  template <class Load>
  static __m256i gather_eight(__m256i at, const Load& load) {
    const __m128i low = gather_four(_mm256_castsi256_si128(at), load);
    const __m128i high = gather_four(_mm256_extracti128_si256(at, 1), load);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
  }
  static Vector gather(const uint32_t* from, Vector at) {
    return gather_eight(at, [&](uint64_t place) { return static_cast<int>(from[place]); });
  }
  static Vector gather_through(const uint16_t* places, const uint32_t* from, Vector at) {
    return gather_eight(at, [&](uint64_t place) { return static_cast<int>(from[places[place]]); });
  }
  static void store_two(uint32_t* to, uint32_t first, uint32_t second) {
    uint64_t both = first | uint64_t{second} << 32;
    asm("" : "+r"(both));  // else the compiler makes gathers of what is stored
    __builtin_memcpy(to, &both, sizeof both);
  }
  static Vector gather_half(const uint16_t* from, Vector at) {
    return low_half(_mm256_i32gather_epi32(reinterpret_cast<const int*>(from), at, 2));
  }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm256_sub_epi32(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mullo_epi32(a, b); }
  static Vector both(Vector a, Vector b) { return _mm256_and_si256(a, b); }
  static Vector either(Vector a, Vector b) { return _mm256_or_si256(a, b); }
  static Vector differ(Vector a, Vector b) { return _mm256_xor_si256(a, b); }
  static Vector low_half(Vector a) { return _mm256_blend_epi16(a, _mm256_setzero_si256(), 0xaa); }
  static Vector shift_left(Vector a, int by) { return _mm256_sll_epi32(a, _mm_cvtsi32_si128(by)); }
  static Vector shift_right(Vector a, int by) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(by)); }
  static Mask equal(Vector a, Vector b) { return _mm256_cmpeq_epi32(a, b); }
  static Mask less(Vector a, Vector b) { return _mm256_cmpgt_epi32(b, a); }  // both below 2^31
  static Mask below(Vector a, Vector b) {                                    // b above 0
    return equal(a, _mm256_min_epu32(a, sub(b, fill(1))));
  }
  static Mask negative(Vector a) { return _mm256_srai_epi32(a, 31); }
  static Mask any(Mask a, Mask b) { return _mm256_or_si256(a, b); }
  static bool all(Mask a) { return bits(a) == 0xff; }
  static uint32_t bits(Mask a) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(a)));
  }
  static Vector select(Mask a, Vector yes, Vector no) {
    const __m256 mask = _mm256_castsi256_ps(a);  // GCC 12 turns the one for bytes into two
    return _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(no), _mm256_castsi256_ps(yes), mask));
  }
  static Vector where(Mask a, Vector b) { return _mm256_and_si256(a, b); }
  static Vector unless(Mask a, Vector b) { return _mm256_andnot_si256(a, b); }

  static __m256 reciprocal(Vector a) {
    return _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_cvtepi32_ps(a));
  }
  // a < 2^32 as a float of one rounding.
  static Vector quotient(Vector a, __m256 inverse) {
    const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(a, 16));
    const __m256 low = _mm256_cvtepi32_ps(low_half(a));
    const __m256 whole = _mm256_fmadd_ps(high, _mm256_set1_ps(65536.0f), low);
    return _mm256_cvttps_epi32(_mm256_mul_ps(whole, inverse));
  }
  static __m128i shuffle(__m128i words, const uint8_t* bytes) {
    return _mm_shuffle_epi8(words, _mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
  }

  // Eight words are stored, those of the lanes last; what lies in front is overwritten later.
  static uint16_t* emit(uint16_t* words, Mask fits, Vector x) {
    const uint32_t set = bits(fits);
    const Vector halves = low_half(x);
    const __m128i packed =
        _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words - 8), shuffle(packed, kShuffles.pack[set]));
    return words - 8 + __builtin_popcount(set);
  }
  static const uint8_t* refill(const uint8_t* words, Vector* x) {
    const Mask empty = equal(_mm256_srli_epi32(*x, 16), _mm256_setzero_si256());
    const uint32_t set = bits(empty);
    const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
    const Vector lower = _mm256_cvtepu16_epi32(shuffle(next, kShuffles.take[set]));
    const Vector shift = _mm256_and_si256(empty, fill(16));
    *x = either(_mm256_sllv_epi32(*x, shift), lower);
    return words + 2 * __builtin_popcount(set);
  }
};

}  // namespace

RansKernels rans32_avx2() { return kernels_of<Lanes8>(); }

}  // namespace otcuda::cpu
