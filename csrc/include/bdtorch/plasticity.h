// Event-driven updates of weights, affine in the weight and bounded:
//
//   w <- clip(w + s (a + b w), low, high)
//
// for the weights w of the synapses of active neurons. s is the event's factor (nonzero: active), one for each neuron of
// the side that spikes; a and b have a value for each neuron of the other side. The weights of silent neurons are not
// touched, not even to bring them within the bounds. b may be null: 0. Weights have the type of the terms, or BFloat16
// or Float16 with terms in float: the new weight is then rounded to the nearest.
//
//   dense_update_rows      spikes along the rows of a dense matrix, a and b along its columns
//   dense_update_columns   spikes along the columns, a and b along the rows
//   dense_deliver_...      the same after an event-driven product with the old weights (event_dense.h), in one visit:
//                          a column has a cache line for each row, and fetching them is what takes the time
//   csr_update_rows        spikes along the rows of a CSR structure; with `synapses`, which names the weight of every
//                          position, the rows of its transpose: that is, its columns
//
// Every weight is written by one event at most, so any partition gives the same bits. Included by generated code: no
// torch, no heavy standard headers, C++17.
#pragma once
#include <cstdint>
#include <type_traits>

#include "event_dense.h"
#include "macros.h"

namespace bdtorch {

// A change of weights: terms by neuron of the side that does not spike, and bounds.
template <class T>
struct WeightChange {
  const T* a;
  const T* b;  // may be null
  T low, high;
};

// NaN is no smaller and no larger than a bound, so it comes through.
template <class T>
BDTORCH_HD T clipped(T w, T low, T high) {
  w = w < low ? low : w;
  return w > high ? high : w;
}

template <bool with_b, class W, class S, class T = SumOf<W>>
BDTORCH_HD W changed(W weight, S spike, SumOf<W> a, SumOf<W> b, SumOf<W> low, SumOf<W> high) {
  const T w = T(weight);
  return stored<W>(clipped(w + weighted<T>(with_b ? a + b * w : a, spike), low, high));
}

#if !defined(__CUDACC__)  // which does not know vectors as types, and has kernels of its own

// Asks for the first lines of a row; from there the processor reads on by itself.
template <class M>
BDTORCH_INLINE void prefetch_row(const M& m, int64_t i, int64_t begin, int64_t end) {
  constexpr int64_t line = 64, most = 16 * line;
  const int64_t bytes = (end - begin) * int64_t(sizeof(typename M::Element)) * M::together;
  const char* first = reinterpret_cast<const char*>(m.at(i, begin));
  for (int64_t k = 0; k < (bytes < most ? bytes : most); k += line) __builtin_prefetch(first + k, 1);
}

// Some weights at once, as `changed` does one; terms and sums follow one another. With `delivers` y gains the old ones.
template <bool with_b, bool delivers, int64_t n, class Lanes, class S, class T>
BDTORCH_INLINE void change_lanes(Lanes& weights, S spike, const T* a, const T* b, T low, T high, T* y) {
  constexpr bool event = std::is_same<S, bool>::value;
  if (delivers) add_lanes<n>(y, weights, spike);
  Lanes change = *reinterpret_cast<const InMemory<T, n>*>(a);
  if (with_b) change += *reinterpret_cast<const InMemory<T, n>*>(b) * weights;
  weights += event ? change : change * T(spike);
  const Lanes lowest = low - Lanes{}, highest = high - Lanes{};  // -0 too
  weights = weights < lowest ? lowest : weights;                 // as `clipped`
  weights = weights > highest ? highest : weights;
}

// Columns [begin, end) of the active rows of a matrix (dense_layout.h); with `delivers` y gains their old values.
template <bool with_b, bool delivers, class M, class S, class T = SumOf<typename M::Element>>
inline void visit_rows(const M& m, const S* spikes, const WeightChange<T>& change, int64_t begin, int64_t end, T* y) {
  using W = typename M::Element;
  const T *a = change.a, *b = change.b, low = change.low, high = change.high;
  for_each_group(spikes, m.n_rows, [&](const int64_t* active, int count) {
    for (int e = 0; e < count; ++e) {
      if (e + 1 < count) prefetch_row(m, active[e + 1], begin, end);
      const S spike = spikes[active[e]];
      m.for_each_run(active[e], begin, end, [=](W* run, int64_t j, auto n) BDTORCH_IN_LINE {
        if constexpr (are_lanes<W, T, decltype(n)>) {
          constexpr int64_t width = RunLength<T>::value;
          RunLanes<T> weights = *reinterpret_cast<InMemory<T, width>*>(run);
          change_lanes<with_b, delivers, width>(weights, spike, a + j, with_b ? b + j : b, low, high, delivers ? y + j : y);
          *reinterpret_cast<InMemory<T, width>*>(run) = weights;
        } else {
          BDTORCH_INDEPENDENT
          for (int64_t u = 0; u < n; ++u) {
            if (delivers) y[j + u] += weighted<T>(run[u], spike);
            run[u] = changed<with_b>(run[u], spike, a[j + u], with_b ? b[j + u] : T(0), low, high);
          }
        }
      });
    }
  });
}

// One element of an active column. With `delivers` y gains its old value.
template <bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
BDTORCH_INLINE void visit_element(W* w, S spike, const T* a, const T* b, T low, T high, T* y) {
  const W old = *w;
  if (delivers) *y += weighted<T>(old, spike);
  *w = changed<with_b>(old, spike, *a, with_b ? *b : T(0), low, high);
}

// The same in four rows that follow one another, the first element at w: gathered one by one, changed at once.
template <bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
BDTORCH_INLINE void visit_four(W* w, ColumnSteps steps, S spike, const T* a, const T* b, T low, T high, T* y) {
  const int64_t place[4] = {0, steps.next, steps.pair, steps.pair + steps.next};
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  Four weights = {T(w[place[0]]), T(w[place[1]]), T(w[place[2]]), T(w[place[3]])};
  change_lanes<with_b, delivers, 4>(weights, spike, a, b, low, high, y);
  for (int u = 0; u < 4; ++u) w[place[u]] = stored<W>(weights[u]);
}

// Rows [begin, end) of column j. Lines of rows further down are asked for. The last rows, behind which there are none, have
// a loop of their own: one that looked for them at every turn would take a quarter longer.
template <bool with_b, bool delivers, class M, class S, class T = SumOf<typename M::Element>>
BDTORCH_INLINE void visit_column(const M& m, int64_t j, S spike, const WeightChange<T>& change, int64_t begin, int64_t end,
                                 T* y) {
  const T *a = change.a, *b = change.b, low = change.low, high = change.high;
  const auto one = [=](auto* w, int64_t i) BDTORCH_IN_LINE {
    visit_element<with_b, delivers>(w, spike, a + i, with_b ? b + i : b, low, high, delivers ? y + i : y);
  };
  const ColumnSteps steps = m.steps(j);
  const auto four = [=](auto* w, int64_t i) BDTORCH_IN_LINE {
    visit_four<with_b, delivers>(w, steps, spike, a + i, with_b ? b + i : b, low, high, delivers ? y + i : y);
  };
  int64_t i = begin;
  for (; i < end && i % M::together; ++i) one(m.at(i, j), i);
  const int64_t regular = end < m.regular_rows() ? end : m.regular_rows(), ahead = kRowsAhead / 2 * steps.pair;
  auto* w = m.at(i, j);
  for (; i + 4 + kRowsAhead <= regular; i += 4, w += 2 * steps.pair) {
    for (int u = 0; u < 4; u += M::together)
      __builtin_prefetch(w + ahead + u / 2 * steps.pair + u % 2 * steps.next, 1);
    four(w, i);
  }
  for (; i + 4 <= regular; i += 4, w += 2 * steps.pair) four(w, i);
  for (; i < end; ++i) one(m.at(i, j), i);
}

// Rows [begin, end) of the active columns of a matrix; with `delivers` y gains their old values. A column after the other
// is walked down as a whole, but some rows at a time where they lie so near one another that many share cache lines.
template <bool with_b, bool delivers, class M, class S, class T = SumOf<typename M::Element>>
inline void visit_columns(const M& m, const S* spikes, const WeightChange<T>& change, int64_t begin, int64_t end, T* y) {
  constexpr int64_t per_line = 64 / int64_t(sizeof(typename M::Element)) / M::together, some = 256;
  for_each_group(spikes, m.n_columns, [&](const int64_t* active, int count) {
    const bool near = (count - 1) * per_line > active[count - 1] - active[0];
    const int64_t rows = near ? some : end - begin;
    for (int64_t first = begin; first < end; first += rows) {
      const int64_t last = first + rows < end ? first + rows : end;
      for (int e = 0; e < count; ++e)
        visit_column<with_b, delivers>(m, active[e], spikes[active[e]], change, first, last, y);
    }
  });
}

template <class M, class S, class T = SumOf<typename M::Element>>
inline void dense_update_rows(const M& m, const S* spikes, const WeightChange<T>& change, int64_t begin, int64_t end) {
  const auto visit = change.b ? visit_rows<true, false, M, S> : visit_rows<false, false, M, S>;
  visit(m, spikes, change, begin, end, nullptr);
}

template <class M, class S, class T = SumOf<typename M::Element>>
inline void dense_update_columns(const M& m, const S* spikes, const WeightChange<T>& change, int64_t begin, int64_t end) {
  const auto visit = change.b ? visit_columns<true, false, M, S> : visit_columns<false, false, M, S>;
  visit(m, spikes, change, begin, end, nullptr);
}

template <class M, class S, class T = SumOf<typename M::Element>>
inline void dense_deliver_update_rows(const M& m, const S* spikes, const WeightChange<T>& change, int64_t begin,
                                      int64_t end, T* y) {
  const auto visit = change.b ? visit_rows<true, true, M, S> : visit_rows<false, true, M, S>;
  visit(m, spikes, change, begin, end, y);
}

template <class M, class S, class T = SumOf<typename M::Element>>
inline void dense_deliver_update_columns(const M& m, const S* spikes, const WeightChange<T>& change, int64_t begin,
                                         int64_t end, T* y) {
  const auto visit = change.b ? visit_columns<true, true, M, S> : visit_columns<false, true, M, S>;
  visit(m, spikes, change, begin, end, y);
}

// Synapses of the active rows in [row_begin, row_end). Position m of the structure has the weight w[synapses[m]], or w[m]
// where `synapses` is null, and ends at neuron indices[m].
template <class W, class I, class P, class K, class S, class T = SumOf<W>>
inline void csr_update_rows(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, const I* indices, const P* indptr,
                            const K* synapses, int64_t row_begin, int64_t row_end) {
  for_each_active(spikes, row_begin, row_end, [&](int64_t i) {
    const S spike = spikes[i];
    const int64_t end = int64_t(indptr[i + 1]);
    for (int64_t m = int64_t(indptr[i]); m < end; ++m) {
      const int64_t k = synapses ? int64_t(synapses[m]) : m, j = int64_t(indices[m]);
      w[k] = change.b ? changed<true>(w[k], spike, change.a[j], change.b[j], change.low, change.high)
                      : changed<false>(w[k], spike, change.a[j], T(0), change.low, change.high);
    }
  });
}

#endif  // !defined(__CUDACC__)

}  // namespace bdtorch
