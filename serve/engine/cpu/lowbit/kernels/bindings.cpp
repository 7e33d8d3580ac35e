// The operators torch.ops.hotswap_lowbit.*: tensors in, work for the threads of torch's own pool, tensors out.
// Arguments were checked in ops.py as far as users can get them wrong; what would read outside a tensor is checked
// here again.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <string>

#include "block_layer.h"
#include "kernels.h"
#include "lora_layer.h"
#include "norm_rows.h"

namespace hotswap_lowbit {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Multiplications that are worth waking a thread for.
constexpr int64_t MIN_WORK = 32768;

std::atomic<const Kernels*> selected{nullptr};

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// Choose kernels by name, or the best this processor has for "". Returns the name, "" where there are none.
std::string select(const std::string& wanted) {
  const Kernels* found = nullptr;
  if ((wanted.empty() || wanted == "avx2") && has_avx2()) found = &avx2_kernels();
  if ((wanted.empty() || wanted == "avx512") && has_avx512()) found = &avx512_kernels();
  if ((wanted.empty() || wanted == "avx512bf16") && has_avx512bf16()) found = &avx512bf16_kernels();
  if (found == nullptr) return "";
  selected = found;
  return found->name;
}

const Kernels& kernels() {
  const Kernels* found = selected;
  TORCH_CHECK(found != nullptr, "hotswap_lowbit.select comes first");
  return *found;
}

// Hand out the tiles of all tokens: work(first token, tokens, first tile, last tile).
template <typename Work>
void share_out(int64_t tokens, int64_t n, int64_t columns, const Work& work) {
  const int64_t tiles = ceil_div(n, TILE);
  const int64_t blocks = ceil_div(tokens, BLOCK_TOKENS);
  const int64_t tile_work = std::max<int64_t>(columns * TILE * std::min(tokens, BLOCK_TOKENS), 1);
  at::parallel_for(0, blocks * tiles, ceil_div(MIN_WORK, tile_work), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t token = begin / tiles * BLOCK_TOKENS;
      const int64_t tile = begin % tiles;
      const int64_t count = std::min(tiles - tile, end - begin);
      work(token, std::min(BLOCK_TOKENS, tokens - token), tile, tile + count);
      begin += count;
    }
  });
}

Tensor finish(Tensor out, const OptionalTensor& bias, at::ScalarType type) {
  if (bias) out.add_(*bias);
  return out.to(type);
}

Tensor floats(const Tensor& given) { return given.to(at::kFloat).contiguous(); }

Tensor empty_floats(at::IntArrayRef sizes) { return at::empty(sizes, at::kFloat); }

Tensor pack_wna16(const Tensor& values, int64_t bits) {
  TORCH_CHECK(values.dim() == 2 && values.scalar_type() == at::kByte && (bits == 4 || bits == 8) &&
              values.size(1) % 8 == 0);
  const Tensor rows = values.contiguous();
  const int64_t n = rows.size(0), columns = rows.size(1), fields = 32 / bits;
  const int64_t tiles = ceil_div(n, TILE), pieces = columns / fields;
  Tensor packed = at::zeros({tiles, pieces * PIECE_BYTES}, at::kByte);
  const uint8_t* from = rows.const_data_ptr<uint8_t>();
  uint8_t* to = packed.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * TILE; row < std::min(end * TILE, n); ++row) {
      for (int64_t piece = 0; piece < pieces; ++piece) {
        uint32_t word = 0;
        for (int64_t f = 0; f < fields; ++f) {
          word |= static_cast<uint32_t>(from[row * columns + piece * fields + f]) << (f * bits);
        }
        std::memcpy(to + ((row / TILE * pieces + piece) * TILE + row % TILE) * 4, &word, sizeof word);
      }
    }
  });
  return packed;
}

