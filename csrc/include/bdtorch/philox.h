// Philox 4x32-10: counter-based random bits (Salmon, Moraes, Dror & Shaw 2011, doi:10.1145/2063384.2063405).
//
// Ten rounds of multiply and exchange turn a counter of 128 bits, under a key of 64 bits, into 128 random bits. There
// is no state to advance: any number can be had on its own, by any thread, in any order. bdtorch's counter is the pair
// (block, step), where `step` counts the calls of a stream and `block` the groups of four words within a call.
#pragma once

#include <cstdint>

#include "macros.h"

namespace bdtorch {

struct PhiloxBlock {
  uint32_t word[4];
};

// A word on its way through the rounds, a lane in vector loops. AVX-512 multiplies 64-bit lanes in one instruction, and
// a shift and a mask give the product's halves; elsewhere gcc does better with 32-bit lanes and shuffles.
#if defined(__AVX512DQ__)
using PhiloxLane = uint64_t;
#else
using PhiloxLane = uint32_t;
#endif

BDTORCH_INLINE PhiloxBlock philox(uint64_t key, uint64_t step, uint64_t block) {
  using Lane = PhiloxLane;
  constexpr uint64_t multiplier_0 = 0xD2511F53u, multiplier_1 = 0xCD9E8D57u;
  constexpr uint32_t weyl_0 = 0x9E3779B9u, weyl_1 = 0xBB67AE85u;  // golden ratio, sqrt(3) - 1
  uint32_t key_0 = uint32_t(key), key_1 = uint32_t(key >> 32);
  Lane c0 = uint32_t(block), c1 = Lane(block >> 32), c2 = uint32_t(step), c3 = Lane(step >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product_0 = multiplier_0 * c0;
    const uint64_t product_1 = multiplier_1 * c2;
    c0 = Lane(product_1 >> 32) ^ c1 ^ key_0;
    c1 = uint32_t(product_1);
    c2 = Lane(product_0 >> 32) ^ c3 ^ key_1;
    c3 = uint32_t(product_0);
    key_0 += weyl_0;
    key_1 += weyl_1;
  }
  return {{uint32_t(c0), uint32_t(c1), uint32_t(c2), uint32_t(c3)}};
}

}  // namespace bdtorch
