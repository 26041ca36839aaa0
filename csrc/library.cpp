// Schemas only: what an op computes is said in its door (bdtorch/ops) and its kernel (csrc/include/bdtorch).
#include "registration.h"

BDTORCH_LIBRARY(m) {
  using bdtorch::define_with_raw;
  define_with_raw(m, "event_csr", "(Tensor spikes, Tensor weights, Tensor indices, Tensor indptr, int n_post) -> Tensor");
  define_with_raw(m, "event_csr_t", "(Tensor spikes, Tensor weights, Tensor indices, Tensor indptr) -> Tensor");
  define_with_raw(m, "csr_outer", "(Tensor x, Tensor g, Tensor indices, Tensor indptr) -> Tensor");
  // Without derivatives, hence without raw twins.
  m.def("random_uniform(Tensor key, Tensor counter, int n, ScalarType dtype) -> Tensor");
  m.def("random_normal(Tensor key, Tensor counter, int n, ScalarType dtype) -> Tensor");
  m.def("random_bernoulli(Tensor key, Tensor counter, Tensor p, int n) -> Tensor");
}
