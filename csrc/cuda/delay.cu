// CUDA launch and registration of products with a delay for every synapse.
#include "delay.cuh"

#include "delay_arguments.h"
#include "launch.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

Tensor delayed(const Tensor& ring, const Tensor& cursor, const Tensor& spikes, const Tensor& weights,
               const Tensor& indices, const Tensor& indptr, const Tensor& delays) {
  const DelayedArguments given(ring, cursor, spikes, weights, indices, indptr, delays);
  const CurrentDevice device(given.spikes);
  Tensor out = copied(given.ring, device.stream());
  if (out.numel() == 0 || given.spikes.numel() == 0 || given.csr.n_synapses == 0) return out;

  given.csr.dispatch_values("weights", given.weights, "spikes", given.spikes, [&]<class T, class P, class S>() {
    BDTORCH_LAUNCH((scatter_delayed<T, P, S>), blocks_for(device, given.spikes.numel(), kBlockSize / kWarpSize),
                   kBlockSize, device.stream(), out.mutable_data_ptr<T>(), given.cursor.const_data_ptr<int64_t>(),
                   given.n_slots, given.weights.const_data_ptr<T>(), given.weights.dim() == 0,
                   given.csr.indices.const_data_ptr<int32_t>(), given.csr.indptr.const_data_ptr<P>(),
                   given.delays.const_data_ptr<int32_t>(), given.spikes.const_data_ptr<S>(), batch_size(given.spikes),
                   given.csr.n_pre, given.n_post);
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) { implement_with_raw(m, "event_csr_delayed", TORCH_BOX(&delayed)); }

}  // namespace bdtorch::cuda
