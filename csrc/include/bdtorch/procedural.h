// Products with a sparse matrix that is never stored: every row is drawn anew, whenever it is needed.
//
//   W_ij = M_ij (offset + scale x_ij)        M_ij in {0, 1}, x_ij uniform on [0, 1) or normal, or without draws 0
//
//   procedural_accumulate   y_bj  += sum_i s_bi W_ij      scatter: draws the rows of active neurons only
//   procedural_gather       out_bi = sum_j W_ij s_bj      the transposed product, one row after the other
//
// M and x are functions of (key, row, place in the row) alone, so both products, batches, threads and devices meet the
// same matrix. Candidate k of a row has its words in the Philox block k / 4; sixteen blocks are drawn at a time, which
// vectorises. Two laws of M:
//
// Probability. Each pair is a synapse with probability p. The gaps between the synapses of a row are geometric,
// floor(log(u) / log(1 - p)) (Batagelj & Brandes 2005, doi:10.1103/PhysRevE.71.036113). A row is cut into tiles of
// about 512 synapses, each with words of its own: its law stays the same, because independent trials do not remember,
// and threads that own different targets draw different tiles.
//
// Number. Row i has n synapses, at pi_i(0) .. pi_i(n - 1) of a keyed pseudo-random permutation pi_i: a Feistel network
// on pairs (left, right), whose number just exceeds that of the targets; a value outside walks on along its cycle until
// it is inside (Black & Rogaway 2002, doi:10.1007/3-540-45760-7_9).
//
// As in event_csr.h: sums have an order that does not depend on how the work is cut, no torch, C++17.
#pragma once
#include <cstdint>
#include <type_traits>

#include "event_csr.h"
#include "macros.h"
#include "math.h"
#include "philox.h"
#include "random.h"

namespace bdtorch {

enum class Draws : int64_t { none, uniform, normal };

// A pass of the permutation is six rounds, each with a word of the row's first blocks as its key.
constexpr int procedural_rounds = 6;
constexpr int procedural_max_passes = 6;

struct RoundKeys {
  uint32_t word[procedural_rounds * procedural_max_passes];
};

struct ProceduralMatrix {
  int64_t n_pre;
  int64_t n_post;
  uint64_t key;
  int64_t self_offset;  // row i has no synapse at i + self_offset; n_post: every row may have all
  Draws draws;
  bool fixed_number;
  int64_t tile_width, n_tiles;
  double mean_gap;             // probability: -1 / log(1 - p)
  int64_t number;              // number: synapses of a row
  uint32_t left, right;        // the sides of the permutation's rectangle
  uint32_t right_reciprocal;   // floor(2^32 / right), or 2^32 - 1
  int passes;

  BDTORCH_HD static ProceduralMatrix with_probability(int64_t n_pre, int64_t n_post, int64_t key, double p, Draws draws,
                                                      int64_t self_offset) {
    constexpr double synapses_per_tile = 512;
    ProceduralMatrix matrix{n_pre, n_post, uint64_t(key), self_offset, draws, false, n_post, 1, 0., 0, 1, 1, 0, 0};
    const double expected_tiles = double(n_post) * p / synapses_per_tile;
    matrix.n_tiles = expected_tiles > 1. ? int64_t(expected_tiles + 0.5) : 1;
    matrix.tile_width = (n_post + matrix.n_tiles - 1) / matrix.n_tiles;
    // Infinite for p = 0, where every gap leaves the tile, and 0 for p = 1, where there are no gaps.
    matrix.mean_gap = -1. / log1p(-p);
    return matrix;
  }

  BDTORCH_HD static ProceduralMatrix with_number(int64_t n_pre, int64_t n_post, int64_t key, int64_t number,
                                                 Draws draws, int64_t self_offset) {
    ProceduralMatrix matrix{n_pre, n_post, uint64_t(key), self_offset, draws, true, n_post, 1, 0., number, 1, 1, 0, 1};
    int64_t left = int64_t(sqrt(double(n_post)));
    while (left * left < n_post) ++left;
    left = left > 2 ? left : 2;
    const int64_t right = (n_post + left - 1) / left;
    matrix.left = uint32_t(left);
    matrix.right = uint32_t(right > 1 ? right : 1);
    // Two rounds fail to tell two values apart with a probability of about 1 / right: 10^-5 in all is left of it.
    const double per_pass = right > 2 ? double(right) * double(right) * double(right) : 8.;
    for (double told_apart = per_pass; told_apart < 1e5; told_apart *= per_pass) ++matrix.passes;
    matrix.right_reciprocal = matrix.right > 1 ? uint32_t((uint64_t(1) << 32) / matrix.right) : 0xffffffffu;
    return matrix;
  }

