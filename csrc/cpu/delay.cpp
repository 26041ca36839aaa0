// CPU launch and registration of products with a delay for every synapse.
#include "bdtorch/delay.h"

#include "delay_arguments.h"
#include "parts.h"
#include "registration.h"

namespace bdtorch {
namespace {

Tensor delayed(const Tensor& ring, const Tensor& cursor, const Tensor& spikes, const Tensor& weights,
               const Tensor& indices, const Tensor& indptr, const Tensor& delays) {
  const DelayedArguments given(ring, cursor, spikes, weights, indices, indptr, delays);
  Tensor out = empty_of_shape(given.ring);
  if (out.numel() == 0) return out;

  const CsrArguments& csr = given.csr;
  csr.dispatch_weights(given.weights, given.spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    const auto* w = weights_pointer<W>(given.weights);
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    const auto* d = given.delays.const_data_ptr<int32_t>();
    const auto* s = given.spikes.const_data_ptr<S>();
    const auto* c = given.cursor.const_data_ptr<int64_t>();
    const int64_t n_batch = batch_size(given.spikes), n_pre = csr.n_pre, n_post = given.n_post, n_slots = given.n_slots;
    T* y = copied<T>(given.ring, out);
    const auto work = [&] { return count_events(s, given.spikes.numel()) * (csr.n_synapses / n_pre); };
    parallel_parts(n_batch, n_post, n_batch * csr.n_synapses, work, [&](int64_t b, int64_t begin, int64_t end) {
      event_csr_delayed(y + b * n_slots * n_post, c[b], n_slots, w, given.weights.dim() == 0, columns, rows, d,
                        s + b * n_pre, n_pre, n_post, begin, end);
    });
  });
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  implement_with_raw(m, "event_csr_delayed", TORCH_BOX(&delayed));
  implement_with_raw(m, "event_csr_delayed_ordered", TORCH_BOX(&delayed));  // sums on the CPU have a fixed order anyway
}

}  // namespace bdtorch
