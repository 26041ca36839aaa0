// One CUDA thread as a fiber: a function with a stack of its own that gives way to the scheduler and is resumed by it.
#pragma once
#include <ucontext.h>

#include <cstddef>
#include <functional>

namespace simulator {

class Fiber {
 public:
  explicit Fiber(std::function<void()> body) : body_(std::move(body)) {}
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Runs the body until it yields or returns. The body must not let an exception out.
  void resume();

  // Called by the body: back to resume().
  void yield();

  bool started() const { return stack_ != nullptr; }
  bool finished() const { return finished_; }

 private:
  static void run_current();
  void switch_to_scheduler();

  std::function<void()> body_;
  ucontext_t context_{};
  ucontext_t scheduler_context_{};
  char* stack_ = nullptr;
  bool finished_ = false;

  // What the sanitizers want to be told of either side of a switch.
  void* sanitizer_fiber_ = nullptr;
  void* sanitizer_scheduler_ = nullptr;
  void* fake_stack_ = nullptr;
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_size_ = 0;
};

}  // namespace simulator
