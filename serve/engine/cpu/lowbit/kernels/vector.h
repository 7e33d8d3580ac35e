// Vectors of float32 of the instruction set that this is compiled for, in a namespace of its own.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels.h"

#define UNROLL _Pragma("GCC unroll 16")
#define INLINE inline __attribute__((always_inline))

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

#ifdef __AVX512F__

constexpr int LANES = 16;
constexpr int MAX_ROWS = 12;  // tokens whose sums of one tile fit the registers
using Floats = __m512;
using Ints = __m512i;

INLINE Floats zero() { return _mm512_setzero_ps(); }
INLINE Floats all(float value) { return _mm512_set1_ps(value); }
INLINE Floats load(const float* from) { return _mm512_loadu_ps(from); }
INLINE void store(float* to, Floats value) { _mm512_storeu_ps(to, value); }
INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Ints all_ints(int value) { return _mm512_set1_epi32(value); }
INLINE Ints load_ints(const void* from) { return _mm512_loadu_si512(from); }
INLINE Floats to_floats(Ints value) { return _mm512_cvtepi32_ps(value); }
template <int BITS>
INLINE Ints shift_right(Ints value) { return _mm512_srli_epi32(value, BITS); }
// (value & mask) | bits, as floats
INLINE Floats mask_or(Ints value, Ints mask, Ints bits) {
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(value, mask, bits, 0xEA));
}
INLINE Floats even_bfloats(Ints value) { return _mm512_castsi512_ps(_mm512_slli_epi32(value, 16)); }
INLINE Floats odd_bfloats(Ints value) {
  return _mm512_castsi512_ps(_mm512_and_si512(value, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}
INLINE float sum(Floats value) { return _mm512_reduce_add_ps(value); }

#else

constexpr int LANES = 8;
constexpr int MAX_ROWS = 6;
using Floats = __m256;
using Ints = __m256i;

INLINE Floats zero() { return _mm256_setzero_ps(); }
INLINE Floats all(float value) { return _mm256_set1_ps(value); }
INLINE Floats load(const float* from) { return _mm256_loadu_ps(from); }
INLINE void store(float* to, Floats value) { _mm256_storeu_ps(to, value); }
INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
INLINE Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Ints all_ints(int value) { return _mm256_set1_epi32(value); }
INLINE Ints load_ints(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
INLINE Floats to_floats(Ints value) { return _mm256_cvtepi32_ps(value); }
template <int BITS>
INLINE Ints shift_right(Ints value) { return _mm256_srli_epi32(value, BITS); }
INLINE Floats mask_or(Ints value, Ints mask, Ints bits) {
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(value, mask), bits));
}
INLINE Floats even_bfloats(Ints value) { return _mm256_castsi256_ps(_mm256_slli_epi32(value, 16)); }
INLINE Floats odd_bfloats(Ints value) {
  return _mm256_castsi256_ps(_mm256_and_si256(value, _mm256_set1_epi32(static_cast<int>(0xFFFF0000))));
}
INLINE float sum(Floats value) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

#endif

constexpr int TILE_VECTORS = static_cast<int>(TILE) / LANES;

// Asks memory for a piece that comes soon. A processor looks ahead by itself, but not past the end of a page of 4 KiB,
// of which weights that are read once fill a new one all the time.
INLINE void ask_for(const void* piece) { _mm_prefetch(static_cast<const char*>(piece), _MM_HINT_T0); }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// A tile's sums of one token to `out`, of which only `width` outputs exist.
INLINE void store_tile(float* out, const Floats* sums, int64_t width) {
  if (width == TILE) {
    UNROLL for (int v = 0; v < TILE_VECTORS; ++v) store(out + v * LANES, sums[v]);
    return;
  }
  float whole[TILE];
  UNROLL for (int v = 0; v < TILE_VECTORS; ++v) store(whole + v * LANES, sums[v]);
  std::memcpy(out, whole, static_cast<size_t>(width) * sizeof(float));
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
