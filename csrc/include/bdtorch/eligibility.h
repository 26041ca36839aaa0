// Eligibility traces of the synapses of a CSR structure: what online learning keeps instead of the past.
//
//   eligibility_rows   e_k <- decay_k e_k + x_i psi_j   for the synapses k = (i, j) of the rows [row_begin, row_end)
//
// `shared_decay` says that decay[0] holds for every synapse. Every trace is written once, so any partition gives the
// same bits. Included by generated code: no torch, C++17.
#pragma once
#include <cstdint>

#include "macros.h"

namespace bdtorch {

template <class T, class I, class P>
inline void eligibility_rows(T* e, const T* decay, bool shared_decay, const T* x, const T* psi, const I* indices,
                             const P* indptr, int64_t row_begin, int64_t row_end) {
  for (int64_t i = row_begin; i < row_end; ++i) {
    const int64_t begin = int64_t(indptr[i]), end = int64_t(indptr[i + 1]);
    const T x_i = x[i];
    if (shared_decay) {
      const T factor = decay[0];
      BDTORCH_INDEPENDENT
      for (int64_t k = begin; k < end; ++k) e[k] = factor * e[k] + x_i * psi[indices[k]];
    } else {
      BDTORCH_INDEPENDENT
      for (int64_t k = begin; k < end; ++k) e[k] = decay[k] * e[k] + x_i * psi[indices[k]];
    }
  }
}

}  // namespace bdtorch
