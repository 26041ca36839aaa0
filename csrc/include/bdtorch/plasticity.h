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

template <bool with_b, class W, class T = SumOf<W>>
BDTORCH_HD W changed(W weight, SumOf<W> s, SumOf<W> a, SumOf<W> b, SumOf<W> low, SumOf<W> high) {
  const T w = T(weight);
  return stored<W>(clipped(with_b ? w + s * (a + b * w) : w + s * a, low, high));
}

// Cache lines of the next active row that are asked for while one is at work, and rows of one active column that are
// visited before the next column: neighbouring columns share the cache lines that these rows have there.
constexpr int64_t kLinesAhead = 8;
constexpr int64_t kRowsTogether = 256;

// Columns [begin, end) of the active rows of w, n_rows x n_columns; with `delivers` y gains their old values.
template <bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
inline void visit_rows(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, int64_t n_rows, int64_t n_columns,
                       int64_t begin, int64_t end, SumOf<W>* y) {
  const T *a = change.a, *b = change.b, low = change.low, high = change.high;
  const auto visit = [=](int64_t i, int64_t next) {
    W* row = w + i * n_columns;
    const S spike = spikes[i];
    const T s = T(spike);
    const char* ahead = reinterpret_cast<const char*>(w + next * n_columns + begin);
    for (int64_t line = 0; line < kLinesAhead; ++line) __builtin_prefetch(ahead + 64 * line, 1);
#pragma GCC ivdep
    for (int64_t j = begin; j < end; ++j) {
      if (delivers) y[j] += weighted<T>(row[j], spike);
      row[j] = changed<with_b>(row[j], s, a[j], with_b ? b[j] : T(0), low, high);
    }
  };
  int64_t found = -1;
  for_each_active(spikes, 0, n_rows, [&](int64_t i) {
    if (found >= 0) visit(found, i);
    found = i;
  });
  if (found >= 0) visit(found, found);
}

// Elements of one active column in n_rows rows that follow one another, the first at w; a, b and y begin there too.
// `ahead` is how far it is to what is asked for meanwhile.
template <int n_rows, bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
BDTORCH_INLINE void visit_elements(W* w, int64_t n_columns, int64_t ahead, S spike, const T* a, const T* b, T low, T high,
                                   T* y) {
  W old[n_rows];
  for (int u = 0; u < n_rows; ++u) __builtin_prefetch(w + ahead + u * n_columns, 1);
  for (int u = 0; u < n_rows; ++u) old[u] = w[u * n_columns];
  for (int u = 0; u < n_rows && delivers; ++u) y[u] += weighted<T>(old[u], spike);
  for (int u = 0; u < n_rows; ++u)
    w[u * n_columns] = changed<with_b>(old[u], T(spike), a[u], with_b ? b[u] : T(0), low, high);
}

// Rows [begin, end) of the active columns of w; with `delivers` y gains their old values.
template <bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
inline void visit_columns(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, int64_t n_columns, int64_t begin,
                          int64_t end, SumOf<W>* y) {
  constexpr int together = 4;
  const T *a = change.a, *b = change.b, low = change.low, high = change.high;
  for_each_group(spikes, n_columns, [&](const int64_t* active, int count) {
    for (int64_t first = begin; first < end; first += kRowsTogether) {
      const int64_t last = first + kRowsTogether < end ? first + kRowsTogether : end;
      for (int e = 0; e < count; ++e) {
        const S spike = spikes[active[e]];
        W* element = w + first * n_columns + active[e];
        int64_t i = first;
        for (; i + together <= last; i += together, element += together * n_columns) {
          const int64_t ahead = i + kRowsAhead + together <= end ? kRowsAhead * n_columns : 0;
          visit_elements<together, with_b, delivers>(element, n_columns, ahead, spike, a + i, with_b ? b + i : b, low,
                                                     high, y + i);
        }
        for (; i < last; ++i, element += n_columns)
          visit_elements<1, with_b, delivers>(element, n_columns, 0, spike, a + i, with_b ? b + i : b, low, high, y + i);
      }
    }
  });
}

template <class W, class S>
inline void dense_update_rows(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, int64_t n_rows,
                              int64_t n_columns, int64_t begin, int64_t end) {
  const auto visit = change.b ? visit_rows<true, false, W, S> : visit_rows<false, false, W, S>;
  visit(w, spikes, change, n_rows, n_columns, begin, end, nullptr);
}

template <class W, class S>
inline void dense_update_columns(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, int64_t n_columns,
                                 int64_t begin, int64_t end) {
  const auto visit = change.b ? visit_columns<true, false, W, S> : visit_columns<false, false, W, S>;
  visit(w, spikes, change, n_columns, begin, end, nullptr);
}

template <class W, class S>
inline void dense_deliver_update_rows(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, int64_t n_rows,
                                      int64_t n_columns, int64_t begin, int64_t end, SumOf<W>* y) {
  const auto visit = change.b ? visit_rows<true, true, W, S> : visit_rows<false, true, W, S>;
  visit(w, spikes, change, n_rows, n_columns, begin, end, y);
}

template <class W, class S>
inline void dense_deliver_update_columns(W* w, const S* spikes, const WeightChange<SumOf<W>>& change,
                                         int64_t n_columns, int64_t begin, int64_t end, SumOf<W>* y) {
  const auto visit = change.b ? visit_columns<true, true, W, S> : visit_columns<false, true, W, S>;
  visit(w, spikes, change, n_columns, begin, end, y);
}

// Synapses of the active rows in [row_begin, row_end). Position m of the structure has the weight w[synapses[m]], or w[m]
// where `synapses` is null, and ends at neuron indices[m].
template <class W, class I, class P, class K, class S, class T = SumOf<W>>
inline void csr_update_rows(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, const I* indices, const P* indptr,
                            const K* synapses, int64_t row_begin, int64_t row_end) {
  for_each_active(spikes, row_begin, row_end, [&](int64_t i) {
    const T s = T(spikes[i]);
    const int64_t end = int64_t(indptr[i + 1]);
    for (int64_t m = int64_t(indptr[i]); m < end; ++m) {
      const int64_t k = synapses ? int64_t(synapses[m]) : m, j = int64_t(indices[m]);
      w[k] = change.b ? changed<true>(w[k], s, change.a[j], change.b[j], change.low, change.high)
                      : changed<false>(w[k], s, change.a[j], T(0), change.low, change.high);
    }
  });
}

}  // namespace bdtorch
