// Elementary functions that vectorise and give the same bits everywhere.
//
//   exp expm1 exprel linoid log log1p tanh sigmoid sin cos sincos2pi sqrt abs copysign        for float and double
//
// Every function is straight-line code over IEEE operations and bit patterns: no branch, no table. So a compiler
// vectorises it inside any loop, and the result depends neither on the width of the vectors nor on the processor,
// provided that it is compiled without contraction and without value-changing optimisations:
//
//   g++, clang++   -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math       (-march=... as you like)
//   nvcc           -fmad=false
//
// The exponentials, which models are full of, ask for fused multiply-add by name: that halves their work, and gives the
// same bits where the C library has to stand in for an instruction (x86 before 2013). The other functions do without, so
// that random numbers cost little there.
//
// Errors are below 1 ulp for exp, log, log1p, sin and cos, below 2 for expm1, sigmoid and sincos2pi, below 2.5 for tanh,
// exprel and linoid (tests/ops/test_math.py measures them). Infinities, NaN, signed zeros, overflow and gradual
// underflow are those of the C library, with one exception: sin and cos return NaN for |x| > 2^28, where the argument
// reduction ends.
//
// Polynomial coefficients are minimax fits (Remez exchange in 60 digits) of the function named beside them; argument
// reductions follow Cody and Waite (1980), Software Manual for the Elementary Functions.
#pragma once

#include <cstdint>
#include <cstring>

#include "macros.h"

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "bdtorch/math.h needs IEEE arithmetic: compile without -ffast-math, -fassociative-math and -ffinite-math-only"
#endif

