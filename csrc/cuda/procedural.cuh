// CUDA kernels of the ops on procedural matrices; see bdtorch/procedural.h for the formulas and the matrix.
//
// As in event_csr.cuh, compact_spikes lists the active neurons and the number of events stays on the device. A warp
// takes one tile of one row: each lane draws a Philox block, four candidates, and a scan over the warp turns their gaps
// into targets. scatter_procedural adds with atomics, in no fixed order; scatter_procedural_ordered in the order of the
// CPU, to the bit, for deterministic runs, and takes much longer; gather_procedural in the order of a tree.
#pragma once
#include <cstdint>

#include "bdtorch/procedural.h"
#include "event_csr.cuh"

namespace bdtorch::cuda {

// The sum of `value` over this lane and those below it.
__device__ inline int64_t warp_inclusive_sum(int64_t value, int lane) {
  for (int distance = 1; distance < 32; distance *= 2) {
    const int64_t below = __shfl_sync(kAllLanes, value, lane >= distance ? lane - distance : lane);
    if (lane >= distance) value += below;
  }
  return value;
}

// Walks along the synapses of one tile of a row, 128 candidates of a warp at a time. All lanes take part in every call.
class WarpTile {
 public:
  __device__ WarpTile(const ProceduralMatrix& matrix, int64_t row, int64_t tile, int lane)
      : matrix_(matrix), row_(row), tile_(tile), barred_(matrix.barred_target(row)), block_(lane - 32), lane_(lane) {
    position_ = tile * matrix.tile_width;
    end_ = matrix.tile_end(tile);
    if (matrix.fixed_number) matrix.draw_round_keys(row, keys_);
  }

  // Draws this lane's next four candidates; false, for the whole warp, after the last.
  __device__ bool next() {
    block_ += 32;
    return matrix_.fixed_number ? next_of_number() : next_of_probability();
  }

  // The weights of the candidates.
  template <class T>
  __device__ void weights(T offset, T scale, T* weight) const {
    if (matrix_.draws == Draws::uniform) return affine(Uniform<float>::of(words()), offset, scale, weight);
    if (matrix_.draws == Draws::normal) return affine(Normal<float>::of(words()), offset, scale, weight);
    for (int j = 0; j < 4; ++j) weight[j] = offset;
  }

  int32_t target[4];  // negative: no synapse

 private:
  __device__ PhiloxBlock words() const { return matrix_.draw_words(row_, tile_, block_); }

  template <class T>
  __device__ static void affine(const Numbers<float, 4>& numbers, T offset, T scale, T* weight) {
    for (int j = 0; j < 4; ++j) weight[j] = offset + scale * T(numbers.value[j]);
  }

  __device__ bool next_of_probability() {
    if (position_ >= end_) return false;
    const PhiloxBlock words = matrix_.structure_words(row_, tile_, block_);
    int64_t place[4], length = 0;
    for (int j = 0; j < 4; ++j) {
      place[j] = length + matrix_.gap(words.word[j]);
      length = place[j] + 1;
    }
    const int64_t sum = warp_inclusive_sum(length, lane_);
    for (int j = 0; j < 4; ++j) {
      const int64_t candidate = position_ + (sum - length) + place[j];
      target[j] = candidate < end_ && candidate != barred_ ? int32_t(candidate) : -1;
    }
    position_ += __shfl_sync(kAllLanes, sum, 31);
    return true;
  }

  __device__ bool next_of_number() {
    if (4 * (block_ - lane_) >= matrix_.number) return false;
    for (int j = 0; j < 4; ++j) {
      const int64_t k = 4 * block_ + j;
      target[j] = -1;
      if (k >= matrix_.number) continue;
      const uint32_t value = matrix_.permuted(matrix_.start_of_walk(k, barred_), keys_);
      target[j] = int32_t(matrix_.end_of_walk(value, keys_, barred_));
    }
    return true;
  }

