// Random numbers as a function: number i of the stream `key` at the step `step` depends on (key, step, i) alone.
//
//   uniform_fill     u_i in [0, 1)     float: multiples of 2^-24, double: of 2^-53
//   normal_fill      z_i ~ N(0, 1)     float: |z_i| < 6.7, double: |z_i| < 8.7
//   exponential_fill x_i ~ Exp(1)      float: x_i < 22.2, double: x_i < 37.5
//   bernoulli_fill   u_i < p_i         with the uniforms of p's type
//
// They fill [begin, end) of an array that begins at out[0], so threads may cut the array anywhere, and a generated loop
// may ask for the part that it is about to use. All arithmetic is that of math.h: CPU and GPU agree to the bit.
#pragma once

#include <cstdint>
#include <type_traits>

#include "macros.h"
#include "math.h"
#include "philox.h"

namespace bdtorch {

// A distribution turns the four words of a Philox block into `per_block` numbers.
template <class T>
struct Uniform;

template <class T>
struct Normal;

template <class T>
struct Exponential;

template <class T, int N>
struct Numbers {
  T value[N];
};

template <>
struct Uniform<float> {
  static constexpr int per_block = 4;

  BDTORCH_INLINE static float from_word(uint32_t word) { return float(int32_t(word >> 8)) * 0x1p-24f; }

  BDTORCH_INLINE static Numbers<float, 4> of(const PhiloxBlock& block) {
    return {{from_word(block.word[0]), from_word(block.word[1]), from_word(block.word[2]), from_word(block.word[3])}};
  }
};

// The words as they are, in the order of the numbers that they make.
struct Words {
  static constexpr int per_block = 4;

  BDTORCH_INLINE static Numbers<uint32_t, 4> of(const PhiloxBlock& block) {
    return {{block.word[0], block.word[1], block.word[2], block.word[3]}};
  }
};

template <>
struct Uniform<double> {
  static constexpr int per_block = 2;

  // An integer of 53 bits, as 27 and 26: conversions of 32-bit integers vectorise everywhere, those of 64 bits do not.
  BDTORCH_INLINE static double integer_from_words(uint32_t high, uint32_t low) {
    return double(int32_t(high >> 5)) * 0x1p26 + double(int32_t(low >> 6));
  }

  BDTORCH_INLINE static double from_words(uint32_t high, uint32_t low) {
    return integer_from_words(high, low) * 0x1p-53;
  }

  BDTORCH_INLINE static Numbers<double, 2> of(const PhiloxBlock& block) {
    return {{from_words(block.word[0], block.word[1]), from_words(block.word[2], block.word[3])}};
  }
};

// Uniform on (0, 1]. 31 bits, though a float holds 24: small numbers make the tails, and there all of them count.
BDTORCH_INLINE float positive_uniform(uint32_t word) { return (float(int32_t(word >> 1)) + 0.5f) * 0x1p-31f; }
BDTORCH_INLINE double positive_uniform(uint32_t high, uint32_t low) {
  return (Uniform<double>::integer_from_words(high, low) + 0.5) * 0x1p-53;
}

// sqrt(-2 log u) (cos 2 pi turn, sin 2 pi turn), u in (0, 1]: Box & Muller (1958), doi:10.1214/aoms/1177706645
template <class T>
BDTORCH_INLINE SinCos<T> box_muller(T u, T turn) {
  const T radius = sqrt(T(-2) * log(u));
  const SinCos<T> direction = sincos2pi(turn);
  return {radius * direction.sin, radius * direction.cos};
}

template <>
struct Normal<float> {
  static constexpr int per_block = 4;

  BDTORCH_INLINE static SinCos<float> pair(uint32_t u, uint32_t turn) {
    return box_muller(positive_uniform(u), float(int32_t(turn)) * 0x1p-32f);
  }

  BDTORCH_INLINE static Numbers<float, 4> of(const PhiloxBlock& block) {
    const SinCos<float> first = pair(block.word[0], block.word[1]);
    const SinCos<float> second = pair(block.word[2], block.word[3]);
    return {{first.cos, first.sin, second.cos, second.sin}};
  }
};

template <>
struct Normal<double> {
  static constexpr int per_block = 2;

  BDTORCH_INLINE static Numbers<double, 2> of(const PhiloxBlock& block) {
    const double u = positive_uniform(block.word[0], block.word[1]);
    const SinCos<double> pair = box_muller(u, Uniform<double>::from_words(block.word[2], block.word[3]));
    return {{pair.cos, pair.sin}};
  }
};

// -log u, u uniform on (0, 1]
template <>
struct Exponential<float> {
  static constexpr int per_block = 4;

  BDTORCH_INLINE static Numbers<float, 4> of(const PhiloxBlock& block) {
    return {{-log(positive_uniform(block.word[0])), -log(positive_uniform(block.word[1])),
             -log(positive_uniform(block.word[2])), -log(positive_uniform(block.word[3]))}};
  }
};

template <>
struct Exponential<double> {
  static constexpr int per_block = 2;