  BDTORCH_HD int64_t tile_end(int64_t tile) const {
    const int64_t end = (tile + 1) * tile_width;
    return end < n_post ? end : n_post;
  }

  // What row `row` may not reach, or n_post.
  BDTORCH_HD int64_t barred_target(int64_t row) const {
    const int64_t own = row + self_offset;
    return own >= 0 && own < n_post ? own : n_post;
  }

  // Block `block` of the words that place the synapses of a tile.
  BDTORCH_INLINE PhiloxBlock structure_words(int64_t row, int64_t tile, int64_t block) const {
    return philox(key, uint64_t(row), uint64_t(tile) << 32 | uint64_t(block));
  }

  // Block `block` of the words behind the x of a tile. A tile has fewer than 2^31 blocks.
  BDTORCH_INLINE PhiloxBlock draw_words(int64_t row, int64_t tile, int64_t block) const {
    return philox(key, uint64_t(row), uint64_t(tile) << 32 | uint64_t(1) << 31 | uint64_t(block));
  }

  // The number of targets that are left out before the next synapse; `tile_width` or more leaves the tile.
  BDTORCH_INLINE int32_t gap(uint32_t word) const {
    const double u = (double(int32_t(word ^ 0x80000000u)) + 2147483648.5) * 0x1p-32;  // (word + 1/2) / 2^32
    const double gap = -log(u) * mean_gap;
    return int32_t(gap < double(tile_width) ? gap : double(tile_width));
  }

  BDTORCH_INLINE static uint32_t shift_of_round(uint32_t side, uint32_t round_key, uint32_t modulus) {
    uint32_t hash = (side ^ round_key) * 0x7feb352du;
    hash = (hash ^ (hash >> 15)) * 0x846ca68bu;
    return uint32_t((uint64_t(hash) * modulus) >> 32);
  }

  BDTORCH_INLINE static uint32_t wrapped_sum(uint32_t a, uint32_t b, uint32_t modulus) {
    const uint32_t sum = a + b;
    return sum >= modulus ? sum - modulus : sum;
  }

  // One pass of the permutation of [0, left * right).
  BDTORCH_INLINE uint32_t permuted_once(uint32_t value, const uint32_t* keys) const {
    uint32_t l = uint32_t((uint64_t(value) * right_reciprocal) >> 32);  // value / right, or one less
    uint32_t r = value - l * right;
    const bool one_less = r >= right;
    l = one_less ? l + 1 : l;
    r = one_less ? r - right : r;
    for (int round = 0; round < procedural_rounds; round += 2) {
      l = wrapped_sum(l, shift_of_round(r, keys[round], left), left);
      r = wrapped_sum(r, shift_of_round(l, keys[round + 1], right), right);
    }
    return l * right + r;
  }

  BDTORCH_HD uint32_t permuted(uint32_t value, const RoundKeys& keys) const {
    for (int pass = 0; pass < passes; ++pass) value = permuted_once(value, keys.word + pass * procedural_rounds);
    return value;
  }

  // The permutation's argument for candidate k: the barred target is no candidate.
  BDTORCH_INLINE uint32_t start_of_walk(int64_t k, int64_t barred) const { return uint32_t(k + (k >= barred ? 1 : 0)); }

  BDTORCH_HD uint32_t end_of_walk(uint32_t value, const RoundKeys& keys, int64_t barred) const {
    while (int64_t(value) >= n_post || int64_t(value) == barred) value = permuted(value, keys);
    return value;
  }

  BDTORCH_HD void draw_round_keys(int64_t row, RoundKeys& keys) const {
    for (int first = 0; first < procedural_rounds * passes; first += 4) {
      const PhiloxBlock words = structure_words(row, 0, first / 4);
      for (int j = 0; j < 4; ++j) keys.word[first + j] = words.word[j];
    }
  }
};

// Walks along the synapses of one row that end in [post_begin, post_end), a few at a time.
class ProceduralRow {
 public:
  static constexpr int chunk_size = 64;
  static constexpr int chunk_blocks = chunk_size / 4;

  BDTORCH_INLINE ProceduralRow(const ProceduralMatrix& matrix, int64_t row, int64_t post_begin, int64_t post_end)
      : matrix_(matrix), row_(row), begin_(post_begin), end_(post_end), barred_(matrix.barred_target(row)) {
    whole_ = post_begin <= 0 && post_end >= matrix.n_post;
    if (matrix.fixed_number) {
      matrix.draw_round_keys(row, keys_);
    } else {
      tile_ = post_begin > 0 ? post_begin / matrix.tile_width : 0;
      position_ = tile_ * matrix.tile_width;
      tile_end_ = matrix.tile_end(tile_);
    }
  }

  // Draws the next `count` synapses, their targets and what their x are; false, with none, after the last.
  BDTORCH_INLINE bool next() {
    count = 0;
    while (count == 0)
      if (!(matrix_.fixed_number ? next_of_number() : next_of_probability())) return false;
    return true;
  }

