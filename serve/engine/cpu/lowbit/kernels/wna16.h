// Weights of 4 or 8 bits with a scale, and perhaps a zero, for each group of columns; activations in float32.
//
// A field of bits becomes a float without a conversion: or-ed into the low mantissa bits of 2**23 it is
// 2**23 + value, from which 2**23 + zero is subtracted; all exact.
#pragma once

#include "panel.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

constexpr int MAGIC_BITS = 0x4B000000;  // 2**23 in float32
constexpr float MAGIC = 8388608.0f;

template <int BITS>
struct Fields;

template <>
struct Fields<4> {
  static constexpr int COUNT = 8, FIRST_SHIFTED = 5, SHIFT = 12, MASK = 0xF, POSITIONS = 5, STEP = 4;
  static constexpr float MIDDLE = 8.0f;
};

template <>
struct Fields<8> {
  static constexpr int COUNT = 4, FIRST_SHIFTED = 2, SHIFT = 16, MASK = 0xFF, POSITIONS = 2, STEP = 8;
  static constexpr float MIDDLE = 128.0f;
};

template <int BITS>
constexpr int position_index(int field) {  // index of the bit position at which a field is taken out
  return BITS == 4 ? (field < 5 ? field : field - 3) : field % 2;
}

// Scales and zeros of some groups of a tile, [groups][16], so that a vector holds those of its outputs.
constexpr int64_t HELD_GROUPS = 16;

struct GroupFactors {
  alignas(64) float scales[HELD_GROUPS * TILE];
  alignas(64) float zeros[HELD_GROUPS * TILE];

  // The `count` groups from `first`; groups on that are not there and outputs that do not exist get zeros.
  INLINE void fill(const Wna16& w, int64_t tile, int64_t first, int64_t count) {
    const int64_t width = smaller(TILE, w.n - tile * TILE);
    const int64_t start = tile * TILE * w.groups + first;
    int64_t g = 0;
    if (width == TILE) {
      for (; g + 4 <= count; g += 4) {
        for (int64_t lane = 0; lane < TILE; lane += 4) {
          __m128 rows[4];
          UNROLL for (int r = 0; r < 4; ++r) rows[r] = _mm_loadu_ps(w.scales + start + (lane + r) * w.groups + g);
          put_square(rows, scales + g * TILE + lane);
          if (w.zeros == nullptr) continue;
          UNROLL for (int r = 0; r < 4; ++r) {
            int32_t four;
            std::memcpy(&four, w.zeros + start + (lane + r) * w.groups + g, sizeof four);
            rows[r] = _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
          }
          put_square(rows, zeros + g * TILE + lane);
        }
      }
    }
    for (; g < count; ++g) {
      for (int64_t lane = 0; lane < TILE; ++lane) {
        const int64_t from = start + lane * w.groups + g;
        scales[g * TILE + lane] = lane < width ? w.scales[from] : 0.0f;
        if (w.zeros != nullptr) zeros[g * TILE + lane] = lane < width ? static_cast<float>(w.zeros[from]) : 0.0f;
      }
    }
  }

  // Rows of 4 become columns, a tile apart.
  static INLINE void put_square(__m128* rows, float* to) {
    _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
    UNROLL for (int r = 0; r < 4; ++r) _mm_store_ps(to + r * TILE, rows[r]);
  }
};

