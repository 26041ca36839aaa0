// CPU launch and registration of eligibility traces.
#include "bdtorch/eligibility.h"

#include "eligibility_arguments.h"
#include "parts.h"
#include "registration.h"

namespace bdtorch {
namespace {

Tensor eligibility_csr(const Tensor& e, const Tensor& decay, const Tensor& x, const Tensor& psi, const Tensor& indices,
                       const Tensor& indptr) {
  const EligibilityArguments given(e, decay, x, psi, indices, indptr);
  Tensor out = empty_of_shape(given.e);
  if (out.numel() == 0) return out;

  const CsrArguments& csr = given.csr;
  csr.dispatch_values("e", given.e, "x", given.x, [&]<class T, class P, class S>() {
    if constexpr (std::is_same_v<S, T>) {  // the arguments have one dtype
      T* traces = copied<T>(given.e, out);
      const auto* columns = csr.indices.const_data_ptr<int32_t>();
      const auto* rows = csr.indptr.const_data_ptr<P>();
      const int64_t n_batch = batch_size(given.e), work = out.numel();
      parallel_parts(n_batch, csr.n_pre, work, [=] { return work; }, [&](int64_t b, int64_t begin, int64_t end) {
        eligibility_rows(traces + b * csr.n_synapses, given.decay.const_data_ptr<T>(), given.decay.dim() == 0,
                         given.x.const_data_ptr<T>() + b * csr.n_pre, given.psi.const_data_ptr<T>() + b * given.n_post,
                         columns, rows, begin, end);
      });
    }
  });
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) { implement_with_raw(m, "eligibility_csr", TORCH_BOX(&eligibility_csr)); }

}  // namespace bdtorch
