// Weights in two bytes: the upper half of a float, to be read only. Sums are made in float.
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
};

// The type in which products with stored weights of type W are summed.
template <class W>
using SumOf = std::conditional_t<std::is_same<W, BFloat16>::value, float, W>;

}  // namespace bdtorch
