// Network A by hand; the equations are in benchmarks/coba.py. State: v, g_e, g_i.
#include <cmath>
#include <vector>

#include "floor.h"

extern "C" int64_t run(const Problem* problem) {
  constexpr float dt = 0.1f, tau = 20.f, v_rest = -60.f, v_reset = -60.f, v_th = -50.f, drive = 20.f;
  constexpr float e_e = 0.f, e_i = -80.f, w_e = 0.6f, w_i = 6.7f;
  constexpr int32_t refractory = 50;
  const float decay_e = std::exp(-dt / 5.f), decay_i = std::exp(-dt / 10.f);
  const int64_t n = problem->neurons;
  float* __restrict v = problem->state;
  float* __restrict g_e = v + n;
  float* __restrict g_i = g_e + n;
  std::vector<int32_t> countdowns(n, 0);
  int32_t* __restrict countdown = countdowns.data();
  int64_t spikes = 0;
  for (int64_t step = 0; step < problem->steps; ++step) {
    const int64_t before = spikes;
    spikes = advance_all(*problem, step, spikes, [=](int64_t i) {
      const bool free = countdown[i] <= 0;
      const float slope = (v_rest - v[i] + g_e[i] * (e_e - v[i]) + g_i[i] * (e_i - v[i]) + drive) * (1.f / tau);
      const float after = free ? v[i] + dt * slope : v[i];
      const bool fired = free & (after >= v_th);
      v[i] = fired ? v_reset : after;
      countdown[i] = fired ? refractory : (free ? 0 : countdown[i] - 1);
      g_e[i] *= decay_e;
      g_i[i] *= decay_i;
      return int32_t(fired);
    });
    if (spikes < 0) return -1;
    deliver(*problem, before, spikes, g_e, w_e, g_i, w_i);
  }
  return spikes;
}
