// One slice of one adapter's factors, and what the kernels do with it.
#pragma once

#include <cstdint>

namespace hotswap_lowbit {

// `b` lies in tiles of so many columns, [tiles][rank][LORA_TILE], the last one padded with zeros.
constexpr int64_t LORA_TILE = 64;
// A tile's row is made of blocks of so many. In bfloat16 a block's first half takes the even places and the second
// half the odd ones, so that a vector of pairs widens to two vectors of neighbours.
constexpr int64_t LORA_BLOCK = 32;

struct LoraPart {
  const void* a;  // [rank][in_size]
  const void* b;
  int64_t rank, in_size, columns, first_column;  // of y
};

// Values of x, y, a and b are of one type. `rows`: which ones of x and y, `count` of them; strides in values.
struct LoraKernels {
  // hidden[count][stride] = x @ a.T * scale for the ranks [begin, end).
  void (*shrink)(const LoraPart&, const void* x, int64_t x_stride, const int32_t* rows, int64_t count, float scale,
                 float* hidden, int64_t stride, int64_t begin, int64_t end);

  // y += hidden @ b for the tiles [begin, end).
  void (*expand)(const LoraPart&, const float* hidden, int64_t stride, const int32_t* rows, int64_t count, void* y,
                 int64_t y_stride, int64_t begin, int64_t end);
};

}  // namespace hotswap_lowbit
