// Registration of ops with the dispatcher, in the namespace that this library is compiled for.
#pragma once
#include <string>

#include <torch/csrc/stable/library.h>

// The test library that runs the CUDA sources on the CPU has a namespace of its own.
#ifndef BDTORCH_NAMESPACE
#define BDTORCH_NAMESPACE bdtorch
#endif

#ifdef BDTORCH_SIMULATE_CUDA
#define BDTORCH_CUDA_KEY CPU
#else
#define BDTORCH_CUDA_KEY CUDA
#endif

// One more level each, so that the namespace and the key are expanded before torch pastes and quotes them.
#define BDTORCH_LIBRARY_EXPANDED(ns, m) STABLE_TORCH_LIBRARY(ns, m)
#define BDTORCH_LIBRARY_IMPL_EXPANDED(ns, key, m) STABLE_TORCH_LIBRARY_IMPL(ns, key, m)

#define BDTORCH_LIBRARY(m) BDTORCH_LIBRARY_EXPANDED(BDTORCH_NAMESPACE, m)
#define BDTORCH_CPU_LIBRARY(m) BDTORCH_LIBRARY_IMPL_EXPANDED(BDTORCH_NAMESPACE, CPU, m)
#define BDTORCH_CUDA_LIBRARY(m) BDTORCH_LIBRARY_IMPL_EXPANDED(BDTORCH_NAMESPACE, BDTORCH_CUDA_KEY, m)

namespace bdtorch {

// A differentiable op exists twice. The public one gets an Autograd kernel written in Python; the raw twin is what that
// kernel, and with it every compiled graph, calls: no Python on its way.
inline void define_with_raw(torch::stable::detail::StableLibrary& library, const std::string& name,
                            const std::string& signature) {
  library.def((name + signature).c_str());
  library.def(("_" + name + "_raw" + signature).c_str());
}

using BoxedKernel = void(StableIValue*, uint64_t, uint64_t);

inline void implement_with_raw(torch::stable::detail::StableLibrary& library, const std::string& name,
                               BoxedKernel* kernel) {
  library.impl(name.c_str(), kernel);
  library.impl(("_" + name + "_raw").c_str(), kernel);
}

}  // namespace bdtorch