Tensor linear_wna16(const Tensor& x, const Tensor& packed, const Tensor& scales, const OptionalTensor& zeros,
                    const OptionalTensor& bias, int64_t n, int64_t bits, int64_t group) {
  const Tensor scale = floats(scales);
  const Tensor zero = zeros ? zeros->contiguous() : Tensor();
  const int64_t tokens = x.size(0), columns = x.size(1);
  TORCH_CHECK((bits == 4 || bits == 8) && group > 0 && group % 8 == 0 && columns % group == 0);
  TORCH_CHECK(packed.is_contiguous() && packed.numel() == ceil_div(n, TILE) * TILE * columns * bits / 8);
  TORCH_CHECK(scale.numel() == n * (columns / group));
  TORCH_CHECK(!zeros || (zero.scalar_type() == at::kByte && zero.numel() == scale.numel()));
  const Wna16 w{packed.const_data_ptr<uint8_t>(),
                scale.const_data_ptr<float>(),
                zeros ? zero.const_data_ptr<uint8_t>() : nullptr,
                n,
                columns,
                group,
                columns / group,
                static_cast<int>(bits)};
  Tensor out = empty_floats({tokens, n});
  float* to = out.mutable_data_ptr<float>();
  const Kernels& use = kernels();
  if (use.wna16_bfloats != nullptr && x.scalar_type() == at::kBFloat16 && tokens > use.digits_few_tokens) {
    const Tensor rows = x.contiguous(), ordered = at::empty(x.sizes(), at::kBFloat16);
    const uint16_t* given = static_cast<const uint16_t*>(rows.const_data_ptr());
    uint16_t* pairs = static_cast<uint16_t*>(ordered.mutable_data_ptr());
    at::parallel_for(0, tokens, ceil_div(MIN_WORK, columns), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) use.pair_token(w, given + t * columns, pairs + t * columns);
    });
    share_out(tokens, n, columns, [&](int64_t token, int64_t count, int64_t begin, int64_t end) {
      use.wna16_bfloats(w, pairs + token * columns, count, to + token * n, begin, end);
    });
    return finish(out, bias, x.scalar_type());
  }
  const Tensor wide = floats(x);
  const float* from = wide.const_data_ptr<float>();
  if (use.wna16_digits != nullptr) {
    const int64_t row_runs = digit_runs(w);
    const int64_t runs_bytes = row_runs * static_cast<int64_t>(sizeof(DigitRun));
    const Tensor split = at::empty({tokens, runs_bytes + columns * DIGITS}, at::kByte);
    DigitRun* factors = reinterpret_cast<DigitRun*>(split.mutable_data_ptr<uint8_t>());
    uint8_t* bytes = split.mutable_data_ptr<uint8_t>() + tokens * runs_bytes;
    at::parallel_for(0, tokens, ceil_div(MIN_WORK, columns), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        use.split_token(w, from + t * columns, bytes + t * columns * DIGITS, factors + t * row_runs);
      }
    });
    share_out(tokens, n, columns, [&](int64_t token, int64_t count, int64_t begin, int64_t end) {
      use.wna16_digits(w, bytes + token * columns * DIGITS, factors + token * row_runs, count, to + token * n, begin,
                       end);
    });
  } else if (tokens > use.wna16_few_tokens) {
    share_out(tokens, n, columns, [&](int64_t token, int64_t count, int64_t begin, int64_t end) {
      use.wna16_many(w, from + token * columns, count, to + token * n, begin, end);
    });
  } else {
    float factors[8];
    for (int64_t f = 0; f < 8; ++f) factors[f] = field_scale(w.bits, f);
    const Tensor scaled = empty_floats({tokens, columns});
    float* put = scaled.mutable_data_ptr<float>();
    for (int64_t i = 0; i < tokens * columns; i += 8) {
      for (int64_t f = 0; f < 8; ++f) put[i + f] = from[i + f] * factors[f];
    }
    share_out(tokens, n, columns, [&](int64_t, int64_t count, int64_t begin, int64_t end) {
      use.wna16_few(w, put, count, to, begin, end);
    });
  }
  return finish(out, bias, x.scalar_type());
}

Tensor pack_w8a8(const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2 && weight.scalar_type() == at::kChar);
  const Tensor rows = weight.contiguous();
  const int64_t n = rows.size(0), columns = rows.size(1);
  const int64_t tiles = ceil_div(n, TILE), pieces = ceil_div(columns, 4);
  Tensor packed = at::zeros({tiles, (pieces + 1) * PIECE_BYTES}, at::kByte);
  const int8_t* from = rows.const_data_ptr<int8_t>();
  uint8_t* to = packed.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * TILE; row < std::min(end * TILE, n); ++row) {
      uint8_t* lane = to + (row / TILE * (pieces + 1) * TILE + row % TILE) * 4;
      int32_t sum = 0;
      for (int64_t c = 0; c < columns; ++c) sum += from[row * columns + c];
      std::memcpy(lane, &sum, sizeof sum);
      for (int64_t c = 0; c < columns; c += 4) {
        std::memcpy(lane + (c / 4 + 1) * PIECE_BYTES, from + row * columns + c,
                    static_cast<size_t>(std::min<int64_t>(4, columns - c)));
      }
    }
  });
  return packed;
}

