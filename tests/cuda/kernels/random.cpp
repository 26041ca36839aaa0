// The random kernels against the loops of bdtorch/random.h and random_counts.h, to the bit.
//
//   usage: random N_SCHEDULES N
#include "random.cuh"

#include "buffer.h"

using namespace bdtorch;
using namespace bdtorch::cuda;

namespace {

struct Problem {
  explicit Problem(int64_t n_batch, int64_t n) : n_batch(n_batch), n(n), keys(n_batch), counters(1) {
    for (int64_t b = 0; b < n_batch; ++b) keys[b] = (int64_t(b) << 40) + 17;
    counters[0] = 5;
  }
  Streams streams() { return {keys.get(), counters.get(), 1, 0, n_batch, n}; }

  int64_t n_batch, n;
  Buffer<int64_t> keys, counters;
};

template <class T>
void compare(int64_t n_batch, int64_t n) {
  Problem problem(n_batch, n);
  Buffer<T> numbers(n_batch * n, T(-77)), expected(n_batch * n), parameter(n_batch * n);
  Buffer<bool> events(n_batch * n), expected_events(n_batch * n);
  Buffer<int64_t> counts(n_batch * n, -77), expected_counts(n_batch * n);
  for (size_t i = 0; i < parameter.size; ++i) parameter[i] = T(i % 40) / T(40);
  const auto for_each_sample = [&](auto&& fill) {
    for (int64_t b = 0; b < n_batch; ++b) fill(problem.keys[b], b * n);
  };
  for_each_sample([&](int64_t key, int64_t at) { uniform_fill(key, 5, 0, n, expected.get() + at); });
  BDTORCH_LAUNCH((fill_numbers<Uniform<T>, T>), kBlocks, kBlock, nullptr, problem.streams(), numbers.get());
  expect_equal("uniform", numbers, expected);
  for_each_sample([&](int64_t key, int64_t at) { normal_fill(key, 5, 0, n, expected.get() + at); });
  BDTORCH_LAUNCH((fill_numbers<Normal<T>, T>), kBlocks, kBlock, nullptr, problem.streams(), numbers.get());
  expect_equal("normal", numbers, expected);
  for_each_sample([&](int64_t key, int64_t at) { exponential_fill(key, 5, 0, n, expected.get() + at); });
  BDTORCH_LAUNCH((fill_numbers<Exponential<T>, T>), kBlocks, kBlock, nullptr, problem.streams(), numbers.get());
  expect_equal("exponential", numbers, expected);
  for_each_sample([&](int64_t key, int64_t at) {
    bernoulli_fill(key, 5, 0, n, static_cast<const T*>(parameter.get() + at), expected_events.get() + at);
  });
  BDTORCH_LAUNCH((fill_bernoulli<T>), kBlocks, kBlock, nullptr, problem.streams(), parameter.get(), int64_t(1), n,
                 events.get());
  expect_equal("bernoulli", events, expected_events);
  for_each_sample([&](int64_t key, int64_t at) {
    binomial_fill(key, 5, 0, n, 60, static_cast<const T*>(parameter.get() + at), expected_counts.get() + at);
  });
  BDTORCH_LAUNCH((fill_counts<T, DrawBinomial>), kBlocks, kBlock, nullptr, problem.streams(), parameter.get(),
                 int64_t(1), n, DrawBinomial{60}, counts.get());
  expect_equal("binomial", counts, expected_counts);
  for (size_t i = 0; i < parameter.size; ++i) parameter[i] *= T(40);
  for_each_sample([&](int64_t key, int64_t at) {
    poisson_fill(key, 5, 0, n, static_cast<const T*>(parameter.get() + at), expected_counts.get() + at);
  });
  BDTORCH_LAUNCH((fill_counts<T, DrawPoisson>), kBlocks, kBlock, nullptr, problem.streams(), parameter.get(),
                 int64_t(1), n, DrawPoisson{}, counts.get());
  expect_equal("poisson", counts, expected_counts);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int n = std::atoi(argv[2]);
  return run_schedules(std::atoi(argv[1]), [&](unsigned) {
    compare<float>(1, n);
    compare<double>(2, n / 2);
    compare<float>(3, 1);
  });
}
