// Products of weights of 4 or 8 bits in whole numbers. A run of activations is written as whole numbers of 24 bits
// times a power of two, and these as three signed bytes (digits to the base 256); VNNI multiplies bytes by the weights'
// unsigned values and sums exactly. An activation is off by 2**-23 of the largest of its run at most, which is what
// float32 loses in adding them up; those of no more bits than bfloat16 are exact down to 2**-15 of the largest.
#pragma once

#include "w8a8.h"
#include "wna16.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

#ifdef __AVX512VNNI__

constexpr float DIGITS_SLACK = 1.00394f;  // over 2**23 / 0x7F7F7F, the largest number that three signed bytes hold
constexpr int SMALLEST_EXPONENT = -100;   // its scale and the inverse are normal numbers

INLINE float power_of_two(int exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// For all numbers up to `largest`: the power of two by which they fit three digits. NaN and infinity give NaN.
INLINE float digits_scale(float largest) {
  const float above = largest * DIGITS_SLACK;
  int32_t bits;
  std::memcpy(&bits, &largest, sizeof bits);
  if (bits >= 0x7F800000) return __builtin_nanf("");
  std::memcpy(&bits, &above, sizeof bits);
  const int exponent = (bits >> 23) - 127;
  return power_of_two((exponent < SMALLEST_EXPONENT ? SMALLEST_EXPONENT : exponent) - 22);
}

static void split_token(const Wna16& w, const float* x, uint8_t* digits, DigitRun* runs) {
  // A 4-bit piece is taken apart into its even columns and its odd ones.
  const __m128i order = w.bits == 4 ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, -1, -1, -1, -1, -1, -1, -1, -1)
                                    : _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i half = _mm256_set1_epi32(128);
  const __m128i ones = _mm_set1_epi8(1);
  for (int64_t group = 0; group < w.groups; ++group) {
    for (int64_t left = w.group; left > 0; left -= RUN_COLUMNS) {
      const int64_t count = smaller(left, RUN_COLUMNS);
      const float scale = digits_scale(largest_magnitude(x, count));
      const __m256 inverse = _mm256_set1_ps(1.0f / scale);
      __m128i sums[DIGITS] = {};
      for (int64_t c = 0; c < count; c += 8) {
        __m256i number = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + c), inverse));
        UNROLL for (int d = 0; d < DIGITS; ++d) {
          const __m128i eight = _mm256_cvtepi32_epi8(number);
          sums[d] = _mm_dpbusd_epi32(sums[d], ones, eight);
          _mm_storel_epi64(reinterpret_cast<__m128i*>(digits + d * 8), _mm_shuffle_epi8(eight, order));
          number = _mm256_srai_epi32(_mm256_add_epi32(number, half), 8);
        }
        digits += DIGITS * 8;
      }
      runs->scale = scale;
      UNROLL for (int d = 0; d < DIGITS; ++d) {
        runs->negated_sums[d] = -(_mm_cvtsi128_si32(sums[d]) + _mm_extract_epi32(sums[d], 1));
      }
      ++runs;
      x += count;
    }
  }
}

INLINE Ints all_four(const uint8_t* from) {
  int32_t four;
  std::memcpy(&four, from, sizeof four);
  return _mm512_set1_epi32(four);
}

