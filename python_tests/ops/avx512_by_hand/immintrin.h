// SPDX-License-Identifier: Apache-2.0
// The AVX-512 intrinsics of power_argmax_avx512.cpp, power_screen_{avx512,vnni,bf16}.cpp and net_avx512.cpp, lane by lane as Intel's guide defines them, so that the
// file runs on any CPU. An intrinsic that is not here does not compile: add it from the guide.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __m512 {
  float lane[16];
};
struct __m512d {
  double lane[8];
};
struct __m512i {
  char byte[64];
};
using __mmask16 = uint16_t;
using __mmask8 = uint8_t;

enum { _CMP_GT_OQ = 30 };

inline bool compare(double a, double b, int predicate) {
  if (predicate != _CMP_GT_OQ) __builtin_trap();
  return a > b;  // false where either is NaN
}

inline void check_aligned(const void* pointer) {
  if (reinterpret_cast<uintptr_t>(pointer) % 64 != 0) __builtin_trap();  // as the hardware would
}

#define FLOATS(suffix, Vector, T, kLanes, Mask)                                                  \
  inline Vector _mm512_set1_##suffix(T a) {                                                      \
    Vector r;                                                                                    \
    for (T& lane : r.lane) lane = a;                                                             \
    return r;                                                                                    \
  }                                                                                              \
  inline Vector _mm512_load_##suffix(const T* from) {                                            \
    check_aligned(from);                                                                         \
    Vector r;                                                                                    \
    std::memcpy(&r, from, 64);                                                                   \
    return r;                                                                                    \
  }                                                                                              \
  inline void _mm512_store_##suffix(T* to, Vector a) {                                           \
    check_aligned(to);                                                                           \
    std::memcpy(to, &a, 64);                                                                     \
  }                                                                                              \
  inline Vector _mm512_fmadd_##suffix(Vector a, Vector b, Vector c) {                            \
    for (int k = 0; k < kLanes; ++k) c.lane[k] = std::fma(a.lane[k], b.lane[k], c.lane[k]);      \
    return c;                                                                                    \
  }                                                                                              \
  inline Vector _mm512_mul_##suffix(Vector a, Vector b) {                                        \
    for (int k = 0; k < kLanes; ++k) a.lane[k] *= b.lane[k];                                     \
    return a;                                                                                    \
  }                                                                                              \
  inline Vector _mm512_add_##suffix(Vector a, Vector b) {                                        \
    for (int k = 0; k < kLanes; ++k) a.lane[k] += b.lane[k];                                     \
    return a;                                                                                    \
  }                                                                                              \
  inline Vector _mm512_sub_##suffix(Vector a, Vector b) {                                        \
    for (int k = 0; k < kLanes; ++k) a.lane[k] -= b.lane[k];                                     \
    return a;                                                                                    \
  }                                                                                              \
  inline Vector _mm512_loadu_##suffix(const T* from) {                                           \
    Vector r;                                                                                    \
    std::memcpy(&r, from, 64);                                                                   \
    return r;                                                                                    \
  }                                                                                              \
  inline void _mm512_storeu_##suffix(T* to, Vector a) { std::memcpy(to, &a, 64); }               \
  /* The second operand where either is NaN and where both are zeros. */                         \
  inline Vector _mm512_maskz_max_##suffix(Mask mask, Vector a, Vector b) {                       \
    Vector r;                                                                                    \
    for (int k = 0; k < kLanes; ++k) {                                                           \
      r.lane[k] = (mask >> k & 1) == 0 ? T(0) : a.lane[k] > b.lane[k] ? a.lane[k] : b.lane[k];   \
    }                                                                                            \
    return r;                                                                                    \
  }                                                                                              \
  inline Mask _mm512_cmp_##suffix##_mask(Vector a, Vector b, int predicate) {                    \
    Mask mask = 0;                                                                               \
    for (int k = 0; k < kLanes; ++k) mask |= Mask(compare(a.lane[k], b.lane[k], predicate) << k); \
    return mask;                                                                                 \
  }
FLOATS(ps, __m512, float, 16, __mmask16)
FLOATS(pd, __m512d, double, 8, __mmask8)
#undef FLOATS

// Within each 128 bits, here kPart lanes: the low or high halves of both, in turns.
#define UNPACK(suffix, Vector, kPart, Mask)                                                \
  inline Vector unpack_##suffix(Mask mask, Vector a, Vector b, int from) {                 \
    if (mask != Mask(-1)) __builtin_trap();                                                \
    Vector r;                                                                              \
    for (int k = 0; k < 64 / int(sizeof(a.lane[0])); ++k) {                                \
      const int at = k / kPart * kPart + k % kPart / 2 + from;                             \
      r.lane[k] = k % 2 == 0 ? a.lane[at] : b.lane[at];                                    \
    }                                                                                      \
    return r;                                                                              \
  }                                                                                        \
  inline Vector _mm512_maskz_unpacklo_##suffix(Mask mask, Vector a, Vector b) {            \
    return unpack_##suffix(mask, a, b, 0);                                                 \
  }                                                                                        \
  inline Vector _mm512_maskz_unpackhi_##suffix(Mask mask, Vector a, Vector b) {            \
    return unpack_##suffix(mask, a, b, kPart / 2);                                         \
  }
