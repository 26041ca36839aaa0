// The arguments that the random ops share, checked and made contiguous. Used by the CPU and CUDA hosts alike.
#pragma once
#include "stable_tensor.h"

namespace bdtorch {

// Streams of random numbers: one pair (key, counter) for each element of the batch. Either may be 0-d, for all of them.
struct RandomStreams {
  RandomStreams(const char* op, const Tensor& key_, const Tensor& counter_, int64_t n)
      : key(as_contiguous(key_)), counter(as_contiguous(counter_)), n(n), op(op) {
    STD_TORCH_CHECK(key.scalar_type() == ScalarType::Long, op, "(key=...): expected int64");
    STD_TORCH_CHECK(counter.scalar_type() == ScalarType::Long, op, "(counter=...): expected int64");
    STD_TORCH_CHECK(n >= 0, op, "(n=...): expected a nonnegative number, got ", n);
    same_device("counter", counter);
    const Tensor& batch = key.dim() > 0 ? key : counter;
    batch_dim = batch.dim();
    STD_TORCH_CHECK(batch_dim < max_dim, op, "(key=...): expected fewer than ", max_dim, " dimensions");
    for (int64_t d = 0; d < batch_dim; ++d) {
      sizes[d] = batch.size(d);
      n_batch *= sizes[d];
    }
    sizes[batch_dim] = n;
    const bool same_batch = key.dim() == 0 || counter.dim() == 0 || has_batch_shape(counter, batch_dim);
    STD_TORCH_CHECK(same_batch, op, "(counter=...): expected a 0-d tensor or the shape of key");
  }

  void same_device(const char* argument, const Tensor& tensor) const {
    STD_TORCH_CHECK(tensor.is_cpu() == key.is_cpu() && tensor.get_device_index() == key.get_device_index(), op, "(",
                    argument, "=...): expected the device of key");
  }

  bool has_batch_shape(const Tensor& tensor, int64_t dims) const {
    for (int64_t d = 0; d < dims; ++d)
      if (tensor.dim() <= d || tensor.size(d) != sizes[d]) return false;
    return tensor.dim() == dims;
  }

  // (*batch, n)
  Tensor empty(ScalarType dtype) const { return empty_on_device_of(key, sizes, batch_dim + 1, dtype); }

  int64_t key_stride() const { return key.dim() > 0 ? 1 : 0; }
  int64_t counter_stride() const { return counter.dim() > 0 ? 1 : 0; }

  static constexpr int64_t max_dim = 8;
  Tensor key;
  Tensor counter;
  int64_t n;
  int64_t n_batch = 1;
  int64_t batch_dim;
  int64_t sizes[max_dim];
  const char* op;
};

// A parameter of a distribution: 0-d, (n,) or (*batch, n). That of number i of batch element b is at
// b * batch_stride + i * stride.
struct RandomParameter {
  RandomParameter(const RandomStreams& streams, const char* name, const Tensor& p) : values(as_contiguous(p)) {
    streams.same_device(name, p);
    const bool per_number = p.dim() == 1 && p.size(0) == streams.n;
    const bool per_batch_element = streams.has_batch_shape(p, streams.batch_dim + 1);
    STD_TORCH_CHECK(p.dim() == 0 || per_number || per_batch_element, streams.op, "(", name,
                    "=...): expected a 0-d tensor, shape (n,) or (*batch, n)");
    stride = p.dim() == 0 ? 0 : 1;
    batch_stride = per_batch_element ? streams.n : 0;
  }

  Tensor values;
  int64_t stride;
  int64_t batch_stride;
};

inline void check_trials(int64_t trials) {
  STD_TORCH_CHECK(trials >= 0 && trials < int64_t(1) << 31, "random_binomial(trials=...): expected a number in [0, 2^31), ",
                  "got ", trials);
}

}  // namespace bdtorch
