// The kernels that draw and order connectivity, from their headers alone: C++17, every buffer a heap object of exact size.
// Compared with sets and sorts of the standard library. Exit code 0: no failure.
#include "bdtorch/csr_order.h"
#include "bdtorch/draw.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <vector>

namespace {

int n_failures = 0;
std::mt19937 random_bits(1);

int64_t uniform(int64_t n) { return int64_t(random_bits() % uint64_t(n)); }

void expect(bool holds, const char* what) {
  if (holds) return;
  ++n_failures;
  std::printf("%s\n", what);
}

template <class T>
std::unique_ptr<T[]> exactly(int64_t n) {
  return std::unique_ptr<T[]>(new T[size_t(n)]());
}

void compare_sets(int64_t n) {
  bdtorch::OrderedSet set(n);
  for (int64_t members : {0, 1, 5, 300}) {
    std::set<int32_t> expected;
    for (int64_t k = 0; k < members; ++k) {
      const int64_t value = k == 0 ? n - 1 : uniform(n), gone = uniform(n);
      set.insert(value);
      set.erase(gone);
      expected.insert(int32_t(value));
      expected.erase(int32_t(gone));
    }
    auto drained = exactly<int32_t>(int64_t(expected.size()));
    expect(set.drain(drained.get()) == int64_t(expected.size()), "members of a set");
    expect(std::equal(expected.begin(), expected.end(), drained.get()), "order of a set");
  }
}

void compare_rows(int64_t n_pre, int64_t n_post, double mean_gap) {
  std::vector<double> gaps;
  for (int64_t position = -1; position < n_pre * n_post;) {
    gaps.push_back(double(uniform(int64_t(2 * mean_gap) + 1)) + 0.5);
    position += int64_t(gaps.back()) + 1;
  }
  std::vector<int32_t> columns;
  std::vector<int64_t> starts(size_t(n_pre) + 1);
  int64_t position = -1;
  for (double gap : gaps) {
    position += int64_t(gap) + 1;
    const int64_t row = position / n_post, column = position % n_post;
    if (row >= n_pre || column == row + 1) continue;
    columns.push_back(int32_t(column));
    ++starts[size_t(row) + 1];
  }
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  auto indptr = exactly<int64_t>(n_pre + 1);
  auto indices = exactly<int32_t>(int64_t(gaps.size()));
  bdtorch::BernoulliRows rows(n_pre, n_post, 1, indptr.get());
  bool more = true;
  for (size_t first = 0; more; first += 7)
    more = rows.take(gaps.data() + first, std::min<int64_t>(7, int64_t(gaps.size() - first)), indices.get());
  expect(rows.count == int64_t(columns.size()), "synapses of rows");
  expect(std::equal(columns.begin(), columns.end(), indices.get()), "columns of rows");
  expect(std::equal(starts.begin(), starts.end(), indptr.get()), "starts of rows");
}

template <class P>
void compare_orders(int64_t n_pre, int64_t n_post, int64_t n) {
  auto pre = exactly<P>(n);
  auto post = exactly<int64_t>(n);
  for (int64_t k = 0; k < n; ++k) pre[size_t(k)] = P(uniform(n_pre)), post[size_t(k)] = uniform(n_post);
  std::vector<int32_t> expected(static_cast<size_t>(n));
  std::iota(expected.begin(), expected.end(), 0);
  const auto by_both = [&](int32_t a, int32_t b) {
    return std::make_pair(int64_t(pre[a]), post[a]) < std::make_pair(int64_t(pre[b]), post[b]);
  };
  std::stable_sort(expected.begin(), expected.end(), by_both);
  auto starts = exactly<int64_t>(n_pre + 1);
  auto indices = exactly<int32_t>(n), order = exactly<int32_t>(n);
  bdtorch::csr_sort(pre.get(), post.get(), n, n_pre, n_post, starts.get(), indices.get(), order.get());
  expect(std::equal(expected.begin(), expected.end(), order.get()), "order of sorted synapses");
  expect(starts[size_t(n_pre)] == n, "starts of sorted synapses");
  const int64_t needed = bdtorch::columns_of_rows(indices.get(), starts.get(), n, 0, n_pre);
  expect(n == 0 ? needed == 0 : needed == 1 + *std::max_element(post.get(), post.get() + n), "columns needed");

  auto columns = exactly<int64_t>(n_post + 1);
  auto rows = exactly<int32_t>(n), back = exactly<int32_t>(n);
  bdtorch::csr_transpose(indices.get(), starts.get(), n_pre, n_post, columns.get(), rows.get(), back.get());
  const int64_t rows_needed = bdtorch::columns_of_rows(rows.get(), columns.get(), n, 0, n_post);
  expect(rows_needed >= 0 && rows_needed <= n_pre, "ascending rows of columns");
  for (int64_t j = 0; j < n_post; ++j)
    for (int64_t m = columns[size_t(j)]; m < columns[size_t(j) + 1]; ++m) {
      const int64_t k = back[size_t(m)];
      expect(indices[size_t(k)] == j && starts[rows[size_t(m)]] <= k && k < starts[rows[size_t(m)] + 1], "transposed");
    }
  if (n > 0) {
    indices[0] = -1;
    expect(bdtorch::columns_of_rows(indices.get(), starts.get(), n, 0, n_pre) < 0, "a negative index");
  }
}

}  // namespace

int main() {
  for (int64_t n : {1, 63, 64, 65, 4096, 300000}) compare_sets(n);
  for (double mean_gap : {0.5, 3., 40.})
    for (int64_t n_post : {1, 2, 17, 200}) compare_rows(30, n_post, mean_gap);
  for (int64_t n : {0, 1, 2, 500}) {
    compare_orders<int32_t>(1, 1, n);
    compare_orders<int64_t>(40, 7, n);
    compare_orders<int32_t>(5000, 70000, n);
  }
  std::printf("%d failures\n", n_failures);
  return n_failures != 0;
}
