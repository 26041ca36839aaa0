#include "fiber.h"

#include <sys/mman.h>

#include <new>

#include "sanitizers.h"

namespace simulator {
namespace {

constexpr size_t kStackSize = 128 << 10;
constexpr size_t kGuardSize = 4 << 10;

// makecontext passes no pointers.
thread_local Fiber* starting = nullptr;

char* allocate_stack() {
  void* memory = mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardSize, PROT_NONE);  // an overflow crashes here and not in a neighbour
  return static_cast<char*>(memory);
}

}  // namespace

// Stacks are not used again: to ThreadSanitizer that would look like a race between the two threads.
Fiber::~Fiber() {
#ifdef SIMULATOR_THREAD_SANITIZER
  if (sanitizer_fiber_) __tsan_destroy_fiber(sanitizer_fiber_);
#endif
  if (stack_) munmap(stack_, kStackSize);
}

void Fiber::resume() {
  if (!started()) {
    stack_ = allocate_stack();
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStackSize;
    context_.uc_link = nullptr;
    makecontext(&context_, &Fiber::run_current, 0);
    starting = this;
#ifdef SIMULATOR_THREAD_SANITIZER
    sanitizer_fiber_ = __tsan_create_fiber(0);
#endif
  }
#ifdef SIMULATOR_THREAD_SANITIZER
  constexpr unsigned no_synchronisation = 1;
  sanitizer_scheduler_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(sanitizer_fiber_, no_synchronisation);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&scheduler_fake_stack_, stack_, kStackSize);
#endif
  swapcontext(&scheduler_context_, &context_);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::yield() { switch_to_scheduler(); }

void Fiber::switch_to_scheduler() {
#ifdef SIMULATOR_THREAD_SANITIZER
  constexpr unsigned no_synchronisation = 1;
  __tsan_switch_to_fiber(sanitizer_scheduler_, no_synchronisation);
#endif
#ifdef __SANITIZE_ADDRESS__
  // A null pointer says that this fiber will not run again.
  __sanitizer_start_switch_fiber(finished_ ? nullptr : &fake_stack_, scheduler_stack_, scheduler_stack_size_);
#endif
  swapcontext(&context_, &scheduler_context_);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack_, &scheduler_stack_size_);
#endif
}

void Fiber::run_current() {
  Fiber* fiber = starting;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &fiber->scheduler_stack_, &fiber->scheduler_stack_size_);
#endif
  fiber->body_();
  fiber->finished_ = true;
  fiber->switch_to_scheduler();
}

}  // namespace simulator
