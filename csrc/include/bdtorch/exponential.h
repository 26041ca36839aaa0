// exp, expm1, exprel, linoid, tanh and sigmoid of math.h.
#pragma once

#include "ieee.h"

namespace bdtorch {
namespace detail {

// (expm1(r) - r) / r^2 for |r| <= ln(2)/2
BDTORCH_INLINE float expm1_tail(float r) {
  return fused_horner(r, 0.5f, 0.166666668f, 0.0416664667f, 0.00833328627f, 0.00139336533f, 0.000199075483f);
}
BDTORCH_INLINE double expm1_tail(double r) {
  return fused_horner(r, 0.5, 0.1666666666666667, 0.041666666666666685, 0.008333333333326134, 0.0013888888888874394,
                      0.00019841269874822207, 2.4801587347343323e-05, 2.755725539854808e-06, 2.7557252912941005e-07,
                      2.5105217609736546e-08, 2.092158794838977e-09);
}

// e^r for |r| <= ln(2)/2
BDTORCH_INLINE float exp_near(float r) {
  return fused_horner(r, 1.f, 1.f, 0.49999994f, 0.166665211f, 0.041668389f, 0.00836874545f, 0.00138145394f);
}
BDTORCH_INLINE double exp_near(double r) { return fused(r, fused(r, expm1_tail(r), 1.), 1.); }

// x = k ln 2 + r with an integer k between bounds, such that |r| <= ln(2)/2 where no bound is in the way. Beyond the
// upper one r grows with x, to infinity; beyond the lower one it ends at -1.
template <class T>
struct Reduced {
  typename Format<T>::Signed k;
  T r;
};

template <class T>
BDTORCH_INLINE Reduced<T> reduced(T x, int lowest, int highest) {
  using F = Format<T>;
  using Signed = typename F::Signed;
  const Signed zero = Signed(to_bits(F::shifter));
  // Bits of positive numbers have their order, and those of negative ones come before: so far off as x may be, these are
  // bounds of the number itself. Integers, since a choice between floats costs gcc two instructions and a mask.
  const Signed bits = Signed(to_bits(fused(x, F::log2_e, F::shifter)));
  const Signed raised = bits > zero + lowest ? bits : zero + lowest;
  const Signed bounded = raised < zero + highest ? raised : zero + highest;
  const T k = from_bits(typename F::Bits(bounded)) - F::shifter;
  const T r = fused(k, -F::ln2_low, fused(k, -F::ln2_high, x));
  return {Signed(bounded - zero), r < T(-1) ? T(-1) : r};
}

// 2^k for the exponents of normal numbers
template <class T>
BDTORCH_INLINE T power_of_two(typename Format<T>::Signed k) {
  using Bits = typename Format<T>::Bits;
  return from_bits(Bits((Bits(k) + Format<T>::bias) << Format<T>::mantissa_bits));
}

// e^x - 1 for |x| >= negligible_square
//   = 2 (2^(k-1) - 1/2 + 2^(k-1) expm1(r)): the halved scale reaches the largest numbers
template <class T>
BDTORCH_INLINE T expm1_of_normal(T x) {
  using F = Format<T>;
  const Reduced<T> parts = reduced(x, -2 * F::mantissa_bits, F::bias + 1);
  const T r = parts.r;
  const T scale = power_of_two<T>(parts.k - 1);
  const T half = fused(scale, fused(r * r, expm1_tail(r), r), scale - T(0.5));
  return half + half;
}

}  // namespace detail

// e^x = 2^k e^r in two halves: 2^k alone overflows before e^x does, and has no bits for subnormal numbers. k stays in the
// lowest bits of the sum that rounds it, with twice the bias; what is above them is shifted out.
template <class T>
BDTORCH_INLINE T exp(T x) {
  using F = detail::Format<T>;
  using Bits = typename F::Bits;
  using Signed = typename F::Signed;
  constexpr T shifter = F::shifter + T(2 * F::bias);
  constexpr T least = -T(F::bias + F::mantissa_bits + 2) * (F::ln2_high + F::ln2_low);  // e^least rounds to 0
  const T y = x < least ? least : x;
  const Signed most = Signed(detail::to_bits(shifter + T(F::bias + 1)));
  const Signed bits = Signed(detail::to_bits(detail::fused(y, F::log2_e, shifter)));
  const Signed bounded = bits < most ? bits : most;
  const Bits k = Bits(bounded), half = k >> 1;
  const T whole = detail::from_bits(k) - shifter;
  const T e = detail::exp_near(detail::fused(whole, -F::ln2_low, detail::fused(whole, -F::ln2_high, y)));
  return (e * detail::from_bits(Bits(half << F::mantissa_bits))) * detail::from_bits(Bits((k - half) << F::mantissa_bits));
}

// e^x - 1
template <class T>
BDTORCH_INLINE T expm1(T x) {
  return abs(x) < detail::Format<T>::negligible_square ? x : detail::expm1_of_normal(x);
}

// (e^x - 1) / x, 1 at 0, infinite where e^x is
template <class T>
BDTORCH_INLINE T exprel(T x) {
  return abs(x) < detail::Format<T>::negligible_square ? T(1) : detail::expm1_of_normal(x) / x;
}

// x / (e^x - 1), 1 at 0, 0 where e^x is infinite
template <class T>
BDTORCH_INLINE T linoid(T x) {
  return abs(x) < detail::Format<T>::negligible_square ? T(1) : x / detail::expm1_of_normal(x);
}

namespace detail {

// (tanh(s) / s - 1) / s^2 in z = s^2, for |s| <= ln(2)/4
BDTORCH_INLINE float tanh_tail(float z) { return fused_horner(z, -0.333333227f, 0.133311866f, -0.0527277539f); }
BDTORCH_INLINE double tanh_tail(double z) {
  return fused_horner(z, -0.3333333333333249, 0.13333333332785188, -0.05396825278421685, 0.021869370861906579,
                      -0.0088573132385252654, 0.0034448882587993655);
}

// |x|, and in place of it a bound where that is less; NaN counts as beyond it. Bits of positive numbers have their order,
// and a choice between integers is one instruction where that between floats is two and a mask.
template <class T>
BDTORCH_INLINE T bounded_magnitude(T x, T bound) {
  using F = Format<T>;
  using Signed = typename F::Signed;
  const Signed magnitude = Signed(to_bits(x) & ~F::sign), most = Signed(to_bits(bound));
  return from_bits(typename F::Bits(magnitude < most ? magnitude : most));
}

// The functions below come in stages, which a loop may take one after the other for many elements: each waits less.
//
// |x| = k ln(2)/2 + s, |s| <= ln(2)/4: k + bias, in the lowest bits
template <class T>
BDTORCH_INLINE T tanh_whole(T x) {
  using F = Format<T>;
  return fused(bounded_magnitude(x, F::tanh_limit), T(2) * F::log2_e, F::shifter + T(F::bias));
}

// tanh(s)
template <class T>
BDTORCH_INLINE T tanh_near(T x) {
  using F = Format<T>;
  const T k = tanh_whole(x) - (F::shifter + T(F::bias));
  const T s = fused(k, -F::half_ln2, bounded_magnitude(x, F::tanh_limit));
  const T z = s * s;
  return fused(s * z, tanh_tail(z), fused(k, -F::half_ln2_low, s));
}

// The addition formula, with tanh(k ln(2)/2) = (2^k - 1) / (2^k + 1)
template <class T>
BDTORCH_INLINE T tanh_joined(T x, T near, T whole) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  const T scale = from_bits(Bits(to_bits(whole) << F::mantissa_bits));
  const T sum = scale + T(1), difference = scale - T(1);
  const T y = fused(sum, near, difference) / fused(difference, near, sum);
  return x == x ? from_bits(Bits(to_bits(y) | (to_bits(x) & F::sign))) : x;
}

// 1 / (1 + e^-x), written in e = e^-|x| so that neither end overflows; what rounding 1 + e loses is put back
template <class T>
BDTORCH_INLINE T sigmoid_joined(T x, T e) {
  const T denominator = T(1) + e;
  const T lost = e - (denominator - T(1));
  const T y = (x < T(0) ? e : T(1)) / denominator;
  return y - y * (x < T(0) ? T(1) - y : y) * lost;
}

}  // namespace detail

template <class T>
BDTORCH_INLINE T tanh(T x) {
  return detail::tanh_joined(x, detail::tanh_near(x), detail::tanh_whole(x));
}

template <class T>
BDTORCH_INLINE T sigmoid(T x) {
  return detail::sigmoid_joined(x, exp(-abs(x)));
}

}  // namespace bdtorch
