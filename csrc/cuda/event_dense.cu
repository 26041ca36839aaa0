// CUDA launch and registration of the event-driven dense products.
#include "event_dense.cuh"

#include "dense_arguments.h"
#include "launch.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

Tensor event_dense(const Tensor& spikes_, const Tensor& matrix) {
  const DenseArguments dense("event_dense", "matrix", matrix);
  const Tensor spikes = dense.per_neuron("spikes", spikes_, dense.n_rows);
  const CurrentDevice device(spikes);
  Tensor out = empty_per_neuron(spikes, dense.n_columns, type_of_sums(dense.matrix));
  if (out.numel() == 0) return out;

  dense.dispatch("matrix", spikes, [&]<class W, class S>() {
    using T = SumOf<W>;
    const int64_t n_tasks = batch_size(spikes) * ((dense.n_columns + kBlockSize - 1) / kBlockSize);
    BDTORCH_LAUNCH((sum_active_rows<W, S, T, kBlockSize>), blocks_for(device, n_tasks, 1), kBlockSize, device.stream(),
                   weights_pointer<W>(dense.matrix), dense.sample_stride(), spikes.const_data_ptr<S>(),
                   batch_size(spikes), dense.n_rows, dense.n_columns, out.mutable_data_ptr<T>());
    check_launch();
  });
  return out;
}

Tensor event_dense_t(const Tensor& spikes_, const Tensor& matrix) {
  const DenseArguments dense("event_dense_t", "matrix", matrix);
  const Tensor spikes = dense.per_neuron("spikes", spikes_, dense.n_columns);
  const CurrentDevice device(spikes);
  Tensor out = empty_per_neuron(spikes, dense.n_rows, type_of_sums(dense.matrix));
  if (out.numel() == 0) return out;

  dense.dispatch("matrix", spikes, [&]<class W, class S>() {
    using T = SumOf<W>;
    BDTORCH_LAUNCH((sum_active_columns<W, S, T>), blocks_for(device, out.numel(), kBlockSize / kWarpSize), kBlockSize,
                   device.stream(), weights_pointer<W>(dense.matrix), dense.sample_stride(),
                   spikes.const_data_ptr<S>(), batch_size(spikes), dense.n_rows, dense.n_columns,
                   out.mutable_data_ptr<T>());
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) {
  implement_with_raw(m, "event_dense", TORCH_BOX(&event_dense));
  implement_with_raw(m, "event_dense_t", TORCH_BOX(&event_dense_t));
}

}  // namespace bdtorch::cuda