UNPACK(ps, __m512, 4, __mmask16)
UNPACK(pd, __m512d, 2, __mmask8)
#undef UNPACK

// Parts of a vector, and such a part in its place.
struct __m128 {
  float lane[4];
};
struct __m256d {
  double lane[4];
};
inline __m128 _mm_loadu_ps(const float* from) {
  __m128 r;
  std::memcpy(&r, from, sizeof(r));
  return r;
}
inline __m256d _mm256_loadu_pd(const double* from) {
  __m256d r;
  std::memcpy(&r, from, sizeof(r));
  return r;
}
template <class Vector, class Part>
Vector with_part(Vector a, Part part, int place) {
  std::memcpy(reinterpret_cast<char*>(&a) + place * sizeof(part), &part, sizeof(part));
  return a;
}
// What lies beyond the part is undefined: here no number.
inline __m512 _mm512_castps128_ps512(__m128 a) { return with_part(_mm512_set1_ps(NAN), a, 0); }
inline __m512d _mm512_castpd256_pd512(__m256d a) { return with_part(_mm512_set1_pd(NAN), a, 0); }
inline __m512 _mm512_insertf32x4(__m512 a, __m128 part, int place) {
  return with_part(a, part, place);
}
inline __m512d _mm512_maskz_insertf64x4(__mmask8 mask, __m512d a, __m256d part, int place) {
  if (mask != 0xFF) __builtin_trap();
  return with_part(a, part, place);
}

inline __m512 _mm512_castpd_ps(__m512d a) {
  __m512 r;
  std::memcpy(&r, &a, sizeof(r));
  return r;
}
// Each even lane twice, and each odd one.
inline __m512 every_other(__mmask16 mask, __m512 a, int odd) {
  if (mask != 0xFFFF) __builtin_trap();
  for (int k = 0; k < 16; k += 2) a.lane[k] = a.lane[k + 1] = a.lane[k + odd];
  return a;
}
inline __m512 _mm512_maskz_moveldup_ps(__mmask16 mask, __m512 a) { return every_other(mask, a, 0); }
inline __m512 _mm512_maskz_movehdup_ps(__mmask16 mask, __m512 a) { return every_other(mask, a, 1); }

// Within each 128 bits: two lanes of a, then two of b, chosen by two bits each.
inline __m512 _mm512_maskz_shuffle_ps(__mmask16 mask, __m512 a, __m512 b, int chosen) {
  if (mask != 0xFFFF) __builtin_trap();
  __m512 r;
  for (int k = 0; k < 16; ++k) {
    const int at = k / 4 * 4 + (chosen >> 2 * (k % 4) & 3);
    r.lane[k] = k % 4 < 2 ? a.lane[at] : b.lane[at];
  }
  return r;
}

// Two parts of 128 bits of a, then two of b, chosen by two bits each.
template <class Vector>
Vector shuffle_parts(Vector a, Vector b, int chosen) {
  constexpr int kPart = 16 / sizeof(a.lane[0]);
  Vector r;
  for (int k = 0; k < 4 * kPart; ++k) {
    const int at = (chosen >> 2 * (k / kPart) & 3) * kPart + k % kPart;
    r.lane[k] = k / kPart < 2 ? a.lane[at] : b.lane[at];
  }
  return r;
}
inline __m512 _mm512_maskz_shuffle_f32x4(__mmask16, __m512 a, __m512 b, int chosen) {
  return shuffle_parts(a, b, chosen);
}
inline __m512d _mm512_maskz_shuffle_f64x2(__mmask8, __m512d a, __m512d b, int chosen) {
  return shuffle_parts(a, b, chosen);
}

inline __m512i _mm512_load_si512(const void* from) {
  check_aligned(from);
  __m512i r;
  std::memcpy(&r, from, 64);
  return r;
}

inline void _mm512_store_si512(void* to, __m512i a) {
  check_aligned(to);
  std::memcpy(to, &a, 64);
}

#define INTEGERS(suffix, T, Mask)                                                   \
  inline __m512i _mm512_set1_##suffix(T a) {                                        \
    __m512i r;                                                                      \
    for (size_t k = 0; k < 64 / sizeof(T); ++k) std::memcpy(r.byte + k * sizeof(T), &a, sizeof(T)); \
    return r;                                                                       \
  }                                                                                 \
  inline __m512i _mm512_add_##suffix(__m512i a, __m512i b) {                        \
    for (size_t k = 0; k < 64 / sizeof(T); ++k) {                                   \
      T left, right;                                                                \
      std::memcpy(&left, a.byte + k * sizeof(T), sizeof(T));                        \
      std::memcpy(&right, b.byte + k * sizeof(T), sizeof(T));                       \
      left += right;                                                                \
      std::memcpy(a.byte + k * sizeof(T), &left, sizeof(T));                        \
    }                                                                               \
    return a;                                                                       \
  }                                                                                 \
  inline __m512i _mm512_mask_mov_##suffix(__m512i source, Mask mask, __m512i a) {   \
    for (size_t k = 0; k < 64 / sizeof(T); ++k) {                                   \
      if (mask >> k & 1) std::memcpy(source.byte + k * sizeof(T), a.byte + k * sizeof(T), sizeof(T)); \
    }                                                                               \
    return source;                                                                  \
  }
