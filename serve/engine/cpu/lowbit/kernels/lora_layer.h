// Adapters of one layer place: which slots are laid out, and the operator that adds them to the layer's output.
// Included by bindings.cpp alone.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <omp.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kernels.h"

namespace hotswap_lowbit {
namespace {

const Kernels& kernels();

// Rows of one slot that are worked on at a time.
constexpr int64_t LORA_ROWS = 64;
// What one thread does in a nanosecond is 12 bytes of factors from memory, or 28 multiplications: in a common unit
// these cost so much. Below 12 microseconds one thread is faster than waking the others.
constexpr int64_t LORA_VALUE_COST = 28, LORA_PRODUCT_COST = 12;
constexpr int64_t LORA_ALONE_COST = 12000 * LORA_VALUE_COST * LORA_PRODUCT_COST;
// Hidden values that need no memory of their own.
constexpr int64_t LORA_STACK_FLOATS = 2048;

// vLLM's stacks of one place, and per slot what is made of them. `a` is read where it lies; `b` is laid out once per
// adapter. Neither this nor a call that uses it may run while another thread lays out a slot.
class LoraLayer : public torch::CustomClassHolder {
 public:
  // Per slice (slots, 1, max_rank, in_size), (slots, 1, at least `columns`, max_rank), and its columns of y.
  LoraLayer(std::vector<at::Tensor> a, std::vector<at::Tensor> b, std::vector<int64_t> columns)
      : a_(std::move(a)), b_(std::move(b)), columns_(std::move(columns)) {
    TORCH_CHECK(!a_.empty() && a_.size() == b_.size() && a_.size() == columns_.size());
    type = a_[0].scalar_type();
    TORCH_CHECK(type == at::kFloat || type == at::kBFloat16);
    num_slots = a_[0].size(0);
    in_size = a_[0].size(3);
    for (size_t s = 0; s < a_.size(); ++s) {
      TORCH_CHECK(a_[s].dim() == 4 && b_[s].dim() == 4 && a_[s].is_cpu() && b_[s].is_cpu());
      TORCH_CHECK(a_[s].scalar_type() == type && b_[s].scalar_type() == type);
      TORCH_CHECK(a_[s].size(0) == num_slots && b_[s].size(0) == num_slots && a_[s].size(3) == in_size);
      TORCH_CHECK(a_[s].stride(3) == 1 && a_[s].stride(2) == in_size && b_[s].size(2) >= columns_[s]);
      TORCH_CHECK(a_[s].size(2) == b_[s].size(3));
      is_versioned_ = is_versioned_ && !a_[s].is_inference() && !b_[s].is_inference();
      out_size += columns_[s];
    }
    slots_.resize(static_cast<size_t>(num_slots));
  }

  int64_t value_bytes() const { return type == at::kFloat ? 4 : 2; }
  int64_t address() const { return reinterpret_cast<int64_t>(this); }
  int64_t num_slices() const { return static_cast<int64_t>(a_.size()); }
  bool is_laid_out(int64_t slot) const { return slots_[static_cast<size_t>(slot)].is_laid_out; }
  int64_t hidden_size(int64_t slot) const { return slots_[static_cast<size_t>(slot)].hidden_size; }
  const LoraPart* parts(int64_t slot) const { return slots_[static_cast<size_t>(slot)].parts.data(); }

  // Nothing was written since `accept`. Of tensors without a version counter that is never known.
  bool is_current() { return is_versioned_ ? accepted_ == count() : std::exchange(is_fresh_, false); }

  // What is laid out is what the stacks hold now.
  void accept() {
    accepted_ = count();
    is_fresh_ = true;
  }

