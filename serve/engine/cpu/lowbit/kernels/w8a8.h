// int8 weights and int8 activations, exact int32 sums. AVX2's byte multiply adds pairs of products in 16 bits, where
// they saturate, so bytes are widened to 16 bits first; VNNI adds in 32 bits, but one side has to be unsigned.
#pragma once

#include "vector.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

// A row's largest magnitude; NaN if it has one: magnitudes order as integers do, and NaN above infinity.
INLINE float largest_magnitude(const float* x, int64_t columns) {
  const __m256i sign_off = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i largest = _mm256_setzero_si256();
  int64_t c = 0;
  for (; c + 8 <= columns; c += 8) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + c));
    largest = _mm256_max_epi32(largest, _mm256_and_si256(value, sign_off));
  }
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
  int32_t found = 0;
  for (int lane = 0; lane < 8; ++lane) found = lanes[lane] > found ? lanes[lane] : found;
  for (; c < columns; ++c) {
    int32_t bits;
    std::memcpy(&bits, x + c, sizeof bits);
    bits &= 0x7FFFFFFF;
    found = bits > found ? bits : found;
  }
  float result;
  std::memcpy(&result, &found, sizeof result);
  return result;
}

// compressed-tensors: half of the range of int8, and float32's epsilon in place of a scale of zero.
INLINE float token_scale(float largest) {
  const float scale = largest / 127.5f;
  return scale == 0.0f ? 1.1920928955078125e-07f : scale;
}

// 8 columns to int32, half to even, within int8
INLINE __m256i round_columns(const float* x, __m256 scale) {
  const __m256 scaled = _mm256_div_ps(_mm256_loadu_ps(x), scale);
  return _mm256_cvtps_epi32(
      _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-128.0f)), _mm256_set1_ps(127.0f)));
}

#ifdef __AVX512VNNI__

constexpr int64_t ROUNDED_BYTES = 4;  // value + 128, unsigned

INLINE void put_columns(uint8_t* to, __m256i values) {
  const __m256i shifted = _mm256_add_epi32(values, _mm256_set1_epi32(128));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm256_cvtepi32_epi8(shifted));
}

#else

constexpr int64_t ROUNDED_BYTES = 8;  // columns 0, 2, 1, 3 as int16

INLINE void put_columns(uint8_t* to, __m256i values) {
  // In each half 4 int32 become 4 int16 in the order 0, 2, 1, 3.
  const __m256i order = _mm256_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                         0, 1, 8, 9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i ordered = _mm256_shuffle_epi8(values, order);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(ordered));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 8), _mm256_extracti128_si256(ordered, 1));
}

// Two int16 in all lanes, straight from memory.
INLINE Ints all_pairs(const uint8_t* from) {
  return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(from)));
}

#endif

static float round_token(const float* x, int64_t columns, int64_t pieces, uint8_t* rounded) {
  const float scale = token_scale(largest_magnitude(x, columns));
  const __m256 scales = _mm256_set1_ps(scale);
  int64_t c = 0;
  for (; c + 8 <= columns; c += 8) put_columns(rounded + c / 4 * ROUNDED_BYTES, round_columns(x + c, scales));
  if (c < columns) {
    float rest[8] = {};
    uint8_t put[2 * ROUNDED_BYTES];
    std::memcpy(rest, x + c, static_cast<size_t>(columns - c) * sizeof(float));
    put_columns(put, round_columns(rest, scales));
    std::memcpy(rounded + c / 4 * ROUNDED_BYTES, put, static_cast<size_t>((pieces - c / 4) * ROUNDED_BYTES));
  }
  return scale;
}

template <int ROWS>
INLINE void int8_rows(const W8a8& w, const uint8_t* rounded, const float* scales, float* out, int64_t tile,
                      const float* weight_scale) {
  const uint8_t* packed = w.packed + tile * (w.pieces + 1) * PIECE_BYTES;
  const int64_t stride = w.pieces * ROUNDED_BYTES;
  Ints sums[ROWS][TILE_VECTORS];
#ifdef __AVX512VNNI__
  const Ints excess = _mm512_slli_epi32(load_ints(packed), 7);
  UNROLL for (int r = 0; r < ROWS; ++r) sums[r][0] = _mm512_sub_epi32(_mm512_setzero_si512(), excess);
  packed += PIECE_BYTES;
  for (int64_t piece = 0; piece < w.pieces; ++piece) {
    const Ints weights = load_ints(packed + piece * PIECE_BYTES);
    ask_for(packed + (w.pieces + 1 + piece) * PIECE_BYTES);
    UNROLL for (int r = 0; r < ROWS; ++r) {
      int32_t four;
      std::memcpy(&four, rounded + r * stride + piece * ROUNDED_BYTES, sizeof four);
      sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], _mm512_set1_epi32(four), weights);
    }
  }
#else
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int v = 0; v < TILE_VECTORS; ++v) sums[r][v] = _mm256_setzero_si256();
  }
  packed += PIECE_BYTES;
  for (int64_t piece = 0; piece < w.pieces; ++piece) {
    Ints even[TILE_VECTORS], odd[TILE_VECTORS];
    ask_for(packed + (w.pieces + 1 + piece) * PIECE_BYTES);
    UNROLL for (int v = 0; v < TILE_VECTORS; ++v) {
      const Ints bytes = load_ints(packed + piece * PIECE_BYTES + v * 32);
      even[v] = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
      odd[v] = _mm256_srai_epi16(bytes, 8);
    }
    UNROLL for (int r = 0; r < ROWS; ++r) {
      const uint8_t* at = rounded + r * stride + piece * ROUNDED_BYTES;
      const Ints evens = all_pairs(at), odds = all_pairs(at + 4);
      UNROLL for (int v = 0; v < TILE_VECTORS; ++v) {
        sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(evens, even[v]));
        sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(odds, odd[v]));
      }
    }
  }
#endif
  const int64_t width = smaller(TILE, w.n - tile * TILE);
  UNROLL for (int r = 0; r < ROWS; ++r) {
    Floats scaled[TILE_VECTORS];
    UNROLL for (int v = 0; v < TILE_VECTORS; ++v) {
      scaled[v] = multiply(multiply(to_floats(sums[r][v]), all(scales[r])), load(weight_scale + v * LANES));
    }
    store_tile(out + r * w.n + tile * TILE, scaled, width);
  }
}

static void w8a8(const W8a8& w, const uint8_t* rounded, const float* scales, int64_t tokens, float* out,
                 int64_t begin, int64_t end) {
  const int64_t stride = w.pieces * ROUNDED_BYTES;
  for (int64_t tile = begin; tile < end; ++tile) {
    float weight_scale[TILE] = {};
    std::memcpy(weight_scale, w.weight_scale + tile * TILE,
                static_cast<size_t>(smaller(TILE, w.n - tile * TILE)) * sizeof(float));
    int64_t token = 0;
#define TAKE(ROWS)                                                                                              \
  for (; token + ROWS <= tokens; token += ROWS) {                                                               \
    int8_rows<ROWS>(w, rounded + token * stride, scales + token, out + token * w.n, tile, weight_scale);        \
  }
#ifdef __AVX512VNNI__
    TAKE(MAX_ROWS)
    TAKE(8)
#endif
    TAKE(4)
    TAKE(2)
    TAKE(1)
#undef TAKE
  }
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
