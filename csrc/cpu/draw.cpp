// CPU launch and registration of the ops that draw connectivity. Without a CUDA twin: what is stored is drawn once.
#include "bdtorch/draw.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "registration.h"
#include "stable_tensor.h"
#include "vector_clones.h"

namespace bdtorch {
namespace {

constexpr int64_t kLimit = int64_t(1) << 31;
constexpr int64_t kLargestBlock = int64_t(1) << 22;   // numbers of one step of a key
constexpr int64_t kGapsAtATime = 65536;               // as many as stay in cache until they are used
constexpr int64_t kGapsOfThread = 8192;               // below which a second thread costs more than it saves
constexpr int64_t kValuesOfThread = 8192;

BDTORCH_CLONED_FOR_VECTORS void fill_gaps(uint64_t key, uint64_t step, int64_t begin, int64_t end,
                                          double log_of_failure, double limit, double* gaps) {
  geometric_gaps(key, step, begin, end, log_of_failure, limit, gaps);
}

uint64_t key_of(const char* op, const Tensor& key) {
  STD_TORCH_CHECK(key.scalar_type() == ScalarType::Long && key.dim() == 0, op, "(key=...): expected a 0-d int64 key");
  return uint64_t(*key.const_data_ptr<int64_t>());
}

void check_size(const char* op, const char* name, int64_t n) {
  STD_TORCH_CHECK(n >= 0 && n < kLimit, op, "(", name, "=...): expected a number in [0, 2**31), got ", n);
}

// An array of unknown length that grows.
struct Targets {
  Targets(const Tensor& like, int64_t capacity) : capacity(capacity), memory(made(like, capacity)) {}

  static Tensor made(const Tensor& like, int64_t n) {
    Tensor made = empty_on_device_of(like, &n, 1, ScalarType::Int);
    advise_huge_pages(made);
    return made;
  }

  int32_t* room(int64_t count) {
    if (count == capacity) {
      capacity += capacity / 4 + 16;
      Tensor larger = made(memory, capacity);
      std::copy_n(memory.const_data_ptr<int32_t>(), count, larger.mutable_data_ptr<int32_t>());
      memory = larger;
    }
    return memory.mutable_data_ptr<int32_t>();
  }

