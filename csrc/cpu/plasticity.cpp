// CPU launch and registration of the event-driven changes of weights.
#include "bdtorch/plasticity.h"

#include <algorithm>

#include "csr_arguments.h"
#include "dense_arguments.h"
#include "parts.h"
#include "plasticity_arguments.h"
#include "registration.h"

namespace bdtorch {
namespace {

Tensor copied(const Tensor& weights) {
  int64_t sizes[3] = {};
  for (int64_t d = 0; d < weights.dim(); ++d) sizes[d] = weights.size(d);
  Tensor out = empty_on_device_of(weights, sizes, weights.dim(), weights.scalar_type());
  dispatch_floating("plasticity", "weights", weights, [&]<class T>(T) {
    const T* from = weights.const_data_ptr<T>();
    std::copy(from, from + weights.numel(), out.mutable_data_ptr<T>());
  });
  return out;
}

Tensor plasticity_dense(const Tensor& weights, const Tensor& spikes_, const Tensor& a, const std::optional<Tensor>& b,
                        double low, double high, bool columns) {
  const DenseArguments dense("plasticity_dense", "weights", weights);
  const int64_t n_spiking = columns ? dense.n_columns : dense.n_rows, n_terms = columns ? dense.n_rows : dense.n_columns;
  const Tensor spikes = dense.per_neuron("spikes", spikes_, n_spiking);
  const ChangeArguments change("plasticity_dense", weights, spikes, a, b, low, high);
  STD_TORCH_CHECK(change.n() == n_terms, "plasticity_dense(a=...): expected ", n_terms, " values, got ", change.n());
  STD_TORCH_CHECK(dense.per_sample() == (spikes.dim() == 2), "plasticity_dense(weights=...): expected the batch of spikes");
  Tensor out = copied(dense.matrix);
  if (out.numel() == 0) return out;

  dense.dispatch("weights", spikes, [&]<class T, class S>() {
    const auto* s = spikes.const_data_ptr<S>();
    auto* w = out.mutable_data_ptr<T>();
    const auto work = [&] { return count_events(s, spikes.numel()) * n_terms; };
    parallel_parts(batch_size(spikes), n_terms, out.numel(), work, [&](int64_t i, int64_t begin, int64_t end) {
      T* w_i = w + i * dense.n_rows * dense.n_columns;
      const S* s_i = s + i * n_spiking;
      if (columns)
        dense_update_columns(w_i, s_i, change.sample<T>(i), dense.n_columns, begin, end);
      else
        dense_update_rows(w_i, s_i, change.sample<T>(i), dense.n_rows, dense.n_columns, begin, end);
    });
  });
  return out;
}

Tensor plasticity_csr(const Tensor& weights_, const Tensor& spikes_, const Tensor& a, const std::optional<Tensor>& b,
                      const Tensor& indices, const Tensor& indptr, const std::optional<Tensor>& synapses_, double low,
                      double high) {
  const CsrArguments csr("plasticity_csr", indices, indptr);
  const Tensor weights = csr.per_neuron("weights", weights_, csr.n_synapses);
  const Tensor spikes = csr.per_neuron("spikes", spikes_, csr.n_pre);
  const ChangeArguments change("plasticity_csr", weights, spikes, a, b, low, high);
  STD_TORCH_CHECK(weights.dim() == spikes.dim() && batch_size(weights) == batch_size(spikes),
                  "plasticity_csr(weights=...): expected the batch of spikes");
  const Tensor synapses = synapses_ ? as_contiguous(*synapses_) : csr.indices;
  STD_TORCH_CHECK(synapses.dim() == 1 && synapses.numel() == csr.n_synapses && synapses.scalar_type() == ScalarType::Int,
                  "plasticity_csr(synapses=...): expected int32, one for each synapse");
  Tensor out = copied(weights);
  if (out.numel() == 0) return out;

  csr.dispatch_values("weights", weights, "spikes", spikes, [&]<class T, class P, class S>() {
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    const auto* named = synapses_ ? synapses.const_data_ptr<int32_t>() : nullptr;
    const auto* s = spikes.const_data_ptr<S>();
    auto* w = out.mutable_data_ptr<T>();
    const auto work = [&] { return count_events(s, spikes.numel()) * (csr.n_synapses / csr.n_pre); };
    parallel_parts(batch_size(spikes), csr.n_pre, out.numel(), work, [&](int64_t i, int64_t begin, int64_t end) {
      csr_update_rows(w + i * csr.n_synapses, s + i * csr.n_pre, change.sample<T>(i), columns, rows, named, begin, end);
    });
  });
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  implement_with_raw(m, "plasticity_dense", TORCH_BOX(&plasticity_dense));
  implement_with_raw(m, "plasticity_csr", TORCH_BOX(&plasticity_csr));
}

}  // namespace bdtorch
