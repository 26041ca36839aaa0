// CUDA launch and registration of the event-driven changes of weights.
#include "plasticity.cuh"

#include "launch.h"
#include "plasticity_arguments.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

Tensor plasticity_dense(const Tensor& weights, const Tensor& spikes_, const Tensor& a, const std::optional<Tensor>& b,
                        double low, double high, bool columns) {
  const DenseChange dense(weights, spikes_, a, b, low, high, columns);
  const CurrentDevice device(dense.spikes);
  Tensor out = copied(dense.matrix, device.stream());
  if (out.numel() == 0) return out;

  dense.dispatch("weights", dense.spikes, [&]<class W, class S>() {
    using T = SumOf<W>;
    const int64_t n_batch = batch_size(dense.spikes);
    const unsigned blocks = blocks_for(device, n_batch * dense.n_rows, kBlockSize / kWarpSize);
    auto* w = mutable_weights_pointer<W>(out);
    const auto* s = dense.spikes.const_data_ptr<S>();
    if (columns)
      BDTORCH_LAUNCH((change_dense<W, S, T, true>), blocks, kBlockSize, device.stream(), w, s, dense.change.sample<T>(0),
                     n_batch, dense.n_rows, dense.n_columns);
    else
      BDTORCH_LAUNCH((change_dense<W, S, T, false>), blocks, kBlockSize, device.stream(), w, s, dense.change.sample<T>(0),
                     n_batch, dense.n_rows, dense.n_columns);
    check_launch();
  });
  return out;
}

Tensor plasticity_csr(const Tensor& weights, const Tensor& spikes, const Tensor& a, const std::optional<Tensor>& b,
                      const Tensor& indices, const Tensor& indptr, const std::optional<Tensor>& synapses, double low,
                      double high) {
  const CsrChange csr(weights, spikes, a, b, indices, indptr, synapses, low, high);
  const CurrentDevice device(csr.spikes);
  Tensor out = copied(csr.weights, device.stream());
  if (out.numel() == 0) return out;

  csr.structure.dispatch_weights(csr.weights, csr.spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    const int64_t n_batch = batch_size(csr.spikes), n_rows = csr.structure.n_pre;
    BDTORCH_LAUNCH((change_csr<W, P, S, T>), blocks_for(device, n_batch * n_rows, kBlockSize / kWarpSize), kBlockSize,
                   device.stream(), mutable_weights_pointer<W>(out), csr.spikes.const_data_ptr<S>(), csr.change.sample<T>(0),
                   csr.structure.indices.const_data_ptr<int32_t>(), csr.structure.indptr.const_data_ptr<P>(),
                   csr.synapse_numbers(), n_batch, n_rows, csr.change.n(), csr.structure.n_synapses);
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) {
  implement_with_raw(m, "plasticity_dense", TORCH_BOX(&plasticity_dense));
  implement_with_raw(m, "plasticity_csr", TORCH_BOX(&plasticity_csr));
}

}  // namespace bdtorch::cuda
