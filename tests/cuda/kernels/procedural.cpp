// The kernels on procedural matrices against the loops of bdtorch/procedural.h.
//
//   usage: procedural N_SCHEDULES N_PRE
#include "procedural.cuh"

#include <random>

#include "buffer.h"

using namespace bdtorch;
using namespace bdtorch::cuda;

namespace {

template <class T, class S>
void compare(const ProceduralMatrix& matrix, int64_t n_batch, unsigned seed) {
  std::mt19937 random(seed);
  const int64_t n_pre = matrix.n_pre, n_post = matrix.n_post;
  Buffer<S> spikes(n_batch * n_pre);
  Buffer<T> values(n_batch * n_post), offset(1, T(0.75)), scale(1, T(0.5));
  for (size_t i = 0; i < spikes.size; ++i) spikes[i] = S(random() % 3 == 0);
  for (size_t j = 0; j < values.size; ++j) values[j] = T(int(random() % 17) - 8) / 4;
  Buffer<T> scattered(n_batch * n_post), gathered(n_batch * n_pre);
  procedural_accumulate(matrix, offset[0], scale[0], spikes.get(), n_batch, 0, n_post, scattered.get());
  procedural_gather(matrix, offset[0], scale[0], values.get(), n_batch, 0, n_pre, gathered.get());

  Buffer<int64_t> events(spikes.size, -1);
  Buffer<unsigned long long> n_events(1);
  Buffer<T> y(n_batch * n_post), sums(n_batch * n_pre, T(-77));
  BDTORCH_LAUNCH((compact_spikes<S, kBlock>), kBlocks, kBlock, nullptr, spikes.get(), int64_t(spikes.size),
                 events.get(), n_events.get());
  BDTORCH_LAUNCH((scatter_procedural<T, S>), kBlocks, kBlock, nullptr, events.get(), n_events.get(), matrix,
                 offset.get(), scale.get(), spikes.get(), y.get());
  BDTORCH_LAUNCH((gather_procedural<T, T>), kBlocks, kBlock, nullptr, matrix, offset.get(), scale.get(), values.get(),
                 n_batch, sums.get());
  // Without draws sums are exact in any order.
  const double tolerance = matrix.draws == Draws::none ? 0. : 1e-3;
  expect_equal("scatter_procedural", y, scattered, tolerance);
  expect_equal("gather_procedural", sums, gathered, tolerance);

  Buffer<T> in_order(n_batch * n_post);
  BDTORCH_LAUNCH((scatter_procedural_ordered<T, S>), kBlocks, kBlock, nullptr, matrix, offset.get(), scale.get(),
                 spikes.get(), n_batch, in_order.get());
  expect_equal("scatter_procedural_ordered", in_order, scattered);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int n_pre = std::atoi(argv[2]);
  return run_schedules(std::atoi(argv[1]), [&](unsigned seed) {
    compare<float, bool>(ProceduralMatrix::with_probability(n_pre, 45, 3, 0.3, Draws::none, 5), 1, seed);
    compare<double, double>(ProceduralMatrix::with_probability(5, 3000, 3, 0.4, Draws::normal, 3000), 2, seed);
    compare<float, bool>(ProceduralMatrix::with_number(n_pre, 45, 3, 17, Draws::uniform, 5), 1, seed);
    compare<double, double>(ProceduralMatrix::with_number(7, 300, 3, 190, Draws::none, 300), 2, seed);
  });
}
