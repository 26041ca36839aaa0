// Orders of a CSR structure: verified, and made by counting.
//
//   csr_columns     how many columns a structure needs, or that it is none
//   csr_transpose   the same synapses by column
//   csr_sort        a list of synapses by row, then by column
//
// Sorting is by counting, and stable: what is equal keeps its order. Host code, plain C++17.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "macros.h"

namespace bdtorch {

// The largest index of a row of n >= 1 in ascending order, or -1 where it is not, or begins below 0.
BDTORCH_INLINE int64_t last_if_ascending(const int32_t* row, int64_t n) {
  int32_t descents = 0;
  for (int64_t k = 1; k < n; ++k) descents |= int32_t(row[k] < row[k - 1]);
  return descents || row[0] < 0 ? -1 : row[n - 1];
}

// The number of columns that rows [begin, end) need, or -1 where they do not ascend. `indptr` is ascending within
// [0, n_synapses] as far as it is read.
template <class P>
BDTORCH_INLINE int64_t columns_of_rows(const int32_t* indices, const P* indptr, int64_t n_synapses, int64_t begin,
                                       int64_t end) {
  int64_t columns = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = indptr[i], last = indptr[i + 1];
    if (first < 0 || last < first || last > n_synapses) return -1;
    if (first == last) continue;
    const int64_t largest = last_if_ascending(indices + first, last - first);
    if (largest < 0) return -1;
    columns = largest >= columns ? largest + 1 : columns;
  }
  return columns;
}

// Turns counts, count[k] in starts[k + 1], into where each begins.
inline void sum_up(int64_t* starts, int64_t n) {
  starts[0] = 0;
  for (int64_t k = 0; k < n; ++k) starts[k + 1] += starts[k];
}

// rows and, where `order` is not null, the number of each synapse in the structure, by column; starts has n_columns + 1
// entries. Indices are in [0, n_columns).
template <class P>
inline void csr_transpose(const int32_t* indices, const P* indptr, int64_t n_rows, int64_t n_columns, int64_t* starts,
                          int32_t* rows, int32_t* order) {
  const int64_t n_synapses = indptr[n_rows];
  for (int64_t j = 0; j <= n_columns; ++j) starts[j] = 0;
  for (int64_t k = 0; k < n_synapses; ++k) ++starts[indices[k] + 1];
  sum_up(starts, n_columns);
  std::vector<int64_t> next(starts, starts + n_columns);
  for (int64_t i = 0; i < n_rows; ++i) {
    for (int64_t k = indptr[i]; k < int64_t(indptr[i + 1]); ++k) {
      const int64_t place = next[indices[k]]++;
      rows[place] = int32_t(i);
      if (order) order[place] = int32_t(k);
    }
  }
}

inline int bits_of(int64_t n) {
  int bits = 0;
  while (bits < 62 && (int64_t(1) << bits) < n) ++bits;
  return bits;
}

// Sorts keys of so many bits, and the numbers that go with them, digit by digit from the lowest.
inline void radix_sort(std::vector<uint64_t>& keys, std::vector<int32_t>& numbers, int bits) {
  constexpr int most_bits = 11;  // of a digit: places that are written at a time
  const int passes = (bits + most_bits - 1) / most_bits;
  std::vector<uint64_t> sorted_keys(keys.size());
  std::vector<int32_t> sorted_numbers(keys.size());
  for (int pass = 0, shift = 0; pass < passes; ++pass) {
    const int width = (bits - shift + passes - pass - 1) / (passes - pass);
    const uint64_t mask = (uint64_t(1) << width) - 1;
    std::vector<int64_t> next(mask + 2);
    for (uint64_t key : keys) ++next[(key >> shift & mask) + 1];
    sum_up(next.data(), int64_t(mask) + 1);
    for (std::size_t k = 0; k < keys.size(); ++k) {
      const int64_t place = next[keys[k] >> shift & mask]++;
      sorted_keys[place] = keys[k];
      sorted_numbers[place] = numbers[k];
    }
    keys.swap(sorted_keys);
    numbers.swap(sorted_numbers);
    shift += width;
  }
}

// Sorts synapses pre[k] -> post[k] by pre, then post: indices are the post in this order, order[m] the k of synapse m,
// and starts, of n_pre + 1 entries, says where each pre begins. All are in their ranges, and n, n_pre, n_post < 2^31.
template <class A, class B>
inline void csr_sort(const A* pre, const B* post, int64_t n, int64_t n_pre, int64_t n_post, int64_t* starts,
                     int32_t* indices, int32_t* order) {
  const int bits_of_post = bits_of(n_post);
  const auto key = [=](int64_t k) { return uint64_t(pre[k]) << bits_of_post | uint64_t(post[k]); };
  for (int64_t i = 0; i <= n_pre; ++i) starts[i] = 0;
  bool sorted = true;
  for (int64_t k = 0; k < n; ++k) {
    ++starts[pre[k] + 1];
    indices[k] = int32_t(post[k]);
    order[k] = int32_t(k);
    sorted &= k == 0 || key(k - 1) <= key(k);
  }
  sum_up(starts, n_pre);
  if (sorted) return;
  std::vector<uint64_t> keys(static_cast<std::size_t>(n));
  for (int64_t k = 0; k < n; ++k) keys[k] = key(k);
  std::vector<int32_t> numbers(order, order + n);
  radix_sort(keys, numbers, bits_of(n_pre) + bits_of_post);
  const uint64_t mask = (uint64_t(1) << bits_of_post) - 1;
  for (int64_t k = 0; k < n; ++k) {
    indices[k] = int32_t(keys[k] & mask);
    order[k] = numbers[k];
  }
}

}  // namespace bdtorch
