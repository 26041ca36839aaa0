// Products of a batch with a sparse matrix in CSR form where most neurons are active; event_csr.h has the formulas.
//
// As many samples as fill a cache line are taken together, side by side: a synapse is then read once for all of them,
// and one vector operation serves them. Every sample's sums have the terms and the order of event_csr.h, so that they
// equal those of the sample alone, to the bit.
#pragma once
#include <cstdint>
#include <type_traits>

#include "event_csr.h"
#include "lanes.h"
#include "macros.h"

namespace bdtorch {

// Samples side by side.
template <class T>
constexpr int64_t batch_lanes = 64 / int64_t(sizeof(T));

// One number of each of them, as a type, since compilers unroll so short a loop before they think of vectors.
template <class T>
using BatchLanes = Anywhere<T, batch_lanes<T>>;

// The part of a batch that one tile holds: samples [first, first + count), count <= batch_lanes.
struct BatchTile {
  int64_t first, count;
};

// tile[j][l] = values[first + l][j] for the j in [begin, end); lanes without a sample are 0.
template <class T, class S>
BDTORCH_INLINE void fill_tile(const S* values, BatchTile part, int64_t n, int64_t begin, int64_t end, T* tile) {
  constexpr int64_t lanes = batch_lanes<T>;
  for (int64_t low = begin; low < end; low += lanes) {
    const int64_t high = low + lanes < end ? low + lanes : end;
    for (int64_t l = 0; l < lanes; ++l)
      for (int64_t j = low; j < high; ++j)
        tile[j * lanes + l] = l < part.count ? T(values[(part.first + l) * n + j]) : T(0);
  }
}

// Targets whose sums are made at a time: those of a whole tile would not stay in the second cache beside the rest.
constexpr int64_t kTileTargets = 4096;

// Memory of a scatter of n_pre rows: the tile's spikes, how many samples each row is active in, the synapse with which it
// goes on, and the sums of kTileTargets.
template <class T>
struct ScatterScratch {
  T* spikes;         // n_pre * batch_lanes
  uint8_t* active;   // n_pre
  int64_t* next;     // n_pre
  T* sums;           // kTileTargets * batch_lanes
};

// Lays the spikes of a tile side by side, and starts every active row at its first synapse from post_begin on.
template <class I, class P, class S, class T>
BDTORCH_INLINE void start_scatter(const I* indices, const P* indptr, const S* spikes, BatchTile part, int64_t n_pre,
                                  int64_t post_begin, ScatterScratch<T> scratch) {
  constexpr int64_t lanes = batch_lanes<T>;
  fill_tile(spikes, part, n_pre, 0, n_pre, scratch.spikes);
  for (int64_t i = 0; i < n_pre; ++i) {
    int32_t active = 0;
    for (int64_t l = 0; l < lanes; ++l) active += scratch.spikes[i * lanes + l] != T(0);
    scratch.active[i] = uint8_t(active);
    if (!active) continue;
    const int64_t begin = int64_t(indptr[i]);
    scratch.next[i] = post_begin > 0 ? lower_bound(indices, begin, int64_t(indptr[i + 1]), post_begin) : begin;
  }
}

// y[b][j] = sum_i spikes[b][i] W[i][j] for the samples b of the tile and the j in [post_begin, post_end). Rows are added
// once for every kTileTargets targets, each from the synapse on where it stopped before.
template <class W, class I, class P, class S, class T>
BDTORCH_INLINE void event_csr_scatter_tile(const W* weights, bool shared_weight, const I* indices, const P* indptr,
                                           const S* spikes, BatchTile part, int64_t n_pre, int64_t n_post,
                                           int64_t post_begin, int64_t post_end, ScatterScratch<T> scratch, T* y) {
  using Lanes = BatchLanes<T>;
  constexpr int64_t lanes = batch_lanes<T>;
  start_scatter(indices, indptr, spikes, part, n_pre, post_begin, scratch);
  for (int64_t first = post_begin; first < post_end; first += kTileTargets) {
    const int64_t last = first + kTileTargets < post_end ? first + kTileTargets : post_end;
    for (int64_t n = 0; n < (last - first) * lanes; ++n) scratch.sums[n] = T(0);
    with_weights<T>(weights, shared_weight, [=](const auto& weight) {
      const auto sum_of = [&](int64_t k) -> Lanes* {
        return reinterpret_cast<Lanes*>(scratch.sums + (int64_t(indices[k]) - first) * lanes);
      };
      for (int64_t i = 0; i < n_pre; ++i) {
        if (!scratch.active[i]) continue;
        const Lanes spike = *reinterpret_cast<const Lanes*>(scratch.spikes + i * lanes);
        const int64_t end = int64_t(indptr[i + 1]);
        int64_t k = scratch.next[i];
        if (scratch.active[i] == lanes)
          for (; k < end && int64_t(indices[k]) < last; ++k) *sum_of(k) += weight(k) * spike;
        else  // a silent sample adds 0, not 0 times a weight that may be infinite: as if the row were not read
          for (; k < end && int64_t(indices[k]) < last; ++k) *sum_of(k) += spike != T(0) ? weight(k) * spike : Lanes{};
        scratch.next[i] = k;
      }
    });
    for (int64_t l = 0; l < part.count; ++l)
      for (int64_t j = first; j < last; ++j)
        y[(part.first + l) * n_post + j] = scratch.sums[(j - first) * lanes + l];
  }
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
        const Lanes* value = reinterpret_cast<const Lanes*>(tile + int64_t(indices[k]) * batch_lanes<T>);
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
