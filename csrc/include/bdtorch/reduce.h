// Sums over contiguous elements, in an order of their own that does not depend on the width of a processor's vectors.
//
//   sum     64 partial sums side by side, added pairwise at the end, then the elements that are left over
//   count   how many of the booleans are true
//
// Included by generated code: no torch, C++17.
#pragma once
#include <cstdint>

namespace bdtorch {

// One running sum would wait for the last addition in every step, several ten times as long as it takes.
template <class T>
inline T sum(const T* x, int64_t n) {
  constexpr int lanes = 64;
  const int64_t whole = n / lanes * lanes;
  T total = 0;
  if (whole) {
    T part[lanes];
    for (int k = 0; k < lanes; ++k) part[k] = x[k];
    for (int64_t i = lanes; i < whole; i += lanes)
      for (int k = 0; k < lanes; ++k) part[k] += x[i + k];
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) part[k] += part[k + half];
    total = part[0];
  }
  for (int64_t i = whole; i < n; ++i) total += x[i];
  return total;
}

// In bytes as long as they hold the count of their column.
inline int64_t count(const bool* flags, int64_t n) {
  constexpr int lanes = 64, most = 255;
  const auto* x = reinterpret_cast<const uint8_t*>(flags);
  int64_t total = 0, i = 0;
  while (n - i >= lanes) {
    const int64_t rounds = (n - i) / lanes < most ? (n - i) / lanes : most;
    uint8_t part[lanes] = {};
    for (int64_t r = 0; r < rounds; ++r, i += lanes)
      for (int k = 0; k < lanes; ++k) part[k] = uint8_t(part[k] + x[i + k]);
    uint32_t sum = 0;
    for (int k = 0; k < lanes; ++k) sum += part[k];
    total += sum;
  }
  for (; i < n; ++i) total += x[i];
  return total;
}

}  // namespace bdtorch
