// CPU launch and registration of the ops on procedural matrices.
#include "bdtorch/procedural.h"

#include <algorithm>
#include <tuple>

#include "procedural_arguments.h"
#include "registration.h"
#include "vector_clones.h"

namespace bdtorch {
namespace {

// Synapses below which a second thread costs more than it saves.
constexpr double kParallelSynapses = 4096;

double mean_row_length(const ProceduralMatrix& matrix) {
  if (matrix.fixed_number) return double(matrix.number);
  return matrix.mean_gap > 0. ? double(matrix.n_post) / (1. + matrix.mean_gap) : double(matrix.n_post);
}

int64_t rows_per_thread(const ProceduralMatrix& matrix) {
  return 1 + int64_t(kParallelSynapses / std::max(1., mean_row_length(matrix)));
}

template <class T, class S>
BDTORCH_CLONED_FOR_VECTORS void accumulate(const ProceduralMatrix& matrix, T offset, T scale, const S* spikes,
                                           int64_t n_batch, int64_t post_begin, int64_t post_end, T* y) {
  procedural_accumulate(matrix, offset, scale, spikes, n_batch, post_begin, post_end, y);
}

template <class T, class S>
BDTORCH_CLONED_FOR_VECTORS void gather(const ProceduralMatrix& matrix, T offset, T scale, const S* spikes,
                                       int64_t n_batch, int64_t row_begin, int64_t row_end, T* out) {
  procedural_gather(matrix, offset, scale, spikes, n_batch, row_begin, row_end, out);
}

BDTORCH_CLONED_FOR_VECTORS void count_rows(const ProceduralMatrix& matrix, const int64_t* rows, int64_t n_rows,
                                           int64_t* counts) {
  for (int64_t r = 0; r < n_rows; ++r) {
    counts[r] = matrix.fixed_number ? matrix.number : 0;
    if (matrix.fixed_number) continue;
    ProceduralRow row(matrix, rows[r], 0, matrix.n_post);
    while (row.next()) counts[r] += row.count;
  }
}

BDTORCH_CLONED_FOR_VECTORS void list_rows(const ProceduralMatrix& matrix, const int64_t* rows, int64_t n_rows,
                                          const int64_t* indptr, int32_t* targets, float* draws) {
  for (int64_t r = 0; r < n_rows; ++r) {
    int64_t k = indptr[r];
    ProceduralRow row(matrix, rows[r], 0, matrix.n_post);
    while (row.next()) {
      for (int j = 0; j < row.count; ++j, ++k) {
        targets[k] = row.target[j];
        draws[k] = row.draw[j];
      }
    }
  }
}

// How threads share a scatter. Ranges of targets that end with a tile cost nothing. A row of fixed number has no tiles:
// every thread would draw all of it, which takes longer than the additions that are saved, so threads share the batch.
struct Shares {
  template <class S>
  Shares(const ProceduralMatrix& matrix, const S* spikes, int64_t n_batch) : matrix(matrix), n_batch(n_batch) {
    const int64_t n_threads = torch::stable::get_num_threads();
    if (n_threads == 1) return;
    int64_t n_events = 0;
    for_each_active(spikes, 0, n_batch * matrix.n_pre, [&](int64_t) { ++n_events; });
    if (double(n_events) * mean_row_length(matrix) < kParallelSynapses) return;
    if (matrix.fixed_number) {
      batch_parts = std::min(n_threads, n_batch);
    } else {
      post_parts = std::min(n_threads, matrix.n_tiles);
      batch_parts = std::min(n_batch, (n_threads + post_parts - 1) / post_parts);
    }
  }

  int64_t batch_begin(int64_t part) const { return n_batch * part / batch_parts; }

  int64_t post_begin(int64_t part) const {
    return std::min(matrix.n_post, matrix.n_tiles * part / post_parts * matrix.tile_width);
  }

  const ProceduralMatrix& matrix;
  int64_t n_batch, batch_parts = 1, post_parts = 1;
};

Tensor procedural_event(const Tensor& spikes, const Tensor& offset, const std::optional<Tensor>& scale, int64_t n_pre,
                        int64_t n_post, int64_t key, std::optional<double> p, std::optional<int64_t> number,
                        int64_t draws, int64_t self_offset) {
  const auto matrix = procedural_matrix("procedural_event", n_pre, n_post, key, p, number, draws, self_offset);
  const ProceduralArguments arguments("procedural_event", spikes, n_pre, offset, scale, matrix);
  Tensor out = arguments.empty(n_post);
  if (out.numel() == 0) return out;

  arguments.dispatch([&]<class T, class S>() {
    const T a = *arguments.offset.const_data_ptr<T>(), b = *arguments.scale.const_data_ptr<T>();
    const auto* s = arguments.spikes.const_data_ptr<S>();
    auto* y = out.mutable_data_ptr<T>();
    const Shares shares(matrix, s, arguments.n_batch);
    const int64_t n_tasks = shares.batch_parts * shares.post_parts;
    torch::stable::parallel_for(0, n_tasks, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t batch_part = task / shares.post_parts, post_part = task % shares.post_parts;
        const int64_t begin = shares.post_begin(post_part), end = shares.post_begin(post_part + 1);
        const int64_t first_b = shares.batch_begin(batch_part), end_b = shares.batch_begin(batch_part + 1);
        for (int64_t e = first_b; e < end_b; ++e) std::fill(y + e * n_post + begin, y + e * n_post + end, T(0));
        accumulate(matrix, a, b, s + first_b * n_pre, end_b - first_b, begin, end, y + first_b * n_post);
      }
    });
  });
  return out;
}

