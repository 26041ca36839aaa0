// What the ops need of tensors, over LibTorch's stable ABI. Host code only.
#pragma once
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

namespace bdtorch {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A new contiguous tensor on the device of `like`. By the C shim: torch::stable::new_empty looks its op up by name and
// boxes its lists on every call, 3 microseconds of it.
inline Tensor empty_on_device_of(const Tensor& like, const int64_t* sizes, int64_t dim, ScalarType dtype) {
  constexpr int64_t max_dim = 8;
  STD_TORCH_CHECK(dim <= max_dim, "empty_on_device_of: at most ", max_dim, " dimensions, got ", dim);
  int64_t strides[max_dim], stride = 1;
  for (int64_t d = dim - 1; d >= 0; --d) {
    strides[d] = stride;
    stride *= sizes[d] > 1 ? sizes[d] : 1;
  }
  int32_t device_type, device_index;
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const auto shim_dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, sizes, strides, shim_dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

// Asks for large pages for the memory of a new tensor: it is first touched in a fraction of the time, and read in any
// order with fewer misses. Advice only, and for what is large.
inline void advise_huge_pages(const Tensor& tensor) {
#ifdef __linux__
  constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
  const auto first = reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr());
  const std::uintptr_t begin = (first + page - 1) / page * page;
  const std::uintptr_t end = (first + std::uintptr_t(tensor.numel()) * tensor.element_size()) / page * page;
  if (end >= begin + 2 * page) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)tensor;
#endif
}

// A new contiguous tensor of the shape, dtype and device of another, of at most three dimensions.
inline Tensor empty_of_shape(const Tensor& like) {
  int64_t sizes[3] = {};
  for (int64_t d = 0; d < like.dim(); ++d) sizes[d] = like.size(d);
  return empty_on_device_of(like, sizes, like.dim(), like.scalar_type());
}

// Compiled graphs hand over whatever strides they traced.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Calls f with a value of the C++ type of a float32 or float64 tensor.
template <class F>
inline void dispatch_floating(const char* op, const char* argument, const Tensor& tensor, F&& f) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return f(float{});
    case ScalarType::Double: return f(double{});
    default: STD_TORCH_CHECK(false, op, "(", argument, "=...): expected float32 or float64");
  }
}

}  // namespace bdtorch
