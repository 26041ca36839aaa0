// CUDA launch and registration of the event-driven CSR ops.
#include "event_csr.cuh"

#include <algorithm>

#include "csr_arguments.h"
#include "launch.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

// Threads that share an active row: a warp, or more of the block where rows are long on average.
int threads_per_row(const CsrArguments& csr) {
  const int64_t mean_row = csr.n_synapses / csr.n_pre;
  int threads = kWarpSize;
  while (threads < kBlockSize && threads < mean_row / 2) threads *= 2;
  return threads;
}

Tensor event_csr(const Tensor& spikes_, const Tensor& weights_, const Tensor& indices, const Tensor& indptr,
                 int64_t n_post) {
  const CsrArguments csr("event_csr", indices, indptr);
  STD_TORCH_CHECK(n_post >= 0, "event_csr(n_post=...): expected a nonnegative number, got ", n_post);
  const Tensor weights = csr.weights(weights_), spikes = csr.per_neuron("spikes", spikes_, csr.n_pre);
  const CurrentDevice device(spikes);
  const cudaStream_t stream = device.stream();
  Tensor out = empty_per_neuron(spikes, n_post, type_of_sums(weights));

  csr.dispatch_weights(weights, spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    auto* y = out.mutable_data_ptr<T>();
    if (out.numel() > 0) check(cudaMemsetAsync(y, 0, size_t(out.numel()) * sizeof(T), stream));
    if (out.numel() == 0 || spikes.numel() == 0 || csr.n_synapses == 0) return;

    const int64_t n_spikes = spikes.numel(), buffer_size = n_spikes + 1;  // the last element counts the events
    Tensor buffer = empty_on_device_of(spikes, &buffer_size, 1, ScalarType::Long);
    auto* events = buffer.mutable_data_ptr<int64_t>();
    auto* n_events = reinterpret_cast<unsigned long long*>(events + n_spikes);
    check(cudaMemsetAsync(n_events, 0, sizeof *n_events, stream));

    const auto* s = spikes.const_data_ptr<S>();
    BDTORCH_LAUNCH((compact_spikes<S, kBlockSize>), blocks_for(device, n_spikes, kBlockSize), kBlockSize, stream, s,
                   n_spikes, events, n_events);
    check_launch();
    const int group = threads_per_row(csr);
    BDTORCH_LAUNCH((scatter_events<W, P, S, T>), blocks_for(device, n_spikes, kBlockSize / group), kBlockSize, stream,
                   events, n_events, weights_pointer<W>(weights), weights.dim() == 0,
                   csr.indices.const_data_ptr<int32_t>(), csr.indptr.const_data_ptr<P>(), s, csr.n_pre, n_post, group,
                   y);
    check_launch();
  });
  return out;
}

Tensor event_csr_ordered(const Tensor& spikes_, const Tensor& weights_, const Tensor& indices, const Tensor& indptr,
                         int64_t n_post) {
  const CsrArguments csr("event_csr_ordered", indices, indptr);
  STD_TORCH_CHECK(n_post >= 0, "event_csr_ordered(n_post=...): expected a nonnegative number, got ", n_post);
  const Tensor weights = csr.weights(weights_), spikes = csr.per_neuron("spikes", spikes_, csr.n_pre);
  const CurrentDevice device(spikes);
  Tensor out = empty_per_neuron(spikes, n_post, type_of_sums(weights));
  if (out.numel() == 0) return out;

  csr.dispatch_weights(weights, spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    const int64_t n_batch = batch_size(spikes);
    const Parts parts = parts_of_targets(device, n_batch, n_post);
    BDTORCH_LAUNCH((scatter_ordered<W, P, S, T, kBlockSize>), blocks_for(device, parts.n_tasks, 1), kBlockSize,
                   device.stream(), weights_pointer<W>(weights), weights.dim() == 0,
                   csr.indices.const_data_ptr<int32_t>(), csr.indptr.const_data_ptr<P>(), spikes.const_data_ptr<S>(),
                   n_batch, csr.n_pre, n_post, parts.size, out.mutable_data_ptr<T>());
    check_launch();
  });
  return out;
}

Tensor event_csr_t(const Tensor& spikes_, const Tensor& weights_, const Tensor& indices, const Tensor& indptr) {
  const CsrArguments csr("event_csr_t", indices, indptr);
  const int64_t n_post = spikes_.dim() > 0 ? spikes_.size(spikes_.dim() - 1) : 0;
  const Tensor weights = csr.weights(weights_), spikes = csr.per_neuron("spikes", spikes_, n_post);
  const CurrentDevice device(spikes);
  Tensor out = empty_per_neuron(spikes, csr.n_pre, type_of_sums(weights));
  if (out.numel() == 0) return out;

  csr.dispatch_weights(weights, spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    BDTORCH_LAUNCH((gather_rows<W, P, S, T>), blocks_for(device, out.numel(), kBlockSize / kWarpSize), kBlockSize,
                   device.stream(), weights_pointer<W>(weights), weights.dim() == 0,
                   csr.indices.const_data_ptr<int32_t>(), csr.indptr.const_data_ptr<P>(), spikes.const_data_ptr<S>(),
                   batch_size(spikes), csr.n_pre, n_post, out.mutable_data_ptr<T>());
    check_launch();
  });
  return out;
}

Tensor csr_outer(const Tensor& x_, const Tensor& g_, const Tensor& indices, const Tensor& indptr) {
  const CsrArguments csr("csr_outer", indices, indptr);
  const int64_t n_post = g_.dim() > 0 ? g_.size(g_.dim() - 1) : 0;
  const Tensor x = csr.per_neuron("x", x_, csr.n_pre), g = csr.per_neuron("g", g_, n_post);
  STD_TORCH_CHECK(x.dim() == g.dim() && batch_size(x) == batch_size(g), "csr_outer: x and g differ in their batch");
  const CurrentDevice device(g);
  Tensor out = empty_on_device_of(g, &csr.n_synapses, 1, g.scalar_type());
  if (csr.n_synapses == 0) return out;

  csr.dispatch_values("g", g, "x", x, [&]<class T, class P, class S>() {
    BDTORCH_LAUNCH((outer_rows<T, P, S>), blocks_for(device, csr.n_pre, kBlockSize / kWarpSize), kBlockSize,
                   device.stream(), x.const_data_ptr<S>(), g.const_data_ptr<T>(), csr.indices.const_data_ptr<int32_t>(),
                   csr.indptr.const_data_ptr<P>(), batch_size(x), csr.n_pre, n_post, out.mutable_data_ptr<T>());
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) {
  implement_with_raw(m, "event_csr", TORCH_BOX(&event_csr));
  implement_with_raw(m, "event_csr_ordered", TORCH_BOX(&event_csr_ordered));
  implement_with_raw(m, "event_csr_t", TORCH_BOX(&event_csr_t));
  implement_with_raw(m, "csr_outer", TORCH_BOX(&csr_outer));
}

}  // namespace bdtorch::cuda
