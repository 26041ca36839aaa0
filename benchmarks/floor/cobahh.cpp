// Network B by hand; the equations are in benchmarks/cobahh.py. State: v, m, h, n, g_e, g_i.
#include <cmath>
#include <vector>

#include "floor.h"

namespace {

// x / (1 - exp(-x)), 1 at 0.
inline float ratio(float x) { return x == 0.f ? 1.f : x / (1.f - std::exp(-x)); }

// The gate after dt at constant rates.
inline float relaxed(float gate, float alpha, float beta, float dt) {
  const float rate = alpha + beta, steady = alpha / rate;
  return steady + (gate - steady) * std::exp(-dt * rate);
}

}  // namespace

extern "C" int64_t run(const Problem* problem) {
  constexpr float dt = 0.1f, capacitance = 200.f, g_l = 10.f, e_l = -60.f, g_na = 20000.f, e_na = 50.f;
  constexpr float g_k = 6000.f, e_k = -90.f, v_t = -63.f, v_th = -20.f;
  constexpr float e_e = 0.f, e_i = -80.f, w_e = 6.f, w_i = 67.f;
  constexpr int32_t refractory = 30;
  const float decay_e = std::exp(-dt / 5.f), decay_i = std::exp(-dt / 10.f);
  const int64_t neurons = problem->neurons;
  float* __restrict v = problem->state;
  float* __restrict m = v + neurons;
  float* __restrict h = m + neurons;
  float* __restrict n = h + neurons;
  float* __restrict g_e = n + neurons;
  float* __restrict g_i = g_e + neurons;
  std::vector<int32_t> countdowns(neurons, 0);
  int32_t* __restrict countdown = countdowns.data();
  int64_t spikes = 0;
  for (int64_t step = 0; step < problem->steps; ++step) {
    const int64_t before = spikes;
    spikes = advance_all(*problem, step, spikes, [=](int64_t i) {
      const float x = v[i] - v_t;
      const float sodium = g_na * m[i] * m[i] * m[i] * h[i], potassium = g_k * n[i] * n[i] * n[i] * n[i];
      const float total = g_l + sodium + potassium + g_e[i] + g_i[i];
      const float steady = (g_l * e_l + sodium * e_na + potassium * e_k + g_e[i] * e_e + g_i[i] * e_i) / total;
      const float after = steady + (v[i] - steady) * std::exp(-dt / capacitance * total);
      m[i] = relaxed(m[i], 1.28f * ratio((x - 13.f) * 0.25f), 1.4f * ratio((40.f - x) * 0.2f), dt);
      h[i] = relaxed(h[i], 0.128f * std::exp((17.f - x) / 18.f), 4.f / (1.f + std::exp((40.f - x) * 0.2f)), dt);
      n[i] = relaxed(n[i], 0.16f * ratio((x - 15.f) * 0.2f), 0.5f * std::exp((10.f - x) / 40.f), dt);
      const bool free = countdown[i] <= 0;
      const bool fired = free & (v[i] < v_th) & (after >= v_th);
      countdown[i] = fired ? refractory : (free ? 0 : countdown[i] - 1);
      v[i] = after;
      g_e[i] *= decay_e;
      g_i[i] *= decay_i;
      return int32_t(fired);
    });
    if (spikes < 0) return -1;
    deliver(*problem, before, spikes, g_e, w_e, g_i, w_i);
  }
  return spikes;
}
