// SPDX-License-Identifier: Apache-2.0
// GCC 12 takes the undefined operands in its own header for a fault of ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "cpu/mask_bits.h"
#include "cpu/rans32_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes16 {
  using Vector = __m512i;
  using Mask = __mmask16;
  static constexpr int kWidth = 16;

  static Vector fill(uint32_t a) { return _mm512_set1_epi32(static_cast<int>(a)); }
  static Vector load(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static Vector load_half(const uint16_t* from) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void store(uint32_t* to, Vector a) { _mm512_storeu_si512(to, a); }
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
  template <class Load>
  static Vector gather_all(Vector at, const Load& load) {
    const __m256i low = gather_eight(_mm512_castsi512_si256(at), load);
    const __m256i high = gather_eight(_mm512_extracti64x4_epi64(at, 1), load);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  static Vector gather(const uint32_t* from, Vector at) {
    return gather_all(at, [&](uint64_t place) { return static_cast<int>(from[place]); });
  }
  static Vector gather_through(const uint16_t* places, const uint32_t* from, Vector at) {
    return gather_all(at, [&](uint64_t place) { return static_cast<int>(from[places[place]]); });
  }
  static void store_two(uint32_t* to, uint32_t first, uint32_t second) {
    uint64_t both = first | uint64_t{second} << 32;
    asm("" : "+r"(both));  // else the compiler makes gathers of what is stored
    __builtin_memcpy(to, &both, sizeof both);
  }
  static Vector gather_half(const uint16_t* from, Vector at) {
    return low_half(_mm512_i32gather_epi32(at, from, 2));
  }
  static Vector add(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm512_sub_epi32(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mullo_epi32(a, b); }
  static Vector both(Vector a, Vector b) { return _mm512_and_si512(a, b); }
  static Vector either(Vector a, Vector b) { return _mm512_or_si512(a, b); }
  static Vector differ(Vector a, Vector b) { return _mm512_xor_si512(a, b); }
  static Vector low_half(Vector a) { return _mm512_and_si512(a, _mm512_set1_epi32(0xffff)); }
  static Vector shift_left(Vector a, int by) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(by)); }
  static Vector shift_right(Vector a, int by) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(by)); }
  static Mask equal(Vector a, Vector b) { return _mm512_cmpeq_epi32_mask(a, b); }
  static Mask less(Vector a, Vector b) { return _mm512_cmplt_epi32_mask(a, b); }  // as if signed
  static Mask below(Vector a, Vector b) { return _mm512_cmplt_epu32_mask(a, b); }
  static Mask negative(Vector a) { return _mm512_movepi32_mask(a); }
  static Mask any(Mask a, Mask b) { return static_cast<Mask>(a | b); }
  static bool all(Mask a) { return a == 0xffff; }
  static uint32_t bits(Mask a) { return mask_bits(a); }
  static Vector select(Mask a, Vector yes, Vector no) {
    return _mm512_mask_blend_epi32(a, no, yes);
  }
  static Vector where(Mask a, Vector b) { return _mm512_maskz_mov_epi32(a, b); }
  static Vector unless(Mask a, Vector b) {
    return _mm512_maskz_mov_epi32(static_cast<Mask>(~a), b);
  }
  static __m512 reciprocal(Vector a) {
    return _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_cvtepi32_ps(a));
  }
  static Vector quotient(Vector a, __m512 inverse) {
    return _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepu32_ps(a), inverse));
  }

  // Compressed in a register: a compressing store to memory is slow on some of these CPUs.
  static uint16_t* emit(uint16_t* words, Mask fits, Vector x) {
    const Mask full = static_cast<Mask>(~fits);
    const int count = __builtin_popcount(bits(full));
    const __m256i halves = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, x));
    _mm256_mask_storeu_epi16(words - count, static_cast<Mask>((1u << count) - 1), halves);
    return words - count;
  }
  static const uint8_t* refill(const uint8_t* words, Vector* x) {
    const Mask empty = _mm512_testn_epi32_mask(*x, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
    const Vector next = _mm512_maskz_expand_epi32(empty, _mm512_cvtepu16_epi32(halves));
    *x = _mm512_mask_or_epi32(*x, empty, _mm512_slli_epi32(*x, 16), next);
    return words + 2 * __builtin_popcount(bits(empty));
  }
};

}  // namespace

RansKernels rans32_avx512() { return kernels_of<Lanes16>(); }

}  // namespace otcuda::cpu
