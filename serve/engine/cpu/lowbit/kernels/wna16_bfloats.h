// Products of many tokens of bfloat16 with weights of 4 or 8 bits: value - zero is a whole number of at most 8 bits,
// which bfloat16 holds exactly, and so is each product in float32. A group's scale comes after its sum.
#pragma once

#include "wna16.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

#ifdef __AVX512BF16__

// An activation's columns as a panel's pairs take them out of a piece: each with the one half a piece on.
static void pair_token(const Wna16& w, const uint16_t* x, uint16_t* pairs) {
  const __m128i order = w.bits == 4 ? _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)
                                    : _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
  for (int64_t c = 0; c < w.columns; c += 8) {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + c));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(pairs + c), _mm_shuffle_epi8(eight, order));
  }
}

// Both halves of 32 bits, -255 to 255, to bfloat16.
INLINE Ints to_bfloats(Ints halves) {
  const Ints low = _mm512_castps_si512(to_floats(_mm512_srai_epi32(_mm512_slli_epi32(halves, 16), 16)));
  const Ints high = _mm512_castps_si512(to_floats(_mm512_srai_epi32(halves, 16)));
  return _mm512_mask_blend_epi16(0xAAAAAAAA, shift_right<16>(low), high);
}

// value - zero of `count` columns of one group, as pairs of bfloat16: [count / 2][16][2].
template <int BITS>
INLINE void make_pairs(const Wna16& w, const GroupFactors& factors, int64_t tile, int64_t from, int64_t count,
                       uint8_t* pairs) {
  constexpr int64_t COUNT = Fields<BITS>::COUNT;
  const uint8_t* packed = w.packed + (tile * w.columns + from) / COUNT * PIECE_BYTES;
  Ints zeros = all_ints(static_cast<int>(Fields<BITS>::MIDDLE));
  if (w.zeros != nullptr) zeros = _mm512_cvtps_epi32(load(factors.zeros));
  zeros = _mm512_or_si512(zeros, _mm512_slli_epi32(zeros, 16));
  const Ints mask = all_ints(Fields<BITS>::MASK << 16 | Fields<BITS>::MASK);
  alignas(64) int16_t whole[32];  // by their lowest five bits
  for (int i = 0; i < 32; ++i) whole[i] = static_cast<int16_t>(i < 16 ? i : i - 32);
  const Ints table = to_bfloats(load_ints(whole));
  for (int64_t done = 0; done < count; done += COUNT) {
    Ints bits = load_ints(packed);
    UNROLL for (int pair = 0; pair < COUNT / 2; ++pair) {
      const Ints halves = _mm512_sub_epi16(_mm512_and_si512(bits, mask), zeros);
      const Ints made = BITS == 4 ? _mm512_permutexvar_epi16(halves, table) : to_bfloats(halves);
      _mm512_store_si512(pairs + pair * PIECE_BYTES, made);
      bits = shift_right<BITS>(bits);
    }
    packed += PIECE_BYTES;
    pairs += COUNT / 2 * PIECE_BYTES;
  }
}

// out[ROWS][width] = (first) or += scales * (x @ pairs)
template <int ROWS>
INLINE void pair_rows(const uint8_t* pairs, int64_t count, const uint16_t* x, int64_t x_stride, Floats scales,
                      float* out, int64_t out_stride, int64_t width, bool first) {
  Floats sums[ROWS];
  UNROLL for (int r = 0; r < ROWS; ++r) sums[r] = zero();
  for (int64_t c = 0; c < count; c += 2) {
    const Ints weights = load_ints(pairs + c / 2 * PIECE_BYTES);
    UNROLL for (int r = 0; r < ROWS; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * x_stride + c, sizeof pair);
      sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)weights, (__m512bh)all_ints(pair));
    }
  }
  const __mmask16 lanes = static_cast<__mmask16>((1u << width) - 1);
  UNROLL for (int r = 0; r < ROWS; ++r) {
    float* row = out + r * out_stride;
    const Floats before = first ? zero() : _mm512_maskz_loadu_ps(lanes, row);
    _mm512_mask_storeu_ps(row, lanes, multiply_add(sums[r], scales, before));
  }
}

template <int BITS>
static void pair_bits(const Wna16& w, const uint16_t* x, int64_t tokens, float* out, int64_t begin, int64_t end) {
  alignas(64) uint8_t pairs[RUN_COLUMNS / 2 * PIECE_BYTES];
  GroupFactors factors;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t width = smaller(TILE, w.n - tile * TILE);
    float* to = out + tile * TILE;
    for (int64_t from = 0; from < w.columns;) {
      const int64_t group = from / w.group;
      const int64_t count = smaller((group + 1) * w.group - from, RUN_COLUMNS);
      factors.fill(w, tile, group, 1);
      make_pairs<BITS>(w, factors, tile, from, count, pairs);
      const Floats scales = load(factors.scales);
      int64_t token = 0;
#define TAKE(ROWS)                                                                                             \
  for (; token + ROWS <= tokens; token += ROWS) {                                                              \
    pair_rows<ROWS>(pairs, count, x + token * w.columns + from, w.columns, scales, to + token * w.n, w.n, width, \
                    from == 0);                                                                                \
  }
      TAKE(16)
      TAKE(8)
      TAKE(4)
      TAKE(2)
      TAKE(1)
#undef TAKE
      from += count;
    }
  }
}

static void wna16_bfloats(const Wna16& w, const uint16_t* x, int64_t tokens, float* out, int64_t begin, int64_t end) {
  if (w.bits == 4) {
    pair_bits<4>(w, x, tokens, out, begin, end);
  } else {
    pair_bits<8>(w, x, tokens, out, begin, end);
  }
}

#else

constexpr auto pair_token = nullptr;
constexpr auto wna16_bfloats = nullptr;

#endif

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
