// CUDA launch and registration of recursive least squares.
#include "rls.cuh"

#include "launch.h"
#include "registration.h"
#include "rls_arguments.h"

namespace bdtorch::cuda {
namespace {

Tensor rls_update(const Tensor& memory, const Tensor& count, const Tensor& x, const std::optional<Tensor>& learn,
                  int64_t block, double forgetting) {
  const RlsArguments given(memory, count, x, learn, block, forgetting);
  const CurrentDevice device(given.memory);
  Tensor out = copied(given.memory, device.stream());
  if (out.numel() == 0) return out;

  dispatch_floating("rls_update", "memory", given.memory, [&]<class T>(T) {
    const RlsBatch<T> batch = {out.mutable_data_ptr<T>(),
                               given.count.const_data_ptr<int64_t>(),
                               given.learn ? given.learn->const_data_ptr<bool>() : nullptr,
                               given.x.const_data_ptr<T>(),
                               given.n_batch,
                               given.n,
                               given.width,
                               block,
                               given.count.dim(),
                               given.learn ? given.learn->dim() : 0,
                               T(forgetting)};
    const int64_t rows = given.n_batch * given.n;
    BDTORCH_LAUNCH((rls_project<T>), blocks_for(device, rows, kBlockSize / kWarpSize), kBlockSize, device.stream(), batch);
    BDTORCH_LAUNCH((rls_gain<T, kBlockSize>), blocks_for(device, given.n_batch, 1), kBlockSize, device.stream(), batch);
    BDTORCH_LAUNCH((rls_fold<T>), blocks_for(device, rows * given.width, kBlockSize), kBlockSize, device.stream(), batch,
                   detail::is_small<T>(given.n));
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) { implement_with_raw(m, "rls_update", TORCH_BOX(&rls_update)); }

}  // namespace bdtorch::cuda
