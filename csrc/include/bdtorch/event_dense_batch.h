// Products of a batch with one dense matrix where most neurons are active; event_dense.h has the formulas.
//
// The matrix is taken in panels of as many targets as fill a cache line, packed side by side; a panel is read once for
// all samples, four at a time. Every sum has the terms of event_dense.h in its order, so that it equals that of the
// sample alone, to the bit: what a silent neuron adds, 0 times a finite number, changes no sum.
#pragma once
#include <cstdint>

#include "event_csr_batch.h"
#include "event_dense.h"

namespace bdtorch {

// panel[k][l] = M[k][begin + l], or with `transposed` M[begin + l][k], for the l < count; 0 for those above. The matrix
// has n_columns; returns whether all that it read is finite.
template <bool transposed, class W, class T>
BDTORCH_INLINE bool pack_panel(const W* matrix, int64_t n_columns, int64_t n_from, int64_t begin, int64_t count,
                               T* panel) {
  constexpr int64_t lanes = batch_lanes<T>;
  int32_t strange = 0;  // infinite, or not a number
  for (int64_t k = 0; k < n_from; ++k)
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t at = transposed ? (begin + l) * n_columns + k : k * n_columns + begin + l;
      const T element = l < count ? T(matrix[at]) : T(0);
      strange += element - element != T(0);
      panel[k * lanes + l] = element;
    }
  return strange == 0;
}

// y[b][begin + l] = sum_k values[b][k] panel[k][l] for the l < count and all samples b; y has n_to for each sample.
template <class T>
BDTORCH_INLINE void multiply_panel(const T* values, int64_t n_batch, int64_t n_from, const T* panel, int64_t n_to,
                                   int64_t begin, int64_t count, T* y) {
  using Lanes = BatchLanes<T>;
  constexpr int64_t lanes = batch_lanes<T>;
  const Lanes* rows = reinterpret_cast<const Lanes*>(panel);
  for (int64_t first = 0; first < n_batch; first += 4) {
    const T* v[4];  // beyond the last sample, the last one again
    for (int64_t u = 0; u < 4; ++u) v[u] = values + (first + u < n_batch ? first + u : n_batch - 1) * n_from;
    Lanes sum_0 = {}, sum_1 = {}, sum_2 = {}, sum_3 = {};
    for (int64_t k = 0; k < n_from; ++k) {
      const Lanes row = rows[k];
      sum_0 += row * v[0][k];
      sum_1 += row * v[1][k];
      sum_2 += row * v[2][k];
      sum_3 += row * v[3][k];
    }
    const Lanes sums[4] = {sum_0, sum_1, sum_2, sum_3};
    for (int64_t u = 0; u < 4 && first + u < n_batch; ++u) {
      T out[lanes];
      std::memcpy(out, &sums[u], sizeof out);
      for (int64_t l = 0; l < count; ++l) y[(first + u) * n_to + begin + l] = out[l];
    }
  }
}

}  // namespace bdtorch
