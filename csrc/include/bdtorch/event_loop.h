// Event-driven products of a time loop: what event_csr.h does once, done step after step by threads that each own some of
// the targets. Two things are kept from step to step:
//
//   lists of active neurons   made by the thread that made the spikes, so that nobody has to search all of them
//   cuts of rows              which synapses of a row end at targets of a thread, found when it first adds the row
//
// Included by generated code only: no torch, C++17.
#pragma once
#include <cstdint>
#include <cstring>

#include "event_csr.h"
#include "macros.h"

namespace bdtorch {

// Writes how many of the neurons [begin, end) are active, and behind it which.
BDTORCH_APART void list_active(int32_t* list, const bool* spikes, int64_t begin, int64_t end) {
  int32_t count = 0;
  for_each_active(spikes, begin, end, [&](int64_t i) { list[++count] = int32_t(i); });
  list[0] = count;
}

// Where each thread lists its active neurons: how many, then which. A thread has two lists, for steps with an even and an
// odd number: one is read while the other is made. Lists begin with a cache line, and are short, for what one thread
// writes and another reads goes from core to core line by line, each of which takes as long as hundreds of additions.
struct ActiveLists {
  static constexpr int64_t line = 16;  // entries of a cache line

  static constexpr int64_t entries(int64_t n) { return (n + line) / line * line; }  // of one list, for n neurons

  BDTORCH_INLINE int32_t* list(int64_t thread) const { return memory + (2 * thread + (step & 1)) * entries(n); }

  // List those of the neurons [begin, end) that are active.
  BDTORCH_INLINE void make(const bool* spikes, int64_t begin, int64_t end, int64_t thread) const {
    list_active(list(thread), spikes, begin, end);
  }

  // Append what all threads have listed to a record. Returns how many entries the record has then. The first thread writes
  // all of it, since neighbours in one line would cost two threads more than the writing does.
  BDTORCH_INLINE int64_t keep(int64_t thread, int64_t step_number, int64_t* steps, int64_t* positions,
                              int64_t kept) const {
    for (int64_t t = 0; t < threads; ++t) {
      const int32_t* rows = list(t);
      const int64_t count = rows[0];
      if (thread == 0)
        for (int64_t r = 0; r < count; ++r) {
          steps[kept + r] = step_number;
          positions[kept + r] = rows[1 + r];
        }
      kept += count;
    }
    return kept;
  }

  int32_t* memory;
  int64_t n, threads, step;
};

// The cuts of one thread: `front` numbers, then those of the rows. They depend on how many threads there are, which the
// first number says; those of another number of threads are forgotten.
template <class C>
inline C* own_cuts(C* memory, int64_t n, int64_t thread, int64_t threads) {
  constexpr int64_t front = 16;
  C* own = memory + thread * (front + n);
  if (own[0] != C(threads)) {
    for (int64_t k = 0; k < n; ++k) own[front + k] = C(0);
    own[0] = C(threads);
  }
  return own + front;
}

// The synapses of a row that end in some ranges of targets, one stretch for each. `cuts` holds 2 * n_ranges numbers for
// every row, all of them 0 where the row has not been cut yet.
template <int n_ranges, class I, class P, class C>
struct CutRows {
  BDTORCH_INLINE void prefetch(int64_t row) const { __builtin_prefetch(cuts + row * 2 * n_ranges); }
  BDTORCH_INLINE Span about(int64_t row, int p) const {
    C* cut = cuts + row * 2 * n_ranges;
    if (p == 0 && cut[2 * n_ranges - 1] == 0) {
      int64_t k = int64_t(indptr[row]);
      const int64_t end = int64_t(indptr[row + 1]);
      for (int r = 0; r < 2 * n_ranges; ++r) cut[r] = C(k = lower_bound(indices, k, end, bounds[r]));
    }
    return span(row, p);
  }
  BDTORCH_INLINE Span span(int64_t row, int p) const {
    const C* cut = cuts + row * 2 * n_ranges + 2 * p;
    return {int64_t(cut[0]), int64_t(cut[1])};
  }

  static constexpr int parts = n_ranges;
  static constexpr bool whole = false;
  const I* indices;
  const P* indptr;
  int64_t n_synapses;
  C* cuts;
  int64_t bounds[2 * n_ranges];  // begin and end of each range, ascending
};

// Adds the rows of all listed neurons, or of all that are found active among n_pre. What several threads have listed is
// one list, lest the memory that rows ask for ahead be waited for at the beginning of each.
template <class W, class I, class T, class Places>
BDTORCH_INLINE void scatter_from(const ActiveLists& active, const W* weights, bool shared_weight, const I* indices,
                                 const Places& places, T* y) {
  constexpr int64_t room = 512;
  const auto add = [&](const int32_t* rows, int64_t n) BDTORCH_IN_LINE {
    scatter_rows(weights, shared_weight, indices, places, rows, n, (const bool*)nullptr, y);
  };
  if (active.threads == 1) return add(active.list(0) + 1, active.list(0)[0]);
  int32_t rows[room];
  int64_t n = 0;
  for (int64_t t = 0; t < active.threads; ++t) {
    const int32_t* list = active.list(t) + 1;
    for (int64_t left = list[-1]; left > 0;) {
      const int64_t taken = left < room - n ? left : room - n;
      std::memcpy(rows + n, list, size_t(taken) * sizeof *rows);
      n += taken, list += taken, left -= taken;
      if (n == room) add(rows, n), n = 0;
    }
  }
  add(rows, n);
}

template <class S>
struct Searched {
  const S* spikes;
  int64_t n_pre;
};

template <class S, class W, class I, class T, class Places>
BDTORCH_INLINE void scatter_from(const Searched<S>& found, const W* weights, bool shared_weight, const I* indices,
                                 const Places& places, T* y) {
  scatter_active(weights, shared_weight, indices, places, found.spikes, found.n_pre, y);
}

// Adds the active rows to the targets that a thread owns: the ranges between `bounds`, of which there are 2 * n_ranges.
// `cuts` is the memory of the cuts of all threads, for n_pre rows. Apart, since networks have many such products.
template <int n_ranges, bool shared_weight, class Source, class W, class I, class P, class C, class T>
BDTORCH_APART void scatter_owned(const Source& source, const W* weights, const I* indices, const P* indptr, C* cuts,
                                 int64_t n_pre, const int64_t* bounds, int64_t thread, int64_t threads, T* y) {
  const int64_t n_synapses = int64_t(indptr[n_pre]);
  if (threads == 1) {
    scatter_from(source, weights, shared_weight, indices, WholeRows<P>{indptr, n_synapses}, y);
    return;
  }
  C* own = own_cuts(cuts, n_pre * 2 * n_ranges, thread, threads);
  CutRows<n_ranges, I, P, C> places{indices, indptr, n_synapses, own, {}};
  for (int r = 0; r < 2 * n_ranges; ++r) places.bounds[r] = bounds[r];
  scatter_from(source, weights, shared_weight, indices, places, y);
}

}  // namespace bdtorch
