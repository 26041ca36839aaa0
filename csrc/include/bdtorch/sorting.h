// Order along a row, with ATen's rules: NaN is greater than any number, equal elements keep their order, and of equal
// extremes the first counts.
#pragma once

#include <cstdint>

#include "loop.h"

namespace op {

// Whether a belongs strictly before b in ascending order.
template <class T>
BDTORCH_INLINE bool before(T a, T b) { return a < b || (b != b && a == a); }

// The indices of x[0], x[stride], ... in order: a merge sort from the bottom up. `work` has room for n, as `order` has.
template <class T>
inline void argsort(const T* x, int64_t stride, int64_t n, bool descending, int64_t* order, int64_t* work) {
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  for (int64_t width = 1; width < n; width *= 2) {
    for (int64_t low = 0; low < n; low += 2 * width) {
      const int64_t middle = low + width < n ? low + width : n, high = middle + width < n ? middle + width : n;
      int64_t left = low, right = middle;
      for (int64_t k = low; k < high; ++k) {
        const bool takes_right =
            left >= middle ||
            (right < high && (descending ? before(x[order[left] * stride], x[order[right] * stride])
                                         : before(x[order[right] * stride], x[order[left] * stride])));
        work[k] = takes_right ? order[right++] : order[left++];
      }
    }
    for (int64_t i = 0; i < n; ++i) order[i] = work[i];
  }
}

// The index of the greatest or least element; the first NaN where there is one.
template <class T>
inline int64_t extreme(const T* x, int64_t stride, int64_t n, bool greatest) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    const T a = x[i * stride], b = x[best * stride];
    if (b == b && (a != a || (greatest ? a > b : a < b))) best = i;
  }
  return best;
}

// Whether the greatest or least element so far gives way to the next, as it does to one that is equal.
template <class T>
inline bool gives_way(T best, T next, bool greatest) {
  return next != next || (best == best && (greatest ? next >= best : next <= best));
}

// log(exp(a) + exp(b)).
template <class T>
inline T log_sum(T a, T b) {
  const T low = a < b ? a : b, high = a < b ? b : a;
  if (a != a || b != b) return a + b;
  return low == high && !op::is_finite(low) ? low : high + bdtorch::log1p(bdtorch::exp(low - high));
}

}  // namespace op