template <int BITS, int ROWS, int TILES>
__attribute__((noinline)) static void digit_tiles(const Wna16& w, const uint8_t* digits, const DigitRun* runs,
                                                  float* out, int64_t tile) {
  const int64_t tile_bytes = w.columns / Fields<BITS>::COUNT * PIECE_BYTES;
  const int64_t row_bytes = w.columns * DIGITS, row_runs = digit_runs(w);
  const uint8_t* packed = w.packed + tile * tile_bytes;
  const Ints nibbles = all_ints(0x0F0F0F0F);
  GroupFactors factors[TILES];
  Floats totals[ROWS][TILES];
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int t = 0; t < TILES; ++t) totals[r][t] = zero();
  }
  for (int64_t first = 0; first < w.groups; first += HELD_GROUPS) {
    const int64_t held = smaller(HELD_GROUPS, w.groups - first);
    for (int t = 0; t < TILES; ++t) {
      factors[t].fill(w, tile + t, first, held);
      const float* next = w.scales + ((tile + t + TILES) * w.groups + first) * TILE;
      for (int64_t g = 0; g < held; ++g) ask_for(next + g * TILE);
    }
    for (int64_t g = 0; g < held; ++g) {
      for (int64_t left = w.group; left > 0; left -= RUN_COLUMNS) {
        Ints sums[ROWS][DIGITS][TILES];
        UNROLL for (int t = 0; t < TILES; ++t) {
          const Ints zeros = w.zeros == nullptr ? all_ints(static_cast<int>(Fields<BITS>::MIDDLE))
                                                : _mm512_cvtps_epi32(load(factors[t].zeros + g * TILE));
          UNROLL for (int r = 0; r < ROWS; ++r) {
            UNROLL for (int d = 0; d < DIGITS; ++d) {
              sums[r][d][t] = _mm512_mullo_epi32(zeros, all_ints(runs[r * row_runs].negated_sums[d]));
            }
          }
        }
        for (int64_t eights = smaller(left, RUN_COLUMNS) / 8; eights > 0; --eights) {
          Ints parts[2][TILES];
          UNROLL for (int t = 0; t < TILES; ++t) {
            parts[0][t] = load_ints(packed + t * tile_bytes);
            if (BITS == 4) {
              parts[1][t] = _mm512_and_si512(shift_right<4>(parts[0][t]), nibbles);
              parts[0][t] = _mm512_and_si512(parts[0][t], nibbles);
            } else {
              parts[1][t] = load_ints(packed + t * tile_bytes + PIECE_BYTES);
            }
          }
          UNROLL for (int p = 0; p < 2; ++p) {
            UNROLL for (int r = 0; r < ROWS; ++r) {
              UNROLL for (int d = 0; d < DIGITS; ++d) {
                const Ints four = all_four(digits + r * row_bytes + d * 8 + p * 4);
                UNROLL for (int t = 0; t < TILES; ++t) {
                  sums[r][d][t] = _mm512_dpbusd_epi32(sums[r][d][t], parts[p][t], four);
                }
              }
            }
          }
          UNROLL for (int t = 0; t < TILES; ++t) {
            UNROLL for (int piece = 0; piece < 8 / Fields<BITS>::COUNT; ++piece) {
              ask_for(packed + (t + TILES) * tile_bytes + piece * PIECE_BYTES);
            }
          }
          packed += 8 / Fields<BITS>::COUNT * PIECE_BYTES;
          digits += DIGITS * 8;
        }
        UNROLL for (int t = 0; t < TILES; ++t) {
          const Floats scales = load(factors[t].scales + g * TILE);
          UNROLL for (int r = 0; r < ROWS; ++r) {
            const Ints high = _mm512_add_epi32(_mm512_slli_epi32(sums[r][2][t], 8), sums[r][1][t]);
            const Floats sum = multiply_add(to_floats(high), all(256.0f), to_floats(sums[r][0][t]));
            totals[r][t] = multiply_add(multiply(sum, all(runs[r * row_runs].scale)), scales, totals[r][t]);
          }
        }
        ++runs;
      }
    }
  }
  for (int t = 0; t < TILES; ++t) {
    const int64_t width = smaller(TILE, w.n - (tile + t) * TILE);
    UNROLL for (int r = 0; r < ROWS; ++r) store_tile(out + r * w.n + (tile + t) * TILE, &totals[r][t], width);
  }
}

// A tile's weights stay in the cache for all tokens. One token alone takes four tiles at a time, which hides the
// latency of its sums.
template <int BITS>
static void digit_bits(const Wna16& w, const uint8_t* digits, const DigitRun* runs, int64_t tokens, float* out,
                       int64_t begin, int64_t end) {
  const int64_t row_bytes = w.columns * DIGITS, row_runs = digit_runs(w);
  int64_t tile = begin;
  if (tokens == 1) {
    for (; tile + 4 <= end; tile += 4) digit_tiles<BITS, 1, 4>(w, digits, runs, out, tile);
  }
  for (; tile < end; ++tile) {
    int64_t token = 0;
#define TAKE(ROWS)                                                                                              \
  for (; token + ROWS <= tokens; token += ROWS) {                                                               \
    digit_tiles<BITS, ROWS, 1>(w, digits + token * row_bytes, runs + token * row_runs, out + token * w.n, tile); \
  }
    TAKE(6)
    TAKE(4)
    TAKE(2)
    TAKE(1)
#undef TAKE
  }
}

static void wna16_digits(const Wna16& w, const uint8_t* digits, const DigitRun* runs, int64_t tokens, float* out,
                         int64_t begin, int64_t end) {
  if (w.bits == 4) {
    digit_bits<4>(w, digits, runs, tokens, out, begin, end);
  } else {
    digit_bits<8>(w, digits, runs, tokens, out, begin, end);
  }
}

#else

constexpr auto split_token = nullptr;
constexpr auto wna16_digits = nullptr;

#endif

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
