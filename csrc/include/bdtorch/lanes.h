// Numbers that follow one another in memory, as one value: loaded, computed with and stored at once.
//
//   Packed<T, n>     n numbers of type T, as a value at hand
//   InMemory<T, n>   the same, wherever a number of type T may lie. It stands for numbers of that type and no others: not so
//                    a memcpy, whose bytes might be anything's, so that the compiler would look up sizes and addresses
//                    again after every one that is written.
//   Anywhere<T, n>   the same, for the bytes of any type
//
// Write InMemory out where memory is accessed: gcc takes a pointer to it that is declared `auto`, or deduced, for one to
// whole, aligned vectors.
//
// Included by generated code: no torch, C++17.
#pragma once
#include <cstdint>

#if !defined(__CUDACC__)  // which does not know vectors as types

namespace bdtorch {
namespace detail {

// Members of a class, since clang forgets the alignment of an alias template: it would take it for that of the vector.
template <class T, int64_t n>
struct Vector {
  typedef T Value __attribute__((vector_size(n * sizeof(T))));
  typedef T InMemory __attribute__((vector_size(n * sizeof(T)), aligned(alignof(T))));
  typedef T Anywhere __attribute__((vector_size(n * sizeof(T)), aligned(alignof(T)), may_alias));
};

}  // namespace detail

template <class T, int64_t n>
using Packed = typename detail::Vector<T, n>::Value;

template <class T, int64_t n>
using InMemory = typename detail::Vector<T, n>::InMemory;

template <class T, int64_t n>
using Anywhere = typename detail::Vector<T, n>::Anywhere;

}  // namespace bdtorch

#endif  // !defined(__CUDACC__)
