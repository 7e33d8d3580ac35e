// What the kernels of each instruction set offer to the operators. No header of torch or the C++ library with
// inline functions is included where these are compiled with more instructions than a plain x86-64 has: the linker
// keeps one copy of an inline function, and it might be the wrong one.
#pragma once

#include <cstdint>

#include "lora_part.h"

namespace hotswap_lowbit {

// Outputs that lie side by side. A tile's weights are a stream of 64-byte pieces: 16 lanes (outputs) of 32 bits,
// each with 8, 4 or 4 consecutive columns (4-bit, 8-bit, int8), the first in the low bits. Missing outputs and
// columns are zeros.
constexpr int64_t TILE = 16;
constexpr int64_t PIECE_BYTES = 64;

// Columns whose float32 weights are made at a time: 16 KiB for a tile, half of a small first-level cache.
constexpr int64_t PANEL_COLUMNS = 256;
// Tokens whose activations of one panel stay in the second-level cache.
constexpr int64_t BLOCK_TOKENS = 192;

static inline int64_t ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }

struct Wna16 {
  const uint8_t* packed;  // [tiles][columns / columns per piece][64]
  const float* scales;    // [n][groups]
  const uint8_t* zeros;   // [n][groups], or null for the middle of the range
  int64_t n, columns, group, groups;
  int bits;
};

// Columns of a group that are summed at a time: before their sum is added to the total, which keeps float32's error
// small, and with activations as digits by one power of two.
constexpr int64_t RUN_COLUMNS = 128;

constexpr int DIGITS = 3;

// A run of one token's activations: digits times `scale`; for each digit minus its sum.
struct DigitRun {
  float scale;
  int32_t negated_sums[DIGITS];
};

static inline int64_t digit_runs(const Wna16& w) { return w.groups * ceil_div(w.group, RUN_COLUMNS); }

struct W8a8 {
  const uint8_t* packed;      // [tiles][1 + pieces][64]: the sums of each output's weights as int32, the weights
  const float* weight_scale;  // [n]
  int64_t n, pieces;
};

struct Stored16 {
  const uint16_t* weight;  // bfloat16 [n][columns]
  int64_t n, columns;
};

// Outputs of a block of oneDNN's, and tokens whose sums of one block are held.
constexpr int64_t BLOCK = 64, HELD_TOKENS = 35;

// A plain weight as oneDNN keeps it: for each column (bfloat16: for each pair of them) 4 bytes of each of 64 outputs.
struct Blocks {
  const float* weights;  // [blocks][at least steps][64], blocks `apart` from each other
  int64_t n, steps, apart;
};

// Values of a row of the widest norm: its float32 values lie on a thread's stack.
constexpr int64_t NORM_WIDTH = 8192;

struct Norm16 {
  const uint16_t* weight;  // bfloat16 [width]
  int64_t width;
  float epsilon;
};

struct Kernels {
  const char* name;

  // Up to so many tokens the `few` kernels, which unpack weights in registers, are faster than the `many` ones, which
  // unpack them into a panel first (measured; either is right for any number). The same of digits and bfloat16.
  int64_t wna16_few_tokens, stored16_few_tokens, digits_few_tokens;

  // Up to so many tokens the products from blocks are at least as fast as oneDNN's (measured).
  int64_t blocks_most_tokens;

  // out[tokens][n] of the tiles [begin, end). x: [tokens][columns], scaled by `field_scale`.
  void (*wna16_few)(const Wna16&, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end);

  // The same for any number of tokens, with plain x, rows of x and out `columns` and n apart.
  void (*wna16_many)(const Wna16&, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end);

  // One token's activations as digits: DIGITS bytes for each column, and `digit_runs` runs. Null, as `wna16_digits`,
  // where the processor does not sum products of bytes in 32 bits.
  void (*split_token)(const Wna16&, const float* x, uint8_t* digits, DigitRun* runs);

  // What the two above compute, for any number of tokens, with those digits.
  void (*wna16_digits)(const Wna16&, const uint8_t* digits, const DigitRun* runs, int64_t tokens, float* out,
                       int64_t begin, int64_t end);

  // One token's activations in bfloat16, in the order in which `wna16_bfloats` takes them. Both are null where the
  // processor does not multiply bfloat16.
  void (*pair_token)(const Wna16&, const uint16_t* x, uint16_t* pairs);

  // What `wna16_many` computes, for activations in bfloat16.
  void (*wna16_bfloats)(const Wna16&, const uint16_t* pairs, int64_t tokens, float* out, int64_t begin, int64_t end);

  // Bytes that the rounded values of one piece (4 columns) take.
  int64_t rounded_bytes;

  // One token's activations to int8, laid out for `w8a8`; returns its scale.
  float (*round_token)(const float* x, int64_t columns, int64_t pieces, uint8_t* rounded);

  // out[tokens][n] of the tiles [begin, end).
  void (*w8a8)(const W8a8&, const uint8_t* rounded, const float* scales, int64_t tokens, float* out,
               int64_t begin, int64_t end);

  // x: even columns first, then odd ones, zeros up to `even_columns` each.
  void (*stored16_few)(const Stored16&, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end);
  void (*stored16_many)(const Stored16&, const float* x, int64_t tokens, float* out, int64_t begin, int64_t end);

  // out[tokens][n] of the blocks [begin, end), for any number of tokens. x: [tokens][steps] columns, or pairs of them,
  // as they are. bias: [n] or null. All in the weight's type, rounded once; sums are float32.
  void (*blocks_floats)(const Blocks&, const float* x, int64_t tokens, const void* bias, void* out, int64_t begin,
                        int64_t end);
  void (*blocks_bfloats)(const Blocks&, const float* x, int64_t tokens, const void* bias, void* out, int64_t begin,
                         int64_t end);

  // Rows of bfloat16, see norms16.h.
  float (*sum_of_squares)(const float* values, int64_t width);
  void (*norm16)(const Norm16&, const uint16_t* x, const uint16_t* residual, uint16_t* out, uint16_t* total);
  void (*swiglu16)(const uint16_t* silu, const uint16_t* x, int64_t width, uint16_t* out);

  LoraKernels lora_floats, lora_bfloats;
};

// Columns of each half of what `stored16_few` reads.
static inline int64_t even_columns(int64_t columns) { return ceil_div(columns, 32) * 16; }

const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512bf16_kernels();

// A column's value stays where it lies in its 32 bits, or 12 (16) bits lower: at these bits. Products with it are
// made right by scaling the activation, which is exact.
constexpr int FIELD_POSITION_4[8] = {0, 4, 8, 12, 16, 8, 12, 16};
constexpr int FIELD_POSITION_8[4] = {0, 8, 0, 8};

static inline float field_scale(int bits, int64_t column) {
  const int position = bits == 4 ? FIELD_POSITION_4[column % 8] : FIELD_POSITION_8[column % 4];
  return 1.0f / static_cast<float>(1 << position);
}

}  // namespace hotswap_lowbit
