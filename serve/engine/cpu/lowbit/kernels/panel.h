// Products of many tokens with a panel: float32 weights of one tile, [columns][16].
#pragma once

#include "vector.h"

namespace hotswap_lowbit {
namespace HOTSWAP_ISA {

template <int ROWS>
INLINE void panel_rows(const float* panel, int64_t columns, const float* x, int64_t x_stride, float* out,
                       int64_t out_stride, int64_t width, bool first) {
  Floats sums[ROWS][TILE_VECTORS];
  UNROLL for (int r = 0; r < ROWS; ++r) {
    UNROLL for (int v = 0; v < TILE_VECTORS; ++v) sums[r][v] = zero();
  }
  for (int64_t c = 0; c < columns; ++c) {
    Floats weights[TILE_VECTORS];
    UNROLL for (int v = 0; v < TILE_VECTORS; ++v) weights[v] = load(panel + c * TILE + v * LANES);
    UNROLL for (int r = 0; r < ROWS; ++r) {
      const Floats value = all(x[r * x_stride + c]);
      UNROLL for (int v = 0; v < TILE_VECTORS; ++v) sums[r][v] = multiply_add(value, weights[v], sums[r][v]);
    }
  }
  UNROLL for (int r = 0; r < ROWS; ++r) {
    float* row = out + r * out_stride;
    if (!first) {
      float before[TILE] = {};
      std::memcpy(before, row, static_cast<size_t>(width) * sizeof(float));
      UNROLL for (int v = 0; v < TILE_VECTORS; ++v) sums[r][v] = add(sums[r][v], load(before + v * LANES));
    }
    store_tile(row, sums[r], width);
  }
}

// out[tokens][width] = (first) or += x[tokens][columns] @ panel[columns][16]
static void panel_product(const float* panel, int64_t columns, const float* x, int64_t x_stride, int64_t tokens,
                          float* out, int64_t out_stride, int64_t width, bool first) {
  int64_t token = 0;
  for (; token + MAX_ROWS <= tokens; token += MAX_ROWS) {
    panel_rows<MAX_ROWS>(panel, columns, x + token * x_stride, x_stride, out + token * out_stride, out_stride, width,
                         first);
  }
#define REST(ROWS)                                                                                                   \
  for (; token + ROWS <= tokens; token += ROWS) {                                                                    \
    panel_rows<ROWS>(panel, columns, x + token * x_stride, x_stride, out + token * out_stride, out_stride, width,    \
                     first);                                                                                         \
  }
#ifdef __AVX512F__
  REST(8)
#endif
  REST(4)
  REST(2)
  REST(1)
#undef REST
}

// All of the tiles [begin, end) for all tokens. `make_panel` is called for a tile and a range of columns.
template <typename MakePanel>
INLINE void panel_tiles(const MakePanel& make_panel, int64_t columns, int64_t n, const float* x, int64_t tokens,
                        float* out, int64_t begin, int64_t end) {
  alignas(64) float panel[PANEL_COLUMNS * TILE];
  for (int64_t from = 0; from < columns; from += PANEL_COLUMNS) {
    const int64_t count = smaller(PANEL_COLUMNS, columns - from);
    for (int64_t tile = begin; tile < end; ++tile) {
      make_panel.make(tile, from, count, panel);
      panel_product(panel, count, x + from, columns, tokens, out + tile * TILE, n, smaller(TILE, n - tile * TILE),
                    from == 0);
    }
  }
}

}  // namespace HOTSWAP_ISA
}  // namespace hotswap_lowbit
