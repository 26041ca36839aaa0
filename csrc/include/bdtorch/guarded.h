// Calls of operators that users wrote: an exception ends the loop with an error, not the process.
#pragma once

#include <cstring>
#include <exception>

#include "loop.h"

namespace loop {

constexpr size_t words = 256;  // bytes that a frame has for what an exception says, if it has any

// Of several exceptions in one step the first is kept. Others cannot see its text before the threads have met.
inline void note_exception(const Now& now, int64_t operation, const char* what) {
  int64_t none = 0;
  if (!__atomic_compare_exchange_n(now.error, &none, operation, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return;
  if (now.frame->problem) std::strncpy((char*)now.frame->problem, *what ? what : "an exception", words - 1);
}

template <class Call>
inline void guarded(const Now& now, int64_t operation, Call call) {
  try {
    call();
  } catch (const std::exception& error) {
    note_exception(now, operation, error.what());
  } catch (...) {
    note_exception(now, operation, "an exception that is no std::exception");
  }
}

}  // namespace loop
