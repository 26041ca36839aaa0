// Elementary functions that vectorise and give the same bits everywhere.
//
//   exp expm1 exprel linoid log log1p tanh sigmoid sin cos sincos2pi sqrt abs copysign        for float and double
//
// Every function is straight-line code over IEEE operations and bit patterns: no branch, no table. So a compiler
// vectorises it inside any loop, and the result depends neither on the width of the vectors nor on the processor,
// provided that it is compiled without contraction and without value-changing optimisations:
//
//   g++, clang++   -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math       (-march=... as you like)
//   nvcc           -fmad=false
//
// The exponentials, which models are full of, ask for fused multiply-add by name: that halves their work, and gives the
// same bits where the C library has to stand in for an instruction (x86 before 2013). The other functions do without, so
// that random numbers cost little there.
//
// Errors are below 1 ulp for exp, log, log1p, sin and cos, below 2 for expm1, sigmoid and sincos2pi, below 2.5 for tanh,
// exprel and linoid (tests/ops/test_math.py measures them). Infinities, NaN, signed zeros, overflow and gradual
// underflow are those of the C library, with one exception: sin and cos return NaN for |x| > 2^28, where the argument
// reduction ends.
//
// Polynomial coefficients are minimax fits (Remez exchange in 60 digits) of the function named beside them; argument
// reductions follow Cody and Waite (1980), Software Manual for the Elementary Functions.
#pragma once

#include "exponential.h"
#include "ieee.h"
#include "logarithm.h"
#include "trigonometric.h"
