// CPU launch and registration of recursive least squares.
#include "bdtorch/rls.h"

#include "parts.h"
#include "registration.h"
#include "rls_arguments.h"
#include "vector_clones.h"

namespace bdtorch {
namespace {

template <class T>
BDTORCH_CLONED_FOR_VECTORS void take(T* memory, const RlsArguments& given, int64_t count, const T* x, bool learn) {
  rls_take(memory, given.n, given.width, given.block, count, x, learn, T(given.forgetting));
}

Tensor rls_update(const Tensor& memory, const Tensor& count, const Tensor& x, const std::optional<Tensor>& learn,
                  int64_t block, double forgetting) {
  const RlsArguments given(memory, count, x, learn, block, forgetting);
  Tensor out = empty_of_shape(given.memory);
  if (out.numel() == 0) return out;

  const auto* counts = given.count.const_data_ptr<int64_t>();
  for (int64_t b = 0; b < given.count.numel(); ++b)
    STD_TORCH_CHECK(counts[b] >= 0 && counts[b] < block, "rls_update(count=...): expected values in [0, ", block,
                    "), got ", counts[b]);
  const bool* flags = given.learn ? given.learn->const_data_ptr<bool>() : nullptr;
  dispatch_floating("rls_update", "memory", given.memory, [&]<class T>(T) {
    T* memories = copied<T>(given.memory, out);
    const T* samples = given.x.const_data_ptr<T>();
    const int64_t size = out.numel() / given.n_batch;
    // One memory is one part: its sums depend on one another.
    parallel_parts(given.n_batch, 1, out.numel(), [&] { return out.numel(); }, [&](int64_t b, int64_t begin, int64_t end) {
      if (begin == end) return;
      take(memories + b * size, given, counts[given.count.dim() ? b : 0], samples + b * given.n,
           !flags || flags[given.learn->dim() ? b : 0]);
    });
  });
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) { implement_with_raw(m, "rls_update", TORCH_BOX(&rls_update)); }

}  // namespace bdtorch
