// The kernels of changes of weights against the loops of bdtorch/plasticity.h, to the bit.
//
//   usage: plasticity N_SCHEDULES N_ROWS
#include "plasticity.cuh"

#include <numeric>
#include <random>

#include "buffer.h"

using namespace bdtorch;
using namespace bdtorch::cuda;

namespace {

template <class T>
struct Random {
  explicit Random(unsigned seed) : bits(seed) {}
  template <class S>
  void fill(Buffer<S>& buffer, int percent) {
    for (size_t k = 0; k < buffer.size; ++k) {
      const T value = int(bits() % 100) < percent ? T(bits() % 1000) / T(300) : T(0);
      if constexpr (std::is_same_v<S, bool>)
        buffer[k] = value != T(0);
      else
        buffer[k] = stored<S>(value);
    }
  }
  std::mt19937 bits;
};

template <class W, class S, bool columns, class T = SumOf<W>>
void compare_dense(int64_t n_batch, int64_t n_rows, int64_t n_columns, unsigned seed) {
  const int64_t n_spiking = columns ? n_columns : n_rows, n_terms = columns ? n_rows : n_columns, size = n_rows * n_columns;
  Random<T> random(seed);
  Buffer<W> w(size_t(n_batch * size)), expected(w.size);
  Buffer<T> a(size_t(n_batch * n_terms)), b(a.size);
  Buffer<S> spikes(size_t(n_batch * n_spiking));
  random.fill(w, 100), random.fill(a, 100), random.fill(b, 100), random.fill(spikes, 30);
  std::copy_n(w.get(), w.size, expected.get());
  const WeightChange<T> change{a.get(), seed % 2 ? b.get() : nullptr, T(0.5), T(3)};
  for (int64_t i = 0; i < n_batch; ++i) {
    const int64_t at = i * n_terms;
    const WeightChange<T> own{change.a + at, change.b ? change.b + at : nullptr, change.low, change.high};
    const RowMajor<W> matrix{expected.get() + i * size, n_rows, n_columns};
    if constexpr (columns)
      dense_update_columns(matrix, spikes.get() + i * n_spiking, own, 0, n_rows);
    else
      dense_update_rows(matrix, spikes.get() + i * n_spiking, own, 0, n_columns);
  }
  BDTORCH_LAUNCH((change_dense<W, S, T, columns>), kBlocks, kBlock, nullptr, w.get(), spikes.get(), change, n_batch, n_rows,
                 n_columns);
  expect_equal("change_dense", w, expected);
}

template <class W, class P, class S, class T = SumOf<W>>
void compare_csr(int64_t n_batch, int64_t n_rows, int64_t n_terms, bool numbered, unsigned seed) {
  Random<T> random(seed);
  Buffer<P> indptr(size_t(n_rows) + 1);
  for (int64_t i = 0; i < n_rows; ++i) indptr[i + 1] = indptr[i] + P(random.bits() % 70);
  const int64_t n_synapses = int64_t(indptr[n_rows]);
  Buffer<int32_t> indices(n_synapses), synapses(n_synapses);
  for (int64_t k = 0; k < n_synapses; ++k) indices[k] = int32_t(random.bits() % unsigned(n_terms));
  std::iota(synapses.get(), synapses.get() + n_synapses, 0);
  std::shuffle(synapses.get(), synapses.get() + n_synapses, random.bits);
  const int32_t* numbers = numbered ? synapses.get() : nullptr;
  Buffer<W> w(size_t(n_batch * n_synapses)), expected(w.size);
  Buffer<T> a(size_t(n_batch * n_terms)), b(a.size);
  Buffer<S> spikes(size_t(n_batch * n_rows));
  random.fill(w, 100), random.fill(a, 100), random.fill(b, 100), random.fill(spikes, 30);
  std::copy_n(w.get(), w.size, expected.get());
  const WeightChange<T> change{a.get(), b.get(), T(0.5), T(3)};
  for (int64_t i = 0; i < n_batch; ++i)
    csr_update_rows(expected.get() + i * n_synapses, spikes.get() + i * n_rows,
                    WeightChange<T>{a.get() + i * n_terms, b.get() + i * n_terms, T(0.5), T(3)}, indices.get(),
                    indptr.get(), numbers, 0, n_rows);
  BDTORCH_LAUNCH((change_csr<W, P, S, T>), kBlocks, kBlock, nullptr, w.get(), spikes.get(), change, indices.get(),
                 indptr.get(), numbers, n_batch, n_rows, n_terms, n_synapses);
  expect_equal("change_csr", w, expected);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int n_rows = std::atoi(argv[2]);
  return run_schedules(std::atoi(argv[1]), [&](unsigned seed) {
    compare_dense<float, bool, false>(1, n_rows, 97, seed);
    compare_dense<double, double, false>(3, n_rows / 2, 33, seed);
    compare_dense<float, bool, true>(2, n_rows, 65, seed);
    compare_dense<double, double, true>(1, 1, 1, seed);
    compare_csr<float, int32_t, bool>(1, n_rows, 97, false, seed);
    compare_csr<double, int64_t, double>(2, n_rows / 2, 33, true, seed);
    compare_dense<BFloat16, bool, false>(1, 40, 33, seed);
    compare_csr<BFloat16, int32_t, float>(2, n_rows / 3, 33, true, seed);
  });
}
