// The arguments of eligibility traces, checked. Used by the CPU and CUDA hosts alike.
#pragma once
#include "csr_arguments.h"

namespace bdtorch {

struct EligibilityArguments {
  EligibilityArguments(const Tensor& e_, const Tensor& decay_, const Tensor& x_, const Tensor& psi_, const Tensor& indices,
                       const Tensor& indptr)
      : csr("eligibility_csr", indices, indptr),
        e(csr.per_neuron("e", e_, csr.n_synapses)),
        decay(csr.weights(decay_)),
        x(csr.per_neuron("x", x_, csr.n_pre)),
        psi(csr.per_neuron("psi", psi_, psi_.dim() > 0 ? psi_.size(psi_.dim() - 1) : 0)),
        n_post(psi.size(psi.dim() - 1)) {
    for (const Tensor* other : {&x, &psi})
      STD_TORCH_CHECK(other->dim() == e.dim() && batch_size(*other) == batch_size(e), csr.op,
                      ": expected one batch for e, x and psi");
    for (const Tensor* other : {&decay, &x, &psi})
      STD_TORCH_CHECK(other->scalar_type() == e.scalar_type(), csr.op, ": expected one dtype for e, decay, x and psi");
  }

  CsrArguments csr;
  Tensor e, decay, x, psi;
  int64_t n_post;
};

}  // namespace bdtorch
