// Adding rows of a sparse matrix one after the other, as event_csr.h does with those of active neurons: which of a row's
// synapses is said by `Places`, and memory is asked for ahead. Included by generated code: no torch, no heavy standard
// headers, C++17.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "macros.h"

namespace bdtorch {

// Four indices, two at a time where they have 32 bits, since loads are what sparse loops wait for.
struct FourIndices {
  template <class I>
  BDTORCH_INLINE explicit FourIndices(const I* indices) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if constexpr (sizeof(I) == 4) {
      uint64_t pairs[2];
      std::memcpy(pairs, indices, sizeof pairs);
      for (int u = 0; u < 4; ++u) at[u] = int64_t(u % 2 ? pairs[u / 2] >> 32 : pairs[u / 2] & 0xffffffffu);
      return;
    }
#endif
    for (int u = 0; u < 4; ++u) at[u] = int64_t(indices[u]);
  }

  int64_t at[4];
};

// y[indices[k]] += amount(k) for the k in [begin, end), ascending. Eight at a time: the loop's own count costs a third.
template <class I, class T, class Amount>
BDTORCH_INLINE void add_at(const I* indices, int64_t begin, int64_t end, T* y, const Amount& amount) {
  int64_t k = begin;
  for (; k + 8 <= end; k += 8) {
    const FourIndices low(indices + k), high(indices + k + 4);
    BDTORCH_UNROLL(4)
    for (int u = 0; u < 4; ++u) y[low.at[u]] += amount(k + u);
    BDTORCH_UNROLL(4)
    for (int u = 0; u < 4; ++u) y[high.at[u]] += amount(k + 4 + u);
  }
  for (; k < end; ++k) y[indices[k]] += amount(k);
}

// y[indices[k]] += weight * spike for the synapses k in [begin, end) of one active row.
template <class W, class I, class S, class T>
inline void scatter_row(const W* weights, bool shared_weight, const I* indices, int64_t begin, int64_t end, S spike,
                        T* y) {
  constexpr bool plain_event = std::is_same<S, bool>::value;
  if (shared_weight) {
    const T amount = plain_event ? T(weights[0]) : T(weights[0]) * T(spike);
    add_at(indices, begin, end, y, [=](int64_t) { return amount; });
  } else {
    add_at(indices, begin, end, y,
           [=](int64_t k) { return plain_event ? T(weights[k]) : T(weights[k]) * T(spike); });
  }
}

// Synapses [begin, end) of a row.
struct Span {
  int64_t begin, end;
};

// Asks for the memory of synapses: their first lines, from where the hardware reads on by itself.
template <class W, class I>
BDTORCH_INLINE void prefetch_synapses(const W* weights, bool shared_weight, const I* indices, Span span) {
  constexpr int64_t per_line = 64 / int64_t(sizeof(I)), per_weight_line = 64 / int64_t(sizeof(W)), lines = 32;
  const int64_t end = span.end - span.begin < lines * per_line ? span.end : span.begin + lines * per_line;
  for (int64_t k = span.begin; k < end; k += per_line) __builtin_prefetch(indices + k);
  if (span.begin < end) __builtin_prefetch(indices + end - 1);
  if (shared_weight) return;
  for (int64_t k = span.begin; k < end; k += per_weight_line) __builtin_prefetch(weights + k);
}

// Indices of one row after the other, added in one loop. The end of a loop, which a processor cannot foresee where rows
// differ in length, costs as much as twenty synapses.
template <class I, class T>
struct Together {
  static constexpr int64_t line = 64 / int64_t(sizeof(I)), longest = 256, room = 2048;

  BDTORCH_INLINE Together(T weight, T* target) : amount(weight), y(target) {}

  // How many lines hold a stretch of synapses where so many are usual.
  static BDTORCH_INLINE int64_t lines(int64_t usual) {
    const int64_t n = 1 + (usual + usual / 4) / line;
    return n * line < longest ? n : longest / line;
  }

  // `lines` of them are copied without looking at the length.
  BDTORCH_INLINE void take(const I* indices, Span span, int64_t lines, int64_t n_synapses) {
    const int64_t length = span.end - span.begin, copied = lines * line;
    if (length > longest || span.end + copied > n_synapses) {  // not worth it, or near the end of the array
      add();
      add_at(indices, span.begin, span.end, y, [this](int64_t) { return amount; });
      return;
    }
    const I* from = indices + span.begin;
    I* to = together + n;
    for (int64_t k = 0; k < copied; k += line) std::memcpy(to + k, from + k, 64);
    for (int64_t k = copied; k < length; k += line) std::memcpy(to + k, from + k, 64);
    if ((n += length) > room) add();
  }
  BDTORCH_INLINE void add() {
    add_at(together, 0, n, y, [this](int64_t) { return amount; });
    n = 0;
  }

