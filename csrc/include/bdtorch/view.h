// How the native loop hands tensors to an operator that a user wrote: contiguous numbers and their shape.
#pragma once
#include <cstdint>

namespace bdtorch {

template <class T>
struct View {
  static constexpr int max_dim = 8;

  T* data;
  int dim;
  int64_t sizes[max_dim];

  // The length of an axis; negative numbers count from the last.
  int64_t size(int axis) const { return sizes[axis < 0 ? axis + dim : axis]; }

  int64_t numel() const {
    int64_t n = 1;
    for (int axis = 0; axis < dim; ++axis) n *= sizes[axis];
    return n;
  }

  T& operator[](int64_t flat_index) const { return data[flat_index]; }
};

}  // namespace bdtorch