  BDTORCH_INLINE static Numbers<double, 2> of(const PhiloxBlock& block) {
    return {{-log(positive_uniform(block.word[0], block.word[1])),
             -log(positive_uniform(block.word[2], block.word[3]))}};
  }
};

// Calls store(i, number i) for the i of block `block` that lie in [begin, end).
template <class Distribution, class Store>
BDTORCH_INLINE void store_block(uint64_t key, uint64_t step, int64_t block, int64_t begin, int64_t end,
                                const Store& store) {
  const auto numbers = Distribution::of(philox(key, step, uint64_t(block)));
  for (int j = 0; j < Distribution::per_block; ++j) {
    const int64_t i = block * Distribution::per_block + j;
    if (i >= begin && i < end) store(i, numbers.value[j]);
  }
}

#if defined(BDTORCH_PHILOX_LOTS)

// Calls store(i, word i) for the i of one lot, from a multiple of four on, that lie in [begin, end): what lies before or
// behind is made and left. Returns where the next lot begins.
template <int groups, class Store>
BDTORCH_INLINE int64_t store_lot(uint64_t key, uint64_t step, int64_t first, int64_t begin, int64_t end, const Store& store) {
  constexpr int64_t count = 32 * groups;
  alignas(64) uint32_t words[count];
  philox_lot<groups>(key, step, uint64_t(first / 4), words);
  if (first >= begin && first + count <= end)
    for (int64_t k = 0; k < count; ++k) store(first + k, words[k]);
  else
    for (int64_t i = first < begin ? begin : first; i < first + count && i < end; ++i) store(i, words[i - first]);
  return first + count;
}

// Calls store(i, word i) for every i in [begin, end).
template <class Store>
BDTORCH_INLINE void for_each_word(uint64_t key, uint64_t step, int64_t begin, int64_t end, const Store& store) {
  int64_t first = begin / 4 * 4;
  while (end - first > 128) first = store_lot<6>(key, step, first, begin, end, store);
  if (end > first) store_lot<4>(key, step, first, begin, end, store);
}

#endif

// Calls store(i, number i) for every i in [begin, end).
template <class Distribution, class Store>
BDTORCH_INLINE void for_each_number(uint64_t key, uint64_t step, int64_t begin, int64_t end, const Store& store) {
  constexpr int64_t width = Distribution::per_block;
#if defined(BDTORCH_PHILOX_LOTS)
  constexpr bool words = std::is_same<Distribution, Words>::value;
  if constexpr (words || std::is_same<Distribution, Uniform<float>>::value)
    if (end - begin > 2 * width)
      return for_each_word(key, step, begin, end, [&](int64_t i, uint32_t word) {
        if constexpr (words)
          store(i, word);
        else
          store(i, Uniform<float>::from_word(word));
      });
#endif
  const int64_t first_block = begin / width, end_block = (end + width - 1) / width;
  // The blocks at both ends may be cut; those between are not, and make a loop without conditions, which vectorises.
  if (first_block < end_block) store_block<Distribution>(key, step, first_block, begin, end, store);
  for (int64_t block = first_block + 1; block < end_block - 1; ++block) {
    const auto numbers = Distribution::of(philox(key, step, uint64_t(block)));
    for (int64_t j = 0; j < width; ++j) store(block * width + j, numbers.value[j]);
  }
  if (first_block < end_block - 1) store_block<Distribution>(key, step, end_block - 1, begin, end, store);
}

template <class T>
BDTORCH_INLINE void uniform_fill(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) {
  for_each_number<Uniform<T>>(uint64_t(key), uint64_t(step), begin, end, [=](int64_t i, T u) { out[i] = u; });
}

template <class T>
BDTORCH_INLINE void normal_fill(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) {
  for_each_number<Normal<T>>(uint64_t(key), uint64_t(step), begin, end, [=](int64_t i, T z) { out[i] = z; });
}

template <class T>
BDTORCH_INLINE void exponential_fill(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) {
  for_each_number<Exponential<T>>(uint64_t(key), uint64_t(step), begin, end, [=](int64_t i, T x) { out[i] = x; });
}

// How many of the 2^24 values of a uniform float are less than p.
BDTORCH_INLINE uint32_t uniforms_below(float p) {
  if (!(p > 0.f)) return 0;  // NaN too
  if (p >= 1.f) return 1u << 24;
  const float scaled = p * 0x1p24f;  // exact
  const uint32_t whole = uint32_t(int32_t(scaled));
  return whole + (float(int32_t(whole)) < scaled);
}

template <class T>
BDTORCH_INLINE void bernoulli_fill(int64_t key, int64_t step, int64_t begin, int64_t end, T p, bool* out) {
  if constexpr (std::is_same<T, float>::value) {
    const uint32_t below = uniforms_below(p);  // u_i < p, in whole numbers
    for_each_number<Words>(uint64_t(key), uint64_t(step), begin, end,
                           [=](int64_t i, uint32_t word) { out[i] = (word >> 8) < below; });
  } else {
    for_each_number<Uniform<T>>(uint64_t(key), uint64_t(step), begin, end, [=](int64_t i, T u) { out[i] = u < p; });
  }
}

template <class T>
BDTORCH_INLINE void bernoulli_fill(int64_t key, int64_t step, int64_t begin, int64_t end, const T* p, bool* out) {
  for_each_number<Uniform<T>>(uint64_t(key), uint64_t(step), begin, end, [=](int64_t i, T u) { out[i] = u < p[i]; });
}

}  // namespace bdtorch