  int64_t capacity;
  Tensor memory;
};

std::tuple<Tensor, Tensor> draw_bernoulli(const Tensor& key_, double p, int64_t n_pre, int64_t n_post,
                                          int64_t self_offset) {
  const uint64_t key = key_of("draw_bernoulli", key_);
  check_size("draw_bernoulli", "n_pre", n_pre);
  check_size("draw_bernoulli", "n_post", n_post);
  STD_TORCH_CHECK(p >= 0. && p <= 1., "draw_bernoulli(p=...): expected a probability in [0, 1], got ", p);
  const int64_t indptr_size = n_pre + 1;
  Tensor indptr = empty_on_device_of(key_, &indptr_size, 1, ScalarType::Long);
  auto* starts = indptr.mutable_data_ptr<int64_t>();
  const double total = double(n_pre) * double(n_post), expected = total * p;
  if (total == 0. || p == 0.) {
    std::fill_n(starts, indptr_size, int64_t(0));
    return {Targets::made(key_, 0), indptr};
  }
  const auto enough = int64_t(std::min(total, expected + 6. * std::sqrt(expected * (1. - p)) + 16.));
  const int64_t block_size = std::min(int64_t(expected + 6. * std::sqrt(expected * (1. - p)) + 16.), kLargestBlock);
  const double log_of_failure = std::log1p(-p);
  Targets targets(key_, enough);
  BernoulliRows rows(n_pre, n_post, self_offset, starts);
  std::vector<double> gaps(size_t(std::min(block_size, kGapsAtATime)));
  bool more = true;
  for (uint64_t step = 0; more; ++step) {
    for (int64_t first = 0; more && first < block_size; first += kGapsAtATime) {
      const int64_t n = std::min(kGapsAtATime, block_size - first);
      torch::stable::parallel_for(0, n, kGapsOfThread, [&](int64_t begin, int64_t end) {
        fill_gaps(key, step, first + begin, first + end, log_of_failure, total, gaps.data() + begin);
      });
      for (int64_t taken = 0; more && taken < n;) {
        int32_t* indices = targets.room(rows.count);
        const int64_t fitting = std::min(n - taken, targets.capacity - rows.count);
        more = rows.take(gaps.data() + taken, fitting, indices);
        taken += fitting;
      }
    }
  }
  return {torch::stable::narrow(targets.memory, 0, 0, rows.count), indptr};
}

// Fills the rows that `lacking` lists, whose drawing begins at the uniforms `first`.
BDTORCH_CLONED_FOR_VECTORS void fill_rows(const DistinctRows& rows, int64_t round, const int64_t* lacking,
                                          const int64_t* first, int64_t begin, int64_t end, int64_t* kept,
                                          int32_t* values) {
  OrderedSet set(rows.choices);
  std::vector<double> uniforms(size_t(rows.number));
  for (int64_t k = begin; k < end; ++k) {
    const int64_t row = lacking[k];
    kept[row] =
        rows.fill(row, round, first[k], kept[row], set, uniforms.data(), values + row * rows.number);
  }
}

BDTORCH_CLONED_FOR_VECTORS void rank_rows(const DistinctRows& rows, int64_t begin, int64_t end, int32_t* values) {
  std::vector<double> uniforms(size_t(rows.choices)), sorted(size_t(rows.choices));
  for (int64_t row = begin; row < end; ++row)
    rows.rank(row, uniforms.data(), sorted.data(), values + row * rows.number);
}

// Round after round until no row lacks a value.
void fill_all(const DistinctRows& rows, int64_t n_rows, int32_t* values) {
  std::vector<int64_t> kept(size_t(n_rows), 0), lacking, first;
  for (int64_t round = 0;; ++round) {
    lacking.clear();
    first.clear();
    int64_t drawn = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
      if (kept[size_t(row)] == rows.number) continue;
      lacking.push_back(row);
      first.push_back(drawn);
      drawn += rows.number - kept[size_t(row)];
    }
    if (lacking.empty()) return;
    const int64_t rows_of_thread = 1 + kValuesOfThread / rows.number;
    torch::stable::parallel_for(0, int64_t(lacking.size()), rows_of_thread, [&](int64_t begin, int64_t end) {
      fill_rows(rows, round, lacking.data(), first.data(), begin, end, kept.data(), values);
    });
  }
}

Tensor draw_distinct(const Tensor& key, int64_t n_rows, int64_t choices, int64_t number, int64_t self_offset) {
  const DistinctRows rows{key_of("draw_distinct", key), choices, number, self_offset};
  check_size("draw_distinct", "rows", n_rows);
  check_size("draw_distinct", "choices", choices);
  const bool some_barred = self_offset < choices && self_offset + n_rows > 0;
  STD_TORCH_CHECK(number >= 0 && (number <= choices - int64_t(some_barred) || n_rows == 0),
                  "draw_distinct(number=...): expected at most ", choices - int64_t(some_barred), ", got ", number);
  const int64_t sizes[2] = {n_rows, number};
  Tensor out = empty_on_device_of(key, sizes, 2, ScalarType::Int);
  if (out.numel() == 0) return out;
  advise_huge_pages(out);
  auto* values = out.mutable_data_ptr<int32_t>();
  if (2 * number > choices) {
    torch::stable::parallel_for(0, n_rows, 1 + kValuesOfThread / choices, [&](int64_t begin, int64_t end) {
      rank_rows(rows, begin, end, values);
    });
  } else {
    fill_all(rows, n_rows, values);
  }
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  m.impl("draw_bernoulli", TORCH_BOX(&draw_bernoulli));
  m.impl("draw_distinct", TORCH_BOX(&draw_distinct));
}

}  // namespace bdtorch