template <int BITS, int ROWS, int TILES>
__attribute__((noinline)) static void few_tiles(const Wna16& w, const float* x, float* out, int64_t tile) {
  using F = Fields<BITS>;
  constexpr int VECTORS = TILES * TILE_VECTORS;
  const int64_t tile_bytes = w.columns / F::COUNT * PIECE_BYTES;
  const uint8_t* packed = w.packed + tile * tile_bytes;
  const Ints magic = all_ints(MAGIC_BITS);
  GroupFactors factors[TILES];
  Floats totals[ROWS][VECTORS];
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int v = 0; v < VECTORS; ++v) totals[r][v] = zero();
  }
  Floats offsets[F::POSITIONS][VECTORS];
  UNROLL for (int p = 0; p < F::POSITIONS; ++p) {
    UNROLL for (int v = 0; v < VECTORS; ++v) offsets[p][v] = all(MAGIC + F::MIDDLE * (1 << (p * F::STEP)));
  }
  int64_t column = 0;
  for (int64_t first = 0; first < w.groups; first += HELD_GROUPS) {
    const int64_t count = smaller(HELD_GROUPS, w.groups - first);
    for (int t = 0; t < TILES; ++t) factors[t].fill(w, tile + t, first, count);
    for (int64_t g = 0; g < count; ++g) {
      if (w.zeros != nullptr) {
        UNROLL for (int v = 0; v < VECTORS; ++v) {
          const Floats zeros = load(factors[v / TILE_VECTORS].zeros + g * TILE + v % TILE_VECTORS * LANES);
          UNROLL for (int p = 0; p < F::POSITIONS; ++p) {
            offsets[p][v] = multiply_add(zeros, all(1 << (p * F::STEP)), all(MAGIC));
          }
        }
      }
      Floats scales[VECTORS];
      UNROLL for (int v = 0; v < VECTORS; ++v) {
        scales[v] = load(factors[v / TILE_VECTORS].scales + g * TILE + v % TILE_VECTORS * LANES);
      }
      for (int64_t left = w.group / F::COUNT; left > 0; left -= RUN_COLUMNS / F::COUNT) {
        Floats sums[ROWS][VECTORS];
        UNROLL for (int r = 0; r < ROWS; ++r) {
          UNROLL for (int v = 0; v < VECTORS; ++v) sums[r][v] = zero();
        }
        for (int64_t piece = smaller(left, RUN_COLUMNS / F::COUNT); piece > 0; --piece) {
          Ints bits[VECTORS];
          UNROLL for (int v = 0; v < VECTORS; ++v) {
            bits[v] = load_ints(packed + v / TILE_VECTORS * tile_bytes + v % TILE_VECTORS * LANES * 4);
          }
          UNROLL for (int t = 0; t < TILES; ++t) ask_for(packed + (t + TILES) * tile_bytes);
          UNROLL for (int f = 0; f < F::COUNT; ++f) {
            if (f == F::FIRST_SHIFTED) {
              UNROLL for (int v = 0; v < VECTORS; ++v) bits[v] = shift_right<F::SHIFT>(bits[v]);
            }
            constexpr auto position = position_index<BITS>;
            const Ints mask = all_ints(F::MASK << (position(f) * F::STEP));
            // All weights before all tokens: an order in which the sums stay in registers.
            Floats weights[VECTORS];
            UNROLL for (int v = 0; v < VECTORS; ++v) {
              weights[v] = subtract(mask_or(bits[v], mask, magic), offsets[position(f)][v]);
            }
            UNROLL for (int r = 0; r < ROWS; ++r) {
              const Floats value = all(x[r * w.columns + column + f]);
              UNROLL for (int v = 0; v < VECTORS; ++v) sums[r][v] = multiply_add(value, weights[v], sums[r][v]);
            }
          }
          packed += PIECE_BYTES;
          column += F::COUNT;
        }
        UNROLL for (int v = 0; v < VECTORS; ++v) {
          UNROLL for (int r = 0; r < ROWS; ++r) totals[r][v] = multiply_add(sums[r][v], scales[v], totals[r][v]);
        }
      }
    }
  }
  for (int t = 0; t < TILES; ++t) {
    const int64_t width = smaller(TILE, w.n - (tile + t) * TILE);
    UNROLL for (int r = 0; r < ROWS; ++r) {
      store_tile(out + r * w.n + (tile + t) * TILE, totals[r] + t * TILE_VECTORS, width);
    }
  }
}

