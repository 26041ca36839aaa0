// The kernels of dense event products against loops.
//
//   usage: event_dense N_SCHEDULES N_ROWS
#include "event_dense.cuh"

#include "bdtorch/two_bytes.h"

#include <random>

#include "buffer.h"

using namespace bdtorch;
using namespace bdtorch::cuda;

namespace {

template <class W, class S, class T = SumOf<W>>
void compare(int64_t n_batch, int64_t n_rows, int64_t n_columns, bool per_sample, unsigned seed) {
  std::mt19937 random(seed);
  const auto dyadic = [&] { return T(int(random() % 17) - 8) / 4; };  // sums are exact in any order
  const int64_t size = n_rows * n_columns, stride = per_sample ? size : 0;
  Buffer<W> matrix(size_t(per_sample ? n_batch * size : size));
  Buffer<S> by_row(size_t(n_batch * n_rows)), by_column(size_t(n_batch * n_columns));
  for (size_t k = 0; k < matrix.size; ++k) matrix[k] = stored<W>(dyadic());
  for (auto* spikes : {&by_row, &by_column})
    for (size_t k = 0; k < spikes->size; ++k) (*spikes)[k] = S(random() % 10 < 3);
  Buffer<T> sums(by_column.size, T(-77)), expected(by_column.size);
  Buffer<T> sums_t(by_row.size, T(-77)), expected_t(by_row.size);
  for (int64_t b = 0; b < n_batch; ++b)
    for (int64_t i = 0; i < n_rows; ++i)
      for (int64_t j = 0; j < n_columns; ++j) {
        const T element = T(matrix[b * stride + i * n_columns + j]);
        expected[b * n_columns + j] += element * T(by_row[b * n_rows + i]);
        expected_t[b * n_rows + i] += element * T(by_column[b * n_columns + j]);
      }
  BDTORCH_LAUNCH((sum_active_rows<W, S, T, kBlock>), kBlocks, kBlock, nullptr, matrix.get(), stride, by_row.get(), n_batch,
                 n_rows, n_columns, sums.get());
  expect_equal("sum_active_rows", sums, expected);
  BDTORCH_LAUNCH((sum_active_columns<W, S, T>), kBlocks, kBlock, nullptr, matrix.get(), stride, by_column.get(), n_batch,
                 n_rows, n_columns, sums_t.get());
  expect_equal("sum_active_columns", sums_t, expected_t);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int n_rows = std::atoi(argv[2]);
  return run_schedules(std::atoi(argv[1]), [&](unsigned seed) {
    compare<float, bool>(1, n_rows, 97, false, seed);
    compare<double, double>(3, n_rows / 2, 33, true, seed);
    compare<BFloat16, float>(2, 40, 70, true, seed);
    compare<float, bool>(2, 1, 1, false, seed);
  });
}
