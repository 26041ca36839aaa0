#include "scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "fiber.h"
#include "sanitizers.h"

namespace simulator {
namespace {

constexpr unsigned kWarpSize = 32;
constexpr size_t kSharedMemoryLimit = 48 << 10;

struct Block;

// Lanes of one warp that wait for each other.
struct Meeting {
  Meeting(Collective kind_, uint32_t mask_, Site site_) : kind(kind_), mask(mask_), site(site_) {}

  Collective kind;
  uint32_t mask;
  Site site;
  uint32_t arrived = 0;
  std::array<uint64_t, 32> values{};
  std::vector<struct Thread*> waiting;
};

struct Thread {
  ThreadPosition position;
  Block* block;
  unsigned rank;
  std::unique_ptr<Fiber> fiber;
  Site waits_at{"the start of the kernel", 0};

  std::string name() const {
    const dim3 b = position.block, t = position.thread;
    char text[128];
    std::snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u)", b.x, b.y, b.z, t.x, t.y, t.z);
    return text;
  }
};

struct Warp {
  uint32_t existing = 0, returned = 0;
  std::vector<std::shared_ptr<Meeting>> meetings;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  size_t running = 0;
  std::vector<Thread*> at_barrier;
  // Two tags in turn: a thread that leaves a barrier late must not be ordered after arrivals at the next one.
  std::array<char, 2> barrier_tags{};
  size_t n_barriers = 0;
  std::map<const void*, std::unique_ptr<char[]>> shared;
  size_t shared_bytes = 0;

  Warp& warp_of(const Thread& thread) { return warps[thread.rank / kWarpSize]; }
};

// Unwinds a fiber of a launch that has failed.
struct Aborted {};

class Launch {
 public:
  Launch(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& body);
  void run();

  void yield();
  void make_ready(Thread* thread) { ready_.push_back(thread); }
  void set_error(const std::string& message) {
    if (error_.empty()) error_ = std::string(kernel_) + ": " + message;
  }
  bool randomly(double probability) {
    return options_.seed != 0 && std::uniform_real_distribution<>()(random_) < probability;
  }
  Thread& current() { return *current_; }

 private:
  void start_block(uint64_t number);
  Thread* next_thread();
  void run_thread(Thread* thread);
  void on_return(Thread& thread);
  void abort_threads();