  int count = 0;
  int32_t target[chunk_size] = {};
  float draw[chunk_size] = {};

 private:
  BDTORCH_INLINE bool next_of_probability() {
    if (position_ >= tile_end_) {
      if (tile_end_ >= end_ || tile_end_ >= matrix_.n_post) return false;
      position_ = tile_end_;
      tile_end_ = matrix_.tile_end(++tile_);
      block_ = 0;
    }
    uint32_t words[chunk_size];
    int32_t gaps[chunk_size];
    for (int b = 0; b < chunk_blocks; ++b) {
      const PhiloxBlock block = matrix_.structure_words(row_, tile_, block_ + b);
      for (int j = 0; j < 4; ++j) words[4 * b + j] = block.word[j];
    }
    for (int j = 0; j < chunk_size; ++j) gaps[j] = matrix_.gap(words[j]);
    int64_t position = position_;
    int n_inside = 0;
    for (int j = 0; j < chunk_size; ++j) {
      position += gaps[j];
      target[j] = int32_t(position);  // of account only inside the tile
      n_inside += position < tile_end_;
      ++position;
    }
    position_ = position;
    count = n_inside;
    fill_draws();
    const bool holds_barred = count > 0 && barred_ >= target[0] && barred_ <= target[count - 1];
    const bool cut = !whole_ && count > 0 && (target[0] < begin_ || target[count - 1] >= end_);
    if (holds_barred || cut) keep_valid();
    return true;
  }

  BDTORCH_INLINE bool next_of_number() {
    const int64_t first = 4 * block_, left = matrix_.number - first;
    if (left <= 0) return false;
    uint32_t values[chunk_size], outside = 0;
    for (int j = 0; j < chunk_size; ++j) values[j] = matrix_.start_of_walk(first + j, barred_);
    for (int pass = 0; pass < matrix_.passes; ++pass)
      for (int j = 0; j < chunk_size; ++j)
        values[j] = matrix_.permuted_once(values[j], keys_.word + pass * procedural_rounds);
    for (int j = 0; j < chunk_size; ++j) {
      outside |= uint32_t(values[j] >= uint32_t(matrix_.n_post)) | uint32_t(values[j] == uint32_t(barred_));
      target[j] = int32_t(values[j]);
    }
    count = left < chunk_size ? int(left) : chunk_size;
    if (outside)
      for (int j = 0; j < count; ++j) target[j] = int32_t(matrix_.end_of_walk(values[j], keys_, barred_));
    fill_draws();
    if (!whole_) keep_valid();
    return true;
  }

  template <class Distribution>
  BDTORCH_INLINE void fill_draws_of() {
    for (int b = 0; b < chunk_blocks; ++b) {
      const Numbers<float, 4> numbers = Distribution::of(matrix_.draw_words(row_, tile_, block_ + b));
      for (int j = 0; j < 4; ++j) draw[4 * b + j] = numbers.value[j];
    }
  }

  BDTORCH_INLINE void fill_draws() {
    if (matrix_.draws == Draws::uniform) fill_draws_of<Uniform<float>>();
    if (matrix_.draws == Draws::normal) fill_draws_of<Normal<float>>();
    block_ += chunk_blocks;
  }

  BDTORCH_INLINE void keep_valid() {
    int kept = 0;
    for (int j = 0; j < count; ++j) {
      target[kept] = target[j];
      draw[kept] = draw[j];
      kept += target[j] >= begin_ && target[j] < end_ && target[j] != barred_;
    }
    count = kept;
  }

  const ProceduralMatrix& matrix_;
  int64_t row_, begin_, end_, barred_;
  int64_t tile_ = 0, tile_end_ = 0, position_ = 0, block_ = 0;
  RoundKeys keys_ = {};
  bool whole_;
};

// The synapses that were drawn before the present ones. Between their drawing and their use lies the drawing of the
// next, while what they need is on its way from memory: it saves up to a third once the neurons exceed the cache.
template <class T>
struct PendingSynapses {
  BDTORCH_INLINE explicit PendingSynapses(T offset) {
    for (T& w : weight) w = offset;
  }

  BDTORCH_INLINE void take(const ProceduralRow& row, Draws draws, T offset, T scale) {
    count = row.count;
    for (int j = 0; j < ProceduralRow::chunk_size; ++j) target[j] = row.target[j];
    if (draws != Draws::none)
      for (int j = 0; j < ProceduralRow::chunk_size; ++j) weight[j] = offset + scale * T(row.draw[j]);
  }

