// Ops by which the Python tests steer the simulator.
#include "registration.h"
#include "scheduler.h"

namespace {

void set_schedule(int64_t seed, int64_t resident_blocks, double preemption) {
  simulator::options() = {uint64_t(seed), unsigned(resident_blocks), preemption};
}

int64_t launch_count() { return int64_t(simulator::launch_count()); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(bdtorch_sim, m) {
  m.def("set_schedule(int seed, int resident_blocks, float preemption) -> ()");
  m.def("launch_count() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(bdtorch_sim, CompositeExplicitAutograd, m) {
  m.impl("set_schedule", TORCH_BOX(&set_schedule));
  m.impl("launch_count", TORCH_BOX(&launch_count));
}
