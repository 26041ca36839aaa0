// CPU launch and registration of the event-driven dense products.
#include "bdtorch/event_dense.h"

#include <algorithm>

#include "dense_arguments.h"
#include "parts.h"
#include "registration.h"

namespace bdtorch {
namespace {

// `rows`: spikes along the rows, sums along the columns; otherwise the reverse.
Tensor product(const char* op, const Tensor& spikes_, const Tensor& matrix_, bool rows) {
  const DenseArguments dense(op, "matrix", matrix_);
  const int64_t n_from = rows ? dense.n_rows : dense.n_columns, n_to = rows ? dense.n_columns : dense.n_rows;
  const Tensor spikes = dense.per_neuron("spikes", spikes_, n_from);
  Tensor out = empty_per_neuron(spikes, n_to, type_of_sums(dense.matrix));
  if (out.numel() == 0) return out;

  dense.dispatch("matrix", spikes, [&]<class W, class S>() {
    using T = SumOf<W>;
    const auto* m = weights_pointer<W>(dense.matrix);
    const auto* s = spikes.const_data_ptr<S>();
    auto* y = out.mutable_data_ptr<T>();
    const int64_t n_batch = batch_size(spikes), stride = dense.sample_stride();
    const auto work = [&] { return count_events(s, spikes.numel()) * n_to; };
    parallel_parts(n_batch, n_to, n_batch * n_from * n_to, work, [&](int64_t b, int64_t begin, int64_t end) {
      T* y_b = y + b * n_to;
      std::fill(y_b + begin, y_b + end, T(0));
      if (rows)
        event_dense_rows(m + b * stride, s + b * n_from, dense.n_rows, dense.n_columns, begin, end, y_b);
      else
        event_dense_columns(m + b * stride, s + b * n_from, dense.n_columns, begin, end, y_b);
    });
  });
  return out;
}

Tensor event_dense(const Tensor& spikes, const Tensor& matrix) { return product("event_dense", spikes, matrix, true); }

Tensor event_dense_t(const Tensor& spikes, const Tensor& matrix) {
  return product("event_dense_t", spikes, matrix, false);
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  implement_with_raw(m, "event_dense", TORCH_BOX(&event_dense));
  implement_with_raw(m, "event_dense_t", TORCH_BOX(&event_dense_t));
}

}  // namespace bdtorch
