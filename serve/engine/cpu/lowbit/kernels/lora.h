// Adapters: y += x @ a @ b for rows that share one. Products are summed in float32, y is rounded once.
//
// A row's sums are taken in one order, whichever rows stand beside it and whoever computes them: each product of a
// row with a row of `a` has one vector of partial sums, and each output adds up its ranks one after another.
#pragma once

#include "vector.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

// Vectors of the columns that lie in one half of a block of `b`.
constexpr int HALF_VECTORS = static_cast<int>(LORA_BLOCK) / 2 / LANES;

#ifdef __AVX512F__

constexpr int SHRINK_ROWS = 4, EXPAND_ROWS = 4, EXPAND_BLOCKS = 2;

INLINE __m128 sum_quarters(Floats value) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(value), _mm512_extractf32x8_ps(value, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
INLINE Floats unpack_low(Floats a, Floats b) { return _mm512_unpacklo_ps(a, b); }
INLINE Floats unpack_high(Floats a, Floats b) { return _mm512_unpackhi_ps(a, b); }
INLINE Floats pairs_low(Floats a, Floats b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
INLINE Floats pairs_high(Floats a, Floats b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
INLINE Floats load_values(const uint16_t* from) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
// To the nearest bfloat16, ties to even; what is no number stays none.
INLINE void store_values(uint16_t* to, Floats value) {
  const Ints bits = _mm512_castps_si512(value);
  const Ints odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), all_ints(1));
  const Ints rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, all_ints(0x7FFF)));
  const __mmask16 unordered = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const Ints kept = _mm512_mask_mov_epi32(rounded, unordered, all_ints(0x7FC00000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}

#else

constexpr int SHRINK_ROWS = 2, EXPAND_ROWS = 2, EXPAND_BLOCKS = 1;

INLINE __m128 sum_quarters(Floats value) {
  return _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
}
INLINE Floats unpack_low(Floats a, Floats b) { return _mm256_unpacklo_ps(a, b); }
INLINE Floats unpack_high(Floats a, Floats b) { return _mm256_unpackhi_ps(a, b); }
INLINE Floats pairs_low(Floats a, Floats b) {
  return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
INLINE Floats pairs_high(Floats a, Floats b) {
  return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
INLINE Floats load_values(const uint16_t* from) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
INLINE void store_values(uint16_t* to, Floats value) {
  const Ints bits = _mm256_castps_si256(value);
  const Ints odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), all_ints(1));
  const Ints rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, all_ints(0x7FFF)));
  const Ints unordered = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  const Ints kept = _mm256_blendv_epi8(rounded, all_ints(0x7FC00000), unordered);
  const Ints halves = _mm256_srli_epi32(kept, 16);
  const Ints packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(halves, halves), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}

#endif

INLINE Floats load_values(const float* from) { return load(from); }
INLINE void store_values(float* to, Floats value) { store(to, value); }

// Two vectors of 2 * LANES values that lie side by side: the even and the odd ones of bfloat16, else the halves.
INLINE void load_pair(const uint16_t* from, Floats& first, Floats& second) {
  const Ints bits = load_ints(from);
  first = even_bfloats(bits);
  second = odd_bfloats(bits);
}
INLINE void load_pair(const float* from, Floats& first, Floats& second) {
  first = load(from);
  second = load(from + LANES);
}

// Vector `v` of each half of a block of `b`, see `lora_block_place`.
INLINE void load_halves(const uint16_t* block, int v, Floats& first, Floats& second) {
  load_pair(block + v * 2 * LANES, first, second);
}
INLINE void load_halves(const float* block, int v, Floats& first, Floats& second) {
  first = load(block + v * LANES);
  second = load(block + LORA_BLOCK / 2 + v * LANES);
}

// The sums of four vectors.
INLINE __m128 sum_each(Floats a, Floats b, Floats c, Floats d) {
  const Floats ab = add(unpack_low(a, b), unpack_high(a, b));
  const Floats cd = add(unpack_low(c, d), unpack_high(c, d));
  return sum_quarters(add(pairs_low(ab, cd), pairs_high(ab, cd)));
}

