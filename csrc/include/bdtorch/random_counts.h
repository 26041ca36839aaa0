// Random counts as a function: number i of the stream `key` at the step `step` depends on (key, step, i) alone.
//
//   poisson_fill     k_i ~ Poisson(rate_i)
//   binomial_fill    k_i ~ Binomial(trials, p_i)
//
// Exact laws, in double precision whatever the type of the parameters. Where the mean is small the distribution function
// is inverted, with one uniform number of 53 bits; else candidates are accepted or rejected (Hoermann 1993, see below).
// Attempt a of number i has the Philox block (a << 40 | i), so there are fewer than 2^40 numbers. Parameters outside of
// their range give -1. All arithmetic is that of math.h: CPU and GPU agree to the bit.
#pragma once

#include <cstdint>

#include "macros.h"
#include "math.h"
#include "philox.h"
#include "random.h"

namespace bdtorch {

constexpr int64_t invalid_count = -1;
constexpr double largest_mean = 0x1p31;

// The uniform numbers of one count, a pair for each attempt.
class CountWords {
 public:
  BDTORCH_INLINE CountWords(uint64_t key, uint64_t step, int64_t i) : key_(key), step_(step), block_(uint64_t(i)) {}

  BDTORCH_INLINE Numbers<double, 2> next() {
    const PhiloxBlock words = philox(key_, step_, block_);
    block_ += uint64_t(1) << 40;
    return Uniform<double>::of(words);
  }

 private:
  uint64_t key_, step_, block_;
};

BDTORCH_INLINE int64_t floor_to_integer(double x) {
  const int64_t truncated = int64_t(x);
  return truncated - int64_t(double(truncated) > x);
}

// log(k!): the logarithm of the product up to 9!, then Stirling's series, whose next term is below 1e-12.
BDTORCH_HD double log_factorial(int64_t k) {
  if (k < 10) {
    double product = 1.;
    for (int64_t j = 2; j <= k; ++j) product *= double(j);
    return log(product);
  }
  constexpr double half_log_two_pi = 0x1.d67f1c864beb5p-1;
  const double x = double(k) + 1., inverse = 1. / x, square = inverse * inverse;
  const double series = inverse * (1. / 12. - square * (1. / 360. - square * (1. / 1260. - square * (1. / 1680.))));
  return (x - 0.5) * log(x) - x + half_log_two_pi + series;
}

// The smallest k whose distribution function exceeds u, where the probability of k + 1 is that of k times ratio(k).
template <class Ratio>
BDTORCH_INLINE int64_t invert_distribution(double u, double probability_of_zero, const Ratio& ratio) {
  double probability = probability_of_zero, left = u;
  int64_t k = 0;
  // It ends at the latest when the probabilities have become 0.
  while (left >= probability && probability > 0.) {
    left -= probability;
    probability *= ratio(k);
    ++k;
  }
  return k;
}

// Transformed rejection with a squeeze: Hoermann (1993), doi:10.1016/0167-6687(93)90997-4.
BDTORCH_HD int64_t poisson_by_rejection(CountWords words, double rate) {
  const double b = 0.931 + 2.53 * sqrt(rate), a = -0.059 + 0.02483 * b;
  const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4), squeeze = 0.9277 - 3.6224 / (b - 2.);
  const double log_rate = log(rate);
  while (true) {
    const auto numbers = words.next();
    const double u = numbers.value[0] - 0.5, v = numbers.value[1], distance = 0.5 - abs(u);
    if (distance <= 0.) continue;
    const int64_t k = floor_to_integer((2. * a / distance + b) * u + rate + 0.43);
    if (distance >= 0.07 && v <= squeeze) return k;
    if (k < 0 || (distance < 0.013 && v > distance)) continue;
    const double hat = log(v * inverse_alpha / (a / (distance * distance) + b));
    if (hat <= double(k) * log_rate - rate - log_factorial(k)) return k;
  }
}

BDTORCH_HD int64_t poisson(uint64_t key, uint64_t step, int64_t i, double rate) {
  if (!(rate >= 0. && rate <= largest_mean)) return invalid_count;
  CountWords words(key, step, i);
  if (rate >= 10.) return poisson_by_rejection(words, rate);
  return invert_distribution(words.next().value[0], exp(-rate),
                             [=](int64_t k) { return rate / double(k + 1); });
}

// Transformed rejection with a squeeze for p <= 1/2: Hoermann (1993), doi:10.1080/00949659308811496.
BDTORCH_HD int64_t binomial_by_rejection(CountWords words, int64_t trials, double p) {
  const double n = double(trials), spread = sqrt(n * p * (1. - p));
  const double b = 1.15 + 2.53 * spread, a = -0.0873 + 0.0248 * b + 0.01 * p, squeeze = 0.92 - 4.2 / b;
  const double alpha = (2.83 + 5.1 / b) * spread, log_odds = log(p / (1. - p));
  const int64_t mode = floor_to_integer((n + 1.) * p);
  const double at_mode = log_factorial(mode) + log_factorial(trials - mode);
  while (true) {
    const auto numbers = words.next();
    const double u = numbers.value[0] - 0.5, v = numbers.value[1], distance = 0.5 - abs(u);
    if (distance <= 0.) continue;
    const int64_t k = floor_to_integer((2. * a / distance + b) * u + n * p + 0.5);
    if (k < 0 || k > trials) continue;
    if (distance >= 0.07 && v <= squeeze) return k;
    const double hat = log(v * alpha / (a / (distance * distance) + b));
    const double of_k = log_factorial(k) + log_factorial(trials - k);
    if (hat <= at_mode - of_k + double(k - mode) * log_odds) return k;
  }
}

BDTORCH_HD int64_t binomial(uint64_t key, uint64_t step, int64_t i, int64_t trials, double p) {
  if (!(p >= 0. && p <= 1.)) return invalid_count;
  const bool mirrored = p > 0.5;
  const double q = mirrored ? 1. - p : p;
  CountWords words(key, step, i);
  int64_t k = 0;
  if (double(trials) * q >= 10.) {
    k = binomial_by_rejection(words, trials, q);
  } else {
    const double odds = q / (1. - q);
    k = invert_distribution(words.next().value[0], exp(double(trials) * log1p(-q)),
                            [=](int64_t j) { return odds * double(trials - j) / double(j + 1); });
    k = k < trials ? k : trials;
  }
  return mirrored ? trials - k : k;
}

// Number i is at out[i]; parameters are one for all, or an array as long as out.
template <class T>
inline void poisson_fill(int64_t key, int64_t step, int64_t begin, int64_t end, T rate, int64_t* out) {
  for (int64_t i = begin; i < end; ++i) out[i] = poisson(uint64_t(key), uint64_t(step), i, double(rate));
}

template <class T>
inline void poisson_fill(int64_t key, int64_t step, int64_t begin, int64_t end, const T* rate, int64_t* out) {
  for (int64_t i = begin; i < end; ++i) out[i] = poisson(uint64_t(key), uint64_t(step), i, double(rate[i]));
}

template <class T>
inline void binomial_fill(int64_t key, int64_t step, int64_t begin, int64_t end, int64_t trials, T p, int64_t* out) {
  for (int64_t i = begin; i < end; ++i) out[i] = binomial(uint64_t(key), uint64_t(step), i, trials, double(p));
}

template <class T>
inline void binomial_fill(int64_t key, int64_t step, int64_t begin, int64_t end, int64_t trials, const T* p,
                          int64_t* out) {
  for (int64_t i = begin; i < end; ++i) out[i] = binomial(uint64_t(key), uint64_t(step), i, trials, double(p[i]));
}

}  // namespace bdtorch
