// What generated time loops are made of, besides the kernels: scalar operations with ATen's semantics, dense products,
// gathers and scatters over strided memory, and the barrier between the threads of a loop.
#pragma once

#include <sched.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "event_csr.h"
#include "math.h"
#include "random.h"

namespace op {

template <class T>
BDTORCH_INLINE T abs(T x) { return x < T(0) ? -x : x; }
template <>
BDTORCH_INLINE float abs(float x) { return bdtorch::abs(x); }
template <>
BDTORCH_INLINE double abs(double x) { return bdtorch::abs(x); }

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
constexpr T lowest() { return T(-1) < T(0) ? T(-__builtin_huge_val()) : T(0); }
template <>
constexpr int64_t lowest() { return INT64_MIN; }
template <>
constexpr int32_t lowest() { return INT32_MIN; }
template <class T>
constexpr T highest() { return T(__builtin_huge_val()); }
template <>
constexpr int64_t highest() { return INT64_MAX; }
template <>
constexpr int32_t highest() { return INT32_MAX; }

// The remainder takes the sign of the divisor, as in Python.
inline float remainder(float a, float b) {
  const float r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
inline double remainder(double a, double b) {
  const double r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
template <class T>
inline T remainder(T a, T b) {
  if (b == 0) return T(0);  // ATen raises; the step would have failed in the trial run
  const T r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? T(r + b) : r;
}

template <class T>
inline T divide_floor(T a, T b) { return b == 0 ? T(0) : T((a - remainder(a, b)) / b); }
template <>
inline float divide_floor(float a, float b) { return std::floor(a / b); }
template <>
inline double divide_floor(double a, double b) { return std::floor(a / b); }
template <class T>
inline T divide_trunc(T a, T b) { return b == 0 ? T(0) : T(a / b); }
template <>
inline float divide_trunc(float a, float b) { return std::trunc(a / b); }
template <>
inline double divide_trunc(double a, double b) { return std::trunc(a / b); }

inline float pow(float a, float b) { return std::pow(a, b); }
inline double pow(double a, double b) { return std::pow(a, b); }
template <class T>
inline T pow(T a, T b) {
  T result = 1;
  for (; b > 0; b >>= 1, a *= a)
    if (b & 1) result *= a;
  return result;
}

template <class T>
BDTORCH_INLINE T lerp(T a, T b, T w) { return w < T(0.5) ? a + w * (b - a) : b - (b - a) * (T(1) - w); }

// c[i][j] += sum_k a[i][k] b[k][j] for the columns j in [begin, end); zeros of a are skipped, k ascends.
template <class T>
inline void multiply(const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row, int64_t b_column, T* c,
                     int64_t rows, int64_t inner, int64_t columns, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < inner; ++k) {
      const T factor = a[i * a_row + k * a_column];
      if (factor == T(0)) continue;
      const T* row = b + k * b_row;
      T* out = c + i * columns;
      if (b_column == 1)
        for (int64_t j = begin; j < end; ++j) out[j] += factor * row[j];
      else
        for (int64_t j = begin; j < end; ++j) out[j] += factor * row[j * b_column];
    }
}

}  // namespace op

namespace loop {

// The state of a running loop, shared by its threads. Python fills and reads it as an array of int64.
struct Frame {
  int64_t buffers;    // address of an array of addresses
  int64_t first;      // number of the first step
  int64_t count;      // steps to take
  int64_t threads;
  int64_t done;       // steps taken
  int64_t stop;       // a record is full, or an error occurred: no further step
  int64_t error;      // number of the operation that met an index out of range
  int64_t arrived;    // of the barrier
  int64_t phase;      // of the barrier
  int64_t kept[];     // entries of each sparse record
};

// Threads meet; what any wrote before is visible to all after. Spins, and yields where others are slow to arrive.
inline void meet(Frame* frame) {
  if (frame->threads == 1) return;
  const int64_t phase = __atomic_load_n(&frame->phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&frame->arrived, 1, __ATOMIC_ACQ_REL) == frame->threads) {
    __atomic_store_n(&frame->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&frame->phase, phase + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spin = 0; __atomic_load_n(&frame->phase, __ATOMIC_ACQUIRE) == phase; ++spin)
    if (spin > 2000) sched_yield();
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

inline int64_t checked(Frame* frame, int64_t index, int64_t extent, int64_t operation) {
  if (index < 0) index += extent;
  if (uint64_t(index) < uint64_t(extent)) return index;
  __atomic_store_n(&frame->error, operation, __ATOMIC_RELAXED);
  return 0;
}

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