Tensor procedural_gather_op(const Tensor& spikes, const Tensor& offset, const std::optional<Tensor>& scale,
                            int64_t n_pre, int64_t n_post, int64_t key, std::optional<double> p,
                            std::optional<int64_t> number, int64_t draws, int64_t self_offset) {
  const auto matrix = procedural_matrix("procedural_gather", n_pre, n_post, key, p, number, draws, self_offset);
  const ProceduralArguments arguments("procedural_gather", spikes, n_post, offset, scale, matrix);
  Tensor out = arguments.empty(n_pre);
  if (out.numel() == 0) return out;

  arguments.dispatch([&]<class T, class S>() {
    const T a = *arguments.offset.const_data_ptr<T>(), b = *arguments.scale.const_data_ptr<T>();
    const auto* s = arguments.spikes.const_data_ptr<S>();
    auto* sums = out.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, n_pre, rows_per_thread(matrix), [&](int64_t begin, int64_t end) {
      gather(matrix, a, b, s, arguments.n_batch, begin, end, sums);
    });
  });
  return out;
}

Tensor checked_rows(const char* op, const Tensor& rows_, const ProceduralMatrix& matrix) {
  const Tensor rows = as_contiguous(rows_);
  STD_TORCH_CHECK(rows.dim() == 1 && rows.scalar_type() == ScalarType::Long, op, "(rows=...): expected 1-D int64");
  const auto* row = rows.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < rows.numel(); ++r)
    STD_TORCH_CHECK(row[r] >= 0 && row[r] < matrix.n_pre, op, "(rows=...): expected rows in [0, ", matrix.n_pre,
                    "), got ", row[r], " at position ", r);
  return rows;
}

Tensor counts_of(const ProceduralMatrix& matrix, const Tensor& rows) {
  const int64_t n_rows = rows.numel();
  Tensor counts = empty_on_device_of(rows, &n_rows, 1, ScalarType::Long);
  const auto* row = rows.const_data_ptr<int64_t>();
  auto* count = counts.mutable_data_ptr<int64_t>();
  torch::stable::parallel_for(0, n_rows, rows_per_thread(matrix), [&](int64_t begin, int64_t end) {
    count_rows(matrix, row + begin, end - begin, count + begin);
  });
  return counts;
}

Tensor procedural_counts(const Tensor& rows, int64_t n_pre, int64_t n_post, int64_t key, std::optional<double> p,
                         std::optional<int64_t> number, int64_t draws, int64_t self_offset) {
  const auto matrix = procedural_matrix("procedural_counts", n_pre, n_post, key, p, number, draws, self_offset);
  return counts_of(matrix, checked_rows("procedural_counts", rows, matrix));
}

std::tuple<Tensor, Tensor, Tensor> procedural_rows(const Tensor& rows_, int64_t n_pre, int64_t n_post, int64_t key,
                                                   std::optional<double> p, std::optional<int64_t> number,
                                                   int64_t draws, int64_t self_offset) {
  const auto matrix = procedural_matrix("procedural_rows", n_pre, n_post, key, p, number, draws, self_offset);
  const Tensor rows = checked_rows("procedural_rows", rows_, matrix);
  const Tensor counts = counts_of(matrix, rows);
  const int64_t n_rows = rows.numel(), indptr_size = n_rows + 1;
  Tensor indptr = empty_on_device_of(rows, &indptr_size, 1, ScalarType::Long);
  auto* start = indptr.mutable_data_ptr<int64_t>();
  start[0] = 0;
  for (int64_t r = 0; r < n_rows; ++r) start[r + 1] = start[r] + counts.const_data_ptr<int64_t>()[r];
  Tensor targets = empty_on_device_of(rows, &start[n_rows], 1, ScalarType::Int);
  Tensor numbers = empty_on_device_of(rows, &start[n_rows], 1, ScalarType::Float);
  const auto* row = rows.const_data_ptr<int64_t>();
  auto* target = targets.mutable_data_ptr<int32_t>();
  auto* draw = numbers.mutable_data_ptr<float>();
  torch::stable::parallel_for(0, n_rows, rows_per_thread(matrix), [&](int64_t begin, int64_t end) {
    list_rows(matrix, row + begin, end - begin, start + begin, target, draw);
  });
  return {indptr, targets, numbers};
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  implement_with_raw(m, "procedural_event", TORCH_BOX(&procedural_event));
  implement_with_raw(m, "procedural_event_ordered", TORCH_BOX(&procedural_event));  // the order is fixed anyway
  implement_with_raw(m, "procedural_gather", TORCH_BOX(&procedural_gather_op));
  m.impl("procedural_counts", TORCH_BOX(&procedural_counts));
  m.impl("procedural_rows", TORCH_BOX(&procedural_rows));
}

}  // namespace bdtorch
