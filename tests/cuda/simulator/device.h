// The part of CUDA C++ that the kernels use, for a host compiler: keywords, built-in variables, collectives, atomics.
// Test only. Add to it what a new kernel needs; what is not here does not compile.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

#include "scheduler.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (::simulator::position().thread)
#define blockIdx (::simulator::position().block)
#define blockDim (::simulator::position().block_dim)
#define gridDim (::simulator::position().grid_dim)

#define SIMULATOR_SITE (::simulator::Site{__FILE__, __LINE__})
#define __syncthreads() ::simulator::barrier(SIMULATOR_SITE)
#define __syncwarp() ::simulator::collective(::simulator::Collective::synchronise, 0xffffffffu, 0, SIMULATOR_SITE)
#define __ballot_sync(mask, predicate) ::simulator::ballot((mask), bool(predicate), SIMULATOR_SITE)
#define __shfl_sync(mask, value, source) ::simulator::shuffle((mask), (value), int(source), SIMULATOR_SITE)
#define __shfl_down_sync(mask, value, delta) \
  ::simulator::shuffle((mask), (value), int(::simulator::position().lane) + int(delta), SIMULATOR_SITE)
#define __shfl_xor_sync(mask, value, bits) \
  ::simulator::shuffle((mask), (value), int(::simulator::position().lane) ^ int(bits), SIMULATOR_SITE)

// The tag is what tells one array of a block from another; the memory is the block's.
#define SIMULATOR_SHARED(T, name, size) \
  static char name##_tag;               \
  T(&name)[size] = *reinterpret_cast<T(*)[size]>(::simulator::shared_memory(&name##_tag, sizeof(T) * (size)))

namespace simulator {

// Like <<<>>>: the arguments are converted to the types of the parameters once, at the launch.
template <class... Parameters, class... Arguments>
inline void launch_kernel(const char* name, dim3 grid, dim3 block, void (*kernel)(Parameters...),
                          Arguments&&... arguments) {
  const std::tuple<Parameters...> converted(static_cast<Parameters>(arguments)...);
  launch(name, grid, block, [&] { std::apply(kernel, converted); });
}

inline uint32_t ballot(uint32_t mask, bool predicate, Site site) {
  const auto votes = collective(Collective::exchange, mask, predicate, site);
  uint32_t result = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & votes[lane] & 1) result |= 1u << lane;
  return result;
}

// Beyond the last lane a thread gets its own value back; a source lane that takes no part is an error.
template <class T>
inline T shuffle(uint32_t mask, T value, int source, Site site) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const auto values = collective(Collective::exchange, mask, bits, site);
  if (source < 0 || source >= 32) source = int(position().lane);
  if (!(mask >> source & 1))
    fail("shuffle at " + site.text() + " reads lane " + std::to_string(source) + ", which is not in its mask");
  std::memcpy(&value, &values[size_t(source)], sizeof value);
  return value;
}

// Applies an update to a memory cell as one step; relaxed, as on the device.
template <class T, class Update>
inline T update_atomically(T* cell, Update update) {
  preemption_point();
  std::atomic_ref<T> atomic(*cell);
  T old = atomic.load(std::memory_order_relaxed);
  while (!atomic.compare_exchange_weak(old, update(old), std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace simulator

template <class T>
inline T atomicAdd(T* cell, std::type_identity_t<T> value) {
  return simulator::update_atomically(cell, [value](T old) { return T(old + value); });
}
inline void __threadfence() { simulator::fence(); }
// No convergence is promised: the adversary's answer is that a lane is alone.
inline uint32_t __activemask() { return 1u << simulator::position().lane; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }  // a bad launch throws
inline const char* cudaGetErrorString(cudaError_t) { return "error in the simulator"; }
