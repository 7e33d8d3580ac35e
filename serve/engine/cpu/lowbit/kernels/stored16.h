// Weights stored in bfloat16, which are the upper halves of float32: widened exactly, products in float32.
#pragma once

#include "panel.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

// One vector of column pairs of OUTPUTS rows times TOKENS tokens, in an order in which the sums stay in registers.
template <int OUTPUTS, int TOKENS>
INLINE void dot_step(const Ints (&pairs)[OUTPUTS], const float* x, int64_t half, Floats (&sums)[OUTPUTS][TOKENS]) {
  Floats values[TOKENS];
  UNROLL for (int t = 0; t < TOKENS; ++t) values[t] = load(x + t * 2 * half);
  UNROLL for (int o = 0; o < OUTPUTS; ++o) {
    const Floats even = even_bfloats(pairs[o]);
    UNROLL for (int t = 0; t < TOKENS; ++t) sums[o][t] = multiply_add(even, values[t], sums[o][t]);
  }
  UNROLL for (int t = 0; t < TOKENS; ++t) values[t] = load(x + (t * 2 + 1) * half);
  UNROLL for (int o = 0; o < OUTPUTS; ++o) {
    const Floats odd = odd_bfloats(pairs[o]);
    UNROLL for (int t = 0; t < TOKENS; ++t) sums[o][t] = multiply_add(odd, values[t], sums[o][t]);
  }
}

// OUTPUTS rows of the weight times TOKENS tokens.
template <int OUTPUTS, int TOKENS>
INLINE void dot_rows(const Stored16& w, int64_t row, const float* x, int64_t half, float* out) {
  Floats sums[OUTPUTS][TOKENS];
  UNROLL for (int o = 0; o < OUTPUTS; ++o) {
    UNROLL for (int t = 0; t < TOKENS; ++t) sums[o][t] = zero();
  }
  const uint16_t* weight = w.weight + row * w.columns;
  Ints pairs[OUTPUTS];
  int64_t c = 0;
  for (; c + 2 * LANES <= w.columns; c += 2 * LANES) {
    UNROLL for (int o = 0; o < OUTPUTS; ++o) {
      pairs[o] = load_ints(weight + o * w.columns + c);
    }
    dot_step<OUTPUTS, TOKENS>(pairs, x + c / 2, half, sums);
  }
  if (c < w.columns) {
    UNROLL for (int o = 0; o < OUTPUTS; ++o) {
      uint16_t rest[2 * LANES] = {};
      std::memcpy(rest, weight + o * w.columns + c, static_cast<size_t>(w.columns - c) * sizeof(uint16_t));
      pairs[o] = load_ints(rest);
    }
    dot_step<OUTPUTS, TOKENS>(pairs, x + c / 2, half, sums);
  }
  UNROLL for (int o = 0; o < OUTPUTS; ++o) {
    UNROLL for (int t = 0; t < TOKENS; ++t) out[t * w.n + row + o] = sum(sums[o][t]);
  }
}

template <int TOKENS, int OUTPUTS>
static void dot_tile(const Stored16& w, int64_t begin, int64_t end, const float* x, int64_t half, float* out) {
  int64_t row = begin;
  for (; row + OUTPUTS <= end; row += OUTPUTS) dot_rows<OUTPUTS, TOKENS>(w, row, x, half, out);
  for (; row < end; ++row) dot_rows<1, TOKENS>(w, row, x, half, out);
}

// The first tokens read a tile from memory: row after row, one stream, which the processor reads ahead by itself. The
// others find it in the cache, and share loads of theirs among rows.
static void stored16_few(const Stored16& w, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end) {
  const int64_t half = even_columns(w.columns);
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tile * TILE, last = smaller(first + TILE, w.n);
    int64_t token = 0;
#define TAKE(TOKENS, OUTPUTS)                                                                       \
  for (; token + TOKENS <= tokens; token += TOKENS) {                                               \
    const auto product = token == 0 ? dot_tile<TOKENS, 1> : dot_tile<TOKENS, OUTPUTS>;              \
    product(w, first, last, x + token * 2 * half, half, out + token * w.n);                         \
  }
    TAKE(4, 2)
    TAKE(2, 4)
    TAKE(1, 4)
#undef TAKE
  }
}

// 8 rows of 8 bfloat16, `stride` apart, to float32 columns of 8, 16 apart.
INLINE void widen_square(const uint16_t* from, int64_t stride, float* to) {
  __m256 rows[8], pairs[8], fours[8];
  UNROLL for (int r = 0; r < 8; ++r) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * stride));
    rows[r] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  UNROLL for (int r = 0; r < 8; r += 2) {
    pairs[r] = _mm256_unpacklo_ps(rows[r], rows[r + 1]);
    pairs[r + 1] = _mm256_unpackhi_ps(rows[r], rows[r + 1]);
  }
  UNROLL for (int r = 0; r < 8; r += 4) {
    fours[r] = _mm256_shuffle_ps(pairs[r], pairs[r + 2], 0x44);
    fours[r + 1] = _mm256_shuffle_ps(pairs[r], pairs[r + 2], 0xEE);
    fours[r + 2] = _mm256_shuffle_ps(pairs[r + 1], pairs[r + 3], 0x44);
    fours[r + 3] = _mm256_shuffle_ps(pairs[r + 1], pairs[r + 3], 0xEE);
  }
  UNROLL for (int c = 0; c < 4; ++c) {
    _mm256_storeu_ps(to + c * TILE, _mm256_permute2f128_ps(fours[c], fours[c + 4], 0x20));
    _mm256_storeu_ps(to + (c + 4) * TILE, _mm256_permute2f128_ps(fours[c], fours[c + 4], 0x31));
  }
}

struct Stored16Panel {
  const Stored16& w;

  INLINE void make(int64_t tile, int64_t from, int64_t count, float* panel) const {
    const int64_t first = tile * TILE, width = smaller(TILE, w.n - first);
    const uint16_t* weight = w.weight + first * w.columns + from;
    const int64_t squares = count / 8 * 8;
    int64_t lane = 0;
    for (; lane + 8 <= width; lane += 8) {
      for (int64_t c = 0; c < squares; c += 8) {
        widen_square(weight + lane * w.columns + c, w.columns, panel + c * TILE + lane);
      }
      for (int64_t c = squares; c < count; ++c) {
        for (int64_t l = lane; l < lane + 8; ++l) panel[c * TILE + l] = widened(weight[l * w.columns + c]);
      }
    }
    for (; lane < TILE; ++lane) {
      for (int64_t c = 0; c < count; ++c) {
        panel[c * TILE + lane] = lane < width ? widened(weight[lane * w.columns + c]) : 0.0f;
      }
    }
  }

  static INLINE float widened(uint16_t value) {
    const uint32_t bits = static_cast<uint32_t>(value) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
  }
};

static void stored16_many(const Stored16& w, const float* x, int64_t tokens, float* out, int64_t begin,
                          int64_t end) {
  panel_tiles(Stored16Panel{w}, w.columns, w.n, x, tokens, out, begin, end);
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
