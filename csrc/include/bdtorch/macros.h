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
