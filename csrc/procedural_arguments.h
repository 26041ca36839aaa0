// The arguments that the ops on a procedural matrix share, checked. Used by the CPU and CUDA hosts alike.
#pragma once
#include <optional>

#include "bdtorch/procedural.h"
#include "stable_tensor.h"

namespace bdtorch {

inline ProceduralMatrix procedural_matrix(const char* op, int64_t n_pre, int64_t n_post, int64_t key,
                                          std::optional<double> p, std::optional<int64_t> number, int64_t draws,
                                          int64_t self_offset) {
  constexpr int64_t limit = int64_t(1) << 31;
  STD_TORCH_CHECK(n_pre >= 0 && n_pre < limit, op, "(n_pre=...): expected a number in [0, 2**31), got ", n_pre);
  STD_TORCH_CHECK(n_post >= 0 && n_post < limit, op, "(n_post=...): expected a number in [0, 2**31), got ", n_post);
  STD_TORCH_CHECK(draws >= 0 && draws <= int64_t(Draws::normal), op, "(draws=...): expected 0, 1 or 2, got ", draws);
  STD_TORCH_CHECK(self_offset > -limit && self_offset < limit, op, "(self_offset=...): expected less than 2**31");
  STD_TORCH_CHECK(p.has_value() != number.has_value(), op, ": expected either p or number");
  if (p) {
    STD_TORCH_CHECK(*p >= 0. && *p <= 1., op, "(p=...): expected a probability in [0, 1], got ", *p);
    return ProceduralMatrix::with_probability(n_pre, n_post, key, *p, Draws(draws), self_offset);
  }
  const bool some_barred = self_offset < n_post && self_offset + n_pre > 0;
  const int64_t available = n_post - (some_barred ? 1 : 0);
  STD_TORCH_CHECK(*number >= 0 && (*number <= available || n_pre == 0), op, "(number=...): expected at most ",
                  available, " synapses of a row, got ", *number);
  return ProceduralMatrix::with_number(n_pre, n_post, key, *number, Draws(draws), self_offset);
}

// The operands of a product with a procedural matrix.
struct ProceduralArguments {
  // `spikes` has n values, one for each neuron of the side that it is on.
  ProceduralArguments(const char* op, const Tensor& spikes_, int64_t n, const Tensor& offset_,
                      const std::optional<Tensor>& scale_, const ProceduralMatrix& matrix)
      : op(op), spikes(as_contiguous(spikes_)), offset(offset_), scale(scale_ ? *scale_ : offset_) {
    const int64_t dim = spikes.dim();
    STD_TORCH_CHECK((dim == 1 || dim == 2) && spikes.size(dim - 1) == n, op, "(spikes=...): expected shape (", n,
                    ",) or (batch, ", n, ")");
    STD_TORCH_CHECK(scale_.has_value() == (matrix.draws != Draws::none), op,
                    "(scale=...): expected a tensor with draws and None without");
    parameter("offset", offset);
    parameter("scale", scale);
    n_batch = dim == 2 ? spikes.size(0) : 1;
  }

  void parameter(const char* argument, const Tensor& tensor) const {
    STD_TORCH_CHECK(tensor.dim() == 0, op, "(", argument, "=...): expected a 0-d tensor");
    STD_TORCH_CHECK(tensor.scalar_type() == offset.scalar_type(), op, "(", argument, "=...): expected offset's dtype");
    STD_TORCH_CHECK(tensor.is_cpu() == spikes.is_cpu() && tensor.get_device_index() == spikes.get_device_index(), op,
                    "(", argument, "=...): expected the device of spikes");
  }

  // The shape of spikes with n as its last size.
  Tensor empty(int64_t n) const {
    const int64_t sizes[2] = {n_batch, n}, dim = spikes.dim();
    return empty_on_device_of(spikes, sizes + (2 - dim), dim, offset.scalar_type());
  }

  // Calls f<T, S>() with the C++ types of the weights and of the spikes: bool or T.
  template <class F>
  void dispatch(F&& f) const {
    const bool event = spikes.scalar_type() == ScalarType::Bool;
    STD_TORCH_CHECK(event || spikes.scalar_type() == offset.scalar_type(), op,
                    "(spikes=...): expected bool or the dtype of offset");
    dispatch_floating(op, "offset", offset, [&]<class T>(T) {
      if (event)
        f.template operator()<T, bool>();
      else
        f.template operator()<T, T>();
    });
  }

  const char* op;
  Tensor spikes;
  Tensor offset;
  Tensor scale;
  int64_t n_batch;
};

}  // namespace bdtorch