  const ProceduralMatrix& matrix_;
  int64_t row_, tile_, barred_, position_, end_, block_;
  RoundKeys keys_;
  int lane_;
};

// y[b][j] += W_ij s_bi for the synapses of every active neuron i of batch row b.
template <class T, class S>
__global__ void scatter_procedural(const int64_t* __restrict__ events, const unsigned long long* __restrict__ n_events,
                                   ProceduralMatrix matrix, const T* __restrict__ offset, const T* __restrict__ scale,
                                   const S* __restrict__ spikes, T* __restrict__ y) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  const int64_t n_tasks = int64_t(*n_events) * matrix.n_tiles;
  for (int64_t task = first; task < n_tasks; task += n_warps) {
    const int64_t event = events[task / matrix.n_tiles], b = event / matrix.n_pre, i = event % matrix.n_pre;
    const T spike = T(spikes[event]);
    WarpTile tile(matrix, i, task % matrix.n_tiles, lane);
    while (tile.next()) {
      T weight[4];
      tile.weights(*offset, *scale, weight);
      for (int j = 0; j < 4; ++j)
        if (tile.target[j] >= 0) atomicAdd(&y[b * matrix.n_post + tile.target[j]], weight[j] * spike);
    }
  }
}

// y[b][j] += sum_i W_ij s_bi, the rows i ascending. A warp owns the targets of one tile of one sample: nobody else adds to
// them, and the targets of a row differ from each other.
template <class T, class S>
__global__ void scatter_procedural_ordered(ProceduralMatrix matrix, const T* __restrict__ offset,
                                           const T* __restrict__ scale, const S* __restrict__ spikes, int64_t n_batch,
                                           T* __restrict__ y) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t task = first; task < n_batch * matrix.n_tiles; task += n_warps) {
    const S* spikes_b = spikes + task / matrix.n_tiles * matrix.n_pre;
    T* y_b = y + task / matrix.n_tiles * matrix.n_post;
    for (int64_t stretch = 0; stretch < matrix.n_pre; stretch += 32) {
      const int64_t mine = stretch + lane;
      unsigned active = __ballot_sync(kAllLanes, mine < matrix.n_pre && spikes_b[mine] != S(0));
      for (; active; active &= active - 1) {
        const int64_t i = stretch + __ffs(int(active)) - 1;
        const T spike = T(spikes_b[i]);
        WarpTile tile(matrix, i, task % matrix.n_tiles, lane);
        while (tile.next()) {
          T weight[4];
          tile.weights(*offset, *scale, weight);
          for (int j = 0; j < 4; ++j)
            if (tile.target[j] >= 0) y_b[tile.target[j]] += weight[j] * spike;
        }
        __syncwarp();  // the next row adds to the same targets
      }
    }
  }
}

// out[b][i] = sum_j W_ij s_bj: one warp per row and batch row, partial sums added in the order of a tree.
template <class T, class S>
__global__ void gather_procedural(ProceduralMatrix matrix, const T* __restrict__ offset, const T* __restrict__ scale,
                                  const S* __restrict__ spikes, int64_t n_batch, T* __restrict__ out) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t row = first; row < n_batch * matrix.n_pre; row += n_warps) {
    const S* spikes_b = spikes + row / matrix.n_pre * matrix.n_post;
    T sum = T(0);
    for (int64_t t = 0; t < matrix.n_tiles; ++t) {
      WarpTile tile(matrix, row % matrix.n_pre, t, lane);
      while (tile.next()) {
        T weight[4];
        tile.weights(*offset, *scale, weight);
        for (int j = 0; j < 4; ++j)
          if (tile.target[j] >= 0) sum += weight[j] * T(spikes_b[tile.target[j]]);
      }
    }
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_down_sync(kAllLanes, sum, distance);
    if (lane == 0) out[row] = sum;
  }
}

}  // namespace bdtorch::cuda
