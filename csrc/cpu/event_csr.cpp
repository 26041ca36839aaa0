// CPU launch and registration of the event-driven CSR ops.
#include "bdtorch/event_csr.h"

#include <algorithm>
#include <memory>

#include "bdtorch/event_csr_batch.h"
#include "csr_arguments.h"
#include "registration.h"
#include "vector_clones.h"

namespace bdtorch {
namespace {

// Additions below which a second thread costs more than it saves.
constexpr int64_t kParallelWork = 32768;

// Rows of a matrix with this many synapses that make a piece of work worth a thread.
int64_t rows_per_thread(const CsrArguments& csr, int64_t n_batch) {
  const int64_t work_per_row = std::max<int64_t>(1, n_batch * csr.n_synapses / std::max<int64_t>(1, csr.n_pre));
  return std::max<int64_t>(1, kParallelWork / work_per_row);
}

// The active neurons of a whole batch.
template <class S>
int64_t count_events(const CsrArguments& csr, const S* spikes, int64_t n_batch) {
  int64_t n_events = 0;
  for_each_active(spikes, 0, n_batch * csr.n_pre, [&](int64_t) { ++n_events; });
  return n_events;
}

// How threads share a scatter: every task has one sample, or one tile of them, and one part of the postsynaptic range.
struct ScatterPlan {
  template <class T, class S>
  static ScatterPlan of(const CsrArguments& csr, const S* spikes, int64_t n_batch, int64_t n_post, T) {
    const int64_t n_threads = torch::stable::get_num_threads();
    const bool wide = n_batch >= 4;
    const bool parallel = n_threads > 1 && n_batch * csr.n_synapses >= kParallelWork;
    ScatterPlan plan{n_batch, 1, false, false};
    if (!wide && !parallel) return plan;
    const int64_t n_events = count_events(csr, spikes, n_batch);
    // Below this activity the rows that a tile reads for one sample alone cost more than it saves.
    plan.tiles = wide && n_events * 8 >= n_batch * csr.n_pre;
    if (plan.tiles) plan.groups = (n_batch + batch_lanes<T> - 1) / batch_lanes<T>;
    plan.parallel = parallel && n_events * (csr.n_synapses / csr.n_pre) >= kParallelWork;
    if (plan.parallel) plan.parts = std::clamp<int64_t>((n_threads + plan.groups - 1) / plan.groups, 1, n_post);
    return plan;
  }

  int64_t groups;  // of samples
  int64_t parts;   // of the postsynaptic range
  bool tiles;
  bool parallel;
};

// Whether most neurons are active, judged by a sample: it decides how sums are made, not what they are.
template <class S>
bool mostly_active(const S* spikes, int64_t n) {
  constexpr int64_t sample = 32;
  int64_t active = 0;
  for (int64_t u = 0; u < sample; ++u) active += spikes[n * u / sample] != S(0);
  return 4 * active >= 3 * sample;
}

// y[j] += sum_i spikes[i] W[i][j], for many active rows, one after the other in memory, which need not be asked for. The
// last synapses of a row are taken with the first of the next, which add 0: loops of any length end with a branch that
// no processor foresees. y holds no negative zero, so that 0 changes nothing.
template <class W, class P, class S, class T>
void scatter_many_rows(const W* weights, bool shared_weight, const int32_t* indices, const P* indptr, const S* spikes,
                       int64_t n_pre, T* y) {
  const int64_t n_synapses = int64_t(indptr[n_pre]);
  with_weights<T>(weights, shared_weight, [=](const auto& weight) {
    for (int64_t i = 0; i < n_pre; ++i) {
      if (spikes[i] == S(0)) continue;
      const T spike = T(spikes[i]);
      const int64_t end = int64_t(indptr[i + 1]);
      int64_t k = int64_t(indptr[i]);
      for (; k + 4 <= end; k += 4) {
        const FourIndices j(indices + k);
        BDTORCH_UNROLL(4)
        for (int u = 0; u < 4; ++u) y[j.at[u]] += weight(k + u) * spike;
      }
      if (k + 4 <= n_synapses) {
        const FourIndices j(indices + k);
        BDTORCH_UNROLL(3)
        for (int u = 0; u < 3; ++u) y[j.at[u]] += k + u < end ? weight(k + u) * spike : T(0);
      } else {
        for (; k < end; ++k) y[indices[k]] += weight(k) * spike;
      }
    }
  });
}

template <class W, class P, class S, class T>
BDTORCH_CLONED_FOR_VECTORS void scatter_tile(const W* weights, bool shared_weight, const int32_t* columns,
                                             const P* rows, const S* spikes, BatchTile part, int64_t n_pre,
                                             int64_t n_post, int64_t begin, int64_t end, ScatterScratch<T> scratch,
                                             T* y) {
  event_csr_scatter_tile(weights, shared_weight, columns, rows, spikes, part, n_pre, n_post, begin, end, scratch, y);
}

// Memory of a thread that scatters tiles.
template <class T>
struct OwnScratch {
  OwnScratch(bool tiles, int64_t n_pre) {
    if (!tiles) return;
    spikes.reset(new T[size_t(n_pre * batch_lanes<T>)]);
    active.reset(new uint8_t[size_t(n_pre)]);
    next.reset(new int64_t[size_t(n_pre)]);
    sums.reset(new T[size_t(kTileTargets * batch_lanes<T>)]);
  }

