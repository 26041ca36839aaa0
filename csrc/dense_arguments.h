// The arguments that the ops on a dense matrix share, checked and made contiguous. Used by the CPU and CUDA hosts alike.
#pragma once
#include "csr_arguments.h"

namespace bdtorch {

// A matrix, or one for each sample of the batch: (n_rows, n_columns) or (batch, n_rows, n_columns).
struct DenseArguments {
  DenseArguments(const char* op, const char* argument, const Tensor& matrix) : op(op), matrix(as_contiguous(matrix)) {
    STD_TORCH_CHECK(matrix.dim() == 2 || matrix.dim() == 3, op, "(", argument, "=...): expected 2 or 3 dimensions, got ",
                    matrix.dim());
    n_rows = matrix.size(matrix.dim() - 2);
    n_columns = matrix.size(matrix.dim() - 1);
  }

  bool per_sample() const { return matrix.dim() == 3; }

  // The distance between the matrices of two samples; 0 where they share one.
  int64_t sample_stride() const { return per_sample() ? n_rows * n_columns : 0; }

  // A tensor with one value per neuron: (n,) or (batch, n), with the batch of the matrix if that has one.
  Tensor per_neuron(const char* argument, const Tensor& tensor, int64_t n) const {
    STD_TORCH_CHECK(
        tensor.is_cpu() == matrix.is_cpu() && tensor.get_device_index() == matrix.get_device_index(), op, "(", argument,
        "=...): expected the device of the matrix");
    const int64_t dim = tensor.dim();
    STD_TORCH_CHECK((dim == 1 || dim == 2) && tensor.size(dim - 1) == n, op, "(", argument, "=...): expected shape (",
                    n, ",) or (batch, ", n, ")");
    if (per_sample())
      STD_TORCH_CHECK(dim == 2 && tensor.size(0) == matrix.size(0), op, "(", argument,
                      "=...): expected the batch size of the matrix, ", matrix.size(0));
    return as_contiguous(tensor);
  }

  // Calls f<W, S>() with the C++ types of the matrix and of spikes: bool or the type of the sums.
  template <class F>
  void dispatch(const char* argument, const Tensor& spikes, F&& f) const {
    const bool event = spikes.scalar_type() == ScalarType::Bool;
    STD_TORCH_CHECK(event || spikes.scalar_type() == type_of_sums(matrix), op,
                    "(spikes=...): expected bool or the dtype of the sums");
    const auto with_spikes = [&]<class W>(W) {
      if (event)
        f.template operator()<W, bool>();
      else
        f.template operator()<W, SumOf<W>>();
    };
    if (matrix.scalar_type() == ScalarType::BFloat16) return with_spikes(BFloat16{});
    if (matrix.scalar_type() == ScalarType::Half) return with_spikes(Float16{});
    dispatch_floating(op, argument, matrix, with_spikes);
  }

  const char* op;
  Tensor matrix;
  int64_t n_rows = 0;
  int64_t n_columns = 0;
};

}  // namespace bdtorch
