// The annotations by which AddressSanitizer and ThreadSanitizer follow fibers. Empty without a sanitizer.
//
// Under ThreadSanitizer only the kernels are compiled with -fsanitize=thread; the simulator itself is compiled without
// it and with -DSIMULATOR_THREAD_SANITIZER, and marks its own work as ignored. So the sanitizer sees the memory
// accesses of the kernels and, as order between them, nothing but what CUDA promises: barriers, __syncwarp, fences.
#pragma once
#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef SIMULATOR_THREAD_SANITIZER
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace simulator {

#ifdef SIMULATOR_THREAD_SANITIZER
inline void acquire(void* tag) { __tsan_acquire(tag); }
inline void release(void* tag) { __tsan_release(tag); }
inline void begin_ignore() {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
inline void end_ignore() {
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
inline void acquire(void*) {}
inline void release(void*) {}
inline void begin_ignore() {}
inline void end_ignore() {}
#endif

// What happens in this scope is the simulator's business, not the kernel's: malloc and memcpy are seen even in code
// that is not instrumented.
struct SimulatorScope {
  SimulatorScope() { begin_ignore(); }
  ~SimulatorScope() { end_ignore(); }
};

// Back to the kernel, within a SimulatorScope.
struct KernelScope {
  KernelScope() { end_ignore(); }
  ~KernelScope() { begin_ignore(); }
};

}  // namespace simulator
