// Events with a delay of their own for every synapse: what an event adds later is written at once, into the slot of a
// ring from which it will be read when its time has come.
//
//   event_csr_delayed   ring[(cursor + d_k) mod n_slots][indices[k]] += w_k s_i   for the synapses k of active rows i
//
// `cursor` is the slot that is read next; a delay d_k of 0 steps thus arrives with that reading. Structure and weights
// are those of event_csr.h; the ring has the type of the sums. Terms are added in the order of the synapses, however the
// range of targets is cut into parts, so the results are equal to the bit for any number of threads. Included by
// generated code: no torch, C++17.
#pragma once
#include <cstdint>
#include <type_traits>

#include "event_csr.h"
#include "macros.h"

namespace bdtorch {

// The slot d steps after `cursor`. Where either is beyond the ring it is its modulo, so that no access leaves the ring.
BDTORCH_HD int64_t slot_after(int64_t cursor, int32_t d, int64_t n_slots) {
  const int64_t slot = (cursor % n_slots + d) % n_slots;
  return slot < 0 ? slot + n_slots : slot;
}

// For the targets in [post_begin, post_end).
template <class T, class W, class I, class P, class S>
inline void event_csr_delayed(T* ring, int64_t cursor, int64_t n_slots, const W* weights, bool shared_weight,
                              const I* indices, const P* indptr, const int32_t* delays, const S* spikes, int64_t n_pre,
                              int64_t n_post, int64_t post_begin, int64_t post_end) {
  const bool whole_rows = post_begin <= 0 && post_end >= n_post;
  for_each_active(spikes, 0, n_pre, [&](int64_t i) {
    int64_t begin = int64_t(indptr[i]), end = int64_t(indptr[i + 1]);
    if (!whole_rows) {
      begin = lower_bound(indices, begin, end, post_begin);
      end = lower_bound(indices, begin, end, post_end);
    }
    const T s = T(spikes[i]);
    for (int64_t k = begin; k < end; ++k) {
      const T weight = T(shared_weight ? weights[0] : weights[k]);
      ring[slot_after(cursor, delays[k], n_slots) * n_post + indices[k]] += weight * s;
    }
  });
}

}  // namespace bdtorch