// A tile's weights stay in the cache for all tokens. One token alone takes two tiles at a time, which hides the
// latency of its sums.
template <int BITS>
static void few_bits(const Wna16& w, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end) {
  int64_t tile = begin;
  if (tokens == 1) {
    for (; tile + 2 <= end; tile += 2) few_tiles<BITS, 1, 2>(w, x, out, tile);
  }
  for (; tile < end; ++tile) {
    int64_t token = 0;
    for (; token + 4 <= tokens; token += 4) {
      few_tiles<BITS, 4, 1>(w, x + token * w.columns, out + token * w.n, tile);
    }
    const float* rest = x + token * w.columns;
    float* to = out + token * w.n;
    if (tokens - token == 1) few_tiles<BITS, 1, 1>(w, rest, to, tile);
    if (tokens - token == 2) few_tiles<BITS, 2, 1>(w, rest, to, tile);
    if (tokens - token == 3) few_tiles<BITS, 3, 1>(w, rest, to, tile);
  }
}

static void wna16_few(const Wna16& w, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end) {
  if (w.bits == 4) {
    few_bits<4>(w, x, tokens, out, begin, end);
  } else {
    few_bits<8>(w, x, tokens, out, begin, end);
  }
}

// Float32 weights of one tile and `count` columns from `from`, each rounded once, as (value - zero) * scale is.
template <int BITS>
struct Wna16Panel {
  const Wna16& w;

  INLINE void make(int64_t tile, int64_t from, int64_t count, float* panel) const {
    using F = Fields<BITS>;
    const uint8_t* packed = w.packed + (tile * (w.columns / F::COUNT) + from / F::COUNT) * PIECE_BYTES;
    const Ints magic = all_ints(MAGIC_BITS);
    GroupFactors factors;
    for (int64_t done = 0; done < count;) {
      const int64_t group = (from + done) / w.group;
      const int64_t pieces = smaller((group + 1) * w.group - from - done, count - done) / F::COUNT;
      factors.fill(w, tile, group, 1);
      Floats offsets[F::POSITIONS][TILE_VECTORS], scales[F::POSITIONS][TILE_VECTORS];
      UNROLL for (int p = 0; p < F::POSITIONS; ++p) {
        UNROLL for (int v = 0; v < TILE_VECTORS; ++v) {
          const Floats zeros = w.zeros == nullptr ? all(F::MIDDLE) : load(factors.zeros + v * LANES);
          offsets[p][v] = multiply_add(zeros, all(1 << (p * F::STEP)), all(MAGIC));
          scales[p][v] = multiply(load(factors.scales + v * LANES), all(1.0f / (1 << (p * F::STEP))));
        }
      }
      for (int64_t piece = 0; piece < pieces; ++piece) {
        UNROLL for (int v = 0; v < TILE_VECTORS; ++v) {
          Ints bits = load_ints(packed + v * LANES * 4);
          UNROLL for (int f = 0; f < F::COUNT; ++f) {
            if (f == F::FIRST_SHIFTED) bits = shift_right<F::SHIFT>(bits);
            constexpr auto position = position_index<BITS>;
            const Ints mask = all_ints(F::MASK << (position(f) * F::STEP));
            const Floats value = subtract(mask_or(bits, mask, magic), offsets[position(f)][v]);
            store(panel + f * TILE + v * LANES, multiply(value, scales[position(f)][v]));
          }
        }
        packed += PIECE_BYTES;
        panel += F::COUNT * TILE;
      }
      done += pieces * F::COUNT;
    }
  }
};

static void wna16_many(const Wna16& w, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end) {
  if (w.bits == 4) {
    panel_tiles(Wna16Panel<4>{w}, w.columns, w.n, x, tokens, out, begin, end);
  } else {
    panel_tiles(Wna16Panel<8>{w}, w.columns, w.n, x, tokens, out, begin, end);
  }
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
