// CUDA launch and registration of eligibility traces.
#include "eligibility.cuh"

#include "eligibility_arguments.h"
#include "launch.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

Tensor eligibility_csr(const Tensor& e, const Tensor& decay, const Tensor& x, const Tensor& psi, const Tensor& indices,
                       const Tensor& indptr) {
  const EligibilityArguments given(e, decay, x, psi, indices, indptr);
  const CurrentDevice device(given.e);
  Tensor out = copied(given.e, device.stream());
  if (out.numel() == 0) return out;

  given.csr.dispatch_values("e", given.e, "x", given.x, [&]<class T, class P, class S>() {
    const int64_t n_batch = batch_size(given.e);
    BDTORCH_LAUNCH((advance_traces<T, P>), blocks_for(device, n_batch * given.csr.n_pre, kBlockSize / kWarpSize),
                   kBlockSize, device.stream(), out.mutable_data_ptr<T>(), given.decay.const_data_ptr<T>(),
                   given.decay.dim() == 0, given.x.const_data_ptr<T>(), given.psi.const_data_ptr<T>(),
                   given.csr.indices.const_data_ptr<int32_t>(), given.csr.indptr.const_data_ptr<P>(), n_batch,
                   given.csr.n_pre, given.n_post, given.csr.n_synapses);
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) { implement_with_raw(m, "eligibility_csr", TORCH_BOX(&eligibility_csr)); }

}  // namespace bdtorch::cuda