  // Lay out one slot; beyond `limit` rows of `a` there is nothing but zeros. Returns its bytes.
  int64_t lay_out(int64_t slot, int64_t limit) {
    TORCH_CHECK(slot >= 0 && slot < num_slots && limit >= 0);
    Slot& to = slots_[static_cast<size_t>(slot)];
    to = Slot{};
    const int64_t width = static_cast<int64_t>(a_[0].element_size());
    int64_t values = 0, column = 0;
    for (size_t s = 0; s < a_.size(); ++s) {
      const auto* a = static_cast<const char*>(a_[s].const_data_ptr()) + slot * a_[s].stride(0) * width;
      int64_t rank = std::min(limit, a_[s].size(2));
      while (rank > 0 && is_zero(a + (rank - 1) * in_size * width)) --rank;
      to.parts.push_back(LoraPart{a, nullptr, rank, in_size, columns_[s], column});
      to.hidden_size += rank;
      values += ceil_div(columns_[s], LORA_TILE) * LORA_TILE * rank;
      column += columns_[s];
    }
    to.b = at::empty({values * width}, at::kByte);
    auto* b = static_cast<char*>(to.b.mutable_data_ptr());
    for (size_t s = 0; s < a_.size(); ++s) {
      LoraPart& part = to.parts[s];
      part.b = b;
      if (type == at::kFloat) {
        fill_b<float>(part, b_[s], slot);
      } else {
        fill_b<uint16_t>(part, b_[s], slot);
      }
      b += ceil_div(part.columns, LORA_TILE) * LORA_TILE * part.rank * width;
    }
    to.is_laid_out = true;
    return to.b.numel();
  }

  void drop(int64_t slot) {
    TORCH_CHECK(slot >= 0 && slot < num_slots);
    slots_[static_cast<size_t>(slot)] = Slot{};
  }

  at::ScalarType type = at::kFloat;
  int64_t num_slots = 0, in_size = 0, out_size = 0;

 private:
  struct Slot {
    std::vector<LoraPart> parts;
    at::Tensor b;
    int64_t hidden_size = 0;  // sum of the slices' ranks
    bool is_laid_out = false;
  };

  // Counters only grow: an equal sum means that nothing was written.
  int64_t count() const {
    int64_t sum = 0;
    if (!is_versioned_) return sum;
    for (const auto& each : a_) sum += each.unsafeGetTensorImpl()->version_counter().current_version();
    for (const auto& each : b_) sum += each.unsafeGetTensorImpl()->version_counter().current_version();
    return sum;
  }

  bool is_zero(const char* row) const {
    if (type == at::kFloat) {
      const auto* values = reinterpret_cast<const float*>(row);
      return std::all_of(values, values + in_size, [](float value) { return value == 0.0f; });
    }
    const auto* values = reinterpret_cast<const uint16_t*>(row);
    return std::all_of(values, values + in_size, [](uint16_t value) { return (value & 0x7FFF) == 0; });
  }

  template <typename T>
  static void fill_b(const LoraPart& part, const at::Tensor& stack, int64_t slot) {
    const T* from = static_cast<const T*>(stack.const_data_ptr()) + slot * stack.stride(0);
    T* to = static_cast<T*>(const_cast<void*>(part.b));
    const int64_t by_column = stack.stride(2), by_rank = stack.stride(3);
    for (int64_t c = 0; c < ceil_div(part.columns, LORA_TILE) * LORA_TILE; ++c) {
      int64_t place = c % LORA_BLOCK;
      if (sizeof(T) == 2) place = place % (LORA_BLOCK / 2) * 2 + place / (LORA_BLOCK / 2);
      T* column = to + c / LORA_TILE * LORA_TILE * part.rank + c % LORA_TILE / LORA_BLOCK * LORA_BLOCK + place;
      for (int64_t k = 0; k < part.rank; ++k) {
        column[k * LORA_TILE] = c < part.columns ? from[c * by_column + k * by_rank] : T(0);
      }
    }
  }

