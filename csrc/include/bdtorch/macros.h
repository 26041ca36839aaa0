// Function specifiers shared by all kernel headers.
#pragma once

// BDTORCH_HD: a function of both sides, host and device.
// BDTORCH_INLINE: the same, inlined without asking the optimiser. A loop vectorises only if every call in its body is
// inlined, and the cost model gives up early in the long bodies of generated loops.
#if defined(__CUDACC__)
#define BDTORCH_HD __host__ __device__ inline
#define BDTORCH_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define BDTORCH_HD inline
#define BDTORCH_INLINE inline __attribute__((always_inline))
#else
#define BDTORCH_HD inline
#define BDTORCH_INLINE inline
#endif

// BDTORCH_IN_LINE: the same for a lambda, after its parameters.
#if defined(__GNUC__) && !defined(__CUDACC__)
#define BDTORCH_IN_LINE __attribute__((always_inline))
#else
#define BDTORCH_IN_LINE
#endif

// BDTORCH_APART: a function that stays one, and is compiled once however many call it. Parts of a generated loop do: in one
// body, the compiler's time would grow with its square.
#if defined(__clang__) || !defined(__GNUC__)
#define BDTORCH_APART static __attribute__((noinline))
#else
#define BDTORCH_APART static __attribute__((noinline, noclone))
#endif

// BDTORCH_UNROLL(n): n turns of the loop that follows at a time. Where the turns do little, the loop's own count costs.
// BDTORCH_SCALAR_STEP: placed between statements, keeps gcc from packing them into one vector operation, which for
// values that are chosen one by one costs more instructions than it saves.
// BDTORCH_INDEPENDENT: no turn of the loop that follows reads or writes what another writes, wherever pointers point. Not
// for a loop that sums up: clang takes it for leave to change the order of sums.
#if defined(__GNUC__) && !defined(__CUDACC__)
#define BDTORCH_SCALAR_STEP __asm__ volatile("")
#define BDTORCH_PRAGMA(text) _Pragma(#text)
#define BDTORCH_UNROLL(n) BDTORCH_PRAGMA(GCC unroll n)
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed"  // loops for which vectors do not pay are no matter
#define BDTORCH_INDEPENDENT BDTORCH_PRAGMA(clang loop vectorize(assume_safety))
#else
#define BDTORCH_INDEPENDENT BDTORCH_PRAGMA(GCC ivdep)
#endif
#else
#define BDTORCH_SCALAR_STEP
#define BDTORCH_UNROLL(n)
#define BDTORCH_INDEPENDENT
#endif
