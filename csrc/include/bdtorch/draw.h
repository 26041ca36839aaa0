// Drawing sparse connectivity, straight into the order of a CSR structure.
//
//   geometric_gaps, BernoulliRows   every pair is a synapse with probability p
//   DistinctRows, OrderedSet        n distinct values in each of many rows
//
// All numbers come from the double-precision uniforms u of random.h, named by (key, step, index), so a draw depends on
// its key alone: neither on threads, which may share the generation of gaps and the rows of distinct values, nor on the
// width of vectors. Host code: what is drawn here is stored.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "macros.h"
#include "math.h"
#include "random.h"

namespace bdtorch {

// gaps[i - begin] = min(log(1 - u_i) / log(1 - p), limit): geometric once it is rounded down, the number of failures
// before the next success (Batagelj & Brandes 2005, doi:10.1103/PhysRevE.71.036113). 1 - u is exact.
BDTORCH_INLINE void geometric_gaps(uint64_t key, uint64_t step, int64_t begin, int64_t end, double log_of_failure,
                                   double limit, double* gaps) {
  for_each_number<Uniform<double>>(key, step, begin, end, [=](int64_t i, double u) {
    const double gap = log(1. - u) / log_of_failure;
    gaps[i - begin] = gap < limit ? gap : limit;
  });
}

// Turns gaps, one after the other, into the synapses of a matrix that is read row by row.
class BernoulliRows {
 public:
  // `indptr` has n_pre + 1 entries. Row i has no synapse at i + self_offset; n_post or more: every row may have all.
  BernoulliRows(int64_t n_pre, int64_t n_post, int64_t self_offset, int64_t* indptr)
      : n_pre_(n_pre), n_post_(n_post), self_offset_(self_offset), indptr_(indptr) {
    indptr_[0] = 0;
  }

  // Takes gaps that are smaller than 2^63 and appends to `indices`, which has room for as many as there are gaps
  // beyond its `count` entries. False: the last row is complete.
  BDTORCH_INLINE bool take(const double* gaps, int64_t n_gaps, int32_t* indices) {
    int64_t column = column_, n = count, own = row_ + self_offset_;
    for (int64_t k = 0; k < n_gaps; ++k) {
      column += int64_t(gaps[k]) + 1;
      if (column >= n_post_) {
        const int64_t rows = rows_in(column);
        for (int64_t r = 0; r < rows && row_ < n_pre_; ++r) indptr_[++row_] = n;
        if (row_ == n_pre_) {
          count = n;
          return false;
        }
        column -= rows * n_post_;
        own = row_ + self_offset_;
      }
      indices[n] = int32_t(column);
      n += column != own;
    }
    column_ = column;
    count = n;
    return true;
  }

  int64_t count = 0;

 private:
  // Where rows are long, a gap seldom reaches beyond the next: no division.
  int64_t rows_in(int64_t column) const { return column < 2 * n_post_ ? 1 : column / n_post_; }

  int64_t n_pre_, n_post_, self_offset_;
  int64_t* indptr_;
  int64_t row_ = 0, column_ = -1;
};

// A set of integers in [0, n) that is emptied in ascending order. Three levels of words, a bit of each of which says
// that the word below it is not 0: the time grows with the members, hardly with n.
class OrderedSet {
 public:
  explicit OrderedSet(int64_t n) : leaves_(words(n)), branches_(words(int64_t(leaves_.size()))),
                                   roots_(words(int64_t(branches_.size()))) {}

  BDTORCH_INLINE void insert(int64_t value) {
    leaves_[size_t(value >> 6)] |= bit(value);
    branches_[size_t(value >> 12)] |= bit(value >> 6);
    roots_[size_t(value >> 18)] |= bit(value >> 12);
  }

  // The bits above stay: they say where to look, and an empty word is passed over.
  BDTORCH_INLINE void erase(int64_t value) { leaves_[size_t(value >> 6)] &= ~bit(value); }

  // Writes all members and removes them; returns their number.
  BDTORCH_INLINE int64_t drain(int32_t* out) {
    int32_t* const first = out;
    for (size_t root = 0; root < roots_.size(); ++root) {
      for (; roots_[root]; roots_[root] &= roots_[root] - 1) {
        const size_t branch = root << 6 | lowest(roots_[root]);
        for (; branches_[branch]; branches_[branch] &= branches_[branch] - 1) {
          const size_t leaf = branch << 6 | lowest(branches_[branch]);
          for (uint64_t word = leaves_[leaf]; word; word &= word - 1) *out++ = int32_t(leaf << 6 | lowest(word));
          leaves_[leaf] = 0;
        }
      }
    }
    return out - first;
  }

 private:
  using Words = std::vector<uint64_t>;

  static Words words(int64_t n) { return Words(size_t((n + 63) / 64)); }
  static uint64_t bit(int64_t value) { return uint64_t(1) << (value & 63); }
  static size_t lowest(uint64_t word) { return size_t(__builtin_ctzll(word)); }

  Words leaves_, branches_, roots_;
};

// Rows of n distinct values of [0, choices), drawn with the numbers of one key.
struct DistinctRows {
  uint64_t key;
  int64_t choices, number;
  int64_t self_offset;  // row i does not contain i + self_offset

  BDTORCH_INLINE void bar(int64_t row, OrderedSet& set) const {
    const int64_t own = row + self_offset;
    if (own >= 0 && own < choices) set.erase(own);
  }

  // One round of drawing and rejecting for a row that has `kept` values, in order: draws what it lacks, the uniforms
  // first .. first + number - kept - 1 of the step `round`, and returns how many it has then. Rounds until none lacks
  // any draw uniformly from the subsets, for they amount to drawing one after the other without what is already there.
  BDTORCH_INLINE int64_t fill(int64_t row, int64_t round, int64_t first, int64_t kept, OrderedSet& set,
                              double* uniforms, int32_t* values) const {
    const int64_t lacking = number - kept;
    const double n_choices = double(choices);
    for_each_number<Uniform<double>>(key, uint64_t(round), first, first + lacking,
                                     [=](int64_t i, double u) { uniforms[i - first] = u * n_choices; });
    for (int64_t k = 0; k < kept; ++k) set.insert(values[k]);
    for (int64_t k = 0; k < lacking; ++k) set.insert(int64_t(uniforms[k]));
    bar(row, set);
    return set.drain(values);
  }

  // The places of the smallest of one uniform for each choice: for rows that take most of them. `uniforms` and `sorted`
  // have room for all choices.
  BDTORCH_INLINE void rank(int64_t row, double* uniforms, double* sorted, int32_t* values) const {
    if (number == 0) return;
    const int64_t first = row * choices;
    for_each_number<Uniform<double>>(key, 0, first, first + choices,
                                     [=](int64_t i, double u) { uniforms[i - first] = u; });
    const int64_t own = row + self_offset;
    if (own >= 0 && own < choices) uniforms[own] = 2.;
    std::copy(uniforms, uniforms + choices, sorted);
    std::nth_element(sorted, sorted + number - 1, sorted + choices);
    const double largest = sorted[number - 1];
    int64_t equal = number - (std::count_if(sorted, sorted + number, [=](double u) { return u < largest; }));
    for (int64_t j = 0; j < choices; ++j)
      if (uniforms[j] < largest || (uniforms[j] == largest && equal-- > 0)) *values++ = int32_t(j);
  }
};

}  // namespace bdtorch
