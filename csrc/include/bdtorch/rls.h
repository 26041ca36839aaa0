// Recursive least squares with postponed updates. What is known of the inverse correlation P of n features lies in
//
//   memory   (n + block + 2, width): P0, symmetric; up to `block` rows h; the gain of the last sample; a sample
//   P        = forgetting^-count (P0 - sum over the first `count` rows of h h^T)
//
// whose rows are filled up with zeros to `width`, a multiple of 64 bytes.
//
//   rls_take   takes in a sample x: k = P x / (forgetting + x^T P x), P <- (P - k (P x)^T) / forgetting
//
// A sample only reads P0 and adds a row h. When `block` of them are full, a product of matrices adds them to P0, so that
// a sample moves half a matrix through the caches where updates at once would move several. Of large P0 the lower
// triangle is kept, and the squares of a line of the cache on the diagonal; of small ones all, symmetric to the bit.
//
// Where rounding has made forgetting + x^T P x negative, its root, and with it all that follows, becomes NaN.
//
// Included by generated code: no torch, C++17.
#pragma once
#include <cstdint>
#include <cstring>

#include "dense.h"
#include "math.h"

namespace bdtorch {

constexpr int64_t rls_most_pending = 32;

namespace detail {

template <class T>
constexpr int lanes_of = 64 / int(sizeof(T));

// Whether all of P0 is kept: it then lies in the second cache, and a product is cheapest row by row.
template <class T>
constexpr bool is_small(int64_t n) { return n * n * int64_t(sizeof(T)) <= (256 << 10); }

template <class T>
BDTORCH_INLINE T total_of(const T* part) {
  constexpr int lanes = lanes_of<T>;
  T sum[lanes];
  for (int u = 0; u < lanes; ++u) sum[u] = part[u];
#pragma GCC unroll 4
  for (int half = lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int u = 0; u < half; ++u) sum[u] += sum[u + half];
  return sum[0];
}

template <class T>
inline T inner_product(const T* a, const T* b, int64_t width) {
  constexpr int lanes = lanes_of<T>;
  T even[lanes] = {}, odd[lanes] = {};
  int64_t i = 0;
  for (; i + 2 * lanes <= width; i += 2 * lanes)
#pragma GCC unroll 1
    for (int u = 0; u < lanes; ++u) {
      even[u] = op::multiply_add(a[i + u], b[i + u], even[u]);
      odd[u] = op::multiply_add(a[i + lanes + u], b[i + lanes + u], odd[u]);
    }
  if (i < width)
#pragma GCC unroll 1
    for (int u = 0; u < lanes; ++u) even[u] = op::multiply_add(a[i + u], b[i + u], even[u]);
  for (int u = 0; u < lanes; ++u) even[u] += odd[u];
  return total_of(even);
}

// y[0, lines * lanes) = sum over rows of x[i] p[i], with the sums in registers.
template <class T, int lines>
inline void multiply_columns(const T* p, int64_t width, int64_t begin, int64_t end, const T* x, T* y) {
  constexpr int lanes = lanes_of<T>;
  T sum[lines][lanes] = {};
  for (int64_t i = begin; i < end; ++i) {
    const T* row = p + i * width;
    const T factor = x[i];
#pragma GCC unroll 8
    for (int l = 0; l < lines; ++l)
#pragma GCC unroll 1
      for (int u = 0; u < lanes; ++u) sum[l][u] = op::multiply_add(row[l * lanes + u], factor, sum[l][u]);
  }
#pragma GCC unroll 8
  for (int l = 0; l < lines; ++l)
#pragma GCC unroll 1
    for (int u = 0; u < lanes; ++u) y[l * lanes + u] += sum[l][u];
}

// y[begin, end) += (p x)[begin, end) for the rows [first, last) of p; begin and end are multiples of `lanes`.
template <class T>
inline void multiply_all_columns(const T* p, int64_t width, int64_t first, int64_t last, int64_t begin, int64_t end,
                                 const T* x, T* y) {
  constexpr int64_t lanes = lanes_of<T>;
  int64_t j = begin;
  for (; j + 8 * lanes <= end; j += 8 * lanes) multiply_columns<T, 8>(p + j, width, first, last, x, y + j);
  if (j + 4 * lanes <= end) {
    multiply_columns<T, 4>(p + j, width, first, last, x, y + j);
    j += 4 * lanes;
  }
  switch ((end - j) / lanes) {
    case 3: return multiply_columns<T, 3>(p + j, width, first, last, x, y + j);
    case 2: return multiply_columns<T, 2>(p + j, width, first, last, x, y + j);
    case 1: return multiply_columns<T, 1>(p + j, width, first, last, x, y + j);
  }
}

// What four rows from `first` on contribute to y left of the column `end`, both as rows and as columns.
template <class T>
inline void multiply_both_ways(const T* p, int64_t width, int64_t first, int64_t end, const T* x, T* y) {
  constexpr int lanes = lanes_of<T>;
  const T *p0 = p + first * width, *p1 = p0 + width, *p2 = p1 + width, *p3 = p2 + width;
  const T x0 = x[first], x1 = x[first + 1], x2 = x[first + 2], x3 = x[first + 3];
  T s0[lanes] = {}, s1[lanes] = {}, s2[lanes] = {}, s3[lanes] = {};
  for (int64_t j = 0; j < end; j += lanes) {
#pragma GCC unroll 1
    for (int u = 0; u < lanes; ++u) {
      const T a = p0[j + u], b = p1[j + u], c = p2[j + u], d = p3[j + u], z = x[j + u];
      s0[u] = op::multiply_add(a, z, s0[u]);
      s1[u] = op::multiply_add(b, z, s1[u]);
      s2[u] = op::multiply_add(c, z, s2[u]);
      s3[u] = op::multiply_add(d, z, s3[u]);
      y[j + u] = op::multiply_add(
          d, x3, op::multiply_add(c, x2, op::multiply_add(b, x1, op::multiply_add(a, x0, y[j + u]))));
    }
  }
  y[first] += total_of(s0);
  y[first + 1] += total_of(s1);
  y[first + 2] += total_of(s2);
  y[first + 3] += total_of(s3);
}

// y = P0 x, where x and y have `width` elements.
template <class T>
inline void multiply_symmetric(const T* p, int64_t n, int64_t width, const T* __restrict x, T* __restrict y) {
  constexpr int64_t lanes = lanes_of<T>;
  std::memset(y, 0, size_t(width) * sizeof(T));
  if (is_small<T>(n)) return multiply_all_columns(p, width, 0, n, 0, width, x, y);
  for (int64_t square = 0; square < n; square += lanes) {
    const int64_t end = square + lanes < n ? square + lanes : n;
    int64_t i = square;
    for (; i + 4 <= end; i += 4) multiply_both_ways(p, width, i, square, x, y);
    for (; i < end; ++i) {
      y[i] += inner_product(p + i * width, x, square);
      op::add_row(y, p + i * width, x[i], 0, square);
    }
    multiply_columns<T, 1>(p + square, width, square, end, x, y + square);
  }
}

// P0 <- scale (P0 - h^T h), by strips of rows. The rows h are scaled, so that both factors of a product are the same.
template <class T>
inline void rls_fold(T* p, T* h, int64_t n, int64_t width, int64_t block, T scale) {
  constexpr int64_t strip = 32;
  static_assert(strip % lanes_of<T> == 0, "a strip ends with a square of the diagonal");
  if (scale != T(1)) {
    const T root = sqrt(scale);
    for (int64_t e = 0; e < block * width; ++e) h[e] *= root;
  }
  for (int64_t first = 0; first < n; first += strip) {
    const int64_t rows = n - first < strip ? n - first : strip;
    const int64_t end = is_small<T>(n) || first + strip > width ? width : first + strip;
    const T* left[strip];
    T* out[strip];
    T factors[strip * rls_most_pending];
    for (int64_t i = 0; i < rows; ++i) {
      out[i] = p + (first + i) * width;
      left[i] = factors + i * block;
      for (int64_t k = 0; k < block; ++k) factors[i * block + k] = -h[k * width + first + i];
      if (scale != T(1))
        for (int64_t j = 0; j < end; ++j) out[i][j] *= scale;
    }
    op::add_in_blocks(left, 1, h, width, block, out, rows, 0, end);
  }
}

}  // namespace detail

// A sample x of n features, for one memory with `count` rows h; without `learn` P stays as it is, and the gain is 0.
template <class T>
inline void rls_take(T* memory, int64_t n, int64_t width, int64_t block, int64_t count, const T* x, bool learn,
                     T forgetting) {
  T* h = memory + n * width;
  T *gain = h + block * width, *sample = gain + width;
  if (!learn) {
    std::memset(gain, 0, size_t(width) * sizeof(T));
    return;
  }
  std::memcpy(sample, x, size_t(n) * sizeof(T));
  T* row = h + count * width;
  detail::multiply_symmetric(memory, n, width, sample, row);
  T age = 1;  // forgetting^count
  for (int64_t k = 0; k < count; ++k) {
    op::add_row(row, h + k * width, -detail::inner_product(h + k * width, sample, width), 0, width);
    age *= forgetting;
  }
  const T scaled = age * forgetting + detail::inner_product(row, sample, width);  // age (forgetting + x^T P x)
  const T to_gain = 1 / scaled, to_row = 1 / sqrt(scaled);
  for (int64_t i = 0; i < width; ++i) {
    gain[i] = row[i] * to_gain;
    row[i] *= to_row;
  }
  if (count + 1 == block) detail::rls_fold(memory, h, n, width, block, 1 / (age * forgetting));
}

}  // namespace bdtorch
