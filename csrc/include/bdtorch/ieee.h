// Floating-point numbers as bit patterns, what is exact on them, and fused multiply-add: the material of math.h.
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
  static constexpr float half_ln2 = 0x1.62e43p-2f;      // as rounded; the rest is below
  static constexpr float half_ln2_low = -0x1.05c610p-30f;
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
  static constexpr double half_ln2_low = 0x1.abc9e3b39803fp-57;
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

// Whether that is an instruction. Where it is not, the C library's takes some fifty.
// (clang does not say so by __FP_FAST_FMA.)
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMA) || defined(__CUDA_ARCH__)
constexpr bool has_fused = true;
#else
constexpr bool has_fused = false;
#endif

template <class T>
BDTORCH_INLINE T fused_horner(T, T last) { return last; }
template <class T, class... Rest>
BDTORCH_INLINE T fused_horner(T x, T first, Rest... rest) { return fused(x, fused_horner(x, rest...), first); }

template <class T>
BDTORCH_INLINE T horner(T, T last) { return last; }
template <class T, class... Rest>
BDTORCH_INLINE T horner(T x, T first, Rest... rest) { return first + x * horner(x, rest...); }

template <class T>
BDTORCH_INLINE T round_to_integer(T x) { return (x + Format<T>::shifter) - Format<T>::shifter; }

}  // namespace detail

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

// x / divisor for a divisor that is known beforehand, as are 1 / divisor towards zero, `high`, and what that lacks, `low`
// (Brisebarre, Muller & Raina 2004, doi:10.1109/TC.2004.37). Having the divisor's sign, both leave zeros and infinities as
// they should be. Before it is rounded, the sum is off by at most 2^(2 - 2p) of the quotient, p being the bits of a number.
// If the divisor is an odd number below 2^(p - 3) times a power of two, no quotient is so close to the middle between two
// numbers, and the result is that of the division. Only where the quotient is below that odd number times twice the smallest
// normal number, for there x low loses bits, may the result be the neighbour of what division gives.
template <class T>
BDTORCH_INLINE T divided(T x, T divisor, T high, T low) {
  return detail::has_fused ? detail::fused(x, high, x * low) : x / divisor;
}

}  // namespace bdtorch
