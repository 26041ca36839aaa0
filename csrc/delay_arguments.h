// The arguments of products with a delay for every synapse, checked. Used by the CPU and CUDA hosts alike.
#pragma once
#include "csr_arguments.h"

namespace bdtorch {

struct DelayedArguments {
  DelayedArguments(const Tensor& ring_, const Tensor& cursor_, const Tensor& spikes_, const Tensor& weights_,
                   const Tensor& indices, const Tensor& indptr, const Tensor& delays_)
      : csr("event_csr_delayed", indices, indptr),
        ring(as_contiguous(ring_)),
        cursor(as_contiguous(cursor_)),
        spikes(csr.per_neuron("spikes", spikes_, csr.n_pre)),
        weights(csr.weights(weights_)),
        delays(as_contiguous(delays_)) {
    csr.same_device("ring", ring), csr.same_device("cursor", cursor), csr.same_device("delays", delays);
    STD_TORCH_CHECK(ring.dim() == spikes.dim() + 1, csr.op, "(ring=...): expected shape (*batch, n_slots, n_post)");
    n_slots = ring.size(ring.dim() - 2), n_post = ring.size(ring.dim() - 1);
    STD_TORCH_CHECK(n_slots > 0, csr.op, "(ring=...): expected at least one slot");
    STD_TORCH_CHECK(spikes.dim() == 1 || ring.size(0) == spikes.size(0), csr.op, "(ring=...): expected the batch of spikes");
    STD_TORCH_CHECK(cursor.scalar_type() == ScalarType::Long && cursor.numel() == batch_size(spikes), csr.op,
                    "(cursor=...): expected int64, one for each sample");
    STD_TORCH_CHECK(delays.scalar_type() == ScalarType::Int && delays.dim() == 1 && delays.numel() == csr.n_synapses,
                    csr.op, "(delays=...): expected int32, one for each synapse");
    STD_TORCH_CHECK(ring.scalar_type() == type_of_sums(weights), csr.op, "(ring=...): expected the dtype of the sums");
  }

  CsrArguments csr;
  Tensor ring, cursor, spikes, weights, delays;
  int64_t n_slots = 0, n_post = 0;
};

}  // namespace bdtorch
