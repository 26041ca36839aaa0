// Weights in two bytes: the upper half of a float. Sums are made in float, and what is stored again is rounded.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "macros.h"

namespace bdtorch {

struct BFloat16 {
  uint16_t bits;

  BDTORCH_INLINE operator float() const {
    const uint32_t word = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }

  // The nearest number, of two equally near ones the even. NaN stays NaN.
  BDTORCH_INLINE static BFloat16 nearest(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    if (value != value) return {uint16_t(word >> 16 | 0x40u)};
    return {uint16_t((word + 0x7fffu + (word >> 16 & 1u)) >> 16)};
  }
};

// The type in which products with stored weights of type W are summed.
template <class W>
using SumOf = std::conditional_t<std::is_same<W, BFloat16>::value, float, W>;

// What is stored of a number.
template <class W>
BDTORCH_INLINE W stored(SumOf<W> value) {
  if constexpr (std::is_same<W, BFloat16>::value)
    return BFloat16::nearest(value);
  else
    return value;
}

}  // namespace bdtorch
