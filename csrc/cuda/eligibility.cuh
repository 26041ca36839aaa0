// CUDA kernel of eligibility traces; see bdtorch/eligibility.h for the formula.
#pragma once
#include <cstdint>

#include "compiler.h"

namespace bdtorch::cuda {

// One warp per row and sample, one thread per synapse: the results are those of the CPU, to the bit.
template <class T, class P>
__global__ void advance_traces(T* __restrict__ e, const T* __restrict__ decay, bool shared_decay,
                               const T* __restrict__ x, const T* __restrict__ psi, const int32_t* __restrict__ indices,
                               const P* __restrict__ indptr, int64_t n_batch, int64_t n_pre, int64_t n_post,
                               int64_t n_synapses) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t row = first; row < n_batch * n_pre; row += n_warps) {
    const int64_t b = row / n_pre, i = row % n_pre, end = int64_t(indptr[i + 1]);
    for (int64_t k = int64_t(indptr[i]) + lane; k < end; k += 32) {
      T& trace = e[b * n_synapses + k];
      trace = (shared_decay ? decay[0] : decay[k]) * trace + x[row] * psi[b * n_post + indices[k]];
    }
  }
}

}  // namespace bdtorch::cuda