Tensor linear_w8a8(const Tensor& x, const Tensor& packed, const Tensor& weight_scale, const OptionalTensor& bias,
                   int64_t n) {
  const Tensor wide = floats(x), scale = floats(weight_scale);
  const int64_t tokens = wide.size(0), columns = wide.size(1), pieces = ceil_div(columns, 4);
  TORCH_CHECK(packed.is_contiguous() && packed.numel() == ceil_div(n, TILE) * (pieces + 1) * PIECE_BYTES);
  TORCH_CHECK(scale.numel() == n);
  const W8a8 w{packed.const_data_ptr<uint8_t>(), scale.const_data_ptr<float>(), n, pieces};
  const Kernels& use = kernels();
  const int64_t stride = pieces * use.rounded_bytes;
  const Tensor rounded = at::empty({tokens, stride}, at::kByte), token_scales = empty_floats({tokens});
  Tensor out = empty_floats({tokens, n});
  const float* from = wide.const_data_ptr<float>();
  uint8_t* bytes = rounded.mutable_data_ptr<uint8_t>();
  float* factors = token_scales.mutable_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, tokens, ceil_div(MIN_WORK, columns), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      factors[t] = use.round_token(from + t * columns, columns, pieces, bytes + t * stride);
    }
  });
  share_out(tokens, n, columns, [&](int64_t token, int64_t count, int64_t begin, int64_t end) {
    use.w8a8(w, bytes + token * stride, factors + token, count, to + token * n, begin, end);
  });
  return finish(out, bias, x.scalar_type());
}

Tensor linear_stored16(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const Tensor wide = floats(x), rows = weight.contiguous();
  const int64_t tokens = wide.size(0), columns = wide.size(1), n = rows.size(0);
  TORCH_CHECK(rows.scalar_type() == at::kBFloat16 && rows.dim() == 2 && rows.size(1) == columns);
  const Stored16 w{static_cast<const uint16_t*>(rows.const_data_ptr()), n, columns};
  const Kernels& use = kernels();
  Tensor out = empty_floats({tokens, n});
  const float* from = wide.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  if (tokens > use.stored16_few_tokens) {
    share_out(tokens, n, columns, [&](int64_t token, int64_t count, int64_t begin, int64_t end) {
      use.stored16_many(w, from + token * columns, count, to + token * n, begin, end);
    });
  } else {
    const int64_t half = even_columns(columns);
    const Tensor halves = at::zeros({tokens, 2 * half}, at::kFloat);
    float* put = halves.mutable_data_ptr<float>();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < columns; ++c) put[(2 * t + c % 2) * half + c / 2] = from[t * columns + c];
    }
    share_out(tokens, n, columns, [&](int64_t, int64_t count, int64_t begin, int64_t end) {
      use.stored16_few(w, put, count, to, begin, end);
    });
  }
  return finish(out, bias, at::kFloat);
}

TORCH_LIBRARY(hotswap_lowbit, m) {
  m.def("select(str wanted) -> str", select);
  m.def("pack_wna16(Tensor values, int bits) -> Tensor");
  m.def(
      "linear_wna16(Tensor x, Tensor packed, Tensor scales, Tensor? zeros, Tensor? bias, int n, int bits, int group) "
      "-> Tensor");
  m.def("pack_w8a8(Tensor weight) -> Tensor");
  m.def("linear_w8a8(Tensor x, Tensor packed, Tensor weight_scale, Tensor? bias, int n) -> Tensor");
  m.def("linear_stored16(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  define_blocks(m);
  define_lora(m);
  define_norms(m);
}

TORCH_LIBRARY_IMPL(hotswap_lowbit, CPU, m) {
  m.impl("pack_wna16", pack_wna16);
  m.impl("linear_wna16", linear_wna16);
  m.impl("pack_w8a8", pack_w8a8);
  m.impl("linear_w8a8", linear_w8a8);
  m.impl("linear_stored16", linear_stored16);
}

}  // namespace
}  // namespace hotswap_lowbit