  int count = 0;
  int32_t target[ProceduralRow::chunk_size];
  T weight[ProceduralRow::chunk_size];
};

template <int for_writing, class V>
BDTORCH_INLINE void prefetch_targets(const ProceduralRow& row, const V* values) {
  for (int j = 0; j < row.count; ++j) __builtin_prefetch(values + row.target[j], for_writing);
}

// y[b][j] += sum_i spikes[b][i] W[i][j] for the j in [post_begin, post_end) and all b; the rest of y is untouched.
// A row is drawn once for the whole batch. For every j the rows are added in ascending order, whatever the range.
template <class T, class S>
BDTORCH_INLINE void procedural_accumulate(const ProceduralMatrix& matrix, T offset, T scale, const S* spikes,
                                          int64_t n_batch, int64_t post_begin, int64_t post_end, T* y) {
  constexpr bool plain_event = std::is_same<S, bool>::value;
  constexpr int64_t group_size = 64;  // rows whose activity, of any element of the batch, is a bit of a word
  const int64_t n_pre = matrix.n_pre, n_post = matrix.n_post;
  PendingSynapses<T> pending(offset);
  for (int64_t first = 0; first < n_pre; first += group_size) {
    const int64_t end = first + group_size < n_pre ? first + group_size : n_pre;
    uint64_t active = 0;
    for (int64_t b = 0; b < n_batch; ++b)
      for_each_active(spikes + b * n_pre, first, end, [&](int64_t i) { active |= uint64_t(1) << (i - first); });
    for (; active; active &= active - 1) {
      const int64_t i = first + __builtin_ctzll(active);
      ProceduralRow row(matrix, i, post_begin, post_end);
      for (bool more = true; more;) {
        more = row.next();
        if (more && n_batch == 1) prefetch_targets<1>(row, y);
        for (int64_t b = 0; b < n_batch; ++b) {
          const S spike = spikes[b * n_pre + i];
          if (spike == S(0)) continue;
          T* y_b = y + b * n_post;
          for (int j = 0; j < pending.count; ++j)
            y_b[pending.target[j]] += plain_event ? pending.weight[j] : pending.weight[j] * T(spike);
        }
        pending.take(row, matrix.draws, offset, scale);
      }
    }
  }
}

// Sums of one row for some elements of the batch. Four interleaved partial sums each, added as event_csr_gather does.
template <class T, class S, int group_size>
struct ProceduralSums {
  BDTORCH_INLINE void add(const PendingSynapses<T>& synapses, const S* spikes, int64_t n_post, int group) {
    for (int b = 0; b < group; ++b) {
      const S* spikes_b = spikes + b * n_post;
      const auto term = [&](int j) {
        if constexpr (std::is_same<S, bool>::value)
          return spikes_b[synapses.target[j]] ? synapses.weight[j] : T(0);
        else
          return synapses.weight[j] * T(spikes_b[synapses.target[j]]);
      };
      T turned[4];  // turned[u] gets synapse k + u of the row: in registers while the chunk lasts
      for (int u = 0; u < 4; ++u) turned[u] = sums[b][(k + u) & 3];
      int j = 0;
      for (; j + 4 <= synapses.count; j += 4)
        for (int u = 0; u < 4; ++u) turned[u] += term(j + u);
      for (int u = 0; j < synapses.count; ++j, ++u) turned[u] += term(j);
      for (int u = 0; u < 4; ++u) sums[b][(k + u) & 3] = turned[u];
    }
    k = (k + synapses.count) & 3;
  }

  T sums[group_size][4] = {};
  int k = 0;
};

// out[b][i] = sum_j W[i][j] spikes[b][j] for the rows i in [row_begin, row_end) and all b.
template <class T, class S>
BDTORCH_INLINE void procedural_gather(const ProceduralMatrix& matrix, T offset, T scale, const S* spikes,
                                      int64_t n_batch, int64_t row_begin, int64_t row_end, T* out) {
  constexpr int group_size = 8;  // elements of the batch that share the drawing of a row
  const int64_t n_pre = matrix.n_pre, n_post = matrix.n_post;
  for (int64_t i = row_begin; i < row_end; ++i) {
    for (int64_t first = 0; first < n_batch; first += group_size) {
      const int group = n_batch - first < group_size ? int(n_batch - first) : group_size;
      const S* spikes_of_group = spikes + first * n_post;
      ProceduralSums<T, S, group_size> row_sums;
      PendingSynapses<T> pending(offset);
      ProceduralRow row(matrix, i, 0, n_post);
      for (bool more = true; more;) {
        more = row.next();
        if (more && group == 1) prefetch_targets<0>(row, spikes_of_group);
        row_sums.add(pending, spikes_of_group, n_post, group);
        pending.take(row, matrix.draws, offset, scale);
      }
      for (int b = 0; b < group; ++b) {
        const T* sums = row_sums.sums[b];
        out[(first + b) * n_pre + i] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      }
    }
  }
}

}  // namespace bdtorch
