// sin, cos and sincos2pi of math.h.
#pragma once

#include "ieee.h"

namespace bdtorch {
template <class T>
struct SinCos {
  T sin, cos;
};

namespace detail {

// (sin(a) - a) / a^3 and (cos(a) - 1 + a^2/2) / a^4 in z = a^2, for |a| <= pi/4
BDTORCH_INLINE float sin_tail(float z) {
  return horner(z, -0.166666667f, 0.00833333188f, -0.000198400872f, 2.7249971e-06f);
}
BDTORCH_INLINE float cos_tail(float z) {
  return horner(z, 0.0416666647f, -0.00138883036f, 2.45480164e-05f);
}
BDTORCH_INLINE double sin_tail(double z) {
  return horner(z, -0.16666666666666666, 0.00833333333333095, -0.00019841269836759213, 2.7557316102723052e-06,
                -2.5051131855038285e-08, 1.5918128541918031e-10);
}
BDTORCH_INLINE double cos_tail(double z) {
  return horner(z, 0.041666666666666664, -0.0013888888888887398, 2.4801587298765916e-05, -2.755731727175957e-07,
                2.087614626041977e-09, -1.1382631029830733e-11);
}

// sin and cos of (quadrant pi/2 + a + lost_in_a), |a| <= pi/4; only the last two bits of quadrant count
template <class T>
BDTORCH_INLINE SinCos<T> sincos_of_reduced(T a, T lost_in_a, typename Format<T>::Bits quadrant) {
  using Bits = typename Format<T>::Bits;
  constexpr int to_sign = int(sizeof(T)) * 8 - 2;
  const T z = a * a;
  const T half_square = T(0.5) * z;
  const T sine = a + (a * z * sin_tail(z) + lost_in_a * (T(1) - half_square));
  const T near_one = T(1) - half_square;
  const T cosine = near_one + (((T(1) - near_one) - half_square) + (z * z * cos_tail(z) - a * lost_in_a));
  const bool swap = (quadrant & 1) != 0;
  const Bits sine_sign = (quadrant & 2) << to_sign;
  const Bits cosine_sign = ((quadrant + 1) & 2) << to_sign;
  return {from_bits(Bits(to_bits(swap ? cosine : sine) ^ sine_sign)),
          from_bits(Bits(to_bits(swap ? sine : cosine) ^ cosine_sign))};
}

// pi/2 in parts of 25 bits: exact times a quadrant below 2^28
constexpr double half_pi_1 = 0x1.921fb5p+0;
constexpr double half_pi_2 = 0x1.110b46p-26;
constexpr double half_pi_3 = 0x1.1a6263p-54;
constexpr double half_pi_4 = 0x1.8a2e03707344ap-81;
constexpr double two_over_pi = 0x1.45f306dc9c883p-1;
constexpr double trigonometric_limit = 0x1p28;

BDTORCH_INLINE SinCos<float> sincos_of(float x) {
  const double wide = x;
  const double k = round_to_integer(wide * two_over_pi);
  const double a = ((wide - k * half_pi_1) - k * half_pi_2) - k * half_pi_3;
  const float rounded = float(a);
  return sincos_of_reduced(rounded, float(a - double(rounded)), uint32_t(to_bits(k + Format<double>::shifter)));
}

BDTORCH_INLINE SinCos<double> sincos_of(double x) {
  const double k = round_to_integer(x * two_over_pi);
  const double a1 = x - k * half_pi_1;  // exact; the next two differences keep their rounding errors (Knuth's two-sum)
  const double b2 = k * half_pi_2;
  const double a2 = a1 - b2;
  const double v2 = a1 - a2;
  const double lost2 = (a1 - (a2 + v2)) - (b2 - v2);
  const double b3 = k * half_pi_3;
  const double a3 = a2 - b3;
  const double v3 = a2 - a3;
  const double lost3 = (a2 - (a3 + v3)) - (b3 - v3);
  const double lost = lost2 + (lost3 - k * half_pi_4);
  const double a = a3 + lost;
  return sincos_of_reduced(a, (a3 - a) + lost, to_bits(k + Format<double>::shifter));
}

}  // namespace detail

// NaN outside [-2^28, 2^28]
template <class T>
BDTORCH_INLINE T sin(T x) {
  const T value = detail::sincos_of(x).sin;
  const T signed_zero = x == T(0) ? x : value;
  return abs(x) <= T(detail::trigonometric_limit) ? signed_zero : detail::from_bits(detail::Format<T>::quiet_nan);
}

// NaN outside [-2^28, 2^28]
template <class T>
BDTORCH_INLINE T cos(T x) {
  const T value = detail::sincos_of(x).cos;
  return abs(x) <= T(detail::trigonometric_limit) ? value : detail::from_bits(detail::Format<T>::quiet_nan);
}

// sin(2 pi u) and cos(2 pi u) for |u| <= 2^20: the reduction is exact
template <class T>
BDTORCH_INLINE SinCos<T> sincos2pi(T u) {
  const T k = detail::round_to_integer(T(4) * u);
  const T a = (u - T(0.25) * k) * detail::Format<T>::two_pi;
  return detail::sincos_of_reduced(a, T(0), detail::to_bits(k + detail::Format<T>::shifter));
}

}  // namespace bdtorch
