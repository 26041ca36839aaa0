// Dense products of generated loops. Of the two ways to a row, along its nonzero entries or in blocks over all of them,
// the cheaper is taken; every sum runs over ascending k and rounds once a term, so both give the same bits, for any
// share of rows and columns.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "event_csr.h"
#include "ieee.h"
#include "macros.h"

namespace op {

// a b + c, rounded once where the processor does that at full speed.
template <class T>
BDTORCH_INLINE T multiply_add(T a, T b, T c) {
  if constexpr (std::is_floating_point<T>::value && bdtorch::detail::has_fused)
    return bdtorch::detail::fused(a, b, c);
  else
    return T(c + a * b);
}

// A batch of matrices, or of vectors in one of the two directions.
template <class T>
struct Matrices {
  const T* data;
  int64_t batch, row, column;  // strides, in elements
};

// sum_k a[k] b[k] as eight interleaved partial sums: the additions of one wait for one another.
template <class T>
inline T dot(const T* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t n) {
  T sum[8] = {};
  int64_t k = 0;
  if (a_stride == 1 && b_stride == 1)
    for (; k + 8 <= n; k += 8)
      for (int u = 0; u < 8; ++u) sum[u] += a[k + u] * b[k + u];
  for (int u = 0; k < n; ++k, u = (u + 1) % 8) sum[u] += a[k * a_stride] * b[k * b_stride];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

// Sizes of the blocks: a tile of the result stays in registers, a strip of `a` in the first cache and a block of `b` in
// the second. Where fewer than one in `event_share` entries differ from 0 it is cheaper to go entry by entry.
#if defined(__AVX512F__)  // 32 registers of 64 bytes; sixteen sums at once hide the latency of each
constexpr int64_t tile_rows = 8, tile_bytes = 128;
#else  // 16 registers of at most 32 bytes
constexpr int64_t tile_rows = 6, tile_bytes = 64;
#endif
constexpr int64_t deep = 256, wide = 256, event_share = 4, outer_event_share = 8;
template <class T>
constexpr int64_t tile_columns = tile_bytes / int64_t(sizeof(T));

// c[i][j] += sum_k a[k][i] b[k][j] for one tile, whose rows lie anywhere; `a` is a packed strip.
template <class T>
static __attribute__((noinline)) void add_to_tile(const T* a, const T* b, int64_t b_row, int64_t inner, T* const* c) {
  constexpr int64_t columns = tile_columns<T>;
  T sum[tile_rows][columns];
#pragma GCC unroll 8
  for (int64_t i = 0; i < tile_rows; ++i)
    for (int64_t j = 0; j < columns; ++j) sum[i][j] = c[i][j];
  for (int64_t k = 0; k < inner; ++k) {
    const T* row = b + k * b_row;
#pragma GCC unroll 8
    for (int64_t i = 0; i < tile_rows; ++i) {
      const T factor = a[k * tile_rows + i];
#pragma GCC unroll 1
      for (int64_t j = 0; j < columns; ++j) sum[i][j] = multiply_add(factor, row[j], sum[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < tile_rows; ++i)
    for (int64_t j = 0; j < columns; ++j) c[i][j] = sum[i][j];
}

// Up to `tile_rows` rows of the result, `inner` <= deep, and the columns [begin, end). What a tile has beyond the last
// row or column goes to memory of no concern.
template <class T>
inline void add_strip(const T* strip, const T* b, int64_t b_row, int64_t inner, T* const* out, int64_t rows,
                      int64_t begin, int64_t end) {
  constexpr int64_t columns = tile_columns<T>;
  alignas(64) T spare[columns] = {};
  T* row[tile_rows];
  int64_t j = begin;
  for (; j + columns <= end; j += columns) {
    for (int64_t i = 0; i < tile_rows; ++i) row[i] = i < rows ? out[i] + j : spare;
    add_to_tile(strip, b + j, b_row, inner, row);
  }
  if (j == end) return;
  alignas(64) T tile[tile_rows * columns] = {}, edge[deep * columns];
  for (int64_t k = 0; k < inner; ++k)
    for (int64_t u = 0; u < columns; ++u) edge[k * columns + u] = j + u < end ? b[k * b_row + j + u] : T(0);
  for (int64_t i = 0; i < tile_rows; ++i) {
    row[i] = tile + i * columns;
    if (i < rows) std::memcpy(row[i], out[i] + j, (end - j) * sizeof(T));
  }
  add_to_tile(strip, edge, columns, inner, row);
  for (int64_t i = 0; i < rows; ++i) std::memcpy(out[i] + j, row[i], (end - j) * sizeof(T));
}

// out[i] += left[i] b for the columns [begin, end) of some rows; left[i] has the stride `step`, and b is `inner` deep.
template <class T>
inline void add_in_blocks(const T* const* left, int64_t step, const T* b, int64_t b_row, int64_t inner, T* const* out,
                          int64_t rows, int64_t begin, int64_t end) {
  alignas(64) T strip[deep * tile_rows];
  for (int64_t from = 0; from < inner; from += deep) {
    const int64_t depth = inner - from < deep ? inner - from : deep;
    for (int64_t j = begin; j < end; j += wide) {
      const int64_t last = end - j < wide ? end : j + wide;
      for (int64_t i = 0; i < rows; i += tile_rows) {
        const int64_t held = rows - i < tile_rows ? rows - i : tile_rows;
        const T* row[tile_rows];
        for (int64_t u = 0; u < tile_rows; ++u) row[u] = left[i + (u < held ? u : 0)] + from * step;
        for (int64_t k = 0; k < depth; ++k)
          for (int64_t u = 0; u < tile_rows; ++u) strip[k * tile_rows + u] = row[u][k * step];
        add_strip(strip, b + from * b_row, b_row, depth, out + i, held, j, last);
      }
    }
  }
}

// out += factors[0] rows[0] + ... + factors[3] rows[3], added one after the other.
template <class T>
inline void add_four_rows(T* out, const T* const* rows, const T* factors, int64_t begin, int64_t end) {
  const T *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  const T f0 = factors[0], f1 = factors[1], f2 = factors[2], f3 = factors[3];
  BDTORCH_INDEPENDENT
  for (int64_t j = begin; j < end; ++j)
    out[j] = multiply_add(f3, r3[j], multiply_add(f2, r2[j], multiply_add(f1, r1[j], multiply_add(f0, r0[j], out[j]))));
}

template <class T>
inline void add_row(T* out, const T* row, T factor, int64_t begin, int64_t end) {
  BDTORCH_INDEPENDENT
  for (int64_t j = begin; j < end; ++j) out[j] = multiply_add(factor, row[j], out[j]);
}

// out += left b for one row, entry by entry of `left`. Four at a time, so that `out` is read and written a quarter as
// often; the order of additions is kept.
template <class T, bool skip_zeros>
inline void add_by_entry(const T* left, int64_t step, const T* b, int64_t b_row, int64_t inner, T* out, int64_t begin,
                         int64_t end) {
  const T* rows[4];
  T factors[4];
  int held = 0;
  const auto take = [&](int64_t k) {
    rows[held] = b + k * b_row;
    factors[held++] = left[k * step];
    if (held < 4) return;
    held = 0;
    add_four_rows(out, rows, factors, begin, end);
  };
  if (skip_zeros && step == 1)
    bdtorch::for_each_active(left, 0, inner, take);
  else
    for (int64_t k = 0; k < inner; ++k)
      if (!skip_zeros || left[k * step] != T(0)) take(k);
  for (int h = 0; h < held; ++h) add_row(out, rows[h], factors[h], begin, end);
}

template <class T>
inline bool mostly_zero(const T* x, int64_t step, int64_t n) {
  int32_t nonzero = 0;  // as wide as the entries, which the compiler counts many at a time
  if (step == 1)
    for (int64_t k = 0; k < n; ++k) nonzero += x[k] != T(0);
  else
    for (int64_t k = 0; k < n; ++k) nonzero += x[k * step] != T(0);
  return int64_t(nonzero) * event_share < n;
}

// c = start + a b for the rows [row_begin, row_end), counted through the batch, and the columns [begin, end).
// With `skip_zeros` those of `a` may be left out, for finite `b`.
template <class T, bool skip_zeros>
inline void multiply(Matrices<T> a, Matrices<T> b, Matrices<T> start, T* c, int64_t rows, int64_t inner, int64_t columns,
                     int64_t row_begin, int64_t row_end, int64_t begin, int64_t end) {
  constexpr int64_t most = 16 * tile_rows;
  const T* left[most];
  T* out[most];
  int64_t held = 0;
  for (int64_t r = row_begin; r < row_end; ++r) {
    const int64_t batch = r / rows, i = r % rows;
    const T* row = a.data + batch * a.batch + i * a.row;
    const T* right = b.data + batch * b.batch;
    T* target = c + r * columns;
    for (int64_t j = begin; j < end; ++j)
      target[j] = start.data ? start.data[batch * start.batch + i * start.row + j * start.column] : T(0);
    if (columns == 1 || b.column != 1) {
      for (int64_t j = begin; j < end; ++j) target[j] += dot(row, a.column, right + j * b.column, b.row, inner);
      continue;
    }
    if (skip_zeros && mostly_zero(row, a.column, inner)) {
      add_by_entry<T, true>(row, a.column, right, b.row, inner, target, begin, end);
    } else {
      left[held] = row;
      out[held++] = target;
    }
    if (held < most && r + 1 < row_end && i + 1 < rows) continue;
    if (held == 1 || inner < tile_rows)  // tiles would be nearly empty, or not worth their making
      for (int64_t h = 0; h < held; ++h)
        add_by_entry<T, false>(left[h], a.column, right, b.row, inner, out[h], begin, end);
    else if (held)
      add_in_blocks(left, a.column, right, b.row, inner, out, held, begin, end);
    held = 0;
  }
}

// total[i] += sum_r a[r][i] b[r] for the rows i of `total` in [begin, end): the gradient of weights from the inputs `a`
// and the gradients `b` of many products. Zeros of `a` are left out where few entries differ from 0 and `b` is finite.
template <class T>
inline void add_outer(const T* a, const T* b, int64_t rows, int64_t n_a, int64_t n_b, int64_t begin, int64_t end,
                      T* total) {
  constexpr int64_t most = 16 * tile_rows;
  for (int64_t from = 0; from < rows; from += deep) {
    const int64_t depth = rows - from < deep ? rows - from : deep, sampled = depth < 64 ? 1 : 8;
    const T *a_block = a + from * n_a, *b_block = b + from * n_b;
    int32_t nonzero = 0;
    for (int64_t r = 0; r < depth; r += sampled)
      for (int64_t i = begin; i < end; ++i) nonzero += a_block[r * n_a + i] != T(0);
    if (int64_t(nonzero) * sampled * outer_event_share < depth * (end - begin)) {
      int32_t strange = 0;  // infinite, or not a number
      for (int64_t e = 0; e < depth * n_b; ++e) strange += b_block[e] - b_block[e] != T(0);
      if (strange == 0) {
        for (int64_t r = 0; r < depth; ++r)
          bdtorch::for_each_active(a_block + r * n_a, begin, end, [&](int64_t i) {
            add_row(total + i * n_b, b_block + r * n_b, a_block[r * n_a + i], 0, n_b);
          });
        continue;
      }
    }
    for (int64_t first = begin; first < end; first += most) {
      const T* left[most];
      T* out[most];
      const int64_t held = end - first < most ? end - first : most;
      for (int64_t u = 0; u < held; ++u) {
        left[u] = a_block + first + u;
        out[u] = total + (first + u) * n_b;
      }
      add_in_blocks(left, n_a, b_block, n_b, depth, out, held, 0, n_b);
    }
  }
}

}  // namespace op