namespace bdtorch {
namespace detail {

template <class T>
struct Format;

template <>
struct Format<float> {
  using Bits = uint32_t;
  using Signed = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Bits sign = 0x80000000u;
  static constexpr Bits mantissa_mask = 0x007fffffu;
  static constexpr Bits bias = 127;
  static constexpr Bits sqrt_half = 0x3f3504f3u;
  static constexpr Bits infinity = 0x7f800000u;
  static constexpr Bits quiet_nan = 0x7fc00000u;
  static constexpr float smallest_normal = 0x1p-126f;
  static constexpr float shifter = 0x1.8p23f;  // adding it rounds to an integer and puts that into the low bits
  static constexpr float two_mantissa = 0x1p23f;
  static constexpr float subnormal_scale = 0x1p25f;
  static constexpr float subnormal_exponent = 25.f;
  static constexpr float negligible_square = 0x1p-26f;  // |x| below it: x and x + x^2/2 round alike
  static constexpr float log2_e = 0x1.715476p+0f;
  static constexpr float ln2_high = 0x1.62e4p-1f;       // 15 bits: exact times any exponent
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float half_ln2 = 0x1.62e43p-2f;
  static constexpr float tanh_limit = 9.02f;  // beyond it, tanh rounds to 1
  static constexpr float two_pi = 0x1.921fb6p+2f;
};

template <>
struct Format<double> {
  using Bits = uint64_t;
  using Signed = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Bits sign = 0x8000000000000000u;
  static constexpr Bits mantissa_mask = 0x000fffffffffffffu;
  static constexpr Bits bias = 1023;
  static constexpr Bits sqrt_half = 0x3fe6a09e667f3bcdu;
  static constexpr Bits infinity = 0x7ff0000000000000u;
  static constexpr Bits quiet_nan = 0x7ff8000000000000u;
  static constexpr double smallest_normal = 0x1p-1022;
  static constexpr double shifter = 0x1.8p52;
  static constexpr double two_mantissa = 0x1p52;
  static constexpr double subnormal_scale = 0x1p54;
  static constexpr double subnormal_exponent = 54.;
  static constexpr double negligible_square = 0x1p-55;
  static constexpr double log2_e = 0x1.71547652b82fep+0;
  static constexpr double ln2_high = 0x1.62e42fefa3p-1;  // 41 bits
  static constexpr double ln2_low = 0x1.3de6af278ece6p-42;
  static constexpr double half_ln2 = 0x1.62e42fefa39efp-2;
  static constexpr double tanh_limit = 19.1;
  static constexpr double two_pi = 0x1.921fb54442d18p+2;
};

BDTORCH_INLINE uint32_t to_bits(float x) { uint32_t b; std::memcpy(&b, &x, sizeof b); return b; }
BDTORCH_INLINE uint64_t to_bits(double x) { uint64_t b; std::memcpy(&b, &x, sizeof b); return b; }
BDTORCH_INLINE float from_bits(uint32_t b) { float x; std::memcpy(&x, &b, sizeof x); return x; }
BDTORCH_INLINE double from_bits(uint64_t b) { double x; std::memcpy(&x, &b, sizeof x); return x; }

// a b + c, rounded once
#if defined(__CUDA_ARCH__)
BDTORCH_INLINE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
BDTORCH_INLINE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
BDTORCH_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
BDTORCH_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif

template <class T>
BDTORCH_INLINE T fused_horner(T, T last) { return last; }
template <class T, class... Rest>
BDTORCH_INLINE T fused_horner(T x, T first, Rest... rest) { return fused(x, fused_horner(x, rest...), first); }

template <class T>
BDTORCH_INLINE T horner(T, T last) { return last; }
template <class T, class... Rest>
BDTORCH_INLINE T horner(T x, T first, Rest... rest) { return first + x * horner(x, rest...); }

// (expm1(r) - r) / r^2 for |r| <= ln(2)/2
BDTORCH_INLINE float expm1_tail(float r) {
  return fused_horner(r, 0.5f, 0.166666668f, 0.0416664667f, 0.00833328627f, 0.00139336533f, 0.000199075483f);
}
BDTORCH_INLINE double expm1_tail(double r) {
  return fused_horner(r, 0.5, 0.1666666666666667, 0.041666666666666685, 0.008333333333326134, 0.0013888888888874394,
                      0.00019841269874822207, 2.4801587347343323e-05, 2.755725539854808e-06, 2.7557252912941005e-07,
                      2.5105217609736546e-08, 2.092158794838977e-09);
}

// (log((1 + s) / (1 - s)) / s - 2) / s^2 in z = s^2, for 1/sqrt(2) <= (1 + s) / (1 - s) <= sqrt(2)
BDTORCH_INLINE float log_tail(float z) {
  return horner(z, 0.66666666f, 0.400001228f, 0.285507372f, 0.233323828f);
}
BDTORCH_INLINE double log_tail(double z) {
  return horner(z, 0.666666666666667, 0.3999999999989845, 0.2857142862639796, 0.2222221107291914,
                0.18182893216844614, 0.15331596971557543, 0.1461787279302967);
}

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

template <class T>
BDTORCH_INLINE T round_to_integer(T x) { return (x + Format<T>::shifter) - Format<T>::shifter; }

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

template <class T>
struct SinCos {
  T sin, cos;
};

template <class T>
BDTORCH_INLINE T abs(T x) {
  return detail::from_bits(typename detail::Format<T>::Bits(detail::to_bits(x) & ~detail::Format<T>::sign));
}

template <class T>
BDTORCH_INLINE T copysign(T magnitude, T sign) {
  using F = detail::Format<T>;
  const auto magnitude_bits = detail::to_bits(magnitude) & ~F::sign;
  return detail::from_bits(typename F::Bits(magnitude_bits | (detail::to_bits(sign) & F::sign)));
}

#if defined(__CUDA_ARCH__)
BDTORCH_INLINE float sqrt(float x) { return __fsqrt_rn(x); }
BDTORCH_INLINE double sqrt(double x) { return __dsqrt_rn(x); }
#else
BDTORCH_INLINE float sqrt(float x) { return __builtin_sqrtf(x); }
BDTORCH_INLINE double sqrt(double x) { return __builtin_sqrt(x); }
#endif

namespace detail {

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

// e^x = 2^k e^r in two factors: 2^k alone overflows before e^x does, and has no bits for subnormal numbers
template <class T>
BDTORCH_INLINE T exp(T x) {
  using F = detail::Format<T>;
  constexpr int smallest = 3 - int(F::bias);  // below it, the first factor would already round
  const auto parts = detail::reduced(x, -int(F::bias) - F::mantissa_bits - 2, F::bias + 1);
  const T r = parts.r;
  const T e = detail::fused(r, detail::fused(r, detail::expm1_tail(r), T(1)), T(1));
  const typename F::Signed k = parts.k > smallest ? parts.k : smallest;
  return (e * detail::power_of_two<T>(k - 1)) * detail::power_of_two<T>(parts.k - k + 1);
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

namespace detail {

// (s - (1 - e^(-2 s)) / 2) / -s^2 for |s| <= ln(2)/4: the tail of expm1 at -2 s, its terms in pairs, which wait less for one
// another than those of Horner's scheme
BDTORCH_INLINE float tanh_tail(float s) {
  const float z = s * s;
  const float low = fused(s, 4 * 0.166666668f, -2 * 0.5f);
  const float middle = fused(s, 16 * 0.00833328627f, -8 * 0.0416664667f);
  const float high = fused(s, 64 * 0.000199075483f, -32 * 0.00139336533f);
  return fused(z * z, high, fused(z, middle, low));
}
BDTORCH_INLINE double tanh_tail(double s) {
  const double z = s * s;
  const double w = z * z;
  const double a = fused(s, 4 * 0.1666666666666667, -2 * 0.5);
  const double b = fused(s, 16 * 0.008333333333326134, -8 * 0.041666666666666685);
  const double c = fused(s, 64 * 0.00019841269874822207, -32 * 0.0013888888888874394);
  const double d = fused(s, 256 * 2.755725539854808e-06, -128 * 2.4801587347343323e-05);
  const double e = fused(s, 1024 * 2.5105217609736546e-08, -512 * 2.7557252912941005e-07);
  const double f = -2048 * 2.092158794838977e-09;
  return fused(w, fused(w, fused(z, f, e), fused(z, d, c)), fused(z, b, a));
}

}  // namespace detail

// tanh|x| = h / d with h = (1 - e^(-2|x|)) / 2 and d = (1 + e^(-2|x|)) / 2, from e^(-2|x|) = 2^k (1 - 2 p), k ln 2 = -2 (|x| - s)
template <class T>
BDTORCH_INLINE T tanh(T x) {
  using F = detail::Format<T>;
  const T magnitude = abs(x);
  const T bounded = F::tanh_limit < magnitude ? F::tanh_limit : magnitude;  // NaN stays
  const T shifted = detail::fused(bounded, T(-2) * F::log2_e, F::shifter);
  const T s = detail::fused(shifted - F::shifter, F::half_ln2, bounded);
  const T p = detail::fused(s * s, detail::tanh_tail(s), s);
  const T scale = detail::from_bits(typename F::Bits((detail::to_bits(shifted) + F::bias) << F::mantissa_bits));
  const T h = detail::fused(scale, p, detail::fused(scale, T(-0.5), T(0.5)));
  const T d = detail::fused(-scale, p, detail::fused(scale, T(0.5), T(0.5)));
  return copysign(h / d, x);
}

// 1 / (1 + e^-x), written in e^-|x| so that neither end overflows; what rounding 1 + e loses is put back
template <class T>
BDTORCH_INLINE T sigmoid(T x) {
  const T e = exp(-abs(x));
  const T denominator = T(1) + e;
  const T lost = e - (denominator - T(1));
  const T y = (x < T(0) ? e : T(1)) / denominator;
  return y - y * (x < T(0) ? T(1) - y : y) * lost;
}

namespace detail {

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
