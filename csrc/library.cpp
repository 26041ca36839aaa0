// Schemas only: what an op computes is said in its door (bdtorch/ops) and its kernel (csrc/include/bdtorch).
#include "registration.h"

BDTORCH_LIBRARY(m) {
  using bdtorch::define_with_raw;
  define_with_raw(m, "event_csr", "(Tensor spikes, Tensor weights, Tensor indices, Tensor indptr, int n_post) -> Tensor");
  define_with_raw(m, "event_csr_ordered", "(Tensor spikes, Tensor weights, Tensor indices, Tensor indptr, int n_post) -> Tensor");
  define_with_raw(m, "event_csr_t", "(Tensor spikes, Tensor weights, Tensor indices, Tensor indptr) -> Tensor");
  define_with_raw(m, "csr_outer", "(Tensor x, Tensor g, Tensor indices, Tensor indptr) -> Tensor");
  const std::string matrix = "int n_pre, int n_post, int key, float? p, int? number, int draws, int self_offset";
  for (const char* name : {"procedural_event", "procedural_event_ordered"})
    define_with_raw(m, name, "(Tensor spikes, Tensor offset, Tensor? scale, " + matrix + ") -> Tensor");
  define_with_raw(m, "procedural_gather", "(Tensor spikes, Tensor offset, Tensor? scale, " + matrix + ") -> Tensor");
  define_with_raw(m, "event_dense", "(Tensor spikes, Tensor matrix) -> Tensor");
  define_with_raw(m, "event_dense_t", "(Tensor spikes, Tensor matrix) -> Tensor");
  define_with_raw(m, "plasticity_dense",
                  "(Tensor weights, Tensor spikes, Tensor a, Tensor? b, float low, float high, bool columns) -> Tensor");
  define_with_raw(m, "plasticity_csr",
                  "(Tensor weights, Tensor spikes, Tensor a, Tensor? b, Tensor indices, Tensor indptr, "
                  "Tensor? synapses, float low, float high) -> Tensor");
  for (const char* name : {"event_csr_delayed", "event_csr_delayed_ordered"})
    define_with_raw(m, name,
                    "(Tensor ring, Tensor cursor, Tensor spikes, Tensor weights, Tensor indices, Tensor indptr, "
                    "Tensor delays) -> Tensor");
  define_with_raw(m, "eligibility_csr",
                  "(Tensor e, Tensor decay, Tensor x, Tensor psi, Tensor indices, Tensor indptr) -> Tensor");
  define_with_raw(m, "rls_update",
                  "(Tensor memory, Tensor count, Tensor x, Tensor? learn, int block, float forgetting) -> Tensor");
  // Without derivatives, hence without raw twins.
  m.def(("procedural_counts(Tensor rows, " + matrix + ") -> Tensor").c_str());
  m.def(("procedural_rows(Tensor rows, " + matrix + ") -> (Tensor, Tensor, Tensor)").c_str());
  m.def("draw_bernoulli(Tensor key, float p, int n_pre, int n_post, int self_offset) -> (Tensor, Tensor)");
  m.def("draw_distinct(Tensor key, int rows, int choices, int number, int self_offset) -> Tensor");
  m.def("csr_columns(Tensor indices, Tensor indptr) -> int");
  m.def("csr_transpose(Tensor indices, Tensor indptr, int n_columns, bool numbered) -> (Tensor, Tensor, Tensor)");
  m.def("csr_sort(Tensor pre, Tensor post, int n_pre, int n_post) -> (Tensor, Tensor, Tensor)");
  m.def("random_uniform(Tensor key, Tensor counter, int n, ScalarType dtype) -> Tensor");
  m.def("random_normal(Tensor key, Tensor counter, int n, ScalarType dtype) -> Tensor");
  m.def("random_exponential(Tensor key, Tensor counter, int n, ScalarType dtype) -> Tensor");
  m.def("random_poisson(Tensor key, Tensor counter, Tensor rate, int n) -> Tensor");
  m.def("random_binomial(Tensor key, Tensor counter, int trials, Tensor p, int n) -> Tensor");
  m.def("random_bernoulli(Tensor key, Tensor counter, Tensor p, int n) -> Tensor");
}
