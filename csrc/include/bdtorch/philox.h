// Philox 4x32-10: counter-based random bits (Salmon, Moraes, Dror & Shaw 2011, doi:10.1145/2063384.2063405).
//
// Ten rounds of multiply and exchange turn a counter of 128 bits, under a key of 64 bits, into 128 random bits. There
// is no state to advance: any number can be had on its own, by any thread, in any order. bdtorch's counter is the pair
// (block, step), where `step` counts the calls of a stream and `block` the groups of four words within a call.
#pragma once

#include <cstdint>
#include <cstring>

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

// Where compilers would not find the best instructions: many blocks at a time, in the order of their words.
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define BDTORCH_PHILOX_LOTS

// Eight words on their way, each in the lower half of a lane; what is in the upper half matters to no word.
typedef uint64_t PhiloxLanes __attribute__((vector_size(64)));

// Products of the lower halves. A compiler multiplies whole lanes, for it cannot know that their upper halves are free.
BDTORCH_INLINE PhiloxLanes philox_product(PhiloxLanes a, PhiloxLanes b) {
  PhiloxLanes product;
  __asm__("vpmuludq %2, %1, %0" : "=v"(product) : "v"(a), "v"(b));
  return product;
}

// words[4 u + j] = word j of block `first + u`, for all u < 8 groups. So many times eight blocks take a round together,
// since each would wait for its products; registers have room for six.
template <int groups>
BDTORCH_INLINE void philox_lot(uint64_t key, uint64_t step, uint64_t first, uint32_t* words) {
  const PhiloxLanes zero = {}, low = zero + UINT64_C(0xffffffff);
  const PhiloxLanes multiplier_0 = zero + UINT64_C(0xD2511F53), multiplier_1 = zero + UINT64_C(0xCD9E8D57);
  PhiloxLanes c0[groups], c1[groups], c2[groups], c3[groups];
  for (int g = 0; g < groups; ++g) {
    c0[g] = first + uint64_t(8 * g) + PhiloxLanes{0, 1, 2, 3, 4, 5, 6, 7};
    c1[g] = c0[g] >> 32;
    c2[g] = zero + step;
    c3[g] = c2[g] >> 32;
  }
  uint32_t key_0 = uint32_t(key), key_1 = uint32_t(key >> 32);
  BDTORCH_UNROLL(10)
  for (int round = 0; round < 10; ++round) {
    BDTORCH_UNROLL(6)
    for (int g = 0; g < groups; ++g) {
      const PhiloxLanes product_0 = philox_product(multiplier_0, c0[g]), product_1 = philox_product(multiplier_1, c2[g]);
      c0[g] = product_1 >> 32 ^ (c1[g] ^ (zero + key_0));
      c1[g] = product_1;
      c2[g] = product_0 >> 32 ^ (c3[g] ^ (zero + key_1));
      c3[g] = product_0;
    }
    key_0 += 0x9E3779B9u;
    key_1 += 0xBB67AE85u;
  }
  BDTORCH_UNROLL(6)
  for (int g = 0; g < groups; ++g) {
    const PhiloxLanes front = (c0[g] & low) | c1[g] << 32, back = (c2[g] & low) | c3[g] << 32;
    const PhiloxLanes in_order[2] = {__builtin_shuffle(front, back, PhiloxLanes{0, 8, 1, 9, 2, 10, 3, 11}),
                                     __builtin_shuffle(front, back, PhiloxLanes{4, 12, 5, 13, 6, 14, 7, 15})};
    std::memcpy(words + 32 * g, in_order, sizeof in_order);
  }
}
#endif

}  // namespace bdtorch
