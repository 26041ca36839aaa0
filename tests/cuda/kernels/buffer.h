// What the kernel programs share: heap objects of exact size, so that AddressSanitizer sees an access beyond their end,
// and a count of failures.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>

#include "compiler.h"

constexpr int kBlock = 64;
constexpr unsigned kBlocks = 3;
inline int n_failures = 0;

template <class T>
struct Buffer {
  explicit Buffer(size_t size_, T value = T()) : data(new T[size_]), size(size_) {
    std::fill_n(data.get(), size, value);
  }
  T* get() { return data.get(); }
  T& operator[](size_t i) { return data[i]; }
  std::unique_ptr<T[]> data;
  size_t size;
};

template <class T>
void expect_equal(const char* what, Buffer<T>& actual, Buffer<T>& expected, double tolerance = 0.) {
  for (size_t i = 0; i < expected.size; ++i) {
    const double difference = double(actual[i]) - double(expected[i]);
    if (difference <= tolerance && -difference <= tolerance) continue;
    ++n_failures;
    std::printf("FAILED seed %d: %s[%zu] is %g, expected %g\n", int(simulator::options().seed), what, i,
                double(actual[i]), double(expected[i]));
    return;
  }
}

// Runs test(seed) under so many schedules and reports; the return value is the program's.
template <class Test>
int run_schedules(int n_schedules, const Test& test) {
  try {
    for (int seed = 0; seed < n_schedules; ++seed) {
      simulator::options() = {uint64_t(seed), 2 + unsigned(seed) % 2, 0.1};
      test(unsigned(seed));
    }
  } catch (const std::exception& exception) {
    ++n_failures;
    std::printf("EXCEPTION %s\n", exception.what());
  }
  if (simulator::launch_count() == 0) ++n_failures;
  std::printf("%d failures in %d launches\n", n_failures, int(simulator::launch_count()));
  return n_failures != 0;
}
