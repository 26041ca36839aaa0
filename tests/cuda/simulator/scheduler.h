// Runs the threads of a CUDA grid as fibers on one CPU thread, and checks what a GPU leaves undefined.
//
//   - Several blocks are resident at once; with a seed, blocks and threads run in random order, and atomics and fences
//     may hand over to another thread.
//   - Barriers and warp collectives are checked: divergent call sites, wrong masks, returned threads, deadlock.
//   - Every shared array is a heap object of its own, filled with garbage, so that AddressSanitizer sees its end.
//   - Launch limits are those of a device.
//
// What it cannot show: weak memory beyond what ThreadSanitizer models, the speed of anything, the driver.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace simulator {

struct Options {
  uint64_t seed = 0;             // 0: in order and without preemption
  unsigned resident_blocks = 2;  // blocks that run at the same time
  double preemption = 0.1;       // probability that an atomic or a fence hands over
};
Options& options();

// The number of launches so far; a test that means to run kernels checks that it grows.
uint64_t launch_count();

// The built-in variables of the running thread.
struct ThreadPosition {
  dim3 thread, block, block_dim, grid_dim;
  unsigned lane;
};
const ThreadPosition& position();

// A barrier or collective in the source: all threads that meet must have come to the same one.
struct Site {
  const char* file;
  int line;
  bool operator==(const Site& other) const;
  std::string text() const;
};

// Runs `body` for every thread of the grid and returns when all are done, as if the host waited.
// Throws std::runtime_error with kernel, block and thread at the first violation.
void launch(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& body);

// For use by device.h, from within a running thread:
[[noreturn]] void fail(const std::string& message);
void preemption_point();
void fence();
void barrier(Site site);
enum class Collective { synchronise, exchange };
// Waits for all lanes of the mask and returns the values that they brought.
std::array<uint64_t, 32> collective(Collective kind, uint32_t mask, uint64_t value, Site site);
// The shared array of the running block that belongs to a static variable.
void* shared_memory(const void* variable, size_t bytes);

}  // namespace simulator
