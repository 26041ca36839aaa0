// CUDA launch and registration of products with a delay for every synapse.
#include "delay.cuh"

#include "delay_arguments.h"
#include "launch.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

Tensor delayed(const Tensor& ring, const Tensor& cursor, const Tensor& spikes, const Tensor& weights,
               const Tensor& indices, const Tensor& indptr, const Tensor& delays, bool ordered) {
  const DelayedArguments given(ring, cursor, spikes, weights, indices, indptr, delays);
  const CurrentDevice device(given.spikes);
  Tensor out = copied(given.ring, device.stream());
  if (out.numel() == 0 || given.spikes.numel() == 0 || given.csr.n_synapses == 0) return out;

  given.csr.dispatch_weights(given.weights, given.spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    const int64_t n_batch = batch_size(given.spikes), n_pre = given.csr.n_pre, n_post = given.n_post;
    auto* y = out.mutable_data_ptr<T>();
    const auto* c = given.cursor.const_data_ptr<int64_t>();
    const auto* w = weights_pointer<W>(given.weights);
    const bool shared_weight = given.weights.dim() == 0;
    const auto* columns = given.csr.indices.const_data_ptr<int32_t>();
    const auto* rows = given.csr.indptr.const_data_ptr<P>();
    const auto* d = given.delays.const_data_ptr<int32_t>();
    const auto* s = given.spikes.const_data_ptr<S>();
    if (ordered) {
      const Parts parts = parts_of_targets(device, n_batch, n_post);
      BDTORCH_LAUNCH((scatter_delayed_ordered<W, P, S, T, kBlockSize>), blocks_for(device, parts.n_tasks, 1), kBlockSize,
                     device.stream(), y, c, given.n_slots, w, shared_weight, columns, rows, d, s, n_batch, n_pre, n_post,
                     parts.size);
    } else {
      BDTORCH_LAUNCH((scatter_delayed<W, P, S, T>), blocks_for(device, n_batch * n_pre, kBlockSize / kWarpSize),
                     kBlockSize, device.stream(), y, c, given.n_slots, w, shared_weight, columns, rows, d, s, n_batch,
                     n_pre, n_post);
    }
    check_launch();
  });
  return out;
}

Tensor event_csr_delayed(const Tensor& ring, const Tensor& cursor, const Tensor& spikes, const Tensor& weights,
                         const Tensor& indices, const Tensor& indptr, const Tensor& delays) {
  return delayed(ring, cursor, spikes, weights, indices, indptr, delays, false);
}

Tensor event_csr_delayed_ordered(const Tensor& ring, const Tensor& cursor, const Tensor& spikes, const Tensor& weights,
                                 const Tensor& indices, const Tensor& indptr, const Tensor& delays) {
  return delayed(ring, cursor, spikes, weights, indices, indptr, delays, true);
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) {
  implement_with_raw(m, "event_csr_delayed", TORCH_BOX(&event_csr_delayed));
  implement_with_raw(m, "event_csr_delayed_ordered", TORCH_BOX(&event_csr_delayed_ordered));
}

}  // namespace bdtorch::cuda
