// Plain weights in float32 or bfloat16 by any number of tokens, from the blocks in which oneDNN keeps them. What a
// thread reads is one stream, which the processor reads ahead by itself: asking for it was slower, two streams no
// faster.
#pragma once

#include "vector.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

// Products of one column (bfloat16: of a pair) with the same of one token, added to the sums of the outputs.
template <typename Value>
struct Products;

template <>
struct Products<float> {
  Floats x;
  INLINE explicit Products(const float* column) : x(all(*column)) {}
  INLINE Floats added(Floats weights, Floats sums) const { return multiply_add(weights, x, sums); }
};

#ifdef __AVX512BF16__

template <>
struct Products<uint16_t> {
  __m512bh x;
  INLINE explicit Products(const float* pair) : x(reinterpret_cast<__m512bh>(all(*pair))) {}
  INLINE Floats added(Floats weights, Floats sums) const {
    return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(weights), x);
  }
};

#else

template <>
struct Products<uint16_t> {
  Floats even, odd;
  INLINE explicit Products(const float* pair) : even(even_bfloats(bits(all(*pair)))), odd(odd_bfloats(bits(all(*pair)))) {}
  INLINE Floats added(Floats weights, Floats sums) const {
    return multiply_add(odd_bfloats(bits(weights)), odd, multiply_add(even_bfloats(bits(weights)), even, sums));
  }
  static INLINE Ints bits(Floats value) { return reinterpret_cast<Ints>(value); }
};

#endif

// RUN_STEPS: columns, or pairs of them, that are summed at a time, which keeps float32's error small. All of a block's
// outputs are multiplied at once, for half of them would take nearly as long: memory comes by the whole.
#ifdef __AVX512F__
// Seven tokens' sums fit the registers; more go over what the second-level cache holds.
constexpr int PASS_TOKENS = 7;
constexpr int64_t RUN_STEPS = 128, PASS_STEPS = 8 * RUN_STEPS, BLOCKS_MOST_TOKENS = INT64_MAX;
#else
// One token's do; more go over what the first-level cache holds.
constexpr int PASS_TOKENS = 1;
constexpr int64_t RUN_STEPS = 64, PASS_STEPS = RUN_STEPS, BLOCKS_MOST_TOKENS = 32;
#endif
constexpr int VECTORS = static_cast<int>(BLOCK) / LANES;

// sums[TOKENS][BLOCK] = (first) or += the products of `steps` columns. These are added up one after another, and run
// after run: in the same order for any number of tokens.
template <typename Value, int TOKENS>
__attribute__((noinline)) static void block_pass(const float* weights, int64_t steps, const float* x,
                                                 int64_t x_stride, float* sums, bool first) {
  for (int64_t begin = 0; begin < steps; begin += RUN_STEPS) {
    Floats held[TOKENS][VECTORS];
    UNROLL for (int t = 0; t < TOKENS; ++t) {
      UNROLL for (int v = 0; v < VECTORS; ++v) held[t][v] = zero();
    }
    const int64_t end = smaller(begin + RUN_STEPS, steps);
    for (int64_t step = begin; step < end; ++step) {
      Floats lanes[VECTORS];
      UNROLL for (int v = 0; v < VECTORS; ++v) lanes[v] = load(weights + step * BLOCK + v * LANES);
      UNROLL for (int t = 0; t < TOKENS; ++t) {
        const Products<Value> products(x + t * x_stride + step);
        UNROLL for (int v = 0; v < VECTORS; ++v) held[t][v] = products.added(lanes[v], held[t][v]);
      }
    }
    UNROLL for (int t = 0; t < TOKENS; ++t) {
      UNROLL for (int v = 0; v < VECTORS; ++v) {
        float* to = sums + t * BLOCK + v * LANES;
        store(to, first ? held[t][v] : add(load(to), held[t][v]));
      }
    }
    first = false;
  }
}

template <typename Value>
INLINE void block_tokens(const float* weights, int64_t steps, const float* x, int64_t x_stride, int64_t tokens,
                         float* sums, bool first) {
  for (int64_t passes = ceil_div(tokens, PASS_TOKENS); passes > 0; --passes) {
    const int64_t count = ceil_div(tokens, passes);  // of about equal size
    switch (count) {
#define PASS(TOKENS)                                                     \
  case TOKENS:                                                           \
    block_pass<Value, TOKENS>(weights, steps, x, x_stride, sums, first); \
    break;
      PASS(1)
#ifdef __AVX512F__
      PASS(2)
      PASS(3)
      PASS(4)
      PASS(5)
      PASS(6)
      PASS(7)
#endif
#undef PASS
    }
    x += count * x_stride;
    sums += count * BLOCK;
    tokens -= count;
  }
}

INLINE void put_sum(float sum, const float* bias, float* out) { *out = bias == nullptr ? sum : sum + *bias; }

INLINE void put_sum(float sum, const uint16_t* bias, uint16_t* out) {
  uint32_t bits = bias == nullptr ? 0 : static_cast<uint32_t>(*bias) << 16;
  float shift;
  std::memcpy(&shift, &bits, sizeof shift);
  const float value = bias == nullptr ? sum : sum + shift;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  *out = static_cast<uint16_t>(value == value ? rounded : 0x7FC0);
}

template <typename Value>
static void blocks_product(const Blocks& w, const float* x, int64_t tokens, const void* bias, void* out, int64_t begin,
                       int64_t end) {
  alignas(64) float sums[HELD_TOKENS * BLOCK];
  const auto* biases = static_cast<const Value*>(bias);
  for (int64_t block = begin; block < end; ++block) {
    const float* weights = w.weights + block * w.apart;
    const int64_t width = smaller(BLOCK, w.n - block * BLOCK);
    int64_t count;
    for (int64_t token = 0; token < tokens; token += count) {
      count = ceil_div(tokens - token, ceil_div(tokens - token, HELD_TOKENS));  // of about equal size
      const float* from = x + token * w.steps;
      const int64_t piece = count <= PASS_TOKENS ? w.steps : PASS_STEPS;
      for (int64_t step = 0; step < w.steps; step += piece) {
        block_tokens<Value>(weights + step * BLOCK, smaller(piece, w.steps - step), from + step, w.steps, count, sums,
                            step == 0);
      }
      for (int64_t t = 0; t < count; ++t) {
        Value* to = static_cast<Value*>(out) + (token + t) * w.n + block * BLOCK;
        for (int64_t o = 0; o < width; ++o) {
          put_sum(sums[t * BLOCK + o], biases == nullptr ? nullptr : biases + block * BLOCK + o, to + o);
        }
      }
    }
  }
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