  std::vector<at::Tensor> a_, b_;
  std::vector<int64_t> columns_;
  std::vector<Slot> slots_;
  bool is_versioned_ = true, is_fresh_ = false;
  int64_t accepted_ = -1;
};

// Rows by slot: int32 [rows, pieces, (slot, first, count) of each piece, row numbers in the order of their slots].
// A piece is up to LORA_ROWS rows of one slot; rows at -1 are in none.
at::Tensor lora_plan(const at::Tensor& slots) {
  TORCH_CHECK(slots.dim() == 1 && slots.scalar_type() == at::kLong && slots.is_contiguous());
  const int64_t* slot_of = slots.const_data_ptr<int64_t>();
  const int64_t num_rows = slots.numel();
  int64_t last = -1;
  for (int64_t r = 0; r < num_rows; ++r) last = std::max(last, slot_of[r]);
  std::vector<int32_t> first(static_cast<size_t>(last + 2), 0);
  for (int64_t r = 0; r < num_rows; ++r) {
    if (slot_of[r] >= 0) ++first[static_cast<size_t>(slot_of[r] + 1)];
  }
  int64_t pieces = 0;
  for (const int32_t count : first) pieces += ceil_div(count, LORA_ROWS);
  for (size_t s = 1; s < first.size(); ++s) first[s] += first[s - 1];
  const int64_t used = first.empty() ? 0 : first.back();
  at::Tensor plan = at::empty({2 + 3 * pieces + used}, at::kInt);
  int32_t* to = plan.mutable_data_ptr<int32_t>();
  *to++ = static_cast<int32_t>(num_rows);
  *to++ = static_cast<int32_t>(pieces);
  int32_t* rows = to + 3 * pieces;
  for (int64_t slot = 0; slot <= last; ++slot) {
    const int32_t end = first[static_cast<size_t>(slot + 1)];
    for (int32_t at = first[static_cast<size_t>(slot)]; at < end; at += LORA_ROWS) {
      *to++ = static_cast<int32_t>(slot);
      *to++ = at;
      *to++ = static_cast<int32_t>(std::min<int64_t>(end - at, LORA_ROWS));
    }
  }
  for (int64_t r = 0; r < num_rows; ++r) {
    if (slot_of[r] >= 0) rows[first[static_cast<size_t>(slot_of[r])]++] = static_cast<int32_t>(r);
  }
  return plan;
}

// The pieces of one call.
class LoraCall {
 public:
  LoraCall(const at::Tensor& y, const at::Tensor& x, const LoraLayer& layer, const int32_t* plan, float scale)
      : layer_(layer),
        use_(layer.type == at::kFloat ? kernels().lora_floats : kernels().lora_bfloats),
        y_(y.mutable_data_ptr()),
        x_(x.const_data_ptr()),
        y_stride_(y.stride(0)),
        x_stride_(x.stride(0)),
        pieces_(plan[1]),
        piece_(plan + 2),
        rows_(plan + 2 + 3 * pieces_),
        scale_(scale) {}

  void run() {
    for (int64_t p = 0; p < pieces_; ++p) {
      stride_ = std::max(stride_, layer_.hidden_size(slot(p)));
      for (int64_t s = 0; s < layer_.num_slices(); ++s) {
        const LoraPart& part = layer_.parts(slot(p))[s];
        shrink_cost_ += cost(part.rank * part.in_size, p);
        expand_cost_ += cost(part.rank * part.columns, p);
      }
    }
    if (stride_ == 0) return;
    const int64_t floats = (first(pieces_ - 1) + count(pieces_ - 1)) * stride_;
    float few[LORA_STACK_FLOATS];
    std::unique_ptr<float[]> many;
    if (floats > LORA_STACK_FLOATS) many.reset(new float[static_cast<size_t>(floats)]);
    hidden_ = many ? many.get() : few;

    const int threads = at::get_num_threads();
    if (shrink_cost_ + expand_cost_ < LORA_ALONE_COST || threads == 1 || omp_in_parallel()) {
      shrink(0, 1);
      expand(0, 1);
      return;
    }
    splits_ = ceil_div(4 * threads, pieces_ * layer_.num_slices());
#pragma omp parallel num_threads(threads)
    {
      const int thread = omp_get_thread_num(), present = omp_get_num_threads();
      shrink(thread, present);
#pragma omp barrier
      expand(thread, present);
    }
  }

 private:
  int64_t slot(int64_t piece) const { return piece_[3 * piece]; }
  int64_t first(int64_t piece) const { return piece_[3 * piece + 1]; }
  int64_t count(int64_t piece) const { return piece_[3 * piece + 2]; }

  // What `values` factors cost a piece, to read them and to multiply with them.
  int64_t cost(int64_t values, int64_t piece) const {
    return values * (LORA_VALUE_COST * layer_.value_bytes() + LORA_PRODUCT_COST * count(piece));
  }

  // Each thread takes neighbouring splits of slices of pieces, so that it reads a stream of its own. Who computes
  // what changes no result. work(piece, slice's part, its hidden values, split)
  template <typename Size, typename Work>
  void share(int thread, int threads, int64_t total, const Size& size, const Work& work) const {
    int64_t done = 0;
    for (int64_t p = 0; p < pieces_; ++p) {
      const LoraPart* parts = layer_.parts(slot(p));
      float* hidden = hidden_ + first(p) * stride_;
      for (int64_t s = 0; s < layer_.num_slices(); hidden += parts[s].rank, ++s) {
        const int64_t whole = cost(size(parts[s]), p);
        if (whole == 0) continue;
        for (int64_t split = 0; split < splits_; ++split) {
          const int64_t middle = done + whole / (2 * splits_) * (2 * split + 1);
          if (middle * threads / total == thread) work(p, parts[s], hidden, split);
        }
        done += whole;
      }
    }
  }

