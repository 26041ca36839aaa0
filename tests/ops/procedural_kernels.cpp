// The CPU kernels as a generated loop includes them: this header alone, C++17, every buffer a heap object of exact size.
// Compares any partition of the work with the whole, to the bit. Exit code 0: no failure.
#include "bdtorch/procedural.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>

namespace {

using bdtorch::Draws;
using bdtorch::ProceduralMatrix;

int n_failures = 0;
std::mt19937 random_bits(1);

int64_t uniform(int64_t n) { return int64_t(random_bits() % uint64_t(n)); }

template <class T>
std::unique_ptr<T[]> zeros(int64_t n) {
  return std::unique_ptr<T[]>(new T[size_t(n)]());
}

template <class T, class S>
void compare(const ProceduralMatrix& matrix, int64_t n_batch) {
  const int64_t n_pre = matrix.n_pre, n_post = matrix.n_post;
  auto pre = zeros<S>(n_batch * n_pre), post = zeros<S>(n_batch * n_post);
  for (int64_t i = 0; i < n_batch * n_pre; ++i) pre[i] = S(uniform(3) == 0);
  for (int64_t j = 0; j < n_batch * n_post; ++j) post[j] = S(uniform(3));
  auto whole = zeros<T>(n_batch * n_post), parts = zeros<T>(n_batch * n_post);
  bdtorch::procedural_accumulate(matrix, T(0.7), T(0.1), pre.get(), n_batch, 0, n_post, whole.get());
  for (int64_t begin = 0; begin < n_post;) {
    const int64_t end = std::min(n_post, begin + 1 + uniform(1 + n_post / 3));
    bdtorch::procedural_accumulate(matrix, T(0.7), T(0.1), pre.get(), n_batch, begin, end, parts.get());
    begin = end;
  }
  auto sums = zeros<T>(n_batch * n_pre), sums_of_parts = zeros<T>(n_batch * n_pre);
  bdtorch::procedural_gather(matrix, T(0.7), T(0.1), post.get(), n_batch, 0, n_pre, sums.get());
  for (int64_t i = 0; i < n_pre; ++i)
    bdtorch::procedural_gather(matrix, T(0.7), T(0.1), post.get(), n_batch, i, i + 1, sums_of_parts.get());
  if (!std::equal(whole.get(), whole.get() + n_batch * n_post, parts.get()) ||
      !std::equal(sums.get(), sums.get() + n_batch * n_pre, sums_of_parts.get())) {
    ++n_failures;
    std::printf("parts differ from the whole: n_pre %d, n_post %d\n", int(n_pre), int(n_post));
  }
}

template <class T, class S>
void compare_sizes(Draws draws) {
  for (int64_t n_pre : {0, 1, 70}) {
    for (int64_t n_post : {0, 1, 5, 3000}) {
      for (int64_t self_offset : {n_post, int64_t(-3)}) {
        for (double p : {0., 0.01, 0.4, 1.}) {
          const auto matrix = ProceduralMatrix::with_probability(n_pre, n_post, 9, p, draws, self_offset);
          compare<T, S>(matrix, 1 + uniform(10));
        }
        for (int64_t number : {int64_t(0), n_post / 2, n_post - 1}) {
          if (number < 0) continue;
          const auto matrix = ProceduralMatrix::with_number(n_pre, n_post, 9, number, draws, self_offset);
          compare<T, S>(matrix, 1 + uniform(10));
        }
      }
    }
  }
}

}  // namespace

int main() {
  compare_sizes<double, double>(Draws::uniform);
  compare_sizes<float, bool>(Draws::normal);
  std::printf("%d failures\n", n_failures);
  return n_failures != 0;
}
