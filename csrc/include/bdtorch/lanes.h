// Numbers that follow one another in memory, as one value: loaded, computed with and stored at once.
//
//   InMemory<T, n>   n numbers of type T, wherever such a number may lie. It stands for numbers of type T, and no others:
//                    not so a memcpy, whose bytes might be anything's, so that the compiler would look up sizes and
//                    addresses again after every one that is written.
//
// Included by generated code: no torch, C++17.
#pragma once
#include <cstdint>

#if !defined(__CUDACC__)  // which does not know vectors as types

namespace bdtorch {
namespace detail {

// A member of a class, since clang forgets the alignment of an alias template: it would take it for that of the vector.
template <class T, int64_t n>
struct Lanes {
  typedef T InMemory __attribute__((vector_size(n * sizeof(T)), aligned(alignof(T))));
};

}  // namespace detail

template <class T, int64_t n>
using InMemory = typename detail::Lanes<T, n>::InMemory;

}  // namespace bdtorch

#endif  // !defined(__CUDACC__)