  const T amount;
  T* const y;
  int64_t n = 0;
  I together[room + 2 * longest];
};

// `scatter_rows` for plain events and one weight.
template <class I, class T, class Row, class Places>
BDTORCH_INLINE void scatter_together(T amount, const I* indices, const Places& places, const Row* rows, int64_t n_rows,
                                     T* y) {
  constexpr int parts = Places::parts;
  Together<I, T> together(amount, y);
  int64_t lines[parts], ahead = 16;  // rows between asking for synapses and copying them
  const int64_t n_known = n_rows < ahead / 2 ? n_rows : ahead / 2;
  for (int64_t r = 0; r < n_rows && r < 2 * ahead; ++r) places.prefetch(rows[r]);
  for (int p = 0; p < parts; ++p) {
    int64_t length = 0;
    for (int64_t r = 0; r < n_known; ++r) length += places.about(rows[r], p).end - places.about(rows[r], p).begin;
    lines[p] = together.lines(n_known ? length / n_known : 0);
    if (lines[p] * together.line >= together.longest) ahead = 8;  // which is memory enough to wait for at a time
  }
  const int64_t n_first = n_rows < ahead ? n_rows : ahead;
  const auto prefetch = [&](int64_t r) BDTORCH_IN_LINE {
    for (int p = 0; p < parts; ++p) {
      const Span span = places.about(rows[r], p);
      for (int64_t line = 0; line < lines[p]; ++line) __builtin_prefetch(indices + span.begin + line * together.line);
      if (span.begin < span.end) __builtin_prefetch(indices + span.end - 1);
    }
  };
  for (int64_t r = 0; r < n_first; ++r) prefetch(r);
  for (int64_t r = 0; r < n_rows; ++r) {
    if (r + 2 * ahead < n_rows) places.prefetch(rows[r + 2 * ahead]);
    if (r + ahead < n_rows) prefetch(r + ahead);
    for (int p = 0; p < parts; ++p) together.take(indices, places.span(rows[r], p), lines[p], places.n_synapses);
  }
  together.add();
}

// Adds the rows rows[0], ..., rows[n_rows - 1], one after the other. A row has `Places::parts` stretches of synapses:
// `places.span(i, p)` says which, `places.about(i, p)` where they lie, more or less, and `places.prefetch(i)` asks for the
// memory that tells; all rows have `places.n_synapses`. What such a loop waits for is memory, so it asks for much of it
// ahead: 2 to 3 times less time once W exceeds the cache.
template <class W, class I, class S, class T, class Row, class Places>
BDTORCH_INLINE void scatter_rows(const W* weights, bool shared_weight, const I* indices, const Places& places,
                                 const Row* rows, int64_t n_rows, const S* spikes, T* y) {
  if constexpr (std::is_same<S, bool>::value)
    if (shared_weight) return scatter_together(T(weights[0]), indices, places, rows, n_rows, y);
  constexpr int64_t ahead = 4;  // rows between asking for synapses and adding them; places are asked for twice as early
  // In line, for gcc drops calls of functions that do nothing but ask for memory.
  const auto prefetch = [&](int64_t r) BDTORCH_IN_LINE {
    if (r + ahead < n_rows) places.prefetch(rows[r + ahead]);
    if (r >= n_rows) return;
    for (int p = 0; p < Places::parts; ++p)
      prefetch_synapses(weights, shared_weight, indices, places.about(rows[r], p));
  };
  for (int64_t r = 0; r < n_rows && r < ahead; ++r) places.prefetch(rows[r]);
  for (int64_t r = 0; r < ahead; ++r) prefetch(r);
  for (int64_t r = 0; r < n_rows; ++r) {
    prefetch(r + ahead);
    S spike = S(1);
    if constexpr (!std::is_same<S, bool>::value) spike = spikes[rows[r]];
    const int64_t first = rows[r];
    // Neighbours that are both active are one stretch of memory: no loop ends between them.
    if constexpr (std::is_same<S, bool>::value && Places::whole)
      for (; r + 1 < n_rows && rows[r + 1] == rows[r] + 1; ++r) prefetch(r + 1 + ahead);
    for (int p = 0; p < Places::parts; ++p)
      scatter_row(weights, shared_weight, indices, places.span(first, p).begin, places.span(rows[r], p).end, spike, y);
  }
}

}  // namespace bdtorch
