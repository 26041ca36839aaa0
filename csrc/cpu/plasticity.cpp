// CPU launch and registration of the event-driven changes of weights.
#include "bdtorch/plasticity.h"

#include "parts.h"
#include "plasticity_arguments.h"
#include "registration.h"

namespace bdtorch {
namespace {

Tensor plasticity_dense(const Tensor& weights, const Tensor& spikes, const Tensor& a, const std::optional<Tensor>& b,
                        double low, double high, bool columns) {
  const DenseChange dense(weights, spikes, a, b, low, high, columns);
  Tensor out = empty_of_shape(dense.matrix);
  if (out.numel() == 0) return out;

  dense.dispatch("weights", dense.spikes, [&]<class W, class S>() {
    using T = SumOf<W>;
    W* w = copied<W>(dense.matrix, out);
    const auto* s = dense.spikes.const_data_ptr<S>();
    const auto work = [&] { return count_events(s, dense.spikes.numel()) * dense.n_terms; };
    parallel_parts(batch_size(dense.spikes), dense.n_terms, out.numel(), work, [&](int64_t i, int64_t begin, int64_t end) {
      const RowMajor<W> w_i{w + i * dense.sample_stride(), dense.n_rows, dense.n_columns};
      const S* s_i = s + i * dense.n_spiking;
      if (columns)
        dense_update_columns(w_i, s_i, dense.change.sample<T>(i), begin, end);
      else
        dense_update_rows(w_i, s_i, dense.change.sample<T>(i), begin, end);
    });
  });
  return out;
}

Tensor plasticity_csr(const Tensor& weights, const Tensor& spikes, const Tensor& a, const std::optional<Tensor>& b,
                      const Tensor& indices, const Tensor& indptr, const std::optional<Tensor>& synapses, double low,
                      double high) {
  const CsrChange csr(weights, spikes, a, b, indices, indptr, synapses, low, high);
  Tensor out = empty_of_shape(csr.weights);
  if (out.numel() == 0) return out;

  csr.structure.dispatch_weights(csr.weights, csr.spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    const auto* columns = csr.structure.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.structure.indptr.const_data_ptr<P>();
    const auto* s = csr.spikes.const_data_ptr<S>();
    const int64_t n_rows = csr.structure.n_pre, n_synapses = csr.structure.n_synapses;
    W* w = copied<W>(csr.weights, out);
    const auto work = [&] { return count_events(s, csr.spikes.numel()) * (n_synapses / n_rows); };
    parallel_parts(batch_size(csr.spikes), n_rows, out.numel(), work, [&](int64_t i, int64_t begin, int64_t end) {
      csr_update_rows(w + i * n_synapses, s + i * n_rows, csr.change.sample<T>(i), columns, rows, csr.synapse_numbers(),
                      begin, end);
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
