// Finding the active ones among neurons: entries that differ from 0, which are few. Included by generated code: no torch,
// no heavy standard headers, C++17.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace bdtorch {

// The eight bytes at p, without the sign bits of floating point numbers: 0 where all that lies there equals zero.
template <class S>
inline uint64_t nonzero_word(const S* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  if constexpr (std::is_floating_point<S>::value)
    word &= sizeof(S) == 4 ? ~UINT64_C(0x8000000080000000) : ~UINT64_C(0x8000000000000000);
  return word;
}

// A bit for each entry of the cache line at p: whether it differs from 0. Without branches on the entries, which come at
// random.
template <class S>
inline uint64_t nonzero_bits(const S* p) {
  uint64_t bits = 0;
#if defined(__SSE2__) && !defined(__CUDACC__)
  if constexpr (std::is_same<S, float>::value) {
#if defined(__AVX__)
    typedef float Part __attribute__((vector_size(32), aligned(4)));
    const auto signs = [](Part x) { return __builtin_ia32_movmskps256(x); };
#else
    typedef float Part __attribute__((vector_size(16), aligned(4)));
    const auto signs = [](Part x) { return __builtin_ia32_movmskps(x); };
#endif
    constexpr int64_t width = sizeof(Part) / sizeof(S);
    for (int64_t j = 0; j < 16; j += width)
      bits |= uint64_t(uint32_t(signs((Part)(*reinterpret_cast<const Part*>(p + j) != Part{})))) << j;
    return bits;
  }
  if constexpr (std::is_same<S, bool>::value) {
#if defined(__AVX2__)
    typedef char Part __attribute__((vector_size(32)));
    const auto signs = [](Part x) { return __builtin_ia32_pmovmskb256(x); };
#else
    typedef char Part __attribute__((vector_size(16)));
    const auto signs = [](Part x) { return __builtin_ia32_pmovmskb128(x); };
#endif
    for (int64_t j = 0; j < 64; j += int64_t(sizeof(Part))) {
      Part entries;
      std::memcpy(&entries, p + j, sizeof entries);
      bits |= uint64_t(uint32_t(signs((Part)(entries != Part{})))) << j;
    }
    return bits;
  }
#endif
  constexpr int64_t per_word = sizeof(S) < 8 ? 8 / int64_t(sizeof(S)) : 1, line = 8 * per_word;
  const auto word = [p](int64_t w) { return nonzero_word(p + w * per_word); };
  if (!((word(0) | word(1) | word(2) | word(3)) | (word(4) | word(5) | word(6) | word(7)))) return 0;
  if constexpr (std::is_same<S, bool>::value)  // a product gathers the low bits of eight bytes in the highest
    for (int64_t w = 0; w < 8; ++w) bits |= (word(w) * UINT64_C(0x0102040810204080) >> 56) << (8 * w);
  else
    for (int64_t j = 0; j < line; ++j) bits |= uint64_t(bool(p[j])) << j;
  return bits;
}

// Calls visit(i) for every i in [begin, end) with spikes[i] != 0, in ascending order. Spikes are rare and come at random,
// and a branch that goes another way than the last time costs as much as ten cache lines: which of 64 lines have any is
// found without one.
template <class S, class Visit>
inline void for_each_active(const S* spikes, int64_t begin, int64_t end, Visit&& visit) {
  constexpr int64_t line = 64 / int64_t(sizeof(S)), most = 64;
  int64_t i = begin;
  for (int64_t left; (left = (end - i) / line) > 0;) {
    const int64_t lines = left < most ? left : most;
    uint64_t bits[most], active_lines = 0;
    for (int64_t k = 0; k < lines; ++k) {
      bits[k] = nonzero_bits(spikes + i + k * line);
      active_lines |= uint64_t(bits[k] != 0) << k;
    }
    for (; active_lines; active_lines &= active_lines - 1) {
      const int64_t k = __builtin_ctzll(active_lines);
      for (uint64_t events = bits[k]; events; events &= events - 1) visit(i + k * line + __builtin_ctzll(events));
    }
    i += lines * line;
  }
  uint64_t events = 0;  // of what is left
  if (i < end && end - begin >= line)
    events = nonzero_bits(spikes + end - line) >> (i - (end - line));  // the last line without what has been visited
  else
    for (int64_t j = i; j < end; ++j) events |= uint64_t(bool(spikes[j])) << (j - i);
  for (; events; events &= events - 1) visit(i + __builtin_ctzll(events));
}

}  // namespace bdtorch
