// CUDA launch and registration of the random ops.
#include "random.cuh"

#include "launch.h"
#include "random_arguments.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

Streams device_streams(const RandomStreams& streams) {
  return {streams.key.const_data_ptr<int64_t>(), streams.counter.const_data_ptr<int64_t>(), streams.key_stride(),
          streams.counter_stride(), streams.n_batch, streams.n};
}

// Enough threads for one Philox block each, up to a full device.
unsigned blocks_for_numbers(const CurrentDevice& device, const RandomStreams& streams, int64_t per_block) {
  const int64_t philox_blocks = streams.n_batch * ((streams.n + per_block - 1) / per_block);
  return blocks_for(device, philox_blocks, kBlockSize);
}

template <template <class> class Distribution>
Tensor random_numbers(const char* op, const Tensor& key, const Tensor& counter, int64_t n, ScalarType dtype) {
  const RandomStreams streams(op, key, counter, n);
  const CurrentDevice device(streams.key);
  Tensor out = streams.empty(dtype);
  if (out.numel() == 0) return out;
  dispatch_floating(op, "dtype", out, [&](auto tag) {
    using T = decltype(tag);
    BDTORCH_LAUNCH((fill_numbers<Distribution<T>, T>), blocks_for_numbers(device, streams, Distribution<T>::per_block),
                   kBlockSize, device.stream(), device_streams(streams), out.mutable_data_ptr<T>());
    check_launch();
  });
  return out;
}

Tensor random_uniform(const Tensor& key, const Tensor& counter, int64_t n, ScalarType dtype) {
  return random_numbers<Uniform>("random_uniform", key, counter, n, dtype);
}

Tensor random_normal(const Tensor& key, const Tensor& counter, int64_t n, ScalarType dtype) {
  return random_numbers<Normal>("random_normal", key, counter, n, dtype);
}

Tensor random_exponential(const Tensor& key, const Tensor& counter, int64_t n, ScalarType dtype) {
  return random_numbers<Exponential>("random_exponential", key, counter, n, dtype);
}

template <class Draw>
Tensor random_counts(const RandomStreams& streams, const char* name, const Tensor& parameter_, const Draw& draw) {
  const RandomParameter parameter(streams, name, parameter_);
  const CurrentDevice device(streams.key);
  Tensor out = streams.empty(ScalarType::Long);
  if (out.numel() == 0) return out;
  dispatch_floating(streams.op, name, parameter.values, [&](auto tag) {
    using T = decltype(tag);
    BDTORCH_LAUNCH((fill_counts<T, Draw>), blocks_for(device, out.numel(), kBlockSize), kBlockSize, device.stream(),
                   device_streams(streams), parameter.values.const_data_ptr<T>(), parameter.stride,
                   parameter.batch_stride, draw, out.mutable_data_ptr<int64_t>());
    check_launch();
  });
  return out;
}

Tensor random_poisson(const Tensor& key, const Tensor& counter, const Tensor& rate, int64_t n) {
  return random_counts(RandomStreams("random_poisson", key, counter, n), "rate", rate, DrawPoisson{});
}

Tensor random_binomial(const Tensor& key, const Tensor& counter, int64_t trials, const Tensor& p, int64_t n) {
  check_trials(trials);
  return random_counts(RandomStreams("random_binomial", key, counter, n), "p", p, DrawBinomial{trials});
}

Tensor random_bernoulli(const Tensor& key, const Tensor& counter, const Tensor& p_, int64_t n) {
  const RandomStreams streams("random_bernoulli", key, counter, n);
  const RandomParameter p(streams, "p", p_);
  const CurrentDevice device(streams.key);
  Tensor out = streams.empty(ScalarType::Bool);
  if (out.numel() == 0) return out;
  dispatch_floating("random_bernoulli", "p", p.values, [&](auto tag) {
    using T = decltype(tag);
    BDTORCH_LAUNCH((fill_bernoulli<T>), blocks_for_numbers(device, streams, Uniform<T>::per_block), kBlockSize,
                   device.stream(), device_streams(streams), p.values.const_data_ptr<T>(), p.stride, p.batch_stride,
                   out.mutable_data_ptr<bool>());
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) {
  m.impl("random_uniform", TORCH_BOX(&random_uniform));
  m.impl("random_normal", TORCH_BOX(&random_normal));
  m.impl("random_exponential", TORCH_BOX(&random_exponential));
  m.impl("random_poisson", TORCH_BOX(&random_poisson));
  m.impl("random_binomial", TORCH_BOX(&random_binomial));
  m.impl("random_bernoulli", TORCH_BOX(&random_bernoulli));
}

}  // namespace bdtorch::cuda