  // The part of `whole` that a split stands for.
  int64_t bound(int64_t split, int64_t whole) const { return split * whole / splits_; }

  void shrink(int thread, int threads) const {
    const auto size = [](const LoraPart& part) { return part.rank * part.in_size; };
    share(thread, threads, shrink_cost_, size, [&](int64_t p, const LoraPart& part, float* hidden, int64_t split) {
      const int64_t fours = ceil_div(part.rank, 4);
      const int64_t begin = 4 * bound(split, fours), end = std::min(4 * bound(split + 1, fours), part.rank);
      if (begin < end) {
        use_.shrink(part, x_, x_stride_, rows_ + first(p), count(p), scale_, hidden, stride_, begin, end);
      }
    });
  }

  void expand(int thread, int threads) const {
    const auto size = [](const LoraPart& part) { return part.rank * part.columns; };
    share(thread, threads, expand_cost_, size, [&](int64_t p, const LoraPart& part, float* hidden, int64_t split) {
      const int64_t tiles = ceil_div(part.columns, LORA_TILE);
      const int64_t begin = bound(split, tiles), end = bound(split + 1, tiles);
      if (begin < end) use_.expand(part, hidden, stride_, rows_ + first(p), count(p), y_, y_stride_, begin, end);
    });
  }

  const LoraLayer& layer_;
  const LoraKernels& use_;
  void* y_;
  const void* x_;
  int64_t y_stride_, x_stride_, pieces_;
  const int32_t *piece_, *rows_;
  float scale_;
  int64_t stride_ = 0, splits_ = 1, shrink_cost_ = 0, expand_cost_ = 0;
  float* hidden_ = nullptr;
};

enum LoraOutcome : int64_t {
  LORA_ADDED = 0,
  LORA_STALE = 1,  // nothing done: `accept` comes first, with each slot of the plan laid out
  LORA_UNFIT = 2,  // nothing done: other shapes or types than below
};

// y += x @ a @ b * scale for the rows of the plan.
// y: [rows, at least out_size], x: [rows, in_size], both of the layer's type with neighbouring columns.
// `address` is that of a LoraLayer which the caller keeps: to hand over the object itself takes several microseconds.
int64_t lora_add(const at::Tensor& y, const at::Tensor& x, int64_t address, const at::Tensor& plan, double scale) {
  LoraLayer* layer = reinterpret_cast<LoraLayer*>(address);
  const int32_t* at = plan.const_data_ptr<int32_t>();
  TORCH_CHECK(plan.numel() >= 2 && plan.numel() >= 2 + 3 * int64_t{at[1]});
  const bool fits = x.dim() == 2 && y.dim() == 2 && x.scalar_type() == layer->type && y.scalar_type() == layer->type &&
                    x.size(0) == at[0] && y.size(0) == at[0] && x.size(1) == layer->in_size &&
                    y.size(1) >= layer->out_size && x.stride(1) == 1 && y.stride(1) == 1;
  if (!fits) return LORA_UNFIT;
  if (!layer->is_current()) return LORA_STALE;
  for (int64_t p = 0; p < at[1]; ++p) {
    const int64_t slot = at[2 + 3 * p];
    TORCH_CHECK(slot < layer->num_slots);
    if (!layer->is_laid_out(slot)) return LORA_STALE;
  }
  if (at[1] > 0) LoraCall(y, x, *layer, at, static_cast<float>(scale)).run();
  return LORA_ADDED;
}

void define_lora(torch::Library& m) {
  m.class_<LoraLayer>("LoraLayer")
      .def(torch::init<std::vector<at::Tensor>, std::vector<at::Tensor>, std::vector<int64_t>>())
      .def("lay_out", &LoraLayer::lay_out)
      .def("drop", &LoraLayer::drop)
      .def("accept", &LoraLayer::accept)
      .def("address", &LoraLayer::address);
  m.def("lora_plan(Tensor slots) -> Tensor", lora_plan);
  m.def(
      "lora_add(Tensor(a!) y, Tensor x, int layer, Tensor plan, float scale) -> int", lora_add);
}

}  // namespace
}  // namespace hotswap_lowbit
