// The arguments of recursive least squares, checked and made contiguous. Used by the CPU and CUDA hosts alike.
#pragma once
#include <optional>

#include "bdtorch/rls.h"
#include "stable_tensor.h"

namespace bdtorch {

struct RlsArguments {
  RlsArguments(const Tensor& memory_, const Tensor& count_, const Tensor& x_, const std::optional<Tensor>& learn_,
               int64_t block, double forgetting)
      : memory(as_contiguous(memory_)), count(as_contiguous(count_)), x(as_contiguous(x_)), block(block),
        forgetting(forgetting) {
    constexpr const char* op = "rls_update";
    const int64_t dim = memory.dim();
    STD_TORCH_CHECK(dim == 2 || dim == 3, op, "(memory=...): expected 2 or 3 dimensions, got ", dim);
    STD_TORCH_CHECK(x.dim() == dim - 1 && x.scalar_type() == memory.scalar_type(), op,
                    "(x=...): expected one sample for each memory, in its dtype");
    STD_TORCH_CHECK(block >= 1 && block <= rls_most_pending, op, "(block=...): expected 1 to ", rls_most_pending);
    n = x.size(dim - 2);
    width = memory.size(dim - 1);
    n_batch = dim == 3 ? memory.size(0) : 1;
    const int64_t lanes = memory.scalar_type() == ScalarType::Double ? lanes_double : lanes_float;
    STD_TORCH_CHECK(width == (n + lanes - 1) / lanes * lanes && memory.size(dim - 2) == n + block + 2, op,
                    "(memory=...): expected (*batch, n + block + 2, n filled up to 64 bytes)");
    STD_TORCH_CHECK(dim == 2 || x.size(0) == n_batch, op, "(x=...): expected the batch of the memory");
    STD_TORCH_CHECK(count.scalar_type() == ScalarType::Long, op, "(count=...): expected int64");
    expect_each("count", count);
    if (learn_) {
      learn = as_contiguous(*learn_);
      STD_TORCH_CHECK(learn->scalar_type() == ScalarType::Bool, op, "(learn=...): expected bool");
      expect_each("learn", *learn);
    }
    for (const Tensor* tensor : {&x, &count, learn ? &*learn : &x})
      STD_TORCH_CHECK(
          tensor->is_cpu() == memory.is_cpu() && tensor->get_device_index() == memory.get_device_index(), op,
          ": expected one device");
  }

  // 0-d, for the whole batch, or a value for each of its memories.
  void expect_each(const char* name, const Tensor& tensor) const {
    const bool fits = tensor.dim() == 0 || (memory.dim() == 3 && tensor.dim() == 1 && tensor.size(0) == n_batch);
    STD_TORCH_CHECK(fits, "rls_update(", name, "=...): expected shape () or (*batch,)");
  }

  static constexpr int64_t lanes_float = detail::lanes_of<float>, lanes_double = detail::lanes_of<double>;
  Tensor memory, count, x;
  std::optional<Tensor> learn;
  int64_t block, n = 0, width = 0, n_batch = 0;
  double forgetting;
};

}  // namespace bdtorch
