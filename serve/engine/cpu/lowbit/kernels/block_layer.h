// A plain weight in the blocks of torch's oneDNN, held once for the kernels' products and for what is left to oneDNN.
// Included by bindings.cpp alone.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <utility>

#include "kernels.h"

namespace hotswap_lowbit {
namespace {

const Kernels& kernels();

// Bytes of weights that are worth waking a thread for.
constexpr int64_t BLOCKS_MIN_BYTES = 65536;

// More tokens than these are multiplied in turns, so that what they hold stays in the caches.
constexpr int64_t MOST_TOGETHER = 256;
// So many pieces of work for each thread let all of them end at about the same time.
constexpr int64_t PIECES_EACH = 8;

// Tokens that go through a block together, of `tokens` and `blocks` of them.
inline int64_t tokens_together(int64_t tokens, int64_t blocks) {
  const int64_t shared = std::min(ceil_div(PIECES_EACH * at::get_num_threads(), blocks), tokens / HELD_TOKENS);
  return std::max<int64_t>(1, ceil_div(tokens, std::max({ceil_div(tokens, MOST_TOGETHER), shared, int64_t{1}})));
}

class BlockLayer : public torch::CustomClassHolder {
 public:
  // `packed` is what mkldnn::_reorder_linear_weight made of `weight`; its `bytes` lie at `data`. Beyond `most_tokens`,
  // or what the kernels are measured for, products are oneDNN's.
  BlockLayer(at::Tensor packed, int64_t data, int64_t bytes, const at::Tensor& weight, int64_t most_tokens)
      : type(weight.scalar_type()),
        most_tokens(std::min(most_tokens, kernels().blocks_most_tokens)),
        packed_(std::move(packed)) {
    TORCH_CHECK(weight.dim() == 2 && weight.is_cpu() && (type == at::kFloat || type == at::kBFloat16));
    n = weight.size(0);
    columns = weight.size(1);
    const int64_t blocks = ceil_div(n, BLOCK), stored = blocks == 0 ? 0 : bytes / (blocks * BLOCK * 4);
    w = Blocks{reinterpret_cast<const float*>(data), n, ceil_div(columns, fields()), stored * BLOCK};
    is_readable_ = blocks > 0 && columns > 0 && bytes == blocks * stored * BLOCK * 4 && stored >= w.steps &&
                   (type == at::kFloat ? holds<uint32_t>(weight) : holds<uint16_t>(weight));
  }

  // Does every weight lie where `Blocks` says? oneDNN promises no layout, so this comes before the first product.
  bool is_readable() const { return is_readable_; }
  int64_t address() const { return reinterpret_cast<int64_t>(this); }
  int64_t most_rows() const { return most_tokens; }
  int64_t fields() const { return type == at::kFloat ? 1 : 2; }  // columns in 4 bytes

  // oneDNN's product, which takes what it is given.
  at::Tensor many(const at::Tensor& x, const std::optional<at::Tensor>& bias) const {
    using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                               c10::string_view, c10::List<std::optional<at::Scalar>>,
                               std::optional<c10::string_view>);
    static const auto product =
        c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Product>();
    return product.call(x, packed_, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
  }

  at::ScalarType type;
  int64_t most_tokens, n = 0, columns = 0;
  Blocks w{};

 private:
  template <typename Bits>
  bool holds(const at::Tensor& weight) const {
    const at::Tensor rows = weight.contiguous();
    const Bits* given = static_cast<const Bits*>(rows.const_data_ptr());
    const Bits* kept = reinterpret_cast<const Bits*>(w.weights);
    const int64_t count = fields();
    std::atomic<bool> is_same{true};
    at::parallel_for(0, ceil_div(n, BLOCK), 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const Bits* from = kept + block * w.apart * count;
        Bits differences = 0;
        for (int64_t o = 0; o < std::min(BLOCK, n - block * BLOCK); ++o) {
          const Bits* row = given + (block * BLOCK + o) * columns;
          for (int64_t c = 0; c < w.steps * count; ++c) {
            const Bits wanted = c < columns ? row[c] : 0;  // a pair's missing column is a zero
            differences |= static_cast<Bits>(wanted ^ from[(c / count * BLOCK + o) * count + c % count]);
          }
        }
        if (differences != 0) is_same = false;
      }
    });
    return is_same;
  }

  at::Tensor packed_;
  bool is_readable_ = false;
};

// x @ weight.T + bias in x's type, summed in float32. `address` is that of a readable BlockLayer which the caller
// keeps, of `n` outputs: to hand over the object itself takes several microseconds.
at::Tensor linear_blocks(const at::Tensor& x, int64_t address, int64_t n, const std::optional<at::Tensor>& bias) {
  const BlockLayer& layer = *reinterpret_cast<const BlockLayer*>(address);
  TORCH_CHECK(n == layer.n && x.dim() > 0 && x.size(-1) == layer.columns, "x has ", x.sizes(), " for a weight of [",
              layer.n, ", ", layer.columns, "]");
  const int64_t tokens = x.numel() / layer.columns;
  const bool is_plain = x.scalar_type() == layer.type &&
                        (!bias || (bias->scalar_type() == layer.type && bias->is_contiguous() && bias->numel() == n));
  if (tokens > layer.most_tokens || !is_plain) return layer.many(x, bias);
  at::Tensor given = x.contiguous().view({tokens, layer.columns});
  if (layer.columns % layer.fields() != 0) {
    const at::Tensor odd = given;
    given = at::zeros({tokens, layer.columns + 1}, x.options());
    given.narrow(1, 0, layer.columns).copy_(odd);
  }
  auto sizes = x.sizes().vec();
  sizes.back() = n;
  at::Tensor out = at::empty(sizes, x.options());
  const auto* from = static_cast<const float*>(given.const_data_ptr());
  const void* biases = bias ? bias->const_data_ptr() : nullptr;
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  const Kernels& use = kernels();
  const auto product = layer.type == at::kFloat ? use.blocks_floats : use.blocks_bfloats;
  const int64_t blocks = ceil_div(n, BLOCK), together = tokens_together(tokens, blocks);
  const int64_t row_bytes = n * out.element_size();
  // Pieces of work: block by block, and then again for the next tokens.
  at::parallel_for(0, blocks * ceil_div(tokens, together), ceil_div(BLOCKS_MIN_BYTES, layer.w.steps * BLOCK * 4),
                   [&](int64_t begin, int64_t end) {
                     while (begin < end) {
                       const int64_t token = begin / blocks * together, block = begin % blocks;
                       const int64_t count = std::min(end - begin, blocks - block);
                       product(layer.w, from + token * layer.w.steps, std::min(together, tokens - token), biases,
                               to + token * row_bytes, block, block + count);
                       begin += count;
                     }
                   });
  return out;
}

void define_blocks(torch::Library& m) {
  m.class_<BlockLayer>("BlockLayer")
      .def(torch::init<at::Tensor, int64_t, int64_t, at::Tensor, int64_t>())
      .def("is_readable", &BlockLayer::is_readable)
      .def("address", &BlockLayer::address)
      .def("most_rows", &BlockLayer::most_rows);
  m.def("linear_blocks(Tensor x, int layer, int n, Tensor? bias) -> Tensor");
  m.impl("linear_blocks", c10::DispatchKey::CPU, TORCH_FN(linear_blocks));
}

}  // namespace
}  // namespace hotswap_lowbit
