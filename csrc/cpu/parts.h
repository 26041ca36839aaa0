// Sharing the samples of a batch, and ranges within a sample, among threads.
#pragma once
#include <torch/csrc/stable/ops.h>

#include "bdtorch/event_csr.h"
#include "csr_arguments.h"

#include <algorithm>
#include <cstdint>

namespace bdtorch {

// Elementary steps below which a second thread costs more than it saves.
constexpr int64_t kWorkOfThread = 32768;

// Fills `out` with what a contiguous tensor of its shape and of elements W holds, to be changed there.
template <class W>
W* copied(const Tensor& from, const Tensor& out) {
  const W* values = weights_pointer<W>(from);
  W* copies = mutable_weights_pointer<W>(out);
  std::copy(values, values + from.numel(), copies);
  return copies;
}

template <class S>
int64_t count_events(const S* spikes, int64_t n) {
  int64_t events = 0;
  for_each_active(spikes, 0, n, [&](int64_t) { ++events; });
  return events;
}

// Calls visit(b, begin, end) for ranges that cover [0, n) of every sample b. `work()`, the elementary steps that there
// are, is asked for only where `most_work`, an upper limit, does not settle that one thread is enough.
template <class Work, class Visit>
void parallel_parts(int64_t n_batch, int64_t n, int64_t most_work, Work&& work, Visit&& visit) {
  const int64_t n_threads = torch::stable::get_num_threads();
  if (n_threads == 1 || most_work < kWorkOfThread || work() < kWorkOfThread) {
    for (int64_t b = 0; b < n_batch; ++b) visit(b, int64_t(0), n);
    return;
  }
  const int64_t parts = std::clamp<int64_t>((n_threads + n_batch - 1) / n_batch, 1, std::max<int64_t>(n, 1));
  torch::stable::parallel_for(0, n_batch * parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t b = task / parts, part = task % parts;
      visit(b, n * part / parts, n * (part + 1) / parts);
    }
  });
}

}  // namespace bdtorch
