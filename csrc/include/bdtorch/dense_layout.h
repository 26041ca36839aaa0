// How the elements of a dense matrix lie in memory: row after row, or with pairs of rows woven together.
//
// A column has a cache line for each row, of which it uses one element. Two rows that are woven, 32 bytes of the one and
// 32 bytes of the other in turn, have their elements of a column in one line: a column visits half as many, and a row
// twice as many, which follow one another. Included by generated code: no torch, no heavy standard headers, C++17.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "macros.h"

namespace bdtorch {

// Where the elements of a column lie in a row's partner and in the row after that, seen from the row.
struct ColumnSteps {
  int64_t next, pair;
};

// Element (i, j) at i n_columns + j.
template <class W>
struct RowMajor {
  using Element = W;
  static constexpr int64_t together = 1;  // rows whose elements of a column share a line

  BDTORCH_INLINE W* at(int64_t i, int64_t j) const { return w + i * n_columns + j; }
  BDTORCH_INLINE int64_t regular_rows() const { return n_rows; }  // those that `steps` are right for
  BDTORCH_INLINE ColumnSteps steps(int64_t) const { return {n_columns, 2 * n_columns}; }

  // Calls visit(first element, j, how many) for runs that make up columns [begin, end) of row i.
  template <class Visit>
  BDTORCH_INLINE void for_each_run(int64_t i, int64_t begin, int64_t end, const Visit& visit) const {
    visit(at(i, begin), begin, end - begin);
  }

  W* w;
  int64_t n_rows, n_columns;
};

// How many elements of a row lie together where rows are woven.
template <class W>
using RunLength = std::integral_constant<int64_t, 32 / int64_t(sizeof(W))>;

// Rows 2 p and 2 p + 1 in turn, `width` elements of each; what is left at their ends is shorter. The last of an odd number
// of rows lies by itself.
template <class W>
struct WovenRows {
  using Element = W;
  static constexpr int64_t together = 2, width = RunLength<W>::value;

  BDTORCH_INLINE W* at(int64_t i, int64_t j) const {
    if (i >= regular_rows()) return w + i * n_columns + j;
    return w + (i - i % 2) * n_columns + 2 * (j - j % width) + i % 2 * steps(j).next + j % width;
  }
  BDTORCH_INLINE int64_t regular_rows() const { return n_rows - n_rows % 2; }
  BDTORCH_INLINE ColumnSteps steps(int64_t j) const {
    const int64_t left = n_columns - (j - j % width);
    return {left < width ? left : width, 2 * n_columns};
  }

  template <class Visit>
  BDTORCH_INLINE void for_each_run(int64_t i, int64_t begin, int64_t end, const Visit& visit) const {
    int64_t j = begin;
    if (i < regular_rows()) {
      for (; j < end && j % width; ++j) visit(at(i, j), j, 1);
      W* first = at(i, j);
      for (; j + width <= end; j += width, first += 2 * width) visit(first, j, RunLength<W>());
    }
    if (j < end) visit(at(i, j), j, end - j);
  }

  W* w;
  int64_t n_rows, n_columns;
};

// Weaves the pairs [begin, end) of rows, in place. `room` has n_columns elements.
template <class W>
inline void weave_rows(W* w, int64_t n_columns, int64_t begin, int64_t end, W* room) {
  constexpr int64_t width = WovenRows<W>::width;
  for (int64_t p = begin; p < end; ++p) {
    W* pair = w + 2 * p * n_columns;
    const W* second = pair + n_columns;
    std::memcpy(room, pair, size_t(n_columns) * sizeof(W));
    int64_t j = 0;
    W moved[width];
    for (; j + width <= n_columns; j += width) {  // never beyond what has been read of the second row
      std::memcpy(moved, second + j, sizeof moved);
      std::memcpy(pair + 2 * j, room + j, sizeof moved);
      std::memcpy(pair + 2 * j + width, moved, sizeof moved);
    }
    const size_t left = size_t(n_columns - j);  // of the second row, whose end is in its place
    std::memcpy(pair + 2 * j, room + j, left * sizeof(W));
  }
}

// The reverse.
template <class W>
inline void unweave_rows(W* w, int64_t n_columns, int64_t begin, int64_t end, W* room) {
  constexpr int64_t width = WovenRows<W>::width;
  for (int64_t p = begin; p < end; ++p) {
    W* pair = w + 2 * p * n_columns;
    W* second = pair + n_columns;
    int64_t j = n_columns - n_columns % width;
    std::memcpy(room + j, pair + 2 * j, size_t(n_columns - j) * sizeof(W));
    W moved[width];
    while (j > 0) {
      j -= width;
      std::memcpy(room + j, pair + 2 * j, sizeof moved);
      std::memcpy(moved, pair + 2 * j + width, sizeof moved);
      std::memcpy(second + j, moved, sizeof moved);
    }
    std::memcpy(pair, room, size_t(n_columns) * sizeof(W));
  }
}

}  // namespace bdtorch