template <typename T, int ROWS, int RANKS>
INLINE void shrink_step(const T* const (&a)[RANKS], const T* const (&x)[ROWS], int64_t c,
                        Floats (&sums)[ROWS][RANKS]) {
  Floats first[ROWS], second[ROWS];
  UNROLL for (int r = 0; r < ROWS; ++r) load_pair(x[r] + c, first[r], second[r]);
  UNROLL for (int k = 0; k < RANKS; ++k) {
    Floats a_first, a_second;
    load_pair(a[k] + c, a_first, a_second);
    UNROLL for (int r = 0; r < ROWS; ++r) sums[r][k] = multiply_add(a_first, first[r], sums[r][k]);
    UNROLL for (int r = 0; r < ROWS; ++r) sums[r][k] = multiply_add(a_second, second[r], sums[r][k]);
  }
}

// The last values of a row, zeros up to a whole step.
template <typename T>
INLINE void pad(const T* from, int64_t count, T* to) {
  std::memset(to, 0, 2 * LANES * sizeof(T));
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
}

// hidden[ROWS][RANKS] = x[ROWS] . a[RANKS] * scale
template <typename T, int ROWS, int RANKS>
INLINE void shrink_block(const T* a_rows, int64_t in_size, const T* const (&x)[ROWS], float scale, float* hidden,
                         int64_t stride) {
  Floats sums[ROWS][RANKS];
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int k = 0; k < RANKS; ++k) sums[r][k] = zero();
  }
  const T* a[RANKS];
  UNROLL for (int k = 0; k < RANKS; ++k) a[k] = a_rows + k * in_size;
  int64_t c = 0;
  for (; c + 2 * LANES <= in_size; c += 2 * LANES) shrink_step<T, ROWS, RANKS>(a, x, c, sums);
  if (c < in_size) {
    T rest_a[RANKS][2 * LANES], rest_x[ROWS][2 * LANES];
    const T *last_a[RANKS], *last_x[ROWS];
    UNROLL for (int k = 0; k < RANKS; ++k) pad(a[k] + c, in_size - c, rest_a[k]), last_a[k] = rest_a[k];
    UNROLL for (int r = 0; r < ROWS; ++r) pad(x[r] + c, in_size - c, rest_x[r]), last_x[r] = rest_x[r];
    shrink_step<T, ROWS, RANKS>(last_a, last_x, 0, sums);
  }
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int k = 0; k < RANKS; k += 4) {
      const auto at = [&](int i) __attribute__((always_inline)) { return i < RANKS ? sums[r][i < RANKS ? i : 0] : zero(); };
      const __m128 four = _mm_mul_ps(sum_each(at(k), at(k + 1), at(k + 2), at(k + 3)), _mm_set1_ps(scale));
      if constexpr (RANKS % 4 == 0) {
        _mm_storeu_ps(hidden + r * stride + k, four);
      } else {
        float values[4];
        _mm_storeu_ps(values, four);
        UNROLL for (int i = 0; i < RANKS; ++i) hidden[r * stride + i] = values[i];
      }
    }
  }
}

template <typename T, int ROWS>
static void shrink_rows(const LoraPart& part, const T* const (&x)[ROWS], float scale, float* hidden,
                        int64_t stride, int64_t begin, int64_t end) {
  const T* a = static_cast<const T*>(part.a);
  int64_t k = begin;
#define TAKE(RANKS)                                                                                          \
  for (; k + RANKS <= end; k += RANKS) {                                                                     \
    shrink_block<T, ROWS, RANKS>(a + k * part.in_size, part.in_size, x, scale, hidden + k, stride);          \
  }
  if constexpr (ROWS == 1) TAKE(8)
  TAKE(4)
  TAKE(2)
  TAKE(1)
#undef TAKE
}

template <typename T>
static void lora_shrink(const LoraPart& part, const void* x, int64_t x_stride, const int32_t* rows, int64_t count,
                        float scale, float* hidden, int64_t stride, int64_t begin, int64_t end) {
  const T* values = static_cast<const T*>(x);
  int64_t i = 0;
#define TAKE(ROWS)                                                                                            \
  for (; i + ROWS <= count; i += ROWS) {                                                                      \
    const T* at[ROWS];                                                                                        \
    UNROLL for (int r = 0; r < ROWS; ++r) at[r] = values + rows[i + r] * x_stride;                            \
    shrink_rows<T, ROWS>(part, at, scale, hidden + i * stride, stride, begin, end);                           \
  }
  if constexpr (SHRINK_ROWS == 4) TAKE(4)
  TAKE(2)
  TAKE(1)
#undef TAKE
}

