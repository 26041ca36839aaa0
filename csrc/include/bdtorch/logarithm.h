// log and log1p of math.h.
#pragma once

#include "ieee.h"

namespace bdtorch {
namespace detail {

// (log((1 + s) / (1 - s)) / s - 2) / s^2 in z = s^2, for 1/sqrt(2) <= (1 + s) / (1 - s) <= sqrt(2)
BDTORCH_INLINE float log_tail(float z) {
  return horner(z, 0.66666666f, 0.400001228f, 0.285507372f, 0.233323828f);
}
BDTORCH_INLINE double log_tail(double z) {
  return horner(z, 0.666666666666667, 0.3999999999989845, 0.2857142862639796, 0.2222221107291914,
                0.18182893216844614, 0.15331596971557543, 0.1461787279302967);
}

// log(x) - exponent_offset ln 2 + correction for a positive normal x
//   x = 2^k m,  1/sqrt(2) <= m < sqrt(2),  f = m - 1,  s = f / (2 + f)
//   log(m) = 2 atanh(s) = f - f^2/2 + s (f^2/2 + s^2 P(s^2))
template <class T>
BDTORCH_INLINE T log_of_normal(T x, T exponent_offset, T correction) {
  using F = Format<T>;
  const auto shifted = to_bits(x) - F::sqrt_half + (F::bias << F::mantissa_bits);
  const T k = from_bits(typename F::Bits(to_bits(F::two_mantissa) | (shifted >> F::mantissa_bits))) -
              (F::two_mantissa + T(F::bias)) - exponent_offset;
  const T f = from_bits(typename F::Bits((shifted & F::mantissa_mask) + F::sqrt_half)) - T(1);
  const T s = f / (T(2) + f);
  const T z = s * s;
  const T half_square = T(0.5) * f * f;
  const T small = s * (half_square + z * log_tail(z)) + (k * F::ln2_low + correction);
  return k * F::ln2_high - ((half_square - small) - f);
}

// value for finite x above the pole of the logarithm, -infinity at it, NaN below it; x itself if infinite or NaN
template <class T>
BDTORCH_INLINE T log_special_cases(T value, T x, T distance_to_pole) {
  using F = Format<T>;
  const T infinity = from_bits(F::infinity);
  const T above = x < infinity ? value : x;
  const T at_or_below = distance_to_pole == T(0) ? -infinity : from_bits(F::quiet_nan);
  return distance_to_pole > T(0) ? above : at_or_below;
}

}  // namespace detail

// log(2^k m) = k ln 2 + log(m), 1/sqrt(2) <= m < sqrt(2)
template <class T>
BDTORCH_INLINE T log(T x) {
  using F = detail::Format<T>;
  const bool subnormal = x < F::smallest_normal;
  const T normal = subnormal ? x * F::subnormal_scale : x;
  const T value = detail::log_of_normal(normal, subnormal ? F::subnormal_exponent : T(0), T(0));
  return detail::log_special_cases(value, x, x);
}

// log(1 + x) = log(u) + (x - (u - 1)) / u, u = 1 + x as rounded
template <class T>
BDTORCH_INLINE T log1p(T x) {
  using F = detail::Format<T>;
  const T u = T(1) + x;
  const T value = detail::log_of_normal(u, T(0), (x - (u - T(1))) / u);
  return abs(x) < F::negligible_square ? x : detail::log_special_cases(value, x, u);
}

}  // namespace bdtorch
