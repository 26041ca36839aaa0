// CPU launch and registration of the event-driven dense products.
#include "bdtorch/event_dense.h"

#include <algorithm>
#include <memory>

#include "bdtorch/event_dense_batch.h"
#include "dense_arguments.h"
#include "parts.h"
#include "registration.h"
#include "vector_clones.h"

namespace bdtorch {
namespace {

// Whether a batch is worth packing the matrix: where a quarter is active, along columns, whose events cost more, less.
template <class S>
bool is_dense_batch(const DenseArguments& dense, const Tensor& spikes, bool rows) {
  if (dense.per_sample() || batch_size(spikes) < 4) return false;
  return count_events(spikes.const_data_ptr<S>(), spikes.numel()) * (rows ? 3 : 16) >= spikes.numel();
}

template <bool transposed, class W, class T>
BDTORCH_CLONED_FOR_VECTORS bool packed(const W* matrix, int64_t n_columns, int64_t n_from, int64_t begin, int64_t count,
                                       T* panel) {
  return pack_panel<transposed>(matrix, n_columns, n_from, begin, count, panel);
}

template <class T>
BDTORCH_CLONED_FOR_VECTORS void multiply(const T* values, int64_t n_batch, int64_t n_from, const T* panel, int64_t n_to,
                                         int64_t begin, int64_t count, T* y) {
  multiply_panel(values, n_batch, n_from, panel, n_to, begin, count, y);
}

// The products of all samples with the same matrix, panel by panel.
template <class W, class S, class T>
void multiply_batch(const W* m, const DenseArguments& dense, const S* s, int64_t n_batch, bool rows, T* y) {
  constexpr int64_t lanes = batch_lanes<T>;
  const int64_t n_from = rows ? dense.n_rows : dense.n_columns, n_to = rows ? dense.n_columns : dense.n_rows;
  const T* values = nullptr;
  std::unique_ptr<T[]> converted;
  if constexpr (std::is_same_v<S, T>) {
    values = s;
  } else {
    converted.reset(new T[size_t(n_batch * n_from)]);
    std::copy_n(s, n_batch * n_from, converted.get());
    values = converted.get();
  }
  const int64_t work = std::max<int64_t>(1, n_batch * n_from * lanes);
  torch::stable::parallel_for(0, (n_to + lanes - 1) / lanes, std::max<int64_t>(1, kWorkOfThread / work),
                              [&](int64_t first, int64_t last) {
    const std::unique_ptr<T[]> panel(new T[size_t(n_from * lanes)]);
    for (int64_t strip = first; strip < last; ++strip) {
      const int64_t begin = strip * lanes, end = std::min(n_to, begin + lanes);
      const bool finite = rows ? packed<false>(m, dense.n_columns, n_from, begin, end - begin, panel.get())
                               : packed<true>(m, dense.n_columns, n_from, begin, end - begin, panel.get());
      if (finite) {
        multiply(values, n_batch, n_from, panel.get(), n_to, begin, end - begin, y);
        continue;
      }
      for (int64_t b = 0; b < n_batch; ++b) {  // silent neurons must not be multiplied
        T* y_b = y + b * n_to;
        std::fill(y_b + begin, y_b + end, T(0));
        const RowMajor<const W> matrix{m, dense.n_rows, dense.n_columns};
        if (rows)
          event_dense_rows(matrix, s + b * n_from, begin, end, y_b);
        else
          event_dense_columns(matrix, s + b * n_from, begin, end, y_b);
      }
    }
  });
}

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
    if (is_dense_batch<S>(dense, spikes, rows)) return multiply_batch(m, dense, s, n_batch, rows, y);
    const auto work = [&] { return count_events(s, spikes.numel()) * n_to; };
    parallel_parts(n_batch, n_to, n_batch * n_from * n_to, work, [&](int64_t b, int64_t begin, int64_t end) {
      T* y_b = y + b * n_to;
      std::fill(y_b + begin, y_b + end, T(0));
      const RowMajor<const W> matrix{m + b * stride, dense.n_rows, dense.n_columns};
      if (rows)
        event_dense_rows(matrix, s + b * n_from, begin, end, y_b);
      else
        event_dense_columns(matrix, s + b * n_from, begin, end, y_b);
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