// y += sums for `width` columns of a block of which not all exist.
template <typename T>
INLINE void add_some(T* y, const Floats* sums, int64_t width) {
  T whole[LORA_BLOCK] = {};
  std::memcpy(whole, y, static_cast<size_t>(width) * sizeof(T));
  UNROLL for (int v = 0; v < 2 * HALF_VECTORS; ++v) {
    store_values(whole + v * LANES, add(load_values(whole + v * LANES), sums[v]));
  }
  std::memcpy(y, whole, static_cast<size_t>(width) * sizeof(T));
}

// y[ROWS] += hidden[ROWS] @ b for BLOCKS blocks of columns, the first at `block` of its tile.
template <typename T, int ROWS, int BLOCKS>
INLINE void expand_blocks(const T* tile, int64_t rank, const float* hidden, int64_t stride, T* const (&y)[ROWS],
                          int64_t block, int64_t width) {
  Floats sums[ROWS][BLOCKS][2 * HALF_VECTORS];
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      UNROLL for (int v = 0; v < 2 * HALF_VECTORS; ++v) sums[r][b][v] = zero();
    }
  }
  const T* from = tile + block * LORA_BLOCK;
  for (int64_t k = 0; k < rank; ++k, from += LORA_TILE) {
    Floats factors[ROWS];
    UNROLL for (int r = 0; r < ROWS; ++r) factors[r] = all(hidden[r * stride + k]);
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      UNROLL for (int v = 0; v < HALF_VECTORS; ++v) {
        Floats first, second;
        load_halves(from + b * LORA_BLOCK, v, first, second);
        UNROLL for (int r = 0; r < ROWS; ++r) {
          sums[r][b][v] = multiply_add(factors[r], first, sums[r][b][v]);
          sums[r][b][v + HALF_VECTORS] = multiply_add(factors[r], second, sums[r][b][v + HALF_VECTORS]);
        }
      }
    }
  }
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      T* to = y[r] + (block + b) * LORA_BLOCK;
      const int64_t left = width - (block + b) * LORA_BLOCK;
      if (left >= LORA_BLOCK) {
        UNROLL for (int v = 0; v < 2 * HALF_VECTORS; ++v) {
          store_values(to + v * LANES, add(load_values(to + v * LANES), sums[r][b][v]));
        }
      } else if (left > 0) {
        add_some(to, sums[r][b], left);
      }
    }
  }
}

template <typename T, int ROWS>
INLINE void expand_tile(const LoraPart& part, const T* tile, const float* hidden, int64_t stride,
                        T* const (&y)[ROWS], int64_t width) {
  UNROLL for (int64_t block = 0; block < LORA_TILE / LORA_BLOCK; block += EXPAND_BLOCKS) {
    expand_blocks<T, ROWS, EXPAND_BLOCKS>(tile, part.rank, hidden, stride, y, block, width);
  }
}

template <typename T>
static void lora_expand(const LoraPart& part, const float* hidden, int64_t stride, const int32_t* rows,
                        int64_t count, void* y, int64_t y_stride, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const T* tile = static_cast<const T*>(part.b) + t * part.rank * LORA_TILE;
    T* values = static_cast<T*>(y) + part.first_column + t * LORA_TILE;
    const int64_t width = smaller(part.columns - t * LORA_TILE, LORA_TILE);
    int64_t i = 0;
#define TAKE(ROWS)                                                                                            \
  for (; i + ROWS <= count; i += ROWS) {                                                                      \
    T* at[ROWS];                                                                                              \
    UNROLL for (int r = 0; r < ROWS; ++r) at[r] = values + rows[i + r] * y_stride;                            \
    expand_tile<T, ROWS>(part, tile, hidden + i * stride, stride, at, width);                                 \
  }
    if constexpr (EXPAND_ROWS == 4) TAKE(4)
    TAKE(2)
    TAKE(1)
#undef TAKE
  }
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