  ScatterScratch<T> pointers() const { return {spikes.get(), active.get(), next.get(), sums.get()}; }

  std::unique_ptr<T[]> spikes;
  std::unique_ptr<uint8_t[]> active;
  std::unique_ptr<int64_t[]> next;
  std::unique_ptr<T[]> sums;
};

template <bool plain_event, class W, class P, class T>
BDTORCH_CLONED_FOR_VECTORS void gather_tile(const W* weights, bool shared_weight, const int32_t* columns,
                                            const P* rows, const T* tile, BatchTile part, int64_t n_pre, int64_t begin,
                                            int64_t end, T* out) {
  event_csr_gather_tile<plain_event>(weights, shared_weight, columns, rows, tile, part, n_pre, begin, end, out);
}

// Tile number `tile` of a batch.
template <class T>
BatchTile tile_of_batch(int64_t tile, int64_t n_batch) {
  const int64_t first = tile * batch_lanes<T>;
  return {first, std::min(batch_lanes<T>, n_batch - first)};
}

Tensor event_csr(const Tensor& spikes_, const Tensor& weights_, const Tensor& indices, const Tensor& indptr,
                 int64_t n_post) {
  const CsrArguments csr("event_csr", indices, indptr);
  STD_TORCH_CHECK(n_post >= 0, "event_csr(n_post=...): expected a nonnegative number, got ", n_post);
  const Tensor weights = csr.weights(weights_), spikes = csr.per_neuron("spikes", spikes_, csr.n_pre);
  const int64_t n_batch = batch_size(spikes);
  Tensor out = empty_per_neuron(spikes, n_post, type_of_sums(weights));
  if (out.numel() == 0) return out;

  csr.dispatch_weights(weights, spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    const auto* w = weights_pointer<W>(weights);
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    const auto* s = spikes.const_data_ptr<S>();
    auto* y = out.mutable_data_ptr<T>();
    const bool shared_weight = weights.dim() == 0;
    const auto plan = ScatterPlan::of(csr, s, n_batch, n_post, T{});
    const int64_t n_tasks = plan.groups * plan.parts;
    const auto run = [&](int64_t first, int64_t last) {
      const OwnScratch<T> scratch(plan.tiles, csr.n_pre);
      for (int64_t task = first; task < last; ++task) {
        const int64_t group = task / plan.parts, part = task % plan.parts;
        const int64_t begin = n_post * part / plan.parts, end = n_post * (part + 1) / plan.parts;
        if (plan.tiles) {
          scatter_tile(w, shared_weight, columns, rows, s, tile_of_batch<T>(group, n_batch), csr.n_pre, n_post, begin,
                       end, scratch.pointers(), y);
        } else {
          T* y_b = y + group * n_post;
          std::fill(y_b + begin, y_b + end, T(0));
          const S* s_b = s + group * csr.n_pre;
          if (!std::is_same_v<S, bool> && plan.parts == 1 && csr.n_pre > 0 && mostly_active(s_b, csr.n_pre))
            scatter_many_rows(w, shared_weight, columns, rows, s_b, csr.n_pre, y_b);
          else
            event_csr_accumulate(w, shared_weight, columns, rows, s_b, csr.n_pre, n_post, begin, end, y_b);
        }
      }
    };
    if (plan.parallel)
      torch::stable::parallel_for(0, n_tasks, 1, run);
    else
      run(0, n_tasks);
  });
  return out;
}

Tensor event_csr_t(const Tensor& spikes_, const Tensor& weights_, const Tensor& indices, const Tensor& indptr) {
  const CsrArguments csr("event_csr_t", indices, indptr);
  const int64_t n_post = spikes_.dim() > 0 ? spikes_.size(spikes_.dim() - 1) : 0;
  const Tensor weights = csr.weights(weights_), spikes = csr.per_neuron("spikes", spikes_, n_post);
  Tensor out = empty_per_neuron(spikes, csr.n_pre, type_of_sums(weights));
  if (out.numel() == 0) return out;

  csr.dispatch_weights(weights, spikes, [&]<class W, class P, class S>() {
    using T = SumOf<W>;
    const auto* w = weights_pointer<W>(weights);
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    const auto* s = spikes.const_data_ptr<S>();
    auto* sums = out.mutable_data_ptr<T>();
    const bool shared_weight = weights.dim() == 0;
    const int64_t n_batch = batch_size(spikes);
    if (n_batch >= 4) {
      const int64_t n_values = n_post * batch_lanes<T>, n_tiles = (n_batch + batch_lanes<T> - 1) / batch_lanes<T>;
      Tensor scratch = empty_on_device_of(out, &n_values, 1, out.scalar_type());
      auto* tile = scratch.mutable_data_ptr<T>();
      for (int64_t number = 0; number < n_tiles; ++number) {
        const BatchTile part = tile_of_batch<T>(number, n_batch);
        fill_tile(s, part, n_post, 0, n_post, tile);
        torch::stable::parallel_for(0, csr.n_pre, rows_per_thread(csr, part.count), [&](int64_t begin, int64_t end) {
          gather_tile<std::is_same_v<S, bool>>(w, shared_weight, columns, rows, tile, part, csr.n_pre, begin, end,
                                               sums);
        });
      }
      return;
    }
    torch::stable::parallel_for(0, out.numel(), rows_per_thread(csr, 1), [&](int64_t first, int64_t last) {
      while (first < last) {
        const int64_t b = first / csr.n_pre, begin = first % csr.n_pre;
        const int64_t end = std::min(csr.n_pre, begin + last - first);
        event_csr_gather(w, shared_weight, columns, rows, s + b * n_post, begin, end, sums + b * csr.n_pre);
        first += end - begin;
      }
    });
  });
  return out;
}

Tensor csr_outer(const Tensor& x_, const Tensor& g_, const Tensor& indices, const Tensor& indptr) {
  const CsrArguments csr("csr_outer", indices, indptr);
  const int64_t n_post = g_.dim() > 0 ? g_.size(g_.dim() - 1) : 0;
  const Tensor x = csr.per_neuron("x", x_, csr.n_pre), g = csr.per_neuron("g", g_, n_post);
  STD_TORCH_CHECK(x.dim() == g.dim() && batch_size(x) == batch_size(g), "csr_outer: x and g differ in their batch");
  Tensor out = empty_on_device_of(g, &csr.n_synapses, 1, g.scalar_type());
  if (csr.n_synapses == 0) return out;

  csr.dispatch_values("g", g, "x", x, [&]<class T, class P, class S>() {
    const auto* x_values = x.const_data_ptr<S>();
    const auto* g_values = g.const_data_ptr<T>();
    const auto* columns = csr.indices.const_data_ptr<int32_t>();
    const auto* rows = csr.indptr.const_data_ptr<P>();
    auto* products = out.mutable_data_ptr<T>();
    const int64_t n_batch = batch_size(x);
    torch::stable::parallel_for(0, csr.n_pre, rows_per_thread(csr, n_batch), [&](int64_t begin, int64_t end) {
      csr_outer_rows(x_values, g_values, columns, rows, n_batch, csr.n_pre, n_post, begin, end, products);
    });
  });
  return out;
}

}  // namespace

BDTORCH_CPU_LIBRARY(m) {
  implement_with_raw(m, "event_csr", TORCH_BOX(&event_csr));
  implement_with_raw(m, "event_csr_ordered", TORCH_BOX(&event_csr));  // sums on the CPU have a fixed order anyway
  implement_with_raw(m, "event_csr_t", TORCH_BOX(&event_csr_t));
  implement_with_raw(m, "csr_outer", TORCH_BOX(&csr_outer));
}

}  // namespace bdtorch
