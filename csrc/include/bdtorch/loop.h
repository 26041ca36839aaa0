// What generated time loops are made of, besides the kernels: scalar operations with ATen's semantics, and look-ups.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "dense.h"
#include "event_csr.h"
#include "frame.h"
#include "macros.h"
#include "math.h"
#include "random_counts.h"
#include "reduce.h"

// The C library's functions that are no built-ins of every compiler, under names that no header declares in its own way.
#define BDTORCH_TEXT_OF(text) #text
#define BDTORCH_TEXT(text) BDTORCH_TEXT_OF(text)
#define BDTORCH_SYMBOL(name) __asm__(BDTORCH_TEXT(__USER_LABEL_PREFIX__) name)
extern "C" float bdtorch_lgammaf_r(float x, int* sign) BDTORCH_SYMBOL("lgammaf_r");
extern "C" double bdtorch_lgamma_r(double x, int* sign) BDTORCH_SYMBOL("lgamma_r");
#undef BDTORCH_SYMBOL
#undef BDTORCH_TEXT
#undef BDTORCH_TEXT_OF

namespace op {

// The C library's functions as compiler built-ins, since <cmath> takes longer to parse than all the rest to compile. A
// rounded integer is itself.
#define BDTORCH_UNARY(name, builtin)                                            \
  BDTORCH_INLINE float name(float x) { return __builtin_##builtin##f(x); }      \
  BDTORCH_INLINE double name(double x) { return __builtin_##builtin(x); }
#define BDTORCH_ROUNDING(name, builtin) \
  BDTORCH_UNARY(name, builtin)          \
  template <class T>                    \
  BDTORCH_INLINE T name(T x) { return x; }
BDTORCH_UNARY(acos, acos)
BDTORCH_UNARY(acosh, acosh)
BDTORCH_UNARY(asin, asin)
BDTORCH_UNARY(asinh, asinh)
BDTORCH_UNARY(atan, atan)
BDTORCH_UNARY(atanh, atanh)
BDTORCH_UNARY(cosh, cosh)
BDTORCH_UNARY(erf, erf)
BDTORCH_UNARY(erfc, erfc)
BDTORCH_UNARY(exp2, exp2)
BDTORCH_UNARY(log10, log10)
BDTORCH_UNARY(log2, log2)
BDTORCH_UNARY(sinh, sinh)
BDTORCH_UNARY(sqrt, sqrt)
BDTORCH_UNARY(tan, tan)
BDTORCH_ROUNDING(ceil, ceil)
BDTORCH_ROUNDING(floor, floor)
BDTORCH_ROUNDING(round, nearbyint)  // half to even
BDTORCH_ROUNDING(trunc, trunc)
#undef BDTORCH_ROUNDING
#undef BDTORCH_UNARY

BDTORCH_INLINE float atan2(float y, float x) { return __builtin_atan2f(y, x); }
BDTORCH_INLINE double atan2(double y, double x) { return __builtin_atan2(y, x); }

// The logarithm of the gamma function's modulus; its sign, which the C library's plain function leaves in a global, is
// not wanted.
BDTORCH_INLINE float lgamma(float x) { int sign; return bdtorch_lgammaf_r(x, &sign); }
BDTORCH_INLINE double lgamma(double x) { int sign; return bdtorch_lgamma_r(x, &sign); }

BDTORCH_INLINE float hypot(float x, float y) { return __builtin_hypotf(x, y); }
BDTORCH_INLINE double hypot(double x, double y) { return __builtin_hypot(x, y); }

// A NaN on one side gives way to the other.
template <class T>
BDTORCH_INLINE T fmax(T a, T b) { return a != a ? b : (b > a ? b : a); }
template <class T>
BDTORCH_INLINE T fmin(T a, T b) { return a != a ? b : (b < a ? b : a); }

// Shifts by as many bits as there are, or more, leave nothing but the sign; so do shifts by less than none.
template <class T>
BDTORCH_INLINE T shift_left(T a, T b) { return b < T(0) || b >= T(8 * sizeof(T)) ? T(0) : T(uint64_t(a) << b); }
template <class T>
BDTORCH_INLINE T shift_right(T a, T b) {
  if (b >= T(0) && b < T(8 * sizeof(T))) return T(a >> b);
  return a < T(0) ? T(-1) : T(0);
}

template <class T>
BDTORCH_INLINE T abs(T x) {
  if constexpr (std::is_floating_point<T>::value)
    return bdtorch::abs(x);
  else
    return x < T(0) ? T(-x) : x;
}

// A NaN on either side comes through.
template <class T>
BDTORCH_INLINE T maximum(T a, T b) { return a != a ? a : (a > b ? a : b); }
template <class T>
BDTORCH_INLINE T minimum(T a, T b) { return a != a ? a : (a < b ? a : b); }

template <class T>
BDTORCH_INLINE T sign(T x) { return T((x > T(0)) - (x < T(0))); }

template <class T>
BDTORCH_INLINE bool is_infinite(T x) { return x - x != x - x && x == x; }
template <class T>
BDTORCH_INLINE bool is_finite(T x) { return x - x == x - x; }

template <class T>
constexpr T highest() {
  if constexpr (std::is_floating_point<T>::value)
    return T(__builtin_inf());
  else if constexpr (T(-1) < T(0))
    return T((uint64_t(1) << (8 * sizeof(T) - 1)) - 1);
  else
    return T(-1);
}
template <class T>
constexpr T lowest() {
  if constexpr (std::is_floating_point<T>::value)
    return T(-__builtin_inf());
  else
    return T(-1) < T(0) ? T(-highest<T>() - 1) : T(0);
}

// Truncated division. Integer divisors that may be 0 are checked before, and -1 overflows for the least dividend.
template <class T>
BDTORCH_INLINE T fmod(T a, T b) {
  if constexpr (std::is_same<T, float>::value)
    return __builtin_fmodf(a, b);
  else if constexpr (std::is_same<T, double>::value)
    return __builtin_fmod(a, b);
  else
    return b == T(-1) ? T(0) : T(a % b);
}

template <class T>
BDTORCH_INLINE T divide_trunc(T a, T b) {
  if constexpr (std::is_floating_point<T>::value)
    return trunc(a / b);
  else
    return b == T(-1) ? T(-a) : T(a / b);
}

// The remainder takes the sign of the divisor, as in Python.
template <class T>
BDTORCH_INLINE T remainder(T a, T b) {
  const T r = fmod(a, b);
  return r != T(0) && (r < T(0)) != (b < T(0)) ? T(r + b) : r;
}

// The quotient that belongs to `remainder`: a / b as rounded may lie above the true quotient's floor.
template <class T>
BDTORCH_INLINE T divide_floor(T a, T b) {
  const T r = b == T(0) ? T(0) : fmod(a, b);
  const bool below = r != T(0) && (r < T(0)) != (b < T(0));
  if constexpr (std::is_floating_point<T>::value) {
    if (b == T(0)) return a / b;
    const T quotient = (a - r) / b - T(below);
    const T whole = floor(quotient);
    return quotient == T(0) ? bdtorch::copysign(T(0), a / b) : whole + T(quotient - whole > T(0.5));
  } else {
    return T(divide_trunc(a, b) - T(below));
  }
}

template <class T>
BDTORCH_INLINE T pow(T a, T b) {
  if constexpr (std::is_same<T, float>::value) {
    return __builtin_powf(a, b);
  } else if constexpr (std::is_same<T, double>::value) {
    return __builtin_pow(a, b);
  } else {
    if (b < T(0)) return a == T(1) ? T(1) : a == T(-1) ? (b & 1 ? T(-1) : T(1)) : T(0);
    T result = 1;
    for (; b > 0; b = T(b >> 1), a = T(a * a))
      if (b & 1) result = T(result * a);
    return result;
  }
}

template <class T>
BDTORCH_INLINE T lerp(T a, T b, T w) { return abs(w) < T(0.5) ? a + w * (b - a) : b - (b - a) * (T(1) - w); }

}  // namespace op

namespace loop {

// The n elements at `from`, 0 < n < lanes, for a loop that takes all lanes. The others repeat the last element, so that
// nothing happens in them that would not happen anyway. Copied in pieces of powers of two, for n hardly ever changes and
// branches that go as the last time cost nothing.
template <int lanes, class T>
BDTORCH_INLINE void take_rest(const T* from, int64_t n, T* rest) {
  const T last = from[n - 1];
  for (int64_t k = 0; k < lanes; ++k) rest[k] = last;
  int64_t k = 0;
  for (int size = lanes / 2; size; size /= 2)
    if (n & size) {
      std::memcpy(rest + k, from + k, size * sizeof(T));
      k += size;
    }
}

// The first n of all lanes, to where they came from.
template <int lanes, class T>
BDTORCH_INLINE void give_rest(const T* rest, int64_t n, T* to) {
  int64_t k = 0;
  for (int size = lanes / 2; size; size /= 2)
    if (n & size) {
      std::memcpy(to + k, rest + k, size * sizeof(T));
      k += size;
    }
}

// A step of the loop, as one thread sees it.
struct Now {
  Frame* frame;
  void* const* buffers;
  int64_t* error;
  int64_t thread, threads;
  int64_t k;     // how many steps this run of the loop has taken before
  int64_t row;   // number of the step among those of this run, in order of time
  int64_t step;  // the same, counted from t = 0
  double time;   // ms
};

inline Now at(Frame* frame, int64_t thread, int64_t k, double dt) {
  const int64_t row = frame->backward ? frame->backward - 1 - k : k, step = frame->first + row;
  return {frame, (void* const*)frame->buffers, &frame->error[k & 1], thread, frame->threads, k, row, step,
          double(step) * dt};
}

// Where members of an ensemble take their steps apart: the first error of all, and the end. Until then it is kept, with the
// steps taken, in a flag that has no use there.
inline void note_error(Frame* frame, int64_t k, int64_t operation) {
  const int64_t own = (k + 1) << 32 | operation;
  int64_t first = __atomic_load_n(&frame->stop[0], __ATOMIC_RELAXED);
  while ((!first || own < first) &&
         !__atomic_compare_exchange_n(&frame->stop[0], &first, own, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

inline void end_apart(Frame* frame) {
  const int64_t first = frame->stop[0];
  frame->stop[0] = 0;
  frame->done = first ? first >> 32 : frame->count;
  if (first) frame->error[(frame->done - 1) & 1] = first & INT64_C(0xffffffff);
}

struct Range {
  int64_t begin, end;
};

// The share of one thread in [0, n), cut where cache lines end.
inline Range share(int64_t n, int64_t thread, int64_t threads) {
  if (threads == 1) return {0, n};
  const int64_t lines = (n + 63) / 64;
  const int64_t begin = lines * thread / threads * 64, end = lines * (thread + 1) / threads * 64;
  return {begin < n ? begin : n, end < n ? end : n};
}

// The share of one thread in n rows that are long.
inline Range share_rows(int64_t n, int64_t thread, int64_t threads) { return {n * thread / threads, n * (thread + 1) / threads}; }

// Ask for the first lines of a share that is to be written to. The hardware reads ahead: where the thread before has come
// to the end of its own share, it has fetched them too, and the first store to each waits until that core has given it up.
// Stores wait for one another, so that each line takes 200 nanoseconds where two cores have no cache in common; and next
// to nothing where all have been asked for at once.
template <class T>
inline void claim(T* values, Range share) {
  constexpr int64_t lines = 32, entries = 64 / int64_t(sizeof(T));
  const int64_t end = share.end - share.begin < lines * entries ? share.end : share.begin + lines * entries;
  for (int64_t i = share.begin; i < end; i += entries) __builtin_prefetch(values + i, 1);
}

inline int64_t checked(int64_t* error, int64_t index, int64_t extent, int64_t operation) {
  if (uint64_t(index) < uint64_t(extent)) return index;
  __atomic_store_n(error, operation, __ATOMIC_RELAXED);
  return 0;
}

template <class T>
inline T checked_divisor(int64_t* error, T divisor, int64_t operation) {
  if (divisor != T(0)) return divisor;
  __atomic_store_n(error, operation, __ATOMIC_RELAXED);
  return T(1);
}

inline int64_t wrapped(int64_t index, int64_t extent) { return index < 0 ? index + extent : index; }

// Append the positions of nonzero entries to a sparse record.
template <class S>
inline void keep_nonzero(const S* values, int64_t n, int64_t step, int64_t* steps, int64_t* positions, int64_t* kept) {
  int64_t k = *kept;
  bdtorch::for_each_active(values, 0, n, [&](int64_t i) {
    steps[k] = step;
    positions[k] = i;
    ++k;
  });
  *kept = k;
}

}  // namespace loop
