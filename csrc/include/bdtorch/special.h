// Special functions that models seldom need: by their series, in double precision whatever the argument's type.
//
//   digamma  psi(x) = d/dx log Gamma(x)                      zeta(s, q) = sum over k >= 0 of (q + k)^-s
//   erfinv   erf(erfinv(x)) = x                              erfcx(x) = exp(x^2) erfc(x)
//   bessel_i<n, scaled>  I_n(x), n = 0 or 1, and exp(-|x|) I_n(x)
//
// Recurrences, asymptotic expansions and the Euler-Maclaurin formula are those of the NIST Digital Library of Mathematical
// Functions, sections 5.5, 5.11, 7.12, 10.25, 10.40 and 25.11. Errors are below 10 units in the last place, of digamma near
// its zeros of its neighbours' (tests/simulate/native/test_special.py).
#pragma once

#include <cstdint>

#include "macros.h"
#include "math.h"

namespace op {
namespace special {

constexpr double PI = 3.14159265358979323846;

// B_2, B_4, ... B_16.
constexpr double BERNOULLI[] = {1.0 / 6,  -1.0 / 30,      1.0 / 42, -1.0 / 30,
                                5.0 / 66, -691.0 / 2730,  7.0 / 6,  -3617.0 / 510};

inline double digamma(double x) {
  if (x == 0) return bdtorch::copysign(__builtin_inf(), -x);
  double shift = 0;
  if (x < 0) {  // psi(1 - x) - psi(x) = pi / tan(pi x), of period 1
    const double fraction = x - __builtin_trunc(x);
    if (fraction == 0 || x != x) return __builtin_nan("");
    shift = -PI / __builtin_tan(PI * fraction);
    x = 1 - x;
  }
  for (; x < 10; x += 1) shift -= 1 / x;
  const double square = 1 / (x * x);
  double power = square, sum = 0;
  for (int k = 0; k < 8; ++k, power *= square) sum += BERNOULLI[k] / (2 * k + 2) * power;
  return shift + bdtorch::log(x) - 0.5 / x - sum;
}

inline double zeta(double s, double q) {
  if (s == 1) return __builtin_inf();
  if (!(s > 1)) return __builtin_nan("");
  if (q <= 0) {  // where a term has no finite value, or none that is real
    if (q == __builtin_floor(q)) return __builtin_inf();
    if (s != __builtin_floor(s)) return __builtin_nan("");
  }
  double sum = 0;
  int64_t k = 0;
  for (; k < 10 || q + k < 10; ++k) {
    const double term = __builtin_pow(q + k, -s);
    sum += term;
    if (q + k > 0 && term <= 1e-17 * bdtorch::abs(sum)) return sum;
  }
  const double a = q + k, first = __builtin_pow(a, -s);
  sum += a * first / (s - 1) + 0.5 * first;
  double factor = s * first / a, factorial = 2;  // s (s+1) ... a^(-s-2j+1), (2j)!
  for (int j = 1; j <= 8; ++j) {
    sum += BERNOULLI[j - 1] / factorial * factor;
    factor *= (s + 2 * j - 1) * (s + 2 * j) / (a * a);
    factorial *= (2 * j + 1) * (2 * j + 2);
  }
  return sum;
}

inline double erfinv(double x) {
  const double size = bdtorch::abs(x), rest = 1 - size;
  if (!(size < 1)) return size == 1 ? bdtorch::copysign(__builtin_inf(), x) : __builtin_nan("");
  if (size < 1e-9) return x * 0.88622692545275801365;  // sqrt(pi) / 2
  // Winitzki's approximation to 2e-3, then Halley's method on erfc(y) = 1 - |x|.
  const double l = bdtorch::log(rest * (1 + size)), a = 0.147, b = 2 / (PI * a) + 0.5 * l;
  double y = __builtin_sqrt(__builtin_sqrt(b * b - l / a) - b);
  for (int k = 0; k < 3; ++k) {
    const double miss = size < 0.5 ? size - __builtin_erf(y) : __builtin_erfc(y) - rest;
    const double step = miss * 0.88622692545275801365 * bdtorch::exp(y * y);
    y += step / (1 - y * step);
  }
  return bdtorch::copysign(y, x);
}

inline double erfcx(double x) {
  if (x < -27) return __builtin_inf();
  if (x < 10) {
    const double square = x * x, rest = __builtin_fma(x, x, -square);
    return bdtorch::exp(square) * (1 + rest) * __builtin_erfc(x);
  }
  const double ratio = 0.5 / (x * x);
  double term = 1, sum = 1;
  for (int k = 1; k <= 12; ++k) sum += term *= -(2 * k - 1) * ratio;
  return sum / (x * 1.77245385090551602730);  // sqrt(pi)
}

template <int N>
inline double bessel_i_scaled(double x) {
  const double size = bdtorch::abs(x);
  double sum = 1, term = 1;
  if (size == __builtin_inf()) return 0;
  if (size < 20) {
    const double quarter = 0.25 * size * size;
    for (int k = 1; k < 80 && term > 1e-18 * sum; ++k) sum += term *= quarter / (double(k) * (k + N));
    sum *= bdtorch::exp(-size);
    return N ? 0.5 * x * sum : sum;
  }
  for (int k = 1; k < 40 && bdtorch::abs(term) > 1e-18; ++k)
    sum += term *= -(4.0 * N * N - (2.0 * k - 1) * (2.0 * k - 1)) / (k * 8 * size);
  sum /= __builtin_sqrt(2 * PI * size);
  return N ? bdtorch::copysign(sum, x) : sum;
}

}  // namespace special

BDTORCH_INLINE float digamma(float x) { return float(special::digamma(x)); }
BDTORCH_INLINE double digamma(double x) { return special::digamma(x); }
BDTORCH_INLINE float zeta(float s, float q) { return float(special::zeta(s, q)); }
BDTORCH_INLINE double zeta(double s, double q) { return special::zeta(s, q); }
BDTORCH_INLINE float erfinv(float x) { return float(special::erfinv(x)); }
BDTORCH_INLINE double erfinv(double x) { return special::erfinv(x); }
BDTORCH_INLINE float erfcx(float x) { return float(special::erfcx(x)); }
BDTORCH_INLINE double erfcx(double x) { return special::erfcx(x); }

template <int N, bool scaled, class T>
BDTORCH_INLINE T bessel_i(T x) {
  const double found = special::bessel_i_scaled<N>(x);
  return T(scaled ? found : found * bdtorch::exp(bdtorch::abs(double(x))));
}

}  // namespace op
