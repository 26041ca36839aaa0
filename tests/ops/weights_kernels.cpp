// The CPU kernels of dense products and of changes of weights as a generated loop includes them: C++17, every buffer a
// heap object of exact size. Compares any partition with the whole, to the bit. Exit code 0: no failure.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>

#include "bdtorch/delay.h"
#include "bdtorch/eligibility.h"
#include "bdtorch/event_dense_batch.h"
#include "bdtorch/plasticity.h"

namespace {

int n_failures = 0;
std::mt19937 random_bits(1);

int uniform(int n) { return int(random_bits() % unsigned(n)); }

template <class T>
std::unique_ptr<T[]> filled(int64_t n, int one_in = 1) {
  std::unique_ptr<T[]> values(new T[size_t(n)]());
  for (int64_t k = 0; k < n; ++k)
    if (uniform(one_in) == 0) values[k] = T(double(uniform(1000) + 1) / 7);
  return values;
}

// Calls run(begin, end, out) for the whole range, and for parts that make it up; the outputs have n elements.
template <class T, class Run>
void compare_parts(const char* what, int64_t range, int64_t n, const T* start, Run&& run) {
  std::unique_ptr<T[]> whole(new T[size_t(n)]()), parts(new T[size_t(n)]());
  if (start) std::copy_n(start, n, whole.get()), std::copy_n(start, n, parts.get());
  run(int64_t(0), range, whole.get());
  for (int64_t begin = 0; begin < range;) {
    const int64_t end = std::min<int64_t>(range, begin + 1 + uniform(20));
    run(begin, end, parts.get());
    begin = end;
  }
  if (!std::equal(whole.get(), whole.get() + n, parts.get())) {
    ++n_failures;
    std::printf("%s: parts differ from the whole, %d elements\n", what, int(n));
  }
}

template <class T, class S>
void compare(int64_t n_rows, int64_t n_columns, bool with_b) {
  using namespace bdtorch;
  const int64_t size = n_rows * n_columns;
  const auto w = filled<T>(size);
  const auto by_row = filled<S>(n_rows, 3), by_column = filled<S>(n_columns, 3);
  const auto a_row = filled<T>(n_rows), a_column = filled<T>(n_columns), b_row = filled<T>(n_rows);
  const auto b_column = filled<T>(n_columns);
  const WeightChange<T> to_rows{a_column.get(), with_b ? b_column.get() : nullptr, T(1), T(90)};
  const WeightChange<T> to_columns{a_row.get(), with_b ? b_row.get() : nullptr, T(1), T(90)};
  const RowMajor<T> matrix{w.get(), n_rows, n_columns};
  compare_parts<T>("event_dense_rows", n_columns, n_columns, nullptr, [&](int64_t begin, int64_t end, T* y) {
    event_dense_rows(matrix, by_row.get(), begin, end, y);
  });
  compare_parts<T>("event_dense_columns", n_rows, n_rows, nullptr, [&](int64_t begin, int64_t end, T* y) {
    event_dense_columns(matrix, by_column.get(), begin, end, y);
  });
  // A batch by panels, against its samples.
  const int64_t n_batch = 6, lanes = batch_lanes<T>;
  const auto many = filled<T>(n_batch * n_rows, 2);
  const std::unique_ptr<T[]> panel(new T[size_t(n_rows * lanes)]), batch(new T[size_t(n_batch * n_columns)]());
  for (int64_t begin = 0; begin < n_columns; begin += lanes) {
    const int64_t count = std::min(lanes, n_columns - begin);
    if (!pack_panel<false>(w.get(), n_columns, n_rows, begin, count, panel.get())) ++n_failures;
    multiply_panel(many.get(), n_batch, n_rows, panel.get(), n_columns, begin, count, batch.get());
  }
  for (int64_t b = 0; b < n_batch; ++b) {
    const std::unique_ptr<T[]> single(new T[size_t(n_columns)]());
    event_dense_rows(matrix, many.get() + b * n_rows, 0, n_columns, single.get());
    if (!std::equal(single.get(), single.get() + n_columns, batch.get() + b * n_columns)) {
      ++n_failures;
      std::printf("multiply_panel differs from its samples\n");
    }
  }
  compare_parts<T>("dense_update_rows", n_columns, size, w.get(), [&](int64_t begin, int64_t end, T* out) {
    dense_update_rows(RowMajor<T>{out, n_rows, n_columns}, by_row.get(), to_rows, begin, end);
  });
  compare_parts<T>("dense_update_columns", n_rows, size, w.get(), [&](int64_t begin, int64_t end, T* out) {
    dense_update_columns(RowMajor<T>{out, n_rows, n_columns}, by_column.get(), to_columns, begin, end);
  });
  // A CSR structure of every pair: the rows, and the columns by numbered synapses.
  const auto indptr = filled<int32_t>(n_rows + 1), indptr_t = filled<int32_t>(n_columns + 1);
  const auto indices = filled<int32_t>(size), indices_t = filled<int32_t>(size), synapses = filled<int32_t>(size);
  for (int64_t i = 0; i <= n_rows; ++i) indptr[i] = int32_t(i * n_columns);
  for (int64_t j = 0; j <= n_columns; ++j) indptr_t[j] = int32_t(j * n_rows);
  for (int64_t i = 0; i < n_rows; ++i)
    for (int64_t j = 0; j < n_columns; ++j) {
      indices[i * n_columns + j] = int32_t(j);
      indices_t[j * n_rows + i] = int32_t(i);
      synapses[j * n_rows + i] = int32_t(i * n_columns + j);
    }
  std::unique_ptr<T[]> rows(new T[size_t(size)]), columns(new T[size_t(size)]);
  std::copy_n(w.get(), size, rows.get()), std::copy_n(w.get(), size, columns.get());
  dense_update_rows(RowMajor<T>{rows.get(), n_rows, n_columns}, by_row.get(), to_rows, 0, n_columns);
  dense_update_columns(RowMajor<T>{columns.get(), n_rows, n_columns}, by_column.get(), to_columns, 0, n_rows);
  const auto sparse = [&](const char* what, int64_t n, const S* spikes, const WeightChange<T>& change,
                          const int32_t* ends, const int32_t* starts, const int32_t* numbers, const T* expected) {
    compare_parts<T>(what, n, size, w.get(), [&](int64_t begin, int64_t end, T* out) {
      csr_update_rows(out, spikes, change, ends, starts, numbers, begin, end);
      if (begin == 0 && end == n && !std::equal(out, out + size, expected)) {
        ++n_failures;
        std::printf("%s differs from the dense one\n", what);
      }
    });
  };
  const auto delays = filled<int32_t>(size);
  for (int64_t k = 0; k < size; ++k) delays[k] = int32_t(uniform(5));
  compare_parts<T>("event_csr_delayed", n_columns, 5 * n_columns, nullptr, [&](int64_t begin, int64_t end, T* ring) {
    event_csr_delayed(ring, 3, 5, w.get(), false, indices.get(), indptr.get(), delays.get(), by_row.get(), n_rows,
                      n_columns, begin, end);
  });
  compare_parts<T>("eligibility_rows", n_rows, size, w.get(), [&](int64_t begin, int64_t end, T* e) {
    eligibility_rows(e, w.get(), false, a_row.get(), a_column.get(), indices.get(), indptr.get(), begin, end);
  });
  const int32_t* in_order = nullptr;
  sparse("rows", n_rows, by_row.get(), to_rows, indices.get(), indptr.get(), in_order, rows.get());
  sparse("columns", n_columns, by_column.get(), to_columns, indices_t.get(), indptr_t.get(), synapses.get(), columns.get());
}

// Woven rows against rows that follow one another: where elements lie, what visits make of them, and the way back.
template <class T, class S>
void compare_layouts(int64_t n_rows, int64_t n_columns, bool with_b) {
  using namespace bdtorch;
  const int64_t size = n_rows * n_columns;
  const auto plain = filled<T>(size), room = filled<T>(n_columns);
  const std::unique_ptr<T[]> woven(new T[size_t(size)]);
  std::copy_n(plain.get(), size, woven.get());
  const RowMajor<T> one{plain.get(), n_rows, n_columns};
  const WovenRows<T> other{woven.get(), n_rows, n_columns};
  const auto check = [&](const char* what, bool equal) {
    if (equal) return;
    ++n_failures;
    std::printf("%s: %d x %d woven differ\n", what, int(n_rows), int(n_columns));
  };
  const auto same_elements = [&](const char* what) {
    bool same = true;
    for (int64_t i = 0; i < n_rows; ++i)
      for (int64_t j = 0; j < n_columns; ++j) same &= *one.at(i, j) == *other.at(i, j);
    check(what, same);
  };
  // Any two parts of the pairs.
  const int64_t middle = n_rows / 2 / 3;
  weave_rows(woven.get(), n_columns, 0, middle, room.get());
  weave_rows(woven.get(), n_columns, middle, n_rows / 2, room.get());
  same_elements("weave_rows");

  const auto by_row = filled<S>(n_rows, 3), by_column = filled<S>(n_columns, 3);
  const auto a_row = filled<T>(n_rows), a_column = filled<T>(n_columns), b_row = filled<T>(n_rows);
  const auto b_column = filled<T>(n_columns);
  const WeightChange<T> to_rows{a_column.get(), with_b ? b_column.get() : nullptr, T(-0.), T(90)};
  const WeightChange<T> to_columns{a_row.get(), with_b ? b_row.get() : nullptr, T(1), T(90)};
  const auto both = [&](const char* what, int64_t range, const auto& run) {
    const std::unique_ptr<T[]> y(new T[size_t(range)]()), y_woven(new T[size_t(range)]());
    run(one, int64_t(0), range, y.get());
    for (int64_t begin = 0; begin < range;) {
      const int64_t end = std::min<int64_t>(range, begin + 1 + uniform(40));
      run(other, begin, end, y_woven.get());
      begin = end;
    }
    check(what, std::equal(y.get(), y.get() + range, y_woven.get()));
    same_elements(what);
  };
  both("event_dense_rows", n_columns, [&](const auto& m, int64_t begin, int64_t end, T* y) {
    event_dense_rows(m, by_row.get(), begin, end, y);
  });
  both("event_dense_columns", n_rows, [&](const auto& m, int64_t begin, int64_t end, T* y) {
    event_dense_columns(m, by_column.get(), begin, end, y);
  });
  both("dense_update_rows", n_columns, [&](const auto& m, int64_t begin, int64_t end, T*) {
    dense_update_rows(m, by_row.get(), to_rows, begin, end);
  });
  both("dense_update_columns", n_rows, [&](const auto& m, int64_t begin, int64_t end, T*) {
    dense_update_columns(m, by_column.get(), to_columns, begin, end);
  });
  both("dense_deliver_update_rows", n_columns, [&](const auto& m, int64_t begin, int64_t end, T* y) {
    dense_deliver_update_rows(m, by_row.get(), to_rows, begin, end, y);
  });
  both("dense_deliver_update_columns", n_rows, [&](const auto& m, int64_t begin, int64_t end, T* y) {
    dense_deliver_update_columns(m, by_column.get(), to_columns, begin, end, y);
  });
  unweave_rows(woven.get(), n_columns, 0, n_rows / 2, room.get());
  check("unweave_rows", std::equal(plain.get(), plain.get() + size, woven.get()));
}

}  // namespace

int main() {
  for (int64_t n_rows : {0, 1, 7, 65, 200})
    for (int64_t n_columns : {0, 1, 5, 130}) {
      compare<float, bool>(n_rows, n_columns, false);
      compare<double, double>(n_rows, n_columns, true);
      compare<float, float>(n_rows, n_columns, true);
      compare_layouts<float, bool>(n_rows, n_columns, false);
      compare_layouts<double, double>(n_rows, n_columns, true);
      compare_layouts<float, float>(n_rows, n_columns, true);
    }
  std::printf("%d failures\n", n_failures);
  return n_failures != 0;
}