  const char* kernel_;
  dim3 grid_, block_;
  const std::function<void()>& body_;
  const Options options_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Block>> resident_;
  std::deque<Thread*> ready_;
  Thread* current_ = nullptr;
  std::string error_;
  char end_tag_ = 0;
};

thread_local Launch* active = nullptr;
uint64_t n_launches = 0;

uint64_t volume(dim3 d) { return uint64_t(d.x) * d.y * d.z; }

dim3 unravel(uint64_t number, dim3 shape) {
  return dim3(unsigned(number % shape.x), unsigned(number / shape.x % shape.y), unsigned(number / shape.x / shape.y));
}

void release_barrier(Block& block) {
  ++block.n_barriers;
  for (Thread* thread : block.at_barrier) active->make_ready(thread);
  block.at_barrier.clear();
}

Launch::Launch(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& body)
    : kernel_(kernel), grid_(grid), block_(block), body_(body), options_(options()) {
  if (volume(grid) == 0 || volume(block) == 0)
    throw std::runtime_error(std::string(kernel) + ": invalid configuration, empty grid or block");
  if (volume(block) > 1024 || block.z > 64 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw std::runtime_error(std::string(kernel) + ": invalid configuration, beyond the limits of a device");
  random_.seed(options_.seed * 0x9E3779B97F4A7C15u + n_launches);
  ++n_launches;
}

void Launch::start_block(uint64_t number) {
  auto block = std::make_unique<Block>();
  const size_t n_threads = volume(block_);
  block->threads.resize(n_threads);
  block->warps.resize((n_threads + kWarpSize - 1) / kWarpSize);
  block->running = n_threads;
  for (unsigned rank = 0; rank < n_threads; ++rank) {
    Thread& thread = block->threads[rank];
    thread.position = {unravel(rank, block_), unravel(number, grid_), block_, grid_, rank % kWarpSize};
    thread.block = block.get();
    thread.rank = rank;
    block->warp_of(thread).existing |= 1u << thread.position.lane;
    thread.fiber = std::make_unique<Fiber>([this] {
      begin_ignore();
      try {
        KernelScope kernel;
        body_();
      } catch (const Aborted&) {
      } catch (const std::exception& exception) {
        set_error(exception.what());
      }
      release(&end_tag_);
      end_ignore();  // ThreadSanitizer refuses a fiber that ends while it ignores
    });
    ready_.push_back(&thread);
  }
  resident_.push_back(std::move(block));
}

Thread* Launch::next_thread() {
  if (options_.seed != 0) std::swap(ready_.front(), ready_[random_() % ready_.size()]);
  Thread* thread = ready_.front();
  ready_.pop_front();
  return thread;
}

void Launch::run_thread(Thread* thread) {
  current_ = thread;
  thread->fiber->resume();
  if (thread->fiber->finished()) on_return(*thread);
}

void Launch::on_return(Thread& thread) {
  thread.fiber.reset();
  Block& block = *thread.block;
  --block.running;
  Warp& warp = block.warp_of(thread);
  warp.returned |= 1u << thread.position.lane;
  for (const auto& meeting : warp.meetings)
    if (meeting->mask >> thread.position.lane & 1)
      set_error(thread.name() + " returned, but the warp collective at " + meeting->site.text() + " waits for it");
  if (!block.at_barrier.empty())
    set_error(thread.name() + " returned, but " + block.at_barrier[0]->name() + " waits for it at the barrier " +
              block.at_barrier[0]->waits_at.text());
  if (block.running == 0)
    resident_.erase(std::find_if(resident_.begin(), resident_.end(), [&](auto& b) { return b.get() == &block; }));
}

void Launch::abort_threads() {
  for (auto& block : resident_)
    for (Thread& thread : block->threads)
      if (thread.fiber && thread.fiber->started()) {
        current_ = &thread;
        thread.fiber->resume();
      }
}

void Launch::run() {
  std::vector<uint64_t> order(volume(grid_));
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  if (options_.seed != 0) std::shuffle(order.begin(), order.end(), random_);
  size_t next_block = 0;
  while (error_.empty()) {
    while (resident_.size() < std::max(1u, options_.resident_blocks) && next_block < order.size())
      start_block(order[next_block++]);
    if (resident_.empty()) break;
    if (ready_.empty()) {
      const auto& threads = resident_[0]->threads;
      const Thread& stuck = *std::find_if(threads.begin(), threads.end(), [](auto& t) { return t.fiber != nullptr; });
      set_error("deadlock: " + stuck.name() + " waits at " + stuck.waits_at.text());
      break;
    }
    run_thread(next_thread());
  }
  acquire(&end_tag_);
  if (!error_.empty()) {
    abort_threads();
    throw std::runtime_error(error_);
  }
}

void Launch::yield() {
  current_->fiber->yield();
  if (!error_.empty()) throw Aborted{};
}

}  // namespace

Options& options() {
  static Options value;
  return value;
}

uint64_t launch_count() { return n_launches; }

const ThreadPosition& position() { return active->current().position; }

bool Site::operator==(const Site& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }

std::string Site::text() const { return std::string(file) + ":" + std::to_string(line); }

void launch(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& body) {
  SimulatorScope scope;
  Launch launch(kernel, grid, block, body);
  active = &launch;
  struct Reset {
    ~Reset() { active = nullptr; }
  } reset;
  launch.run();
}

void fail(const std::string& message) {
  active->set_error(message + " [" + active->current().name() + "]");
  throw Aborted{};
}

void preemption_point() {
  SimulatorScope scope;
  if (!active->randomly(options().preemption)) return;
  active->make_ready(&active->current());
  active->yield();
}

void fence() {
  static char tag;
  {
    SimulatorScope scope;
    release(&tag);
    acquire(&tag);
  }
  preemption_point();
}

void barrier(Site site) {
  SimulatorScope scope;
  Thread& thread = active->current();
  Block& block = *thread.block;
  thread.waits_at = site;
  if (block.running != block.threads.size())
    fail("the barrier " + site.text() + " can't be reached by threads that have returned");
  if (!block.at_barrier.empty() && !(block.at_barrier[0]->waits_at == site))
    fail("divergent barriers: " + site.text() + " and " + block.at_barrier[0]->waits_at.text());
  char* tag = &block.barrier_tags[block.n_barriers % 2];
  release(tag);
  block.at_barrier.push_back(&thread);
  if (block.at_barrier.size() == block.running) release_barrier(block);
  active->yield();
  acquire(tag);
}

std::array<uint64_t, 32> collective(Collective kind, uint32_t mask, uint64_t value, Site site) {
  SimulatorScope scope;
  Thread& thread = active->current();
  Warp& warp = thread.block->warp_of(thread);
  const uint32_t lane_bit = 1u << thread.position.lane;
  thread.waits_at = site;
  mask &= warp.existing;  // the last warp of a block may have fewer lanes
  if (!(mask & lane_bit)) fail("warp collective at " + site.text() + ": the calling lane is not in its mask");
  if (mask & warp.returned) fail("warp collective at " + site.text() + ": its mask has a lane that has returned");

  std::shared_ptr<Meeting> meeting;
  for (const auto& open : warp.meetings) {
    if (!(open->mask & mask)) continue;
    if (open->mask != mask || open->kind != kind || !(open->site == site))
      fail("mismatched warp collectives: " + site.text() + " and " + open->site.text());
    meeting = open;
  }
  if (!meeting) {
    meeting = std::make_shared<Meeting>(kind, mask, site);
    warp.meetings.push_back(meeting);
  }
  // Only __syncwarp orders memory; a shuffle or a vote does not.
  if (kind == Collective::synchronise) release(meeting.get());
  meeting->arrived |= lane_bit;
  meeting->values[thread.position.lane] = value;
  meeting->waiting.push_back(&thread);
  if (meeting->arrived == mask) {
    warp.meetings.erase(std::find(warp.meetings.begin(), warp.meetings.end(), meeting));
    for (Thread* waiting : meeting->waiting) active->make_ready(waiting);
  }
  active->yield();
  if (kind == Collective::synchronise) acquire(meeting.get());
  return meeting->values;
}

void* shared_memory(const void* variable, size_t bytes) {
  SimulatorScope scope;
  Block& block = *active->current().block;
  auto& array = block.shared[variable];
  if (!array) {
    block.shared_bytes += bytes;
    if (block.shared_bytes > kSharedMemoryLimit) fail("more than 48 KiB of shared memory in a block");
    array = std::make_unique<char[]>(bytes);
    std::memset(array.get(), 0xCB, bytes);
  }
  return array.get();
}

}  // namespace simulator
