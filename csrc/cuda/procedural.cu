// CUDA launch and registration of the ops on procedural matrices.
#include "procedural.cuh"

#include "launch.h"
#include "procedural_arguments.h"
#include "registration.h"

namespace bdtorch::cuda {
namespace {

Tensor procedural_event(const Tensor& spikes, const Tensor& offset, const std::optional<Tensor>& scale, int64_t n_pre,
                        int64_t n_post, int64_t key, std::optional<double> p, std::optional<int64_t> number,
                        int64_t draws, int64_t self_offset) {
  const auto matrix = procedural_matrix("procedural_event", n_pre, n_post, key, p, number, draws, self_offset);
  const ProceduralArguments arguments("procedural_event", spikes, n_pre, offset, scale, matrix);
  const CurrentDevice device(arguments.spikes);
  const cudaStream_t stream = device.stream();
  Tensor out = arguments.empty(n_post);

  arguments.dispatch([&]<class T, class S>() {
    auto* y = out.mutable_data_ptr<T>();
    if (out.numel() > 0) check(cudaMemsetAsync(y, 0, size_t(out.numel()) * sizeof(T), stream));
    if (out.numel() == 0 || arguments.spikes.numel() == 0) return;

    const int64_t n_spikes = arguments.spikes.numel();
    const int64_t buffer_size = n_spikes + 1;  // the last element counts the events
    Tensor buffer = empty_on_device_of(arguments.spikes, &buffer_size, 1, ScalarType::Long);
    auto* events = buffer.mutable_data_ptr<int64_t>();
    auto* n_events = reinterpret_cast<unsigned long long*>(events + n_spikes);
    check(cudaMemsetAsync(n_events, 0, sizeof *n_events, stream));

    const auto* s = arguments.spikes.const_data_ptr<S>();
    BDTORCH_LAUNCH((compact_spikes<S, kBlockSize>), blocks_for(device, n_spikes, kBlockSize), kBlockSize, stream, s,
                   n_spikes, events, n_events);
    check_launch();
    BDTORCH_LAUNCH((scatter_procedural<T, S>), blocks_for(device, n_spikes * matrix.n_tiles, kBlockSize / kWarpSize),
                   kBlockSize, stream, events, n_events, matrix, arguments.offset.const_data_ptr<T>(),
                   arguments.scale.const_data_ptr<T>(), s, y);
    check_launch();
  });
  return out;
}

Tensor procedural_event_ordered(const Tensor& spikes, const Tensor& offset, const std::optional<Tensor>& scale,
                                int64_t n_pre, int64_t n_post, int64_t key, std::optional<double> p,
                                std::optional<int64_t> number, int64_t draws, int64_t self_offset) {
  const char* op = "procedural_event_ordered";
  const auto matrix = procedural_matrix(op, n_pre, n_post, key, p, number, draws, self_offset);
  const ProceduralArguments arguments(op, spikes, n_pre, offset, scale, matrix);
  const CurrentDevice device(arguments.spikes);
  Tensor out = arguments.empty(n_post);
  if (out.numel() == 0) return out;

  arguments.dispatch([&]<class T, class S>() {
    auto* y = out.mutable_data_ptr<T>();
    check(cudaMemsetAsync(y, 0, size_t(out.numel()) * sizeof(T), device.stream()));
    BDTORCH_LAUNCH((scatter_procedural_ordered<T, S>),
                   blocks_for(device, arguments.n_batch * matrix.n_tiles, kBlockSize / kWarpSize), kBlockSize,
                   device.stream(), matrix, arguments.offset.const_data_ptr<T>(), arguments.scale.const_data_ptr<T>(),
                   arguments.spikes.const_data_ptr<S>(), arguments.n_batch, y);
    check_launch();
  });
  return out;
}

Tensor procedural_gather(const Tensor& spikes, const Tensor& offset, const std::optional<Tensor>& scale, int64_t n_pre,
                         int64_t n_post, int64_t key, std::optional<double> p, std::optional<int64_t> number,
                         int64_t draws, int64_t self_offset) {
  const auto matrix = procedural_matrix("procedural_gather", n_pre, n_post, key, p, number, draws, self_offset);
  const ProceduralArguments arguments("procedural_gather", spikes, n_post, offset, scale, matrix);
  const CurrentDevice device(arguments.spikes);
  Tensor out = arguments.empty(n_pre);
  if (out.numel() == 0) return out;

  arguments.dispatch([&]<class T, class S>() {
    BDTORCH_LAUNCH((gather_procedural<T, S>), blocks_for(device, out.numel(), kBlockSize / kWarpSize), kBlockSize,
                   device.stream(), matrix, arguments.offset.const_data_ptr<T>(), arguments.scale.const_data_ptr<T>(),
                   arguments.spikes.const_data_ptr<S>(), arguments.n_batch, out.mutable_data_ptr<T>());
    check_launch();
  });
  return out;
}

}  // namespace

BDTORCH_CUDA_LIBRARY(m) {
  implement_with_raw(m, "procedural_event", TORCH_BOX(&procedural_event));
  implement_with_raw(m, "procedural_event_ordered", TORCH_BOX(&procedural_event_ordered));
  implement_with_raw(m, "procedural_gather", TORCH_BOX(&procedural_gather));
}

}  // namespace bdtorch::cuda
