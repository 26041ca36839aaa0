// CPU launch and registration of the event-driven CSR ops.
#include "bdtorch/event_csr.h"

#include <algorithm>

#include "csr_arguments.h"
#include "registration.h"

namespace bdtorch {
namespace {

// Additions below which a second thread costs more than it saves.
constexpr int64_t kParallelWork = 32768;

// Rows of a matrix with this many synapses that make a piece of work worth a thread.
int64_t rows_per_thread(const CsrArguments& csr, int64_t n_batch) {
  const int64_t work_per_row = std::max<int64_t>(1, n_batch * csr.n_synapses / std::max<int64_t>(1, csr.n_pre));
  return std::max<int64_t>(1, kParallelWork / work_per_row);
}

// The number of parts of the postsynaptic range, for each batch row, that keeps all threads busy; 0: work too small.
template <class S>
int64_t parts_per_batch_row(const CsrArguments& csr, const S* spikes, int64_t n_batch) {
  const int64_t n_threads = torch::stable::get_num_threads();
  if (n_threads == 1 || n_batch * csr.n_synapses < kParallelWork) return 0;
  int64_t n_events = 0;
  for_each_active(spikes, 0, n_batch * csr.n_pre, [&](int64_t) { ++n_events; });
  if (n_events * (csr.n_synapses / csr.n_pre) < kParallelWork) return 0;
  return (n_threads + n_batch - 1) / n_batch;
}

Tensor event_csr(const Tensor& spikes_, const Tensor& weights_, const Tensor& indices, const Tensor& indptr,
                 int64_t n_post) {
  const CsrArguments csr("event_csr", indices, indptr);
  STD_TORCH_CHECK(n_post >= 0, "event_csr(n_post=...): expected a nonnegative number, got ", n_post);
  const Tensor weights = csr.weights(weights_), spikes = csr.per_neuron("spikes", spikes_, csr.n_pre);
  const int64_t n_batch = batch_size(spikes);
  Tensor out = empty_per_neuron(spikes, n_post, weights.scalar_type());
  if (out.numel() == 0) return out;

  csr.dispatch("weights", weights, "spikes", spikes, [&]<class T, class P, class S>() {
    const auto* w = weights.const_data_ptr<T>();
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    const auto* s = spikes.const_data_ptr<S>();
    auto* y = out.mutable_data_ptr<T>();
    const bool shared_weight = weights.dim() == 0;
    const int64_t wanted_parts = parts_per_batch_row(csr, s, n_batch);
    const int64_t parts = std::clamp<int64_t>(wanted_parts, 1, n_post), n_tasks = n_batch * parts;
    torch::stable::parallel_for(0, n_tasks, wanted_parts ? 1 : n_tasks, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t b = task / parts, part = task % parts;
        const int64_t begin = n_post * part / parts, end = n_post * (part + 1) / parts;
        T* y_b = y + b * n_post;
        std::fill(y_b + begin, y_b + end, T(0));
        event_csr_accumulate(w, shared_weight, columns, rows, s + b * csr.n_pre, csr.n_pre, n_post, begin, end, y_b);
      }
    });
  });
  return out;
}

Tensor event_csr_t(const Tensor& spikes_, const Tensor& weights_, const Tensor& indices, const Tensor& indptr) {
  const CsrArguments csr("event_csr_t", indices, indptr);
  const int64_t n_post = spikes_.dim() > 0 ? spikes_.size(spikes_.dim() - 1) : 0;
  const Tensor weights = csr.weights(weights_), spikes = csr.per_neuron("spikes", spikes_, n_post);
  Tensor out = empty_per_neuron(spikes, csr.n_pre, weights.scalar_type());
  if (out.numel() == 0) return out;

  csr.dispatch("weights", weights, "spikes", spikes, [&]<class T, class P, class S>() {
    const auto* w = weights.const_data_ptr<T>();
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    const auto* s = spikes.const_data_ptr<S>();
    auto* sums = out.mutable_data_ptr<T>();
    const bool shared_weight = weights.dim() == 0;
    torch::stable::parallel_for(0, out.numel(), rows_per_thread(csr, 1), [&](int64_t first, int64_t last) {
      while (first < last) {
        const int64_t b = first / csr.n_pre, begin = first % csr.n_pre;
        const int64_t end = std::min(csr.n_pre, begin + last - first);
        event_csr_gather(w, shared_weight, columns, rows, s + b * n_post, begin, end, sums + b * csr.n_pre);
        first += end - begin;
      }
    });
  });
  return out;
}

Tensor csr_outer(const Tensor& x_, const Tensor& g_, const Tensor& indices, const Tensor& indptr) {
  const CsrArguments csr("csr_outer", indices, indptr);
  const int64_t n_post = g_.dim() > 0 ? g_.size(g_.dim() - 1) : 0;
  const Tensor x = csr.per_neuron("x", x_, csr.n_pre), g = csr.per_neuron("g", g_, n_post);
  STD_TORCH_CHECK(x.dim() == g.dim() && batch_size(x) == batch_size(g), "csr_outer: x and g differ in their batch");
  Tensor out = empty_on_device_of(g, &csr.n_synapses, 1, g.scalar_type());
  if (csr.n_synapses == 0) return out;

  csr.dispatch("g", g, "x", x, [&]<class T, class P, class S>() {
    const auto* x_values = x.const_data_ptr<S>();
    const auto* g_values = g.const_data_ptr<T>();
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    auto* products = out.mutable_data_ptr<T>();
    const int64_t n_batch = batch_size(x);
    torch::stable::parallel_for(0, csr.n_pre, rows_per_thread(csr, n_batch), [&](int64_t begin, int64_t end) {
      csr_outer_rows(x_values, g_values, columns, rows, n_batch, csr.n_pre, n_post, begin, end, products);
    });
  });
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  implement_with_raw(m, "event_csr", TORCH_BOX(&event_csr));
  implement_with_raw(m, "event_csr_t", TORCH_BOX(&event_csr_t));
  implement_with_raw(m, "csr_outer", TORCH_BOX(&csr_outer));
}

}  // namespace bdtorch
