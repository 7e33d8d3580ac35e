// The operators of norms16.h: rows in, rows out. Included by bindings.cpp alone.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/silu.h>
#include <torch/library.h>

#include <tuple>

#include "kernels.h"

namespace hotswap_lowbit {
namespace {

const Kernels& kernels();

// Values that are worth waking a thread for.
constexpr int64_t NORM_MIN_VALUES = 16384;

// Up to so many rows silu is looked up, which takes 2.4 us for a row of 1536; torch's operators take 7.1.
constexpr int64_t SILU_ROWS = 4;

// torch's silu computes so many values of bfloat16 with vectors, and what is left of a row in another way; and from so
// many values on its threads share them out, so that what is left over is elsewhere.
constexpr int64_t SILU_VECTORS = 64, SILU_VALUES = 32768;

const uint16_t* bfloats(const at::Tensor& given) { return static_cast<const uint16_t*>(given.const_data_ptr()); }

uint16_t* bfloats_to(at::Tensor& given) { return static_cast<uint16_t*>(given.mutable_data_ptr()); }

bool is_plain16(const at::Tensor& given) {
  return given.scalar_type() == at::kBFloat16 && given.is_contiguous() && given.dim() > 0;
}

void norm_rows(const at::Tensor& x, const at::Tensor* residual, const at::Tensor& weight, double epsilon,
               at::Tensor& out, at::Tensor* total) {
  const int64_t width = weight.numel();
  TORCH_CHECK(is_plain16(x) && is_plain16(weight) && x.size(-1) == width && width > 0 && width <= NORM_WIDTH &&
                  (residual == nullptr || (is_plain16(*residual) && residual->sizes() == x.sizes())),
              "x has ", x.sizes(), " for a norm of ", width, " values of bfloat16");
  const Norm16 norm{bfloats(weight), width, static_cast<float>(epsilon)};
  const uint16_t *from = bfloats(x), *added = residual == nullptr ? nullptr : bfloats(*residual);
  uint16_t *to = bfloats_to(out), *sums = total == nullptr ? nullptr : bfloats_to(*total);
  const auto one = kernels().norm16;
  at::parallel_for(0, x.numel() / width, ceil_div(NORM_MIN_VALUES, width), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * width; at < end * width; at += width) {
      one(norm, from + at, added == nullptr ? nullptr : added + at, to + at, sums == nullptr ? nullptr : sums + at);
    }
  });
}

// Of each row of float32, [rows, width]: what tells whether torch.sum still adds up in this order.
at::Tensor sums_of_squares(const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous() && x.dim() == 2);
  at::Tensor out = at::empty({x.size(0)}, x.options());
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  for (int64_t row = 0; row < x.size(0); ++row) {
    to[row] = kernels().sum_of_squares(from + row * x.size(1), x.size(1));
  }
  return out;
}

at::Tensor norm16(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  at::Tensor out = at::empty_like(x);
  norm_rows(x, nullptr, weight, epsilon, out, nullptr);
  return out;
}

std::tuple<at::Tensor, at::Tensor> add_norm16(const at::Tensor& x, const at::Tensor& residual,
                                              const at::Tensor& weight, double epsilon) {
  at::Tensor out = at::empty_like(x), total = at::empty_like(x);
  norm_rows(x, &residual, weight, epsilon, out, &total);
  return {out, total};
}

// silu(gate) * up: x [..., 2 * width], the gate first. silu: of each value of bfloat16 by its bits, as torch computes it
// with vectors; it is looked up where torch has the same bits.
at::Tensor swiglu(const at::Tensor& x, const at::Tensor& silu) {
  TORCH_CHECK(x.dim() > 0 && x.size(-1) % 2 == 0 && is_plain16(silu) && silu.numel() == 65536, "x has ", x.sizes());
  const int64_t width = x.size(-1) / 2, rows = width == 0 ? 0 : x.numel() / (2 * width);
  if (!is_plain16(x) || rows > SILU_ROWS || width % SILU_VECTORS != 0 || rows * width >= SILU_VALUES) {
    return at::silu(x.narrow(-1, 0, width)).mul_(x.narrow(-1, width, width));
  }
  auto sizes = x.sizes().vec();
  sizes.back() = width;
  at::Tensor out = at::empty(sizes, x.options());
  const uint16_t *from = bfloats(x), *table = bfloats(silu);
  uint16_t* to = bfloats_to(out);
  for (int64_t row = 0; row < rows; ++row) kernels().swiglu16(table, from + row * 2 * width, width, to + row * width);
  return out;
}

void define_norms(torch::Library& m) {
  m.def("sums_of_squares(Tensor x) -> Tensor");
  m.def("norm16(Tensor x, Tensor weight, float epsilon) -> Tensor");
  m.def("add_norm16(Tensor x, Tensor residual, Tensor weight, float epsilon) -> (Tensor, Tensor)");
  m.def("swiglu(Tensor x, Tensor silu) -> Tensor");
  m.impl("sums_of_squares", c10::DispatchKey::CPU, TORCH_FN(sums_of_squares));
  m.impl("norm16", c10::DispatchKey::CPU, TORCH_FN(norm16));
  m.impl("add_norm16", c10::DispatchKey::CPU, TORCH_FN(add_norm16));
  m.impl("swiglu", c10::DispatchKey::CPU, TORCH_FN(swiglu));
}

}  // namespace
}  // namespace hotswap_lowbit
