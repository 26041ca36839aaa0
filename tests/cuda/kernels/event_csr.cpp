// The CSR kernels against loops on the CPU, under several schedules. Prints a line per failure; exit code 0: none.
//
//   usage: event_csr N_SCHEDULES N_PRE
#include "event_csr.cuh"

#include <random>
#include <set>

#include "buffer.h"

using namespace bdtorch::cuda;

namespace {

template <class T, class P, class S>
void compare(int64_t n_batch, int64_t n_pre, int64_t n_post, int max_degree, double rate, bool shared_weight,
             unsigned seed) {
  std::mt19937 random(seed);
  const auto dyadic = [&] { return T(int(random() % 17) - 8) / 4; };  // sums are exact in any order
  Buffer<P> indptr(n_pre + 1);
  for (int64_t i = 0; i < n_pre; ++i) indptr[i + 1] = indptr[i] + P(random() % unsigned(max_degree + 1));
  const size_t n_synapses = size_t(indptr[n_pre]);
  Buffer<int32_t> indices(n_synapses);
  Buffer<T> weights(shared_weight ? 1 : n_synapses), g(n_batch * n_post);
  Buffer<S> spikes(n_batch * n_pre);
  for (size_t k = 0; k < n_synapses; ++k) indices[k] = int32_t(random() % unsigned(n_post));
  for (int64_t i = 0; i < n_pre; ++i) std::sort(indices.get() + indptr[i], indices.get() + indptr[i + 1]);
  for (size_t k = 0; k < weights.size; ++k) weights[k] = dyadic();
  for (size_t n = 0; n < g.size; ++n) g[n] = dyadic();
  for (size_t n = 0; n < spikes.size; ++n) spikes[n] = S(random() % 1000 < rate * 1000);

  Buffer<T> scattered(n_batch * n_post), gathered(n_batch * n_pre), outer(n_synapses);
  std::set<int64_t> active;
  for (int64_t b = 0; b < n_batch; ++b)
    for (int64_t i = 0; i < n_pre; ++i) {
      const S spike = spikes[b * n_pre + i];
      if (spike != S(0)) active.insert(b * n_pre + i);
      for (P k = indptr[i]; k < indptr[i + 1]; ++k) {
        const T weight = shared_weight ? weights[0] : weights[k];
        const int64_t j = b * n_post + indices[k];
        scattered[j] += weight * T(spike);
        gathered[b * n_pre + i] += weight * g[j];
        outer[k] += T(spike) * g[j];
      }
    }

  Buffer<int64_t> events(spikes.size, -1);
  Buffer<unsigned long long> n_events(1);
  BDTORCH_LAUNCH((compact_spikes<S, kBlock>), kBlocks, kBlock, nullptr, spikes.get(), int64_t(spikes.size),
                 events.get(), n_events.get());
  const std::set<int64_t> found(events.get(), events.get() + std::min<size_t>(n_events[0], events.size));
  if (n_events[0] != active.size() || found != active) {
    ++n_failures;
    std::printf("FAILED seed %d: %llu events, expected %zu\n", int(simulator::options().seed), n_events[0],
                active.size());
    return;
  }
  Buffer<T> y(n_batch * n_post), sums(n_batch * n_pre, T(-77)), products(n_synapses, T(-77));
  for (int threads_per_row : {32, 64}) {
    std::fill_n(y.get(), y.size, T(0));
    BDTORCH_LAUNCH((scatter_events<T, P, S, T>), kBlocks, kBlock, nullptr, events.get(), n_events.get(), weights.get(),
                   shared_weight, indices.get(), indptr.get(), spikes.get(), n_pre, n_post, threads_per_row, y.get());
    expect_equal("scatter_events", y, scattered);
  }
  for (int64_t part_size : {7, 200}) {
    std::fill_n(y.get(), y.size, T(-77));
    BDTORCH_LAUNCH((scatter_ordered<T, P, S, T, kBlock>), kBlocks, kBlock, nullptr, weights.get(), shared_weight,
                   indices.get(), indptr.get(), spikes.get(), n_batch, n_pre, n_post, part_size, y.get());
    expect_equal("scatter_ordered", y, scattered);
  }
  BDTORCH_LAUNCH((gather_rows<T, P, T, T>), kBlocks, kBlock, nullptr, weights.get(), shared_weight, indices.get(),
                 indptr.get(), g.get(), n_batch, n_pre, n_post, sums.get());
  expect_equal("gather_rows", sums, gathered);
  BDTORCH_LAUNCH((outer_rows<T, P, S>), kBlocks, kBlock, nullptr, spikes.get(), g.get(), indices.get(), indptr.get(),
                 n_batch, n_pre, n_post, products.get());
  expect_equal("outer_rows", products, outer);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int n_pre = std::atoi(argv[2]);
  return run_schedules(std::atoi(argv[1]), [&](unsigned seed) {
    compare<float, int32_t, bool>(1, n_pre, 97, 70, 0.3, false, seed);
    compare<double, int64_t, double>(2, n_pre / 2, 33, 9, 0.5, true, seed);
    compare<float, int64_t, bool>(1, 1, 1, 1, 1.0, true, seed);
  });
}
