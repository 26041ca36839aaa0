// CPU launch and registration of the random ops.
#include "bdtorch/random_counts.h"

#include <algorithm>

#include "random_arguments.h"
#include "registration.h"
#include "vector_clones.h"

namespace bdtorch {
namespace {

// Numbers below which a second thread costs more than it saves.
constexpr int64_t kParallelNumbers = 16384;
constexpr int64_t kParallelCounts = 1024;

template <class T>
BDTORCH_CLONED_FOR_VECTORS void fill_uniform(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) {
  uniform_fill(key, step, begin, end, out);
}

template <class T>
BDTORCH_CLONED_FOR_VECTORS void fill_normal(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) {
  normal_fill(key, step, begin, end, out);
}

template <class T>
BDTORCH_CLONED_FOR_VECTORS void fill_exponential(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) {
  exponential_fill(key, step, begin, end, out);
}

template <class T>
BDTORCH_CLONED_FOR_VECTORS void fill_bernoulli(int64_t key, int64_t step, int64_t begin, int64_t end, const T* p,
                                               bool shared_p, bool* out) {
  if (shared_p)
    bernoulli_fill(key, step, begin, end, *p, out);
  else
    bernoulli_fill(key, step, begin, end, p, out);
}

// Calls fill(b, key, step, begin, end) until the ranges have covered [0, n) of every batch element b.
template <class Fill>
void for_each_range(const RandomStreams& streams, const Fill& fill, int64_t worth_a_thread = kParallelNumbers) {
  const auto* keys = streams.key.const_data_ptr<int64_t>();
  const auto* counters = streams.counter.const_data_ptr<int64_t>();
  const int64_t n = streams.n;
  torch::stable::parallel_for(0, streams.n_batch * n, worth_a_thread, [&](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t b = first / n, begin = first % n, end = std::min(n, begin + last - first);
      fill(b, keys[b * streams.key_stride()], counters[b * streams.counter_stride()], begin, end);
      first += end - begin;
    }
  });
}

Tensor random_uniform(const Tensor& key, const Tensor& counter, int64_t n, ScalarType dtype) {
  const RandomStreams streams("random_uniform", key, counter, n);
  Tensor out = streams.empty(dtype);
  if (out.numel() == 0) return out;
  dispatch_floating("random_uniform", "dtype", out, [&](auto tag) {
    auto* values = out.mutable_data_ptr<decltype(tag)>();
    for_each_range(streams, [&](int64_t b, int64_t key_b, int64_t step, int64_t begin, int64_t end) {
      fill_uniform(key_b, step, begin, end, values + b * n);
    });
  });
  return out;
}

Tensor random_normal(const Tensor& key, const Tensor& counter, int64_t n, ScalarType dtype) {
  const RandomStreams streams("random_normal", key, counter, n);
  Tensor out = streams.empty(dtype);
  if (out.numel() == 0) return out;
  dispatch_floating("random_normal", "dtype", out, [&](auto tag) {
    auto* values = out.mutable_data_ptr<decltype(tag)>();
    for_each_range(streams, [&](int64_t b, int64_t key_b, int64_t step, int64_t begin, int64_t end) {
      fill_normal(key_b, step, begin, end, values + b * n);
    });
  });
  return out;
}

Tensor random_exponential(const Tensor& key, const Tensor& counter, int64_t n, ScalarType dtype) {
  const RandomStreams streams("random_exponential", key, counter, n);
  Tensor out = streams.empty(dtype);
  if (out.numel() == 0) return out;
  dispatch_floating("random_exponential", "dtype", out, [&](auto tag) {
    auto* values = out.mutable_data_ptr<decltype(tag)>();
    for_each_range(streams, [&](int64_t b, int64_t key_b, int64_t step, int64_t begin, int64_t end) {
      fill_exponential(key_b, step, begin, end, values + b * n);
    });
  });
  return out;
}

// Calls fill(key, step, begin, end, parameter or pointer to parameters, out) for every range.
template <class Fill>
Tensor random_counts(const RandomStreams& streams, const char* name, const Tensor& parameter_, const Fill& fill) {
  const RandomParameter parameter(streams, name, parameter_);
  Tensor out = streams.empty(ScalarType::Long);
  if (out.numel() == 0) return out;
  dispatch_floating(streams.op, name, parameter.values, [&](auto tag) {
    const auto* parameters = parameter.values.const_data_ptr<decltype(tag)>();
    auto* counts = out.mutable_data_ptr<int64_t>();
    const auto fill_range = [&](int64_t b, int64_t key_b, int64_t step, int64_t begin, int64_t end) {
      const auto* parameters_b = parameters + b * parameter.batch_stride;
      if (parameter.stride == 0)
        fill(key_b, step, begin, end, *parameters_b, counts + b * streams.n);
      else
        fill(key_b, step, begin, end, parameters_b, counts + b * streams.n);
    };
    for_each_range(streams, fill_range, kParallelCounts);
  });
  return out;
}

Tensor random_poisson(const Tensor& key, const Tensor& counter, const Tensor& rate, int64_t n) {
  const RandomStreams streams("random_poisson", key, counter, n);
  return random_counts(streams, "rate", rate, [](auto... arguments) { poisson_fill(arguments...); });
}

Tensor random_binomial(const Tensor& key, const Tensor& counter, int64_t trials, const Tensor& p, int64_t n) {
  const RandomStreams streams("random_binomial", key, counter, n);
  check_trials(trials);
  const auto fill = [=](int64_t key_b, int64_t step, int64_t begin, int64_t end, auto p_b, int64_t* out) {
    binomial_fill(key_b, step, begin, end, trials, p_b, out);
  };
  return random_counts(streams, "p", p, fill);
}

Tensor random_bernoulli(const Tensor& key, const Tensor& counter, const Tensor& p_, int64_t n) {
  const RandomStreams streams("random_bernoulli", key, counter, n);
  const RandomParameter p(streams, "p", p_);
  Tensor out = streams.empty(ScalarType::Bool);
  if (out.numel() == 0) return out;
  dispatch_floating("random_bernoulli", "p", p.values, [&](auto tag) {
    const auto* probabilities = p.values.const_data_ptr<decltype(tag)>();
    auto* values = out.mutable_data_ptr<bool>();
    for_each_range(streams, [&](int64_t b, int64_t key_b, int64_t step, int64_t begin, int64_t end) {
      fill_bernoulli(key_b, step, begin, end, probabilities + b * p.batch_stride, p.stride == 0, values + b * n);
    });
  });
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  m.impl("random_uniform", TORCH_BOX(&random_uniform));
  m.impl("random_normal", TORCH_BOX(&random_normal));
  m.impl("random_exponential", TORCH_BOX(&random_exponential));
  m.impl("random_poisson", TORCH_BOX(&random_poisson));
  m.impl("random_binomial", TORCH_BOX(&random_binomial));
  m.impl("random_bernoulli", TORCH_BOX(&random_bernoulli));
}

}  // namespace bdtorch
