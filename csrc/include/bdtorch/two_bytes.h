// Numbers in two bytes: for storage, and for what a model keeps in them. Arithmetic is made in float, and what is stored
// again is rounded to the nearest, of two equally near ones to the even: to the bit as torch does it.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "macros.h"

namespace bdtorch {
namespace detail {

BDTORCH_INLINE uint32_t word_of(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  return word;
}

BDTORCH_INLINE float number_of(uint32_t word) {
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

}  // namespace detail

// The upper half of a float: its range, and 8 bits.
struct BFloat16 {
  uint16_t bits;

  BDTORCH_INLINE operator float() const { return detail::number_of(uint32_t(bits) << 16); }

  // NaN stays NaN.
  BDTORCH_INLINE static BFloat16 nearest(float value) {
    const uint32_t word = detail::word_of(value), rounded = word + 0x7fffu + (word >> 16 & 1u);
    return {uint16_t(value == value ? rounded >> 16 : word >> 16 | 0x40u)};
  }
};

// IEEE binary16: 11 bits, from 6e-8 to 65504. Without the processor's own type, which not every compiler knows; straight
// code over bits, which compilers vectorise.
struct Float16 {
  uint16_t bits;

  BDTORCH_INLINE operator float() const {
    const uint32_t magnitude = uint32_t(bits & 0x7fffu) << 13, sign = uint32_t(bits & 0x8000u) << 16;
    const uint32_t finite = detail::word_of(detail::number_of(magnitude) * 0x1p112f);  // exact, subnormal numbers too
    return detail::number_of(sign | (magnitude < 0x0f800000u ? finite : magnitude | 0x7f800000u));
  }

  // Beyond the largest number infinity; NaN stays NaN.
  BDTORCH_INLINE static Float16 nearest(float value) {
    const uint32_t word = detail::word_of(value), sign = word >> 16 & 0x8000u, magnitude = word & 0x7fffffffu;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    // Added to 1/2, a subnormal number is rounded to a multiple of the smallest, and stands in the lowest bits.
    const uint32_t subnormal = detail::word_of(detail::number_of(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t infinite = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return {uint16_t(sign | (magnitude < 0x477ff000u ? finite : infinite))};
  }
};

template <class T>
constexpr bool has_two_bytes = std::is_same<T, BFloat16>::value || std::is_same<T, Float16>::value;

// The type in which products with stored weights of type W are summed.
template <class W>
using SumOf = std::conditional_t<has_two_bytes<W>, float, W>;

// What is stored of a number.
template <class W>
BDTORCH_INLINE W stored(SumOf<W> value) {
  if constexpr (has_two_bytes<W>)
    return W::nearest(value);
  else
    return value;
}

// What is left of a number once stored.
template <class W>
BDTORCH_INLINE SumOf<W> rounded(SumOf<W> value) {
  return SumOf<W>(stored<W>(value));
}

}  // namespace bdtorch
