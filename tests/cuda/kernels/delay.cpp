// The kernels of delayed products and of eligibility traces against loops.
//
//   usage: delay N_SCHEDULES N_PRE
#include "delay.cuh"

#include <random>

#include "bdtorch/eligibility.h"
#include "buffer.h"
#include "eligibility.cuh"

using namespace bdtorch;
using namespace bdtorch::cuda;

namespace {

template <class W, class P, class S, class T = SumOf<W>>
void compare(int64_t n_batch, int64_t n_pre, int64_t n_post, bool shared, unsigned seed) {
  constexpr int64_t n_slots = 4;
  std::mt19937 random(seed);
  const auto dyadic = [&] { return T(int(random() % 17) - 8) / 4; };  // sums are exact in any order
  Buffer<P> indptr(size_t(n_pre) + 1);
  for (int64_t i = 0; i < n_pre; ++i) indptr[i + 1] = indptr[i] + P(random() % 70);
  const size_t n_synapses = size_t(indptr[n_pre]);
  Buffer<int32_t> indices(n_synapses), delays(n_synapses);
  for (size_t k = 0; k < n_synapses; ++k) indices[k] = int32_t(random() % unsigned(n_post));
  for (int64_t i = 0; i < n_pre; ++i) std::sort(indices.get() + indptr[i], indices.get() + indptr[i + 1]);
  for (size_t k = 0; k < n_synapses; ++k) delays[k] = int32_t(random() % n_slots);
  Buffer<T> decay(shared ? 1 : n_synapses), ring(size_t(n_batch * n_slots * n_post)), later(ring.size);
  Buffer<W> weights(decay.size);
  Buffer<T> x(size_t(n_batch * n_pre)), psi(size_t(n_batch * n_post)), e(n_batch * n_synapses), traces(e.size);
  for (auto* values : {&decay, &ring, &x, &psi, &e})
    for (size_t k = 0; k < values->size; ++k) (*values)[k] = dyadic();
  for (size_t k = 0; k < weights.size; ++k) weights[k] = stored<W>(decay[k]);
  Buffer<S> spikes(x.size);
  for (size_t k = 0; k < spikes.size; ++k) spikes[k] = S(random() % 10 < 3);
  Buffer<int64_t> cursor(size_t(n_batch), 2);
  std::copy_n(ring.get(), ring.size, later.get()), std::copy_n(e.get(), e.size, traces.get());
  Buffer<T> in_order(ring.size);
  std::copy_n(ring.get(), ring.size, in_order.get());
  for (int64_t b = 0; b < n_batch; ++b) {
    for (int64_t i = 0; i < n_pre; ++i)
      for (P k = indptr[i]; k < indptr[i + 1]; ++k) {
        const int64_t slot = (cursor[b] + delays[k]) % n_slots;
        later[(b * n_slots + slot) * n_post + indices[k]] +=
            T(weights[shared ? 0 : k]) * T(spikes[b * n_pre + i]);
      }
    eligibility_rows(traces.get() + b * n_synapses, decay.get(), shared, x.get() + b * n_pre, psi.get() + b * n_post,
                     indices.get(), indptr.get(), int64_t(0), n_pre);
  }
  BDTORCH_LAUNCH((scatter_delayed<W, P, S, T>), kBlocks, kBlock, nullptr, ring.get(), cursor.get(), n_slots, weights.get(),
                 shared, indices.get(), indptr.get(), delays.get(), spikes.get(), n_batch, n_pre, n_post);
  expect_equal("scatter_delayed", ring, later);
  BDTORCH_LAUNCH((scatter_delayed_ordered<W, P, S, T, kBlock>), kBlocks, kBlock, nullptr, in_order.get(), cursor.get(),
                 n_slots, weights.get(), shared, indices.get(), indptr.get(), delays.get(), spikes.get(), n_batch,
                 n_pre, n_post, int64_t(17));
  expect_equal("scatter_delayed_ordered", in_order, later);
  BDTORCH_LAUNCH((advance_traces<T, P>), kBlocks, kBlock, nullptr, e.get(), decay.get(), shared, x.get(), psi.get(),
                 indices.get(), indptr.get(), n_batch, n_pre, n_post, int64_t(n_synapses));
  expect_equal("advance_traces", e, traces);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int n_pre = std::atoi(argv[2]);
  return run_schedules(std::atoi(argv[1]), [&](unsigned seed) {
    compare<float, int32_t, bool>(1, n_pre, 97, false, seed);
    compare<double, int64_t, double>(3, n_pre / 2, 33, true, seed);
    compare<BFloat16, int64_t, bool>(1, n_pre / 3, 9, false, seed);
    compare<float, int64_t, bool>(1, 1, 1, true, seed);
  });
}
