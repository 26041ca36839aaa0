// The terms of a change of weights, checked. Used by the CPU and CUDA hosts alike.
#pragma once
#include <optional>

#include "bdtorch/plasticity.h"
#include "stable_tensor.h"

namespace bdtorch {

// a and b, one value for each neuron of the side that does not spike: the batch and dtype of the weights.
struct ChangeArguments {
  ChangeArguments(const char* op, const Tensor& weights, const Tensor& spikes, const Tensor& a_,
                  const std::optional<Tensor>& b_, double low, double high)
      : a(as_contiguous(a_)), low(low), high(high) {
    if (b_) b = as_contiguous(*b_);
    for (const Tensor* term : {&a, b ? &*b : nullptr}) {
      if (!term) continue;
      STD_TORCH_CHECK(term->scalar_type() == weights.scalar_type(), op, ": expected a and b of the dtype of weights");
      STD_TORCH_CHECK(term->dim() == spikes.dim() && (term->dim() == 1 || term->size(0) == spikes.size(0)), op,
                      ": expected a and b with the batch of spikes");
      STD_TORCH_CHECK(term->size(term->dim() - 1) == a.size(a.dim() - 1), op, ": a and b differ in shape");
      STD_TORCH_CHECK(
          term->is_cpu() == weights.is_cpu() && term->get_device_index() == weights.get_device_index(), op,
          ": expected a and b on the device of weights");
    }
  }

  int64_t n() const { return a.size(a.dim() - 1); }

  // The terms of one sample.
  template <class T>
  WeightChange<T> sample(int64_t index) const {
    const int64_t offset = index * n();
    return {a.const_data_ptr<T>() + offset, b ? b->const_data_ptr<T>() + offset : nullptr, T(low), T(high)};
  }

  Tensor a;
  std::optional<Tensor> b;
  double low, high;
};

}  // namespace bdtorch
