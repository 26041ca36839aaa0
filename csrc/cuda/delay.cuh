// CUDA kernel of products with a delay for every synapse; see bdtorch/delay.h for the formula.
//
// Sums of events that meet in one slot are added with atomics, in no fixed order.
#pragma once
#include <cstdint>

#include "bdtorch/delay.h"
#include "compiler.h"

namespace bdtorch::cuda {

// One warp per row and sample; those of silent neurons pass on at once.
template <class T, class P, class S>
__global__ void scatter_delayed(T* __restrict__ ring, const int64_t* __restrict__ cursor, int64_t n_slots,
                                const T* __restrict__ weights, bool shared_weight, const int32_t* __restrict__ indices,
                                const P* __restrict__ indptr, const int32_t* __restrict__ delays,
                                const S* __restrict__ spikes, int64_t n_batch, int64_t n_pre, int64_t n_post) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t row = first; row < n_batch * n_pre; row += n_warps) {
    const S spike = spikes[row];
    if (spike == S(0)) continue;
    const int64_t b = row / n_pre, i = row % n_pre, end = int64_t(indptr[i + 1]);
    for (int64_t k = int64_t(indptr[i]) + lane; k < end; k += 32) {
      const int64_t slot = slot_after(cursor[b], delays[k], n_slots);
      atomicAdd(&ring[(b * n_slots + slot) * n_post + indices[k]], (shared_weight ? weights[0] : weights[k]) * T(spike));
    }
  }
}

}  // namespace bdtorch::cuda
