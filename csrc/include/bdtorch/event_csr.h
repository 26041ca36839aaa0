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

#include "two_bytes.h"
#include "macros.h"

namespace bdtorch {

// The eight bytes at p, without the sign bits of floating point numbers: 0 where all that lies there equals zero.
template <class S>
inline uint64_t nonzero_word(const S* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  if constexpr (std::is_floating_point<S>::value)
    word &= sizeof(S) == 4 ? ~UINT64_C(0x8000000080000000) : ~UINT64_C(0x8000000000000000);
  return word;
}

// A bit for each entry of the cache line at p: whether it differs from 0. Without branches on the entries, which come at
// random.
template <class S>
inline uint64_t nonzero_bits(const S* p) {
  uint64_t bits = 0;
#if defined(__SSE2__) && !defined(__CUDACC__)
  if constexpr (std::is_same<S, float>::value) {
#if defined(__AVX__)
    typedef float Part __attribute__((vector_size(32), aligned(4)));
    const auto signs = [](Part x) { return __builtin_ia32_movmskps256(x); };
#else
    typedef float Part __attribute__((vector_size(16), aligned(4)));
    const auto signs = [](Part x) { return __builtin_ia32_movmskps(x); };
#endif
    constexpr int64_t width = sizeof(Part) / sizeof(S);
    for (int64_t j = 0; j < 16; j += width)
      bits |= uint64_t(uint32_t(signs((Part)(*reinterpret_cast<const Part*>(p + j) != Part{})))) << j;
    return bits;
  }
#endif
  constexpr int64_t per_word = sizeof(S) < 8 ? 8 / int64_t(sizeof(S)) : 1, line = 8 * per_word;
  const auto word = [p](int64_t w) { return nonzero_word(p + w * per_word); };
  if (!((word(0) | word(1) | word(2) | word(3)) | (word(4) | word(5) | word(6) | word(7)))) return 0;
  if constexpr (std::is_same<S, bool>::value)  // a product gathers the low bits of eight bytes in the highest
    for (int64_t w = 0; w < 8; ++w) bits |= (word(w) * UINT64_C(0x0102040810204080) >> 56) << (8 * w);
  else
    for (int64_t j = 0; j < line; ++j) bits |= uint64_t(bool(p[j])) << j;
  return bits;
}

// Calls visit(i) for every i in [begin, end) with spikes[i] != 0, in ascending order. Spikes are rare: a cache line of
// silent neurons costs one comparison.
template <class S, class Visit>
inline void for_each_active(const S* spikes, int64_t begin, int64_t end, Visit&& visit) {
  constexpr int64_t line = 64 / int64_t(sizeof(S));
  int64_t i = begin;
  for (; i + line <= end; i += line)
    for (uint64_t events = nonzero_bits(spikes + i); events; events &= events - 1) visit(i + __builtin_ctzll(events));
  for (; i < end; ++i)
    if (bool(spikes[i])) visit(i);
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
  constexpr int64_t ahead = 8;  // as in `scatter_rows`; rows are copied sooner than they are added
  constexpr int parts = Places::parts;
  Together<I, T> together(amount, y);
  int64_t lines[parts];
  for (int64_t r = 0; r < n_rows && r < 2 * ahead; ++r) places.prefetch(rows[r]);
  const int64_t n_first = n_rows < ahead ? n_rows : ahead;
  for (int p = 0; p < parts; ++p) {
    int64_t length = 0;
    for (int64_t r = 0; r < n_first; ++r) length += places.about(rows[r], p).end - places.about(rows[r], p).begin;
    lines[p] = together.lines(n_first ? length / n_first : 0);
  }
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
using FourNumbers __attribute__((vector_size(4 * sizeof(T)), aligned(alignof(T)))) = T;

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
