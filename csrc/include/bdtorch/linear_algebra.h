// Linear algebra of small dense matrices, row by row in memory, in place.
#pragma once

#include <cstdint>

#include "loop.h"

namespace op {

// P A = L U with partial pivoting, over A; `rows` gets the row of A that each row of L U comes from. Returns the sign of
// the permutation. A singular matrix leaves zeros on the diagonal, and infinities or NaN in what is solved with it.
template <class T>
inline int lu(T* a, int64_t n, int64_t* rows) {
  int sign = 1;
  for (int64_t i = 0; i < n; ++i) rows[i] = i;
  for (int64_t k = 0; k < n; ++k) {
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; ++i) {
      if (op::abs(a[i * n + k]) > op::abs(a[pivot * n + k])) pivot = i;
    }
    if (pivot != k) {
      sign = -sign;
      const int64_t row = rows[k];
      rows[k] = rows[pivot];
      rows[pivot] = row;
      for (int64_t j = 0; j < n; ++j) {
        const T entry = a[k * n + j];
        a[k * n + j] = a[pivot * n + j];
        a[pivot * n + j] = entry;
      }
    }
    if (a[k * n + k] == T(0)) continue;  // and so is all below
    for (int64_t i = k + 1; i < n; ++i) {
      const T factor = a[i * n + k] /= a[k * n + k];
      for (int64_t j = k + 1; j < n; ++j) a[i * n + j] -= factor * a[k * n + j];
    }
  }
  return sign;
}

// B <- A^-1 B for a triangular A, where B is (n, m).
template <class T>
inline void solve_triangular(const T* a, T* b, int64_t n, int64_t m, bool upper, bool unit) {
  for (int64_t step = 0; step < n; ++step) {
    const int64_t i = upper ? n - 1 - step : step;
    for (int64_t k = upper ? i + 1 : 0; k < (upper ? n : i); ++k)
      for (int64_t j = 0; j < m; ++j) b[i * m + j] -= a[i * n + k] * b[k * m + j];
    if (!unit)
      for (int64_t j = 0; j < m; ++j) b[i * m + j] /= a[i * n + i];
  }
}

// X <- A^-1 B, where B and X are (n, m); A is overwritten.
template <class T>
inline void solve(T* a, const T* b, T* x, int64_t n, int64_t m, int64_t* rows) {
  lu(a, n, rows);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) x[i * m + j] = b[rows[i] * m + j];
  solve_triangular(a, x, n, m, false, true);
  solve_triangular(a, x, n, m, true, false);
}

// A <- L with A = L L^T, of which the lower triangle is read. Where A is not positive definite, L has NaN.
template <class T>
inline void cholesky(T* a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      T sum = a[i * n + j];
      for (int64_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? op::sqrt(sum) : sum / a[j * n + j];
    }
    for (int64_t j = i + 1; j < n; ++j) a[i * n + j] = 0;
  }
}

// The determinant; A is overwritten.
template <class T>
inline T determinant(T* a, int64_t n, int64_t* rows) {
  T product = T(lu(a, n, rows));
  for (int64_t i = 0; i < n; ++i) product *= a[i * n + i];
  return product;
}

// The logarithm of the determinant's absolute value, and the determinant's sign; A is overwritten.
template <class T>
inline T log_determinant(T* a, int64_t n, int64_t* rows, T* sign) {
  T sum = 0;
  *sign = T(lu(a, n, rows));
  for (int64_t i = 0; i < n; ++i) {
    *sign *= op::sign(a[i * n + i]);
    sum += bdtorch::log(op::abs(a[i * n + i]));
  }
  return sum;
}

}  // namespace op
