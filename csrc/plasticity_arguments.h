// The arguments of the changes of weights, checked and made contiguous. Used by the CPU and CUDA hosts alike.
#pragma once
#include <optional>

#include "bdtorch/plasticity.h"
#include "dense_arguments.h"

namespace bdtorch {

// a and b, one value for each neuron of the side that does not spike, of the batch of the weights and the dtype of their
// sums; bounds.
struct ChangeArguments {
  ChangeArguments(const char* op, const Tensor& weights, const Tensor& spikes, const Tensor& a_,
                  const std::optional<Tensor>& b_, double low, double high)
      : a(as_contiguous(a_)), low(low), high(high) {
    if (b_) b = as_contiguous(*b_);
    for (const Tensor* term : {&a, b ? &*b : nullptr}) {
      if (!term) continue;
      STD_TORCH_CHECK(term->scalar_type() == type_of_sums(weights), op, ": expected a and b of the dtype of the sums");
      STD_TORCH_CHECK(term->dim() == spikes.dim() && (term->dim() == 1 || term->size(0) == spikes.size(0)), op,
                      ": expected a and b with the batch of spikes");
      STD_TORCH_CHECK(term->size(term->dim() - 1) == n(), op, ": a and b differ in shape");
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

struct DenseChange : DenseArguments {
  DenseChange(const Tensor& weights, const Tensor& spikes_, const Tensor& a, const std::optional<Tensor>& b, double low,
              double high, bool columns)
      : DenseArguments("plasticity_dense", "weights", weights),
        n_spiking(columns ? n_columns : n_rows),
        n_terms(columns ? n_rows : n_columns),
        spikes(per_neuron("spikes", spikes_, n_spiking)),
        change(op, weights, spikes, a, b, low, high) {
    STD_TORCH_CHECK(change.n() == n_terms, op, "(a=...): expected ", n_terms, " values, got ", change.n());
    STD_TORCH_CHECK(per_sample() == (spikes.dim() == 2), op, "(weights=...): expected the batch of spikes");
  }

  int64_t n_spiking, n_terms;
  Tensor spikes;
  ChangeArguments change;
};

struct CsrChange {
  CsrChange(const Tensor& weights_, const Tensor& spikes_, const Tensor& a, const std::optional<Tensor>& b,
            const Tensor& indices, const Tensor& indptr, const std::optional<Tensor>& synapses_, double low, double high)
      : structure("plasticity_csr", indices, indptr),
        weights(structure.per_neuron("weights", weights_, structure.n_synapses)),
        spikes(structure.per_neuron("spikes", spikes_, structure.n_pre)),
        change(structure.op, weights, spikes, a, b, low, high) {
    STD_TORCH_CHECK(weights.dim() == spikes.dim() && batch_size(weights) == batch_size(spikes), structure.op,
                    "(weights=...): expected the batch of spikes");
    if (!synapses_) return;
    structure.same_device("synapses", *synapses_);
    STD_TORCH_CHECK(synapses_->dim() == 1 && synapses_->numel() == structure.n_synapses &&
                        synapses_->scalar_type() == ScalarType::Int,
                    structure.op, "(synapses=...): expected int32, one for each synapse");
    synapses = as_contiguous(*synapses_);
  }

  // The weight at each position of the structure, or null where they are in the same order.
  const int32_t* synapse_numbers() const { return synapses ? synapses->const_data_ptr<int32_t>() : nullptr; }

  CsrArguments structure;
  Tensor weights, spikes;
  ChangeArguments change;
  std::optional<Tensor> synapses;
};

}  // namespace bdtorch
