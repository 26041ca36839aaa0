// Event-driven products with a sparse matrix W in CSR form: rows are presynaptic, columns postsynaptic neurons.
//
//   event_csr_accumulate   y_j   += sum_i s_i W_ij       scatter: touches the rows of active neurons only
//   event_csr_gather       out_i  = sum_j W_ij s_j       the transposed product, one row after the other
//   csr_outer_rows         out_k  = sum_b x_bi g_bj      one value per synapse k = (i, j): the gradient of W
//
// Structure: row i owns the synapses k in [indptr[i], indptr[i + 1]); synapse k ends at neuron indices[k]; indices
// ascend within a row. `shared_weight` says that weights[0] holds for every synapse, else weights[k] for synapse k.
// Spikes are bool, or of the sums' type: nonzero is an event and its value a factor. Weights have the type of the sums,
// or BFloat16 or Float16 for sums in float.
//
// Every sum has an order that does not depend on how the range of neurons is cut into parts, so the results are equal
// to the bit for any number of threads. Included by generated code: no torch, no heavy standard headers, C++17.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "active.h"
#include "lanes.h"
#include "macros.h"
#include "scatter_rows.h"
#include "two_bytes.h"

namespace bdtorch {

// The first k in [begin, end) with indices[k] >= bound, or end.
template <class I>
inline int64_t lower_bound(const I* indices, int64_t begin, int64_t end, int64_t bound) {
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (int64_t(indices[middle]) < bound)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

// All synapses of a row.
template <class P>
struct WholeRows {
  BDTORCH_INLINE void prefetch(int64_t row) const { __builtin_prefetch(indptr + row); }
  BDTORCH_INLINE Span about(int64_t row, int) const { return span(row, 0); }
  BDTORCH_INLINE Span span(int64_t row, int) const { return {int64_t(indptr[row]), int64_t(indptr[row + 1])}; }

  static constexpr int parts = 1;
  static constexpr bool whole = true;
  const P* indptr;
  int64_t n_synapses;
};

// Those that end in [post_begin, post_end), found by searching; guessed to be spread evenly.
template <class I, class P>
struct RowsInRange {
  BDTORCH_INLINE void prefetch(int64_t row) const { __builtin_prefetch(indptr + row); }
  BDTORCH_INLINE Span about(int64_t row, int) const {
    const int64_t begin = int64_t(indptr[row]), end = int64_t(indptr[row + 1]);
    return {begin + (end - begin) * post_begin / n_post, begin + (end - begin) * post_end / n_post};
  }
  BDTORCH_INLINE Span span(int64_t row, int) const {
    const int64_t end = int64_t(indptr[row + 1]), begin = lower_bound(indices, int64_t(indptr[row]), end, post_begin);
    return {begin, lower_bound(indices, begin, end, post_end)};
  }

  static constexpr int parts = 1;
  static constexpr bool whole = false;
  const I* indices;
  const P* indptr;
  int64_t n_synapses, n_post, post_begin, post_end;
};

// Adds all active rows, in ascending order.
template <class W, class I, class S, class T, class Places>
BDTORCH_INLINE void scatter_active(const W* weights, bool shared_weight, const I* indices, const Places& places,
                                   const S* spikes, int64_t n_pre, T* y) {
  constexpr int group_size = 128;  // so many rows are collected before they are added
  int64_t rows[group_size];
  int n_rows = 0;
  const auto add_rows = [&] {
    scatter_rows(weights, shared_weight, indices, places, rows, n_rows, spikes, y);
    n_rows = 0;
  };
  for_each_active(spikes, 0, n_pre, [&](int64_t i) {
    rows[n_rows++] = i;
    if (n_rows == group_size) add_rows();
  });
  add_rows();
}

// y[j] += sum_i spikes[i] W[i][j] for the j in [post_begin, post_end); y is indexed by j, the rest of it is untouched.
// For every j the rows are added in ascending order, whatever the range: threads may share the work by ranges of j.
template <class W, class I, class P, class S, class T>
inline void event_csr_accumulate(const W* weights, bool shared_weight, const I* indices, const P* indptr,
                                 const S* spikes, int64_t n_pre, int64_t n_post, int64_t post_begin, int64_t post_end,
                                 T* y) {
  const int64_t begin = post_begin < 0 ? 0 : post_begin, end = post_end > n_post ? n_post : post_end;
  const int64_t n_synapses = int64_t(indptr[n_pre]);
  if (begin == 0 && end == n_post)
    scatter_active(weights, shared_weight, indices, WholeRows<P>{indptr, n_synapses}, spikes, n_pre, y);
  else
    scatter_active(weights, shared_weight, indices, RowsInRange<I, P>{indices, indptr, n_synapses, n_post, begin, end},
                   spikes, n_pre, y);
}

#if !defined(__CUDACC__)  // which does not know vectors as types, and gathers by warps

// Four numbers as a type: gathered one by one, multiplied and added at once.
template <class T>
using FourNumbers = Packed<T, 4>;

// The weight of synapse k, as a function of k, and those of k to k + 3.
template <class T>
struct SharedWeight {
  BDTORCH_INLINE T operator()(int64_t) const { return value; }
  BDTORCH_INLINE void four(int64_t, FourNumbers<T>& out) const { out = FourNumbers<T>{value, value, value, value}; }

  T value;
};

template <class T, class W>
struct OwnWeights {
  BDTORCH_INLINE T operator()(int64_t k) const { return T(values[k]); }
  BDTORCH_INLINE void four(int64_t k, FourNumbers<T>& out) const {
    if constexpr (std::is_same<T, W>::value)
      std::memcpy(&out, values + k, sizeof out);
    else
      out = FourNumbers<T>{T(values[k]), T(values[k + 1]), T(values[k + 2]), T(values[k + 3])};
  }

  const W* values;
};

// Calls visit(weight) with one of these: one loop for each kind of weights, without a choice in it.
template <class T, class W, class Visit>
BDTORCH_INLINE void with_weights(const W* weights, bool shared_weight, const Visit& visit) {
  if (shared_weight)
    visit(SharedWeight<T>{T(weights[0])});
  else
    visit(OwnWeights<T, W>{weights});
}

// sum_j W[i][j] spikes[j] over the synapses [begin, end) of one row.
// Four interleaved partial sums, added as (0 + 1) + (2 + 3): the additions of one sum wait for one another.
template <class T, class I, class S, class Weight>
BDTORCH_INLINE T gather_row(const Weight& weight, const I* indices, int64_t begin, int64_t end, const S* spikes) {
  const auto term = [&](int64_t k, int64_t j) {
    if constexpr (std::is_same<S, bool>::value)
      return spikes[j] ? weight(k) : T(0);
    else
      return weight(k) * spikes[j];
  };
  T sum[4] = {T(0), T(0), T(0), T(0)};
  int64_t k = begin;
  if constexpr (std::is_same<S, bool>::value) {
    T sum_0 = T(0), sum_1 = T(0), sum_2 = T(0), sum_3 = T(0);  // an array would not stay in registers
    for (; k + 4 <= end; k += 4) {
      const FourIndices j(indices + k);
      sum_0 += term(k, j.at[0]);
      BDTORCH_SCALAR_STEP;
      sum_1 += term(k + 1, j.at[1]);
      BDTORCH_SCALAR_STEP;
      sum_2 += term(k + 2, j.at[2]);
      BDTORCH_SCALAR_STEP;
      sum_3 += term(k + 3, j.at[3]);
      BDTORCH_SCALAR_STEP;
    }
    sum[0] = sum_0, sum[1] = sum_1, sum[2] = sum_2, sum[3] = sum_3;
  } else {
    FourNumbers<T> sums = {};
    for (; k + 4 <= end; k += 4) {
      const FourIndices j(indices + k);
      FourNumbers<T> weights;
      weight.four(k, weights);
      sums += weights * FourNumbers<T>{spikes[j.at[0]], spikes[j.at[1]], spikes[j.at[2]], spikes[j.at[3]]};
    }
    std::memcpy(sum, &sums, sizeof sum);
  }
  for (int u = 0; k < end; ++k, ++u) sum[u] += term(k, int64_t(indices[k]));
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// out[i] = sum_j W[i][j] spikes[j] for the rows i in [row_begin, row_end).
template <class W, class I, class P, class S, class T>
inline void event_csr_gather(const W* weights, bool shared_weight, const I* indices, const P* indptr, const S* spikes,
                             int64_t row_begin, int64_t row_end, T* out) {
  with_weights<T>(weights, shared_weight, [=](const auto& weight) {
    for (int64_t i = row_begin; i < row_end; ++i)
      out[i] = gather_row<T>(weight, indices, int64_t(indptr[i]), int64_t(indptr[i + 1]), spikes);
  });
}

#endif  // __CUDACC__

// out[k] = sum_b x[b][i] g[b][indices[k]] for the synapses k of the rows i in [row_begin, row_end), b ascending.
// x has the shape (n_batch, n_pre) and g (n_batch, n_post); a silent x[b][i] is skipped.
template <class T, class I, class P, class S>
inline void csr_outer_rows(const S* x, const T* g, const I* indices, const P* indptr, int64_t n_batch, int64_t n_pre,
                           int64_t n_post, int64_t row_begin, int64_t row_end, T* out) {
  for (int64_t i = row_begin; i < row_end; ++i) {
    const int64_t begin = int64_t(indptr[i]), end = int64_t(indptr[i + 1]);
    for (int64_t k = begin; k < end; ++k) out[k] = T(0);
    for (int64_t b = 0; b < n_batch; ++b) {
      const S x_bi = x[b * n_pre + i];
      if (x_bi == S(0)) continue;
      const T* g_b = g + b * n_post;
      if constexpr (std::is_same<S, bool>::value) {
        for (int64_t k = begin; k < end; ++k) out[k] += g_b[indices[k]];
      } else {
        for (int64_t k = begin; k < end; ++k) out[k] += T(x_bi) * g_b[indices[k]];
      }
    }
  }
}

}  // namespace bdtorch
