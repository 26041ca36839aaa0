// Event-driven products with a dense matrix M in row-major order: only the rows, or only the columns, of active neurons
// are read.
//
//   event_dense_rows      y_j += sum_i s_i M_ij     rows of active neurons, each a contiguous pass
//   event_dense_columns   y_i += sum_j M_ij s_j     columns of active neurons: one element of every row
//
// Spikes are bool, or of the type of the sums: nonzero is an event and its value a factor. The matrix has that type too,
// or is BFloat16 or Float16 for sums in float. Terms are added in ascending order of the active neurons, however the
// range of targets is cut into parts, so the results are equal to the bit for any number of threads. Included by
// generated code: no torch, no heavy standard headers, C++17.
#pragma once
#include <cstdint>
#include <type_traits>

#include "event_csr.h"

namespace bdtorch {

// Rows ahead of the one at work whose elements of an active column are asked for. A column has a cache line for each
// row; the processor sees no stream in it, and would wait for nearly every one.
constexpr int64_t kRowsAhead = 64;

// The active neurons, in groups of a fixed size that fits the registers and the stack.
template <class S, class Visit>
inline void for_each_group(const S* spikes, int64_t n, Visit&& visit) {
  constexpr int group_size = 64;
  int64_t active[group_size];
  int count = 0;
  for_each_active(spikes, 0, n, [&](int64_t i) {
    active[count++] = i;
    if (count == group_size) {
      visit(active, count);
      count = 0;
    }
  });
  if (count) visit(active, count);
}

// What an event adds: the matrix element itself, or times the spike's value.
template <class T, class W, class S>
BDTORCH_HD T weighted(W element, S spike) {
  return std::is_same<S, bool>::value ? T(element) : T(element) * T(spike);
}

// y[j] += sum_i spikes[i] matrix[i][j] for the columns j in [begin, end).
template <class W, class S, class T>
inline void event_dense_rows(const W* matrix, const S* spikes, int64_t n_rows, int64_t n_columns, int64_t begin,
                             int64_t end, T* y) {
  for_each_active(spikes, 0, n_rows, [&](int64_t i) {
    const W* row = matrix + i * n_columns;
    const S spike = spikes[i];
#pragma GCC ivdep
    for (int64_t j = begin; j < end; ++j) y[j] += weighted<T>(row[j], spike);
  });
}

// sums[u] += sum over the active columns of row u, for neighbouring rows: the additions of one sum wait for one another.
template <int n_rows, class W, class S, class T>
BDTORCH_INLINE void add_columns(const W* row, int64_t n_columns, int64_t ahead, const int64_t* active, int count,
                                const S* spikes, T* sums) {
  T sum[n_rows];
  for (int u = 0; u < n_rows; ++u) sum[u] = sums[u];
  for (int e = 0; e < count; ++e) {
    const int64_t j = active[e];
    const S spike = spikes[j];
    for (int u = 0; u < n_rows; ++u) {
      __builtin_prefetch(row + ahead + u * n_columns + j);
      sum[u] += weighted<T>(row[u * n_columns + j], spike);
    }
  }
  for (int u = 0; u < n_rows; ++u) sums[u] = sum[u];
}

// y[i] += sum_j matrix[i][j] spikes[j] for the rows i in [begin, end).
template <class W, class S, class T>
inline void event_dense_columns(const W* matrix, const S* spikes, int64_t n_columns, int64_t begin, int64_t end, T* y) {
  constexpr int together = 4;
  for_each_group(spikes, n_columns, [&](const int64_t* active, int count) {
    int64_t i = begin;
    for (; i + together <= end; i += together) {
      const int64_t ahead = i + kRowsAhead + together <= end ? kRowsAhead * n_columns : 0;
      add_columns<together>(matrix + i * n_columns, n_columns, ahead, active, count, spikes, y + i);
    }
    for (; i < end; ++i) add_columns<1>(matrix + i * n_columns, n_columns, 0, active, count, spikes, y + i);
  });
}

}  // namespace bdtorch
