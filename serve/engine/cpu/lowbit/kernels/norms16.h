// RMS norms and SwiGLU in bfloat16 with the bits of PyTorch's operators, each value read and written once. Sums run in
// the order in which torch.sum adds up a row: where that is another one, whoever compares the two sees it.
#pragma once

#include <cmath>

#include "vector.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

INLINE float widened(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// To the nearest, halves to even.
INLINE uint16_t rounded16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t near = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>(value == value ? near : 0x7FC0);
}

// torch.sum of the squares of `width` values: by vectors of eight, whatever the processor has, four of them side by
// side, each with a cascade of four sums, of which one takes 16 of the sum below it.
static float sum_of_squares(const float* values, int64_t width) {
  constexpr int SUM_LANES = 8, SIDE = 4, LEVELS = 4, POWER = 4;
  typedef float Lanes __attribute__((vector_size(SUM_LANES * sizeof(float))));
  const int64_t count = width / SUM_LANES, steps = count / SIDE;
  const auto square = [values](int64_t vector) {
    Lanes lanes;
    std::memcpy(&lanes, values + vector * SUM_LANES, sizeof lanes);
    return lanes * lanes;
  };
  Lanes sums[LEVELS][SIDE] = {};
  int64_t step = 0;
  const auto take = [&] {
    UNROLL for (int s = 0; s < SIDE; ++s) sums[0][s] += square(step * SIDE + s);
    ++step;
  };
  while (step + (1 << POWER) <= steps) {
    for (int64_t end = step + (1 << POWER); step < end;) take();
    for (int level = 1; level < LEVELS; ++level) {
      UNROLL for (int s = 0; s < SIDE; ++s) {
        sums[level][s] += sums[level - 1][s];
        sums[level - 1][s] = Lanes{};
      }
      if ((step >> (level * POWER) & ((1 << POWER) - 1)) != 0) break;
    }
  }
  while (step < steps) take();
  for (int level = 1; level < LEVELS; ++level) {
    UNROLL for (int s = 0; s < SIDE; ++s) sums[0][s] += sums[level][s];
  }
  for (int64_t v = steps * SIDE; v < count; ++v) sums[0][0] += square(v);
  UNROLL for (int s = 1; s < SIDE; ++s) sums[0][0] += sums[0][s];
  float total = 0;
  for (int64_t i = count * SUM_LANES; i < width; ++i) total += values[i] * values[i];
  float lanes[SUM_LANES];
  std::memcpy(lanes, &sums[0][0], sizeof lanes);
  for (int lane = 0; lane < SUM_LANES; ++lane) total += lanes[lane];
  return total;
}

// out = norm(x + residual) * weight for one row, and x + residual to `total`; without a residual (null) norm(x) alone.
static void norm16(const Norm16& norm, const uint16_t* x, const uint16_t* residual, uint16_t* out, uint16_t* total) {
  alignas(64) float wide[NORM_WIDTH];
  const int64_t width = norm.width;
  if (residual == nullptr) {
    for (int64_t i = 0; i < width; ++i) wide[i] = widened(x[i]);
  } else {
    for (int64_t i = 0; i < width; ++i) {
      wide[i] = widened(x[i]) + widened(residual[i]);
      total[i] = rounded16(wide[i]);
    }
  }
  const float mean = sum_of_squares(wide, width) / static_cast<float>(width);
  const float scale = 1.0f / std::sqrt(mean + norm.epsilon);
  for (int64_t i = 0; i < width; ++i) {
    out[i] = rounded16(widened(rounded16(wide[i] * scale)) * widened(norm.weight[i]));
  }
}

// silu(gate) * up for one row, `x` being both. `silu`: of each of the 65,536 values of bfloat16.
static void swiglu16(const uint16_t* silu, const uint16_t* x, int64_t width, uint16_t* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = rounded16(widened(silu[x[i]]) * widened(x[width + i]));
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
