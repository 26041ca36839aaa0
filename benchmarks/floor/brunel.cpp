// Network C by hand; the equations are in benchmarks/brunel.py. State: v.
#include <cmath>
#include <vector>

#include "floor.h"

extern "C" int64_t run(const Problem* problem) {
  constexpr float dt = 0.1f, v_th = 20.f, v_reset = 10.f, drive = 30.f, weight = 0.2f, inhibition = -6.f * weight;
  constexpr int32_t refractory = 20;
  constexpr int64_t delay = 15;
  const float rise = 1.f - std::exp(-dt / 20.f);
  const int64_t n = problem->neurons;
  float* __restrict v = problem->state;
  std::vector<int32_t> countdowns(n, 0);
  std::vector<float> jumps(n, 0.f);
  int32_t* __restrict countdown = countdowns.data();
  float* __restrict jump = jumps.data();
  int64_t spikes = 0, delivered = 0;
  for (int64_t step = 0; step < problem->steps; ++step) {
    int64_t due = delivered;  // spikes stamped k act in step k + delay; the record is the delay line
    while (due < spikes && problem->spike_step[due] + delay <= step) ++due;
    deliver(*problem, delivered, due, jump, weight, jump, inhibition);
    delivered = due;
    spikes = advance_all(*problem, step, spikes, [=](int64_t i) {
      const bool free = countdown[i] <= 0;
      const float start = v[i] + jump[i];
      const float after = free ? start + rise * (drive - start) : v[i];
      const bool fired = free & (after >= v_th);
      v[i] = fired ? v_reset : after;
      countdown[i] = fired ? refractory : (free ? 0 : countdown[i] - 1);
      jump[i] = 0.f;
      return int32_t(fired);
    });
    if (spikes < 0) return -1;
  }
  return spikes;
}
