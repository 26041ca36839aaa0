// The frame of a running loop, and its threads: how they begin, meet and end. They live for one run, which takes many
// steps, so that nothing of them outlasts an error, an interrupt or a fork.
#pragma once

#if defined(_WIN32)
#error "generated loops need POSIX threads: Linux, macOS or another POSIX system"
#endif

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace loop {

// The state of a running loop, shared by its threads. Python fills and reads it as an array of int64. What changes has
// cache lines of its own: a line goes to and fro between cores in about as much time as ten neurons take.
// Steps with an even and an odd number have flags of their own: a thread may be setting those of the next step while
// another still reads.
struct Frame {
  int64_t buffers;   // address of an array of addresses
  int64_t first;     // number of the first step
  int64_t count;     // steps to take
  int64_t threads;
  int64_t backward;  // where steps are taken from the last to the first: their number, else 0
  int64_t patience;  // turns that a thread waits for others before it offers its core; set by `run`
  int64_t problem;   // address for what an exception of a user's operator says, or 0
  int64_t members;   // address of the threads' array of `Member`; set by `run`
  alignas(64) int64_t done;  // steps taken
  int64_t stop[2];           // a record is full: no further step
  int64_t error[2];          // number of the operation that met an index out of range
  alignas(64) int64_t kept[];  // entries of each sparse record
};

using Steps = void (*)(Frame*, int64_t thread);

// One of the threads, and what it waits for: 1 to begin, -1 to give up, since not all could be made.
struct Member {
  Frame* frame;
  Steps steps;
  int64_t thread;
  const int* signal;
  pthread_t id = {};
  uint32_t meetings = 0;                // how often it has come to meet the others
  alignas(64) uint32_t heard[16] = {};  // of each round: in how many meetings it has heard of the thread that tells it
};

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Threads meet; what any wrote before is visible to all after. In rounds: each tells the thread that is 1, 2, 4 ... places
// further on that it has come, and waits to be told, until all have heard of all. A line of memory that several cores write
// to goes to and fro between them, which takes up to 200 nanoseconds each time where they have no cache in common; here a
// thread writes one line a round, and waits for one.
//
// Waits by turning, for what it waits for takes less than to fall asleep and be woken; offers its core again and again
// where others are slow to arrive, so that they can.
inline void meet(Frame* frame, int64_t thread) {
  const int64_t threads = frame->threads;
  if (threads == 1) return;
  Member* members = (Member*)frame->members;
  Member& own = members[thread];
  const uint32_t meeting = ++own.meetings;
  const int64_t patience = frame->patience;
  int round = 0;
  for (int64_t distance = 1; distance < threads; distance *= 2, ++round) {
    const int64_t other = thread + distance - (thread + distance < threads ? 0 : threads);
    __atomic_store_n(&members[other].heard[round], meeting, __ATOMIC_RELEASE);
    for (int64_t turn = 0; int32_t(__atomic_load_n(&own.heard[round], __ATOMIC_ACQUIRE) - meeting) < 0; ++turn)
      if (turn < patience)
        pause();
      else
        sched_yield();
  }
}

// How many threads can run at the same time.
inline int64_t cores() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online < 1 ? 1 : online;
}

// Keep a thread off the caller's core, if there are others. Schedulers begin a thread where its maker runs, and take
// milliseconds to notice that both wait for each other there: to them, a thread that waits by turning is busy.
inline void keep_apart(pthread_attr_t* attributes) {
#if defined(__linux__) && defined(__GLIBC__)
  cpu_set_t allowed;
  const int here = sched_getcpu();
  if (here < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  CPU_CLR(here, &allowed);
  pthread_attr_setaffinity_np(attributes, sizeof allowed, &allowed);
#else
  (void)attributes;
#endif
}

// Of every thread, as the first one usually has: rows that are sorted and matrices that are solved lie there, and macOS and
// musl give a thread less than they may take.
constexpr size_t stack_bytes = size_t(8) << 20;

inline void* enter(void* member) {
  const Member& self = *static_cast<Member*>(member);
  int signal;
  while (!(signal = __atomic_load_n(self.signal, __ATOMIC_ACQUIRE))) sched_yield();
  if (signal > 0) self.steps(self.frame, self.thread);
  return nullptr;
}

// Take steps in all threads, of which the caller's is number 0. The others take no signals: an interrupt is the
// program's. Returns 0, or the number of the error if they could not be made.
inline int run(Frame* frame, Steps steps) {
  constexpr int64_t patience = 2000;  // 50 microseconds or so
  const int64_t threads = frame->threads;
  frame->patience = threads <= cores() ? patience : 0;
  if (threads == 1) {
    steps(frame, 0);
    return 0;
  }
  void* memory = nullptr;
  if (const int error = posix_memalign(&memory, alignof(Member), size_t(threads) * sizeof(Member))) return error;
  Member* members = static_cast<Member*>(memory);
  frame->members = (int64_t)members;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  keep_apart(&attributes);
  int signal = 0, failed = 0;
  for (int64_t thread = 0; thread < threads; ++thread) members[thread] = {frame, steps, thread, &signal};
  int64_t made = 1;
  for (; made < threads && !failed; made += !failed)
    failed = pthread_create(&members[made].id, &attributes, enter, &members[made]);
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  __atomic_store_n(&signal, failed ? -1 : 1, __ATOMIC_RELEASE);
  if (!failed) steps(frame, 0);
  for (int64_t thread = 1; thread < made; ++thread) pthread_join(members[thread].id, nullptr);
  std::free(memory);
  return failed;
}

}  // namespace loop
