// The arguments that the ops on a CSR matrix share, checked and made contiguous. Used by the CPU and CUDA hosts alike.
#pragma once
#include <type_traits>

#include "bdtorch/two_bytes.h"
#include "stable_tensor.h"

namespace bdtorch {

// Shapes are checked on every call, because they are cheap to read; the values of indices and indptr are not: they are
// checked once, when the structure is made (bdtorch.ops.check_csr).
struct CsrArguments {
  CsrArguments(const char* op, const Tensor& indices, const Tensor& indptr)
      : op(op),
        indices(as_contiguous(indices)),
        indptr(as_contiguous(indptr)),
        n_pre(indptr.numel() - 1),
        n_synapses(indices.numel()) {
    STD_TORCH_CHECK(indices.dim() == 1 && indptr.dim() == 1 && n_pre >= 0, op,
                    ": expected 1-D indices and 1-D indptr with at least one element");
    STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Int, op, "(indices=...): expected int32");
    same_device("indptr", indptr);
  }

  void same_device(const char* argument, const Tensor& tensor) const {
    STD_TORCH_CHECK(
        tensor.is_cpu() == indices.is_cpu() && tensor.get_device_index() == indices.get_device_index(), op, "(",
        argument, "=...): expected the device of indices");
  }

  // A weight tensor: 0-d, one weight for all synapses, or 1-D, one for each.
  Tensor weights(const Tensor& tensor) const {
    same_device("weights", tensor);
    STD_TORCH_CHECK(tensor.dim() == 0 || (tensor.dim() == 1 && tensor.numel() == n_synapses), op,
                    "(weights=...): expected a 0-d tensor or shape (", n_synapses, ",)");
    return as_contiguous(tensor);
  }

  // A tensor with one value per neuron: (n,) or (batch, n).
  Tensor per_neuron(const char* argument, const Tensor& tensor, int64_t n) const {
    same_device(argument, tensor);
    const int64_t dim = tensor.dim();
    STD_TORCH_CHECK((dim == 1 || dim == 2) && tensor.size(dim - 1) == n, op, "(", argument, "=...): expected shape (",
                    n, ",) or (batch, ", n, ")");
    return as_contiguous(tensor);
  }

  // Calls f<T, P, S>() with the C++ types of a floating-point tensor, of indptr, and of spikes: bool or T.
  template <class F>
  void dispatch_values(const char* values_name, const Tensor& values, const char* spikes_name, const Tensor& spikes,
                       F&& f) const {
    dispatch_floating(op, values_name, values, [&]<class T>(T) { with_structure<T, T>(spikes_name, spikes, f); });
  }

  // Calls f<W, P, S>() with the C++ types of weights, of indptr, and of spikes: bool or the type of their sums.
  template <class F>
  void dispatch_weights(const Tensor& weights, const Tensor& spikes, F&& f) const {
    if (weights.scalar_type() == ScalarType::BFloat16) return with_structure<BFloat16, float>("spikes", spikes, f);
    if (weights.scalar_type() == ScalarType::Half) return with_structure<Float16, float>("spikes", spikes, f);
    dispatch_values("weights", weights, "spikes", spikes, f);
  }

  const char* op;
  Tensor indices;
  Tensor indptr;
  int64_t n_pre;
  int64_t n_synapses;

 private:
  template <class W, class T, class F>
  void with_structure(const char* spikes_name, const Tensor& spikes, F&& f) const {
    const bool event = spikes.scalar_type() == ScalarType::Bool;
    constexpr auto type_of_sums = std::is_same_v<T, float> ? ScalarType::Float : ScalarType::Double;
    STD_TORCH_CHECK(event || spikes.scalar_type() == type_of_sums, op, "(", spikes_name,
                    "=...): expected bool or the dtype of the sums");
    const auto with_indptr = [&]<class P>() {
      if (event)
        f.template operator()<W, P, bool>();
      else
        f.template operator()<W, P, T>();
    };
    switch (indptr.scalar_type()) {
      case ScalarType::Int: return with_indptr.template operator()<int32_t>();
      case ScalarType::Long: return with_indptr.template operator()<int64_t>();
      default: STD_TORCH_CHECK(false, op, "(indptr=...): expected int32 or int64");
    }
  }
};

// The dtype of sums of weights: numbers of two bytes are for storage only.
inline ScalarType type_of_sums(const Tensor& weights) {
  const ScalarType type = weights.scalar_type();
  return type == ScalarType::BFloat16 || type == ScalarType::Half ? ScalarType::Float : type;
}

// The data of weights of type W; torch's own numbers of two bytes are no types of the kernels.
template <class W>
inline const W* weights_pointer(const Tensor& weights) {
  return static_cast<const W*>(weights.const_data_ptr());
}

// The same, to be written.
template <class W>
inline W* mutable_weights_pointer(const Tensor& weights) {
  return static_cast<W*>(weights.mutable_data_ptr());
}

inline int64_t batch_size(const Tensor& per_neuron) { return per_neuron.dim() == 2 ? per_neuron.size(0) : 1; }

// The shape of `per_neuron` with n as its last size.
inline Tensor empty_per_neuron(const Tensor& per_neuron, int64_t n, ScalarType dtype) {
  const int64_t sizes[2] = {batch_size(per_neuron), n};
  const int64_t dim = per_neuron.dim();
  return empty_on_device_of(per_neuron, sizes + (2 - dim), dim, dtype);
}

}  // namespace bdtorch
