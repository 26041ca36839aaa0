// CPU launch and registration of the ops that verify and order CSR structures.
#include "bdtorch/csr_order.h"

#include <algorithm>
#include <tuple>

#include "csr_arguments.h"
#include "registration.h"
#include "vector_clones.h"

namespace bdtorch {
namespace {

constexpr int64_t kLimit = int64_t(1) << 31;

template <class P>
BDTORCH_CLONED_FOR_VECTORS int64_t columns_needed(const int32_t* indices, const P* indptr, int64_t n_synapses,
                                                  int64_t n_rows) {
  if (indptr[0] != 0 || int64_t(indptr[n_rows]) != n_synapses) return -1;
  return columns_of_rows(indices, indptr, n_synapses, 0, n_rows);
}

template <class F>
auto with_integer(const char* op, const char* name, const Tensor& tensor, F&& f) {
  switch (tensor.scalar_type()) {
    case ScalarType::Int: return f(tensor.const_data_ptr<int32_t>());
    case ScalarType::Long: return f(tensor.const_data_ptr<int64_t>());
    default: STD_TORCH_CHECK(false, op, "(", name, "=...): expected int32 or int64");
  }
}

Tensor vector_of(const Tensor& like, int64_t n, ScalarType dtype) {
  Tensor made = empty_on_device_of(like, &n, 1, dtype);
  advise_huge_pages(made);
  return made;
}

int64_t csr_columns(const Tensor& indices, const Tensor& indptr) {
  const CsrArguments csr("csr_columns", indices, indptr);
  return with_integer("csr_columns", "indptr", csr.indptr, [&](const auto* starts) {
    return columns_needed(csr.indices.const_data_ptr<int32_t>(), starts, csr.n_synapses, csr.n_pre);
  });
}

std::tuple<Tensor, Tensor, Tensor> csr_transpose_op(const Tensor& indices, const Tensor& indptr, int64_t n_columns,
                                                    bool numbered) {
  const CsrArguments csr("csr_transpose", indices, indptr);
  STD_TORCH_CHECK(csr.n_pre < kLimit && (!numbered || csr.n_synapses < kLimit),
                  "csr_transpose: expected less than 2**31 rows and numbered synapses");
  const int64_t needed = csr_columns(csr.indices, csr.indptr);
  STD_TORCH_CHECK(needed >= 0 && needed <= n_columns, "csr_transpose: expected a CSR structure of ", n_columns,
                  " columns");
  Tensor starts = vector_of(indices, n_columns + 1, ScalarType::Long);
  Tensor rows = vector_of(indices, csr.n_synapses, ScalarType::Int);
  Tensor order = vector_of(indices, numbered ? csr.n_synapses : 0, ScalarType::Int);
  with_integer("csr_transpose", "indptr", csr.indptr, [&](const auto* from) {
    csr_transpose(csr.indices.const_data_ptr<int32_t>(), from, csr.n_pre, n_columns,
                  starts.mutable_data_ptr<int64_t>(), rows.mutable_data_ptr<int32_t>(),
                  numbered ? order.mutable_data_ptr<int32_t>() : nullptr);
  });
  return {rows, starts, order};
}

// Raises where a number is outside [0, n).
void check_range(const char* name, const Tensor& numbers, int64_t n) {
  with_integer("csr_sort", name, numbers, [&](const auto* values) {
    for (int64_t k = 0; k < numbers.numel(); ++k)
      STD_TORCH_CHECK(values[k] >= 0 && values[k] < n, "csr_sort(", name, "=...): expected indices in [0, ", n,
                      "), got ", values[k]);
  });
}

std::tuple<Tensor, Tensor, Tensor> csr_sort_op(const Tensor& pre_, const Tensor& post_, int64_t n_pre, int64_t n_post) {
  const Tensor pre = as_contiguous(pre_), post = as_contiguous(post_);
  const int64_t n = pre.numel();
  STD_TORCH_CHECK(pre.dim() == 1 && post.dim() == 1 && post.numel() == n && n < kLimit,
                  "csr_sort: expected two vectors of equal length, less than 2**31");
  STD_TORCH_CHECK(n_pre >= 0 && n_pre < kLimit && n_post >= 0 && n_post < kLimit,
                  "csr_sort: expected numbers in [0, 2**31), got ", n_pre, " and ", n_post);
  check_range("pre", pre, n_pre);
  check_range("post", post, n_post);
  Tensor starts = vector_of(pre, n_pre + 1, ScalarType::Long);
  Tensor indices = vector_of(pre, n, ScalarType::Int), order = vector_of(pre, n, ScalarType::Int);
  with_integer("csr_sort", "pre", pre, [&](const auto* from) {
    with_integer("csr_sort", "post", post, [&](const auto* to) {
      csr_sort(from, to, n, n_pre, n_post, starts.mutable_data_ptr<int64_t>(), indices.mutable_data_ptr<int32_t>(),
               order.mutable_data_ptr<int32_t>());
    });
  });
  return {indices, starts, order};
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  m.impl("csr_columns", TORCH_BOX(&csr_columns));
  m.impl("csr_transpose", TORCH_BOX(&csr_transpose_op));
  m.impl("csr_sort", TORCH_BOX(&csr_sort_op));
}

}  // namespace bdtorch
