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

#include "dense_layout.h"
#include "event_csr.h"
#include "lanes.h"
#include "macros.h"

namespace bdtorch {

// Rows ahead of the one at work whose elements of an active column are asked for. A column has a cache line for each
// row; the processor sees no stream in it, and would wait for nearly every one.
constexpr int64_t kRowsAhead = 64;

constexpr int kGroup = 64;  // neurons at a time, few enough for the stack

// The active neurons, in groups.
template <class S, class Visit>
inline void for_each_group(const S* spikes, int64_t n, Visit&& visit) {
  int64_t active[kGroup];
  int count = 0;
  for_each_active(spikes, 0, n, [&](int64_t i) {
    active[count++] = i;
    if (count == kGroup) {
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

#if !defined(__CUDACC__)  // which does not know vectors as types, and has kernels of its own

// Whether a run of N weights W is taken at once where sums are of type T.
template <class W, class T, class N>
constexpr bool are_lanes = std::is_same<W, T>::value && std::is_same<N, RunLength<W>>::value;

// The elements of a row that lie together where rows are woven, as one value. Weights of another type than T are not taken
// so; the kernels below say T all the same, since clang looks also at what `if constexpr` drops.
template <class T>
using RunLanes __attribute__((vector_size(32))) = T;

// `weighted` for some weights, and sums that follow one another.
template <int64_t n, class Lanes, class S, class T>
BDTORCH_INLINE void add_lanes(T* sums, const Lanes& weights, S spike) {
  *reinterpret_cast<InMemory<T, n>*>(sums) += std::is_same<S, bool>::value ? weights : weights * T(spike);
}

// y[j] += sum_i spikes[i] M[i][j] for the columns j in [begin, end).
template <class M, class S, class T>
inline void event_dense_rows(const M& m, const S* spikes, int64_t begin, int64_t end, T* y) {
  using W = std::remove_const_t<typename M::Element>;
  for_each_active(spikes, 0, m.n_rows, [&](int64_t i) {
    const S spike = spikes[i];
    m.for_each_run(i, begin, end, [=](const W* run, int64_t first, auto n) BDTORCH_IN_LINE {
      if constexpr (are_lanes<W, T, decltype(n)>) {
        constexpr int64_t width = RunLength<T>::value;
        const RunLanes<T> weights = *reinterpret_cast<const InMemory<T, width>*>(run);
        add_lanes<width>(y + first, weights, spike);
      } else {
        BDTORCH_INDEPENDENT
        for (int64_t u = 0; u < n; ++u) y[first + u] += weighted<T>(run[u], spike);
      }
    });
  });
}

// The active columns of a group: where each begins in row 0, and where its elements go on from there.
template <class W>
struct ActiveColumns {
  template <class M>
  BDTORCH_INLINE ActiveColumns(const M& m, const int64_t* active, int count) : count(count) {
    for (int e = 0; e < count; ++e) {
      top[e] = m.at(0, active[e]);
      next[e] = m.steps(active[e]).next;
    }
  }

  const W* top[kGroup];
  int64_t next[kGroup];
  int count;
};

// sums[u] += sum over the active columns of row i + u, for neighbouring rows: the additions of one sum wait for one another.
template <int n_rows, int together, class W, class S, class T>
BDTORCH_INLINE void add_columns(const ActiveColumns<W>& columns, int64_t n_columns, int64_t i, int64_t ahead,
                                const int64_t* active, const S* spikes, T* sums) {
  T sum[n_rows];
  for (int u = 0; u < n_rows; ++u) sum[u] = sums[u];
  for (int e = 0; e < columns.count; ++e) {
    const S spike = spikes[active[e]];
    const W* element = columns.top[e] + i * n_columns;
    for (int u = 0; u < n_rows; ++u) {
      const int64_t place = u % 2 * columns.next[e] + u / 2 * 2 * n_columns;
      if (u % together == 0) __builtin_prefetch(element + ahead + place);
      sum[u] += weighted<T>(element[place], spike);
    }
  }
  for (int u = 0; u < n_rows; ++u) sums[u] = sum[u];
}

// y[i] += sum_j M[i][j] spikes[j] for the rows i in [begin, end).
template <class M, class S, class T>
inline void event_dense_columns(const M& m, const S* spikes, int64_t begin, int64_t end, T* y) {
  using W = std::remove_const_t<typename M::Element>;
  constexpr int rows = 4;
  const int64_t regular = end < m.regular_rows() ? end : m.regular_rows();
  for_each_group(spikes, m.n_columns, [&](const int64_t* active, int count) {
    const auto one = [&](int64_t i) {
      T sum = y[i];
      for (int e = 0; e < count; ++e) sum += weighted<T>(*m.at(i, active[e]), spikes[active[e]]);
      y[i] = sum;
    };
    const ActiveColumns<W> columns(m, active, count);
    int64_t i = begin;
    for (; i < end && i % M::together; ++i) one(i);
    for (; i + rows <= regular; i += rows) {
      const int64_t ahead = i + kRowsAhead + rows <= end ? kRowsAhead * m.n_columns : 0;
      add_columns<rows, M::together>(columns, m.n_columns, i, ahead, active, spikes, y + i);
    }
    for (; i < end; ++i) one(i);
  });
}

#endif  // !defined(__CUDACC__)

}  // namespace bdtorch
