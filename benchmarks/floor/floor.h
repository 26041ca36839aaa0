// What the hand-written loops are given, and what they share: finding the neurons that fired, and recording them.
#pragma once

#include <cstdint>

// Filled in by Python (benchmarks/floor/__init__.py). Neurons are numbered through, excitatory ones first.
struct Problem {
  int64_t neurons, excitatory, steps;
  const int64_t* indptr;   // (neurons + 1)
  const int32_t* indices;  // targets of all neurons, one after the other
  float* state;            // (variables, neurons)
  int64_t* spike_step;     // (capacity)
  int64_t* spike_index;
  int64_t capacity;
  // Network D only; it has no indptr and indices.
  int64_t inputs, input_spikes;
  const float* weights;        // (inputs, neurons)
  const int32_t* input_step;   // (input_spikes), ascending
  const int32_t* input_index;
};

// Calls advance(i), which returns whether neuron i fired, for all neurons, and records those that did. Blocks keep the
// inner loop free of branches, and neurons touch nothing but their own variables, so that it vectorises. Returns the
// number of spikes so far, or -1 where there is no room.
template <class Advance>
inline int64_t advance_all(const Problem& problem, int64_t step, int64_t spikes, Advance&& advance) {
  constexpr int64_t block = 64;
  if (spikes + problem.neurons > problem.capacity) return -1;
  for (int64_t start = 0; start < problem.neurons; start += block) {
    const int64_t count = problem.neurons - start < block ? problem.neurons - start : block;
    int32_t fired[block];
    int32_t any = 0;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      fired[i] = advance(start + i);
      any |= fired[i];
    }
    if (!any) continue;
    for (int64_t i = 0; i < count; ++i)
      if (fired[i]) {
        problem.spike_step[spikes] = step + 1;
        problem.spike_index[spikes++] = start + i;
      }
  }
  return spikes;
}

// Adds a weight to all targets of the spikes [begin, end).
inline void deliver(const Problem& problem, int64_t begin, int64_t end, float* excitatory, float excitatory_weight,
                    float* inhibitory, float inhibitory_weight) {
  for (int64_t spike = begin; spike < end; ++spike) {
    const int64_t source = problem.spike_index[spike];
    const bool excites = source < problem.excitatory;
    float* __restrict target = excites ? excitatory : inhibitory;
    const float weight = excites ? excitatory_weight : inhibitory_weight;
    for (int64_t k = problem.indptr[source]; k < problem.indptr[source + 1]; ++k) target[problem.indices[k]] += weight;
  }
}
