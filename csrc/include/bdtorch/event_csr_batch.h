// Products of a batch with a sparse matrix in CSR form where most neurons are active; event_csr.h has the formulas.
//
// As many samples as fill a cache line are taken together, side by side: a synapse is then read once for all of them,
// and one vector operation serves them. Every sample's sums have the terms and the order of event_csr.h, so that they
// equal those of the sample alone, to the bit.
#pragma once
#include <cstdint>
#include <type_traits>

#include "event_csr.h"
#include "macros.h"

namespace bdtorch {

// Samples side by side.
template <class T>
constexpr int64_t batch_lanes = 64 / int64_t(sizeof(T));

// One number of each of them, as a type, since compilers unroll so short a loop before they think of vectors.
template <class T>
using BatchLanes __attribute__((vector_size(64), aligned(alignof(T)), may_alias)) = T;

// The part of a batch that one tile holds: samples [first, first + count), count <= batch_lanes.
struct BatchTile {
  int64_t first, count;
};

// tile[j][l] = values[first + l][j] for the j in [begin, end); lanes without a sample are 0.
template <class T, class S>
BDTORCH_INLINE void fill_tile(const S* values, BatchTile part, int64_t n, int64_t begin, int64_t end, T* tile) {
  constexpr int64_t lanes = batch_lanes<T>;
  for (int64_t j = begin; j < end; ++j)
    for (int64_t l = 0; l < lanes; ++l)
      tile[j * lanes + l] = l < part.count ? T(values[(part.first + l) * n + j]) : T(0);
}

// y[b][j] = sum_i spikes[b][i] W[i][j] for the samples b of the tile and the j in [post_begin, post_end).
// `sums` holds (post_end - post_begin) * batch_lanes numbers.
template <class W, class I, class P, class S, class T>
BDTORCH_INLINE void event_csr_scatter_tile(const W* weights, bool shared_weight, const I* indices, const P* indptr,
                                           const S* spikes, BatchTile part, int64_t n_pre, int64_t n_post,
                                           int64_t post_begin, int64_t post_end, T* sums, T* y) {
  using Lanes = BatchLanes<T>;
  constexpr int64_t lanes = batch_lanes<T>;
  const bool whole_rows = post_begin <= 0 && post_end >= n_post;
  for (int64_t n = 0; n < (post_end - post_begin) * lanes; ++n) sums[n] = T(0);
  for (int64_t i = 0; i < n_pre; ++i) {
    Lanes spike = {};
    bool any = false;
    for (int64_t l = 0; l < part.count; ++l) {
      spike[l] = T(spikes[(part.first + l) * n_pre + i]);
      any |= spike[l] != T(0);
    }
    if (!any) continue;
    int64_t begin = int64_t(indptr[i]), end = int64_t(indptr[i + 1]);
    if (!whole_rows) {
      begin = lower_bound(indices, begin, end, post_begin);
      end = lower_bound(indices, begin, end, post_end);
    }
    with_weights<T>(weights, shared_weight, [=](const auto& weight) {
      for (int64_t k = begin; k < end; ++k) {
        auto* sum = reinterpret_cast<Lanes*>(sums + (int64_t(indices[k]) - post_begin) * lanes);
        // A silent sample adds 0, not 0 times a weight that may be infinite: as if the row were not read.
        *sum += spike != T(0) ? weight(k) * spike : Lanes{};
      }
    });
  }
  for (int64_t l = 0; l < part.count; ++l)
    for (int64_t j = post_begin; j < post_end; ++j)
      y[(part.first + l) * n_post + j] = sums[(j - post_begin) * lanes + l];
}

// out[b][i] = sum_j W[i][j] values[b][j] for the samples b of the tile and the rows i in [row_begin, row_end).
// `tile` is what fill_tile made of the values. Four interleaved partial sums, as in event_csr_gather.
template <bool plain_event, class W, class I, class P, class T>
BDTORCH_INLINE void event_csr_gather_tile(const W* weights, bool shared_weight, const I* indices, const P* indptr,
                                          const T* tile, BatchTile part, int64_t n_pre, int64_t row_begin,
                                          int64_t row_end, T* out) {
  using Lanes = BatchLanes<T>;
  with_weights<T>(weights, shared_weight, [=](const auto& weight) {
    for (int64_t i = row_begin; i < row_end; ++i) {
      Lanes sum[4] = {};
      const auto add = [&](int64_t k, Lanes& partial) {
        const auto* value = reinterpret_cast<const Lanes*>(tile + int64_t(indices[k]) * batch_lanes<T>);
        if constexpr (plain_event)
          partial += *value != T(0) ? weight(k) + Lanes{} : Lanes{};
        else
          partial += weight(k) * *value;
      };
      const int64_t end = int64_t(indptr[i + 1]);
      int64_t k = int64_t(indptr[i]);
      for (; k + 4 <= end; k += 4)
        for (int u = 0; u < 4; ++u) add(k + u, sum[u]);
      for (int u = 0; k < end; ++k, ++u) add(k, sum[u]);
      const Lanes total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
      for (int64_t l = 0; l < part.count; ++l) out[(part.first + l) * n_pre + i] = total[l];
    }
  });
}

}  // namespace bdtorch
