// Network D by hand; the equations are in benchmarks/stdp.py. State: v, g.
//
// Weights lie by neuron: the spike of a neuron, the more frequent one, changes a row, and the spike of an input one
// number in each row. Two rows are woven, eight weights of each in turn, so that a cache line has those of both, and the
// odd number of lines in a pair keeps a column from meeting itself in the cache.
#include <cmath>
#include <vector>

#include "floor.h"

extern "C" int64_t run(const Problem* problem) {
  constexpr float dt = 0.1f, tau = 10.f, v_rest = -74.f, v_th = -54.f, v_reset = -60.f;
  constexpr float w_max = 0.01f, a_plus = 0.01f * w_max, a_minus = 1.05f * a_plus;
  const float decay_g = std::exp(-dt / 5.f), decay_trace = std::exp(-dt / 20.f);
  const int64_t n = problem->neurons, inputs = problem->inputs;
  const int64_t pair = ((inputs + 7) / 8 | 1) * 16;
  typedef float Eight __attribute__((vector_size(32), aligned(4)));
  constexpr int64_t ahead = 32;  // pairs of rows between the one at work and the one that is asked for
  float* __restrict v = problem->state;
  float* __restrict g = v + n;
  std::vector<float> weights(((n + 1) / 2 + ahead) * pair + 15), input_traces((inputs + 7) / 8 * 8, 0.f), traces(n, 0.f);
  float* __restrict w = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(weights.data()) + 63) / 64 * 64);
  float* __restrict x = input_traces.data();
  float* __restrict y = traces.data();
  for (int64_t i = 0; i < inputs; ++i)
    for (int64_t j = 0; j < n; ++j) w[j / 2 * pair + i / 8 * 16 + j % 2 * 8 + i % 8] = problem->weights[i * n + j];
  int64_t spikes = 0, arrived = 0;
  for (int64_t step = 0; step < problem->steps; ++step) {
    const int64_t before = spikes;
    spikes = advance_all(*problem, step, spikes, [=](int64_t j) {
      const float total = 1.f + g[j], steady = v_rest / total;
      const float after = steady + (v[j] - steady) * std::exp(-dt / tau * total);
      const bool fired = after >= v_th;
      v[j] = fired ? v_reset : after;
      g[j] *= decay_g;
      y[j] *= decay_trace;
      return int32_t(fired);
    });
    if (spikes < 0) return -1;
    for (int64_t i = 0; i < inputs; ++i) x[i] *= decay_trace;
    const int64_t first = arrived;
    for (; arrived < problem->input_spikes && problem->input_step[arrived] == step; ++arrived) {
      const int64_t i = problem->input_index[arrived];
      float* __restrict column = w + i / 8 * 16 + i % 8;
      for (int64_t j = 0; j < n; j += 2, column += pair) {
        __builtin_prefetch(column + ahead * pair, 1);
        for (int64_t u = 0; u < 2 && j + u < n; ++u) {
          const float weight = column[8 * u], depression = y[j + u];
          g[j + u] += weight;
          column[8 * u] = weight > depression ? weight - depression : 0.f;
        }
      }
    }
    for (int64_t k = first; k < arrived; ++k) x[problem->input_index[k]] += a_plus;
    for (int64_t k = before; k < spikes; ++k) {
      const int64_t j = problem->spike_index[k];
      float* __restrict row = w + j / 2 * pair + j % 2 * 8;
      for (int64_t i = 0; i < inputs; i += 8, row += 16) {
        const Eight grown = *(const Eight*)row + *(const Eight*)(x + i), most = Eight{} + w_max;
        *(Eight*)row = grown < most ? grown : most;
      }
      y[j] += a_minus;
    }
  }
  return spikes;
}