INTEGERS(epi32, int32_t, __mmask16)
INTEGERS(epi64, int64_t, __mmask8)
#undef INTEGERS

template <class T>
T lane_of(const __m512i& a, int k) {
  T lane;
  std::memcpy(&lane, a.byte + k * sizeof(T), sizeof(T));
  return lane;
}

template <class T>
void set_lane(__m512i* a, int k, T lane) {
  std::memcpy(a->byte + k * sizeof(T), &lane, sizeof(T));
}

inline __m512i _mm512_set1_epi16(int16_t a) {
  __m512i r;
  for (int k = 0; k < 32; ++k) set_lane(&r, k, a);
  return r;
}

inline __m512i _mm512_add_epi16(__m512i a, __m512i b) {
  for (int k = 0; k < 32; ++k) {
    set_lane(&a, k, uint16_t(lane_of<uint16_t>(a, k) + lane_of<uint16_t>(b, k)));
  }
  return a;
}

// The sum of two products saturates: a trap here, as no caller means it to.
inline __m512i _mm512_maddubs_epi16(__m512i a, __m512i b) {
  __m512i r;
  for (int k = 0; k < 32; ++k) {
    const int sum = lane_of<uint8_t>(a, 2 * k) * lane_of<int8_t>(b, 2 * k) +
                    lane_of<uint8_t>(a, 2 * k + 1) * lane_of<int8_t>(b, 2 * k + 1);
    if (sum != int16_t(sum)) __builtin_trap();
    set_lane(&r, k, int16_t(sum));
  }
  return r;
}

inline __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
  __m512i r;
  for (int k = 0; k < 16; ++k) {
    set_lane(&r, k, lane_of<int16_t>(a, 2 * k) * lane_of<int16_t>(b, 2 * k) +
                        lane_of<int16_t>(a, 2 * k + 1) * lane_of<int16_t>(b, 2 * k + 1));
  }
  return r;
}

inline __m512 _mm512_castsi512_ps(__m512i a) {
  __m512 r;
  std::memcpy(&r, &a, 64);
  return r;
}

inline __m512i _mm512_castps_si512(__m512 a) {
  __m512i r;
  std::memcpy(&r, &a, 64);
  return r;
}

using __m512bh = __m512i;

// The odd products first, each added with one rounding.
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const auto number = [](const __m512bh& from, int k) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, from.byte + 2 * k, 2);
    float r;
    std::memcpy(&r, &bits, 4);
    return r;
  };
  for (int k = 0; k < 16; ++k) {
    for (int j = 2 * k + 1; j >= 2 * k; --j) {
      sum.lane[k] = std::fma(number(a, j), number(b, j), sum.lane[k]);
    }
  }
  return sum;
}

inline __m512i _mm512_maskz_cvtps_epi32(__mmask16, __m512 a) {
  __m512i r;
  for (int k = 0; k < 16; ++k) {
    const int32_t whole = static_cast<int32_t>(std::lrintf(a.lane[k]));
    std::memcpy(r.byte + 4 * k, &whole, 4);
  }
  return r;
}

inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  for (int k = 0; k < 16; ++k) {
    int32_t lane = lane_of<int32_t>(sum, k);
    for (int j = 4 * k; j < 4 * k + 4; ++j) lane += lane_of<uint8_t>(a, j) * lane_of<int8_t>(b, j);
    set_lane(&sum, k, lane);
  }
  return sum;
}

inline __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
  for (int k = 0; k < 16; ++k) set_lane(&a, k, lane_of<int32_t>(a, k) - lane_of<int32_t>(b, k));
  return a;
}

inline __m512i _mm512_maskz_max_epi32(__mmask16 mask, __m512i a, __m512i b) {
  for (int k = 0; k < 16; ++k) {
    const int32_t x = lane_of<int32_t>(a, k), y = lane_of<int32_t>(b, k);
    set_lane(&a, k, (mask >> k & 1) == 0 ? 0 : x > y ? x : y);
  }
  return a;
}

inline __mmask16 _mm512_cmpgt_epi32_mask(__m512i a, __m512i b) {
  __mmask16 mask = 0;
  for (int k = 0; k < 16; ++k) mask |= (lane_of<int32_t>(a, k) > lane_of<int32_t>(b, k)) << k;
  return mask;
}
