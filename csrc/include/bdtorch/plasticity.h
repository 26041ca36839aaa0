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

// Rows of one active column that are visited before the next column: neighbouring columns share the cache lines that
// these rows have there.
constexpr int64_t kRowsTogether = 256;

// Asks for the first lines of a row; from there the processor reads on by itself.
template <class W>
BDTORCH_INLINE void prefetch_row(const W* row, int64_t begin, int64_t end) {
  constexpr int64_t per_line = 64 / int64_t(sizeof(W)), lines = 16;
  const int64_t last = end - begin < lines * per_line ? end : begin + lines * per_line;
  for (int64_t j = begin; j < last; j += per_line) __builtin_prefetch(row + j, 1);
}

// Columns [begin, end) of the active rows of w, n_rows x n_columns; with `delivers` y gains their old values.
template <bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
inline void visit_rows(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, int64_t n_rows, int64_t n_columns,
                       int64_t begin, int64_t end, SumOf<W>* y) {
  const T *a = change.a, *b = change.b, low = change.low, high = change.high;
  for_each_group(spikes, n_rows, [&](const int64_t* active, int count) {
    for (int e = 0; e < count; ++e) {
      W* row = w + active[e] * n_columns;
      if (e + 1 < count) prefetch_row(w + active[e + 1] * n_columns, begin, end);
      const S spike = spikes[active[e]];
#pragma GCC ivdep
      for (int64_t j = begin; j < end; ++j) {
        if (delivers) y[j] += weighted<T>(row[j], spike);
        row[j] = changed<with_b>(row[j], spike, a[j], with_b ? b[j] : T(0), low, high);
      }
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

// The same in four rows that follow one another, the first element at w: gathered one by one, changed at once. What is
// `ahead` is asked for meanwhile.
template <bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
BDTORCH_INLINE void visit_four(W* w, int64_t n_columns, int64_t ahead, S spike, const T* a, const T* b, T low, T high,
                               T* y) {
  using Four = FourNumbers<T>;
  constexpr bool event = std::is_same<S, bool>::value;
  for (int u = 0; u < 4; ++u) __builtin_prefetch(w + ahead + u * n_columns, 1);
  const Four old = {T(w[0]), T(w[n_columns]), T(w[2 * n_columns]), T(w[3 * n_columns])};
  if (delivers) *reinterpret_cast<Four*>(y) += event ? old : old * T(spike);
  Four change = *reinterpret_cast<const Four*>(a);
  if (with_b) change += *reinterpret_cast<const Four*>(b) * old;
  const Four lowest = {low, low, low, low}, highest = {high, high, high, high};
  Four moved = old + (event ? change : change * T(spike));
  moved = moved < lowest ? lowest : moved;  // as `clipped`
  moved = moved > highest ? highest : moved;
  for (int u = 0; u < 4; ++u) w[u * n_columns] = stored<W>(moved[u]);
}

// Rows [begin, end) of the active columns of w; with `delivers` y gains their old values.
template <bool with_b, bool delivers, class W, class S, class T = SumOf<W>>
inline void visit_columns(W* w, const S* spikes, const WeightChange<SumOf<W>>& change, int64_t n_columns, int64_t begin,
                          int64_t end, SumOf<W>* y) {
  const T *a = change.a, *b = change.b, low = change.low, high = change.high;
  for_each_group(spikes, n_columns, [&](const int64_t* active, int count) {
    for (int64_t first = begin; first < end; first += kRowsTogether) {
      const int64_t last = first + kRowsTogether < end ? first + kRowsTogether : end;
      for (int e = 0; e < count; ++e) {
        const S spike = spikes[active[e]];
        W* element = w + first * n_columns + active[e];
        int64_t i = first;
        for (; i + 4 <= last; i += 4, element += 4 * n_columns) {
          const int64_t ahead = i + 4 + kRowsAhead <= end ? kRowsAhead * n_columns : 0;
          T* sums = delivers ? y + i : nullptr;
          visit_four<with_b, delivers>(element, n_columns, ahead, spike, a + i, with_b ? b + i : b, low, high, sums);
        }
        for (; i < last; ++i, element += n_columns) {
          T* sum = delivers ? y + i : nullptr;
          visit_element<with_b, delivers>(element, spike, a + i, with_b ? b + i : b, low, high, sum);
        }
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
