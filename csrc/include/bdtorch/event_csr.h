// Event-driven products with a sparse matrix W in CSR form: rows are presynaptic, columns postsynaptic neurons.
//
//   event_csr_accumulate   y_j   += sum_i s_i W_ij       scatter: touches the rows of active neurons only
//   event_csr_gather       out_i  = sum_j W_ij s_j       the transposed product, one row after the other
//   csr_outer_rows         out_k  = sum_b x_bi g_bj      one value per synapse k = (i, j): the gradient of W
//
// Structure: row i owns the synapses k in [indptr[i], indptr[i + 1]); synapse k ends at neuron indices[k]; indices
// ascend within a row. `shared_weight` says that weights[0] holds for every synapse, else weights[k] for synapse k.
// Spikes are bool, or of the weights' type: nonzero is an event and its value a factor.
//
// Every sum has an order that does not depend on how the range of neurons is cut into parts, so the results are equal
// to the bit for any number of threads. Included by generated code: no torch, no heavy standard headers, C++17.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace bdtorch {

// Calls visit(i) for every i in [begin, end) with spikes[i] != 0, in ascending order.
template <class S, class Visit>
inline void for_each_active(const S* spikes, int64_t begin, int64_t end, Visit&& visit) {
  constexpr int64_t block = 8;
  int64_t i = begin;
  for (; i + block <= end; i += block) {
    bool any = false;
    if constexpr (sizeof(S) == 1) {
      uint64_t word;  // spikes are rare: eight silent neurons cost one comparison
      std::memcpy(&word, spikes + i, sizeof word);
      any = word != 0;
    } else {
      for (int64_t u = 0; u < block; ++u) any |= spikes[i + u] != S(0);
    }
    if (!any) continue;
    for (int64_t u = 0; u < block; ++u)
      if (spikes[i + u] != S(0)) visit(i + u);
  }
  for (; i < end; ++i)
    if (spikes[i] != S(0)) visit(i);
}

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

// y[indices[k]] += weight * spike for the synapses k in [begin, end) of one active row.
template <class T, class I, class S>
inline void scatter_row(const T* weights, bool shared_weight, const I* indices, int64_t begin, int64_t end, S spike,
                        T* y) {
  constexpr bool plain_event = std::is_same<S, bool>::value;
  if (shared_weight) {
    const T amount = plain_event ? weights[0] : weights[0] * T(spike);
    for (int64_t k = begin; k < end; ++k) y[indices[k]] += amount;
  } else {
    for (int64_t k = begin; k < end; ++k) y[indices[k]] += plain_event ? weights[k] : weights[k] * T(spike);
  }
}

// Asks for the memory of a row's synapses from the first that ends at post_begin or above, guessing that they are
// spread evenly: a few cache lines, from where the hardware reads on by itself.
template <class T, class I, class P>
inline void prefetch_row(const T* weights, bool shared_weight, const I* indices, const P* indptr, int64_t row,
                         int64_t n_post, int64_t post_begin) {
  constexpr int64_t per_line = 64 / int64_t(sizeof(I)), lines = 4;
  const int64_t begin = int64_t(indptr[row]), end = int64_t(indptr[row + 1]);
  const int64_t first = begin + (post_begin > 0 ? (end - begin) * post_begin / n_post : 0);
  for (int64_t k = first; k < end && k < first + lines * per_line; k += per_line) {
    __builtin_prefetch(indices + k);
    if (!shared_weight) __builtin_prefetch(weights + k);
  }
}

// y[j] += sum_i spikes[i] W[i][j] for the j in [post_begin, post_end); y is indexed by j, the rest of it is untouched.
// For every j the rows are added in ascending order, whatever the range: threads may share the work by ranges of j.
template <class T, class I, class P, class S>
inline void event_csr_accumulate(const T* weights, bool shared_weight, const I* indices, const P* indptr,
                                 const S* spikes, int64_t n_pre, int64_t n_post, int64_t post_begin, int64_t post_end,
                                 T* y) {
  const bool whole_rows = post_begin <= 0 && post_end >= n_post;
  // Active rows are collected in groups, so that a row is on its way from memory while the ones before it are added:
  // 15 to 50 % less time than row by row once W exceeds the cache.
  constexpr int group_size = 64;
  int64_t rows[group_size];
  int n_rows = 0;
  const auto add_rows = [&] {
    for (int r = 0; r < n_rows; ++r) {
      if (r + 2 < n_rows) __builtin_prefetch(indptr + rows[r + 2]);
      if (r + 1 < n_rows) prefetch_row(weights, shared_weight, indices, indptr, rows[r + 1], n_post, post_begin);
      int64_t begin = int64_t(indptr[rows[r]]), end = int64_t(indptr[rows[r] + 1]);
      if (!whole_rows) {
        begin = lower_bound(indices, begin, end, post_begin);
        end = lower_bound(indices, begin, end, post_end);
      }
      scatter_row(weights, shared_weight, indices, begin, end, spikes[rows[r]], y);
    }
    n_rows = 0;
  };
  for_each_active(spikes, 0, n_pre, [&](int64_t i) {
    rows[n_rows++] = i;
    if (n_rows == group_size) add_rows();
  });
  add_rows();
}

// out[i] = sum_j W[i][j] spikes[j] for the rows i in [row_begin, row_end).
// Four interleaved partial sums per row, added as (0 + 1) + (2 + 3): the additions of one sum wait for one another.
template <class T, class I, class P, class S>
inline void event_csr_gather(const T* weights, bool shared_weight, const I* indices, const P* indptr, const S* spikes,
                             int64_t row_begin, int64_t row_end, T* out) {
  const T shared = shared_weight ? weights[0] : T(0);
  const auto term = [&](int64_t k) {
    const T weight = shared_weight ? shared : weights[k];
    if constexpr (std::is_same<S, bool>::value)
      return spikes[indices[k]] ? weight : T(0);
    else
      return weight * T(spikes[indices[k]]);
  };
  for (int64_t i = row_begin; i < row_end; ++i) {
    T sum[4] = {T(0), T(0), T(0), T(0)};
    const int64_t end = int64_t(indptr[i + 1]);
    int64_t k = int64_t(indptr[i]);
    for (; k + 4 <= end; k += 4)
      for (int u = 0; u < 4; ++u) sum[u] += term(k + u);
    for (int u = 0; k < end; ++k, ++u) sum[u] += term(k);
    out[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
}

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
