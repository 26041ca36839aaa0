// The CPU kernels as a generated loop includes them: this header alone, C++17, every buffer a heap object of exact size.
// Compares any partition of the postsynaptic range with the whole, to the bit. Exit code 0: no failure.
#include "bdtorch/event_csr.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

namespace {

int n_failures = 0;
std::mt19937 random_bits(1);

int uniform(int n) { return int(random_bits() % unsigned(n)); }

template <class T>
std::unique_ptr<T[]> zeros(size_t n) {
  return std::unique_ptr<T[]>(new T[n]());
}

// Whether exactly the entries that differ from 0 are visited, in ascending order; -0 is 0.
template <class S>
void visit(int64_t n, int one_in) {
  auto spikes = zeros<S>(size_t(n));
  for (int64_t i = 0; i < n; ++i) spikes[i] = S(uniform(one_in) == 0);
  if (!std::is_same<S, bool>::value)
    for (int64_t i = 0; i < n; ++i)
      if (!bool(spikes[i])) spikes[i] = S(-0.0);
  const int64_t begin = n ? uniform(int(n)) / 4 : 0;
  std::vector<int64_t> expected, visited;
  for (int64_t i = begin; i < n; ++i)
    if (spikes[i] != S(0)) expected.push_back(i);
  bdtorch::for_each_active(spikes.get(), begin, n, [&](int64_t i) { visited.push_back(i); });
  if (visited != expected) {
    ++n_failures;
    std::printf("visits %d of %d active ones among %d\n", int(visited.size()), int(expected.size()), int(n));
  }
}

template <class T, class P, class S>
void compare(int64_t n_pre, int64_t n_post, bool shared_weight) {
  auto indptr = zeros<P>(size_t(n_pre) + 1);
  std::vector<int32_t> columns;
  for (int64_t i = 0; i < n_pre; ++i) {
    std::vector<int32_t> row(n_post == 0 ? 0 : size_t(uniform(12)));
    for (auto& j : row) j = uniform(int(n_post));
    std::sort(row.begin(), row.end());
    columns.insert(columns.end(), row.begin(), row.end());
    indptr[i + 1] = P(columns.size());
  }
  const size_t n_synapses = columns.size();
  auto indices = zeros<int32_t>(n_synapses);
  std::copy(columns.begin(), columns.end(), indices.get());
  auto weights = zeros<T>(shared_weight ? 1 : n_synapses);
  for (size_t k = 0; k < (shared_weight ? 1 : n_synapses); ++k) weights[k] = T(uniform(1000)) / T(7);
  auto spikes = zeros<S>(size_t(n_pre));
  for (int64_t i = 0; i < n_pre; ++i) spikes[i] = S(uniform(3) == 0);
  auto post = zeros<T>(size_t(n_post));
  for (int64_t j = 0; j < n_post; ++j) post[j] = T(uniform(1000)) / T(3);

  auto whole = zeros<T>(size_t(n_post)), parts = zeros<T>(size_t(n_post));
  const auto accumulate = [&](int64_t begin, int64_t end, T* y) {
    bdtorch::event_csr_accumulate(weights.get(), shared_weight, indices.get(), indptr.get(), spikes.get(), n_pre,
                                  n_post, begin, end, y);
  };
  accumulate(0, n_post, whole.get());
  for (int64_t begin = 0; begin < n_post;) {
    const int64_t end = std::min<int64_t>(n_post, begin + 1 + uniform(20));
    accumulate(begin, end, parts.get());
    begin = end;
  }
  if (!std::equal(whole.get(), whole.get() + n_post, parts.get())) {
    ++n_failures;
    std::printf("parts differ from the whole: n_pre %d, n_post %d\n", int(n_pre), int(n_post));
  }

  auto sums = zeros<T>(size_t(n_pre)), sums_of_parts = zeros<T>(size_t(n_pre)), products = zeros<T>(n_synapses);
  const auto gather = [&](int64_t begin, int64_t end, T* out) {
    bdtorch::event_csr_gather(weights.get(), shared_weight, indices.get(), indptr.get(), post.get(), begin, end, out);
  };
  gather(0, n_pre, sums.get());
  for (int64_t i = 0; i < n_pre; ++i) gather(i, i + 1, sums_of_parts.get());
  if (!std::equal(sums.get(), sums.get() + n_pre, sums_of_parts.get())) {
    ++n_failures;
    std::printf("rows differ from the whole: n_pre %d, n_post %d\n", int(n_pre), int(n_post));
  }
  bdtorch::csr_outer_rows(spikes.get(), post.get(), indices.get(), indptr.get(), 1, n_pre, n_post, 0, n_pre,
                          products.get());
}

template <class T, class P, class S>
void compare_sizes(bool shared_weight) {
  for (int64_t n_pre = 0; n_pre <= 18; ++n_pre)
    for (int64_t n_post : {0, 1, 5, 40}) compare<T, P, S>(n_pre, n_post, shared_weight);
  compare<T, P, S>(1000, 333, shared_weight);  // several groups of active rows
}

template <class S>
void visit_sizes() {
  for (int64_t n : {0, 1, 15, 16, 63, 64, 65, 129, 1000, 4095, 4096, 4097, 9000})
    for (int one_in : {1, 2, 30, 1000}) visit<S>(n, one_in);
}

}  // namespace

int main() {
  visit_sizes<bool>();
  visit_sizes<float>();
  visit_sizes<double>();
  compare_sizes<float, int32_t, bool>(false);
  compare_sizes<float, int64_t, bool>(true);
  compare_sizes<double, int64_t, double>(false);
  compare_sizes<float, int32_t, float>(true);
  std::printf("%d failures\n", n_failures);
  return n_failures != 0;
}
