// Event-driven products of a time loop: what event_csr.h does once, done step after step by threads that each own some of
// the targets. Two things are kept from step to step:
//
//   lists of active neurons   made by the thread that made the spikes, so that nobody has to search all of them
//   cuts of rows              which synapses of a row end at targets of a thread
//
// Included by generated code only: no torch, C++17.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

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

  // Ask for what the others have listed, as far as one can know: as many as this thread has.
  BDTORCH_INLINE void ask(int64_t thread) const {
    const int64_t listed = entries(list(thread)[0]) / line, lines = listed < 32 ? listed : 32;
    for (int64_t t = 0; t < threads; ++t)
      for (int64_t i = 0; t != thread && i < lines; ++i) __builtin_prefetch(list(t) + i * line);
  }

  // Append what all threads have listed to a record. Returns how many entries the record has then. The first thread writes
  // all of it, since neighbours in one line would cost two threads more than the writing does, and since new pages come
  // soonest to the core that gave back those of the last run: in a virtual machine others may have to be asked of its host.
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

// Where in the ascending indices [begin, end) the first ones lie that are not below the bounds. Counted, not searched: rows
// are short, and a search goes another way in each. A bound may be one more than indices can hold.
template <int n_bounds, class I, class C>
BDTORCH_INLINE void cut_row(const I* indices, int64_t begin, int64_t end, const int64_t* bounds, C* cut) {
  static_assert(I(-1) < I(0), "the last index below a bound of 0 is -1");
  using Count = typename std::conditional<sizeof(I) == 8, int64_t, int32_t>::type;
  I last[n_bounds];
  Count below[n_bounds] = {};
  for (int r = 0; r < n_bounds; ++r) last[r] = I(bounds[r] - 1);
  for (int64_t k = begin; k < end; ++k)
    BDTORCH_UNROLL(8)
    for (int r = 0; r < n_bounds; ++r) below[r] += Count(indices[k] <= last[r]);
  for (int r = 0; r < n_bounds; ++r) cut[r] = C(begin + below[r]);
}

// The cuts of one thread: `front` numbers, then `n_bounds` for each row, the positions of its first synapses at or behind
// the bounds. All rows are cut at once, in the order of memory, when a thread first meets a number of threads, which the
// first number says: one by one, each would be waited for when its neuron first spikes.
template <int n_bounds, class I, class P, class C>
inline const C* own_cuts(C* memory, const I* indices, const P* indptr, int64_t n_rows, const int64_t* bounds,
                         int64_t thread, int64_t threads) {
  constexpr int64_t front = 16;
  C* own = memory + thread * (front + n_rows * n_bounds);
  if (own[0] != C(threads)) {
    for (int64_t i = 0; i < n_rows; ++i)
      cut_row<n_bounds>(indices, int64_t(indptr[i]), int64_t(indptr[i + 1]), bounds, own + front + i * n_bounds);
    own[0] = C(threads);
  }
  return own + front;
}

// The synapses of a row that end in some ranges of targets, one stretch for each.
template <int n_ranges, class C>
struct CutRows {
  BDTORCH_INLINE void prefetch(int64_t row) const { __builtin_prefetch(cuts + row * 2 * n_ranges); }
  BDTORCH_INLINE Span about(int64_t row, int p) const { return span(row, p); }
  BDTORCH_INLINE Span span(int64_t row, int p) const {
    const C* cut = cuts + row * 2 * n_ranges + 2 * p;
    return {int64_t(cut[0]), int64_t(cut[1])};
  }

  static constexpr int parts = n_ranges;
  static constexpr bool whole = false;
  int64_t n_synapses;
  const C* cuts;
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
  const C* own = own_cuts<2 * n_ranges>(cuts, indices, indptr, n_pre, bounds, thread, threads);
  scatter_from(source, weights, shared_weight, indices, CutRows<n_ranges, C>{n_synapses, own}, y);
}

}  // namespace bdtorch
