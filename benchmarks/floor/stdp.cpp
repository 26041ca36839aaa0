// Network D by hand; the equations are in benchmarks/stdp.py. State: v, g.
//
// Weights lie by neuron: the spike of a neuron, the more frequent one, changes a row, and the spike of an input one
// number in each row. The odd number of cache lines in a row keeps a column from meeting itself in the cache.
#include <cmath>
#include <vector>

#include "floor.h"

extern "C" int64_t run(const Problem* problem) {
  constexpr float dt = 0.1f, tau = 10.f, v_rest = -74.f, v_th = -54.f, v_reset = -60.f;
  constexpr float w_max = 0.01f, a_plus = 0.01f * w_max, a_minus = 1.05f * a_plus;
  const float decay_g = std::exp(-dt / 5.f), decay_trace = std::exp(-dt / 20.f);
  const int64_t n = problem->neurons, inputs = problem->inputs, stride = ((inputs + 15) / 16 | 1) * 16;
  float* __restrict v = problem->state;
  float* __restrict g = v + n;
  std::vector<float> weights(n * stride), input_traces(inputs, 0.f), traces(n, 0.f);
  float* __restrict w = weights.data();
  float* __restrict x = input_traces.data();
  float* __restrict y = traces.data();
  for (int64_t i = 0; i < inputs; ++i)
    for (int64_t j = 0; j < n; ++j) w[j * stride + i] = problem->weights[i * n + j];
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
      for (int64_t j = 0; j < n; ++j) {
        const float weight = w[j * stride + i];
        g[j] += weight;
        w[j * stride + i] = weight > y[j] ? weight - y[j] : 0.f;
      }
    }
    for (int64_t k = first; k < arrived; ++k) x[problem->input_index[k]] += a_plus;
    for (int64_t k = before; k < spikes; ++k) {
      const int64_t j = problem->spike_index[k];
      float* __restrict row = w + j * stride;
      for (int64_t i = 0; i < inputs; ++i) {
        const float grown = row[i] + x[i];
        row[i] = grown < w_max ? grown : w_max;
      }
      y[j] += a_minus;
    }
  }
  return spikes;
}
