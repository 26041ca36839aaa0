// A generated loop as an object for other programs: memory, threads and records, without Python or torch. What
// `bdtorch.export_loop` writes includes this behind its own C header, which declares bdtorch_array and the codes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "loop.h"

namespace bdtorch {
namespace embed {

enum class Role { state, sequence, constant, temporary, threads, time };

// An array that the loop is handed: which state variable, input or constant it is, or how large a temporary.
struct Buffer {
  Role role;
  size_t number;
  size_t bytes;
};

struct Site {
  int64_t number;
  const char* text;
};

// All that is known when the loop is written; the tables are constants of the generated file.
struct Model {
  int (*loop)(loop::Frame*);
  const bdtorch_array *variables, *inputs, *records;
  size_t n_variables, n_inputs, n_records;
  const size_t* every;  // of each record; 0 for spikes
  const Buffer* buffers;
  size_t n_buffers;
  const size_t* constants;  // bytes of each
  size_t n_constants;
  const Site* sites;  // operations that end a run where they fail
  size_t n_sites;
  const char* key;  // of the data that belongs to this code, 32 characters
  int64_t first;    // number of the step that the initial state awaits
  double dt;        // ms
};

inline uint32_t crc32(const unsigned char* bytes, size_t n) {
  uint32_t table[256];
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < n; ++i) crc = table[(crc ^ bytes[i]) & 255] ^ (crc >> 8);
  return crc ^ 0xFFFFFFFFu;
}

// Zeroed memory that begins with a cache line, as every array of a loop does.
class Memory {
 public:
  explicit Memory(size_t bytes) : data_(std::aligned_alloc(64, (bytes + 64) / 64 * 64)) {
    if (!data_) throw std::bad_alloc();
    std::memset(data_, 0, (bytes + 64) / 64 * 64);
  }
  Memory(Memory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Memory() { std::free(data_); }
  char* data() const { return static_cast<char*>(data_); }

 private:
  void* data_;
};

// The layout of the data: the header, then each constant and each initial state, from a multiple of 64 bytes on.
struct Header {
  char magic[8];  // "BDLOOP1\0"
  char key[32];
  uint64_t bytes;       // of the whole
  uint32_t byte_order;  // 0x01020304 as this machine writes it
  uint32_t crc;         // of all that follows the header
  uint64_t unused;
};
static_assert(sizeof(Header) == 64, "the arrays begin with a cache line");

class Simulation {
 public:
  Simulation(const Model& model, const unsigned char* data, int threads) : model_(model), threads_(threads) {
    const unsigned char* at = data + sizeof(Header);
    const auto take = [&](size_t bytes) {
      Memory copy(bytes);
      std::memcpy(copy.data(), at, bytes);
      at += rounded(bytes);
      return copy;
    };
    for (size_t i = 0; i < model.n_constants; ++i) constants_.push_back(take(model.constants[i]));
    for (size_t i = 0; i < model.n_variables; ++i) initial_.push_back(take(model.variables[i].bytes));
    for (size_t i = 0; i < model.n_variables; ++i) state_.emplace_back(model.variables[i].bytes);
    for (size_t i = 0; i < model.n_buffers; ++i)
      temporaries_.emplace_back(temporary_bytes(model.buffers[i]));
    values_.resize(model.n_records);
    rows_.resize(model.n_records);
    spikes_.resize(model.n_records);
    reset();
  }

  // Whether `data` is whole and made for this code.
  static bool fits(const Model& model, const unsigned char* data, size_t bytes) {
    Header header;
    size_t want = sizeof(Header);
    for (size_t i = 0; i < model.n_constants; ++i) want += rounded(model.constants[i]);
    for (size_t i = 0; i < model.n_variables; ++i) want += rounded(model.variables[i].bytes);
    if (bytes != want) return false;
    std::memcpy(&header, data, sizeof header);
    return std::memcmp(header.magic, "BDLOOP1", 8) == 0 && std::memcmp(header.key, model.key, 32) == 0 &&
           header.bytes == want && header.byte_order == 0x01020304u &&
           header.crc == crc32(data + sizeof(Header), bytes - sizeof(Header));
  }

  void reset() {
    for (size_t i = 0; i < model_.n_variables; ++i)
      std::memcpy(state_[i].data(), initial_[i].data(), model_.variables[i].bytes);
    for (size_t i = 0; i < model_.n_buffers; ++i)
      if (const size_t bytes = temporary_bytes(model_.buffers[i])) std::memset(temporaries_[i].data(), 0, bytes);
    step_ = model_.first;
    forget();
    error_.clear();
  }

  int run(size_t steps, const void* const* inputs) {
    error_.clear();
    for (size_t i = 0; i < model_.n_inputs; ++i)
      if (steps && (!inputs || !inputs[i])) return BDTORCH_NO_INPUT;
    forget();
    const int64_t began = step_;
    if (steps > size_t(std::numeric_limits<int64_t>::max() - std::max<int64_t>(began, 0))) return BDTORCH_BAD_ARGUMENT;
    const int64_t end = began + int64_t(steps);
    for (size_t i = 0; i < model_.n_records; ++i)
      if (model_.every[i]) {
        const size_t rows = rows_between(i, began, end), bytes = model_.records[i].bytes;
        if (bytes && rows > values_[i].max_size() / bytes) throw std::bad_alloc();
        values_[i].resize(rows * bytes);
      }
    int status = BDTORCH_OK;
    while (step_ < end && !status) status = advance(began, end - step_, inputs);
    for (size_t i = 0; i < model_.n_records; ++i)
      if (model_.every[i]) rows_[i] = rows_between(i, began, step_);  // of a run that failed those before
    return status;
  }

  char* variable(size_t number) const { return state_[number].data(); }
  const std::vector<char>& values(size_t record) const { return values_[record]; }
  size_t rows(size_t record) const { return rows_[record]; }
  const std::vector<bdtorch_spike>& spikes(size_t record) const { return spikes_[record]; }
  int64_t step() const { return step_; }
  const char* error() const { return error_.c_str(); }

 private:
  static constexpr size_t room = 65536;  // of a record of spikes, beyond what one step can bring

  static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

  // How many rows of a record there are from one step to another.
  size_t rows_between(size_t record, int64_t first, int64_t last) const {
    const int64_t every = int64_t(model_.every[record]);
    return size_t(last / every - first / every);
  }

  void forget() {
    for (size_t i = 0; i < model_.n_records; ++i) {
      values_[i].clear();
      spikes_[i].clear();
      rows_[i] = 0;
    }
  }

  // Take some of `count` steps: all, unless a record of spikes is full before.
  int advance(int64_t began, int64_t count, const void* const* inputs) {
    std::vector<const void*> buffers;
    for (size_t i = 0; i < model_.n_buffers; ++i) buffers.push_back(address(i, began, inputs));
    std::vector<std::vector<int64_t>> steps(model_.n_records), places(model_.n_records);
    std::vector<int64_t> capacities;
    for (size_t i = 0; i < model_.n_records; ++i) {
      if (model_.every[i]) {
        buffers.push_back(values_[i].data() + rows_between(i, began, step_) * model_.records[i].bytes);
        buffers.push_back(nullptr);
        continue;
      }
      capacities.push_back(int64_t(count_of(model_.records[i]) + std::max(count_of(model_.records[i]), room)));
      steps[i].resize(size_t(capacities.back()));
      places[i].resize(size_t(capacities.back()));
      buffers.push_back(steps[i].data());
      buffers.push_back(places[i].data());
    }
    capacities.push_back(0);
    buffers.push_back(capacities.data());
    Memory memory(sizeof(loop::Frame) + capacities.size() * sizeof(int64_t));
    loop::Frame* frame = reinterpret_cast<loop::Frame*>(memory.data());
    frame->buffers = int64_t(reinterpret_cast<intptr_t>(buffers.data()));
    frame->first = step_;
    frame->count = count;
    frame->threads = threads_;
    char problem[256] = {};
    frame->problem = int64_t(reinterpret_cast<intptr_t>(problem));
    if (const int error = model_.loop(frame)) throw std::system_error(error, std::generic_category());
    size_t slot = 0;
    for (size_t i = 0; i < model_.n_records; ++i)
      if (!model_.every[i]) {
        for (int64_t k = 0; k < frame->kept[slot]; ++k)
          spikes_[i].push_back({size_t(steps[i][size_t(k)]), size_t(places[i][size_t(k)])});
        ++slot;
      }
    step_ += frame->done;
    const int64_t error = frame->error[(frame->done - 1) & 1];
    if (!error) return BDTORCH_OK;
    return explained(error, problem);
  }

  // Say in words what ended the run, and where.
  int explained(int64_t operation, const std::string& problem) {
    std::string text;
    for (size_t i = 0; i < model_.n_sites; ++i)
      if (model_.sites[i].number == operation) text = model_.sites[i].text;
    const bool divides = text.compare(0, 15, "bdtorch.divisor") == 0;
    error_ = !problem.empty() ? problem : divides ? "integers are divided by 0" : "an index is out of range";
    error_ += " in step " + std::to_string(step_) + ": " + text;
    return problem.empty() ? BDTORCH_INDEX_OUT_OF_RANGE : BDTORCH_OPERATOR_FAILED;
  }

  static size_t count_of(const bdtorch_array& array) {
    size_t count = 1;
    for (size_t axis = 0; axis < array.rank; ++axis) count *= array.shape[axis];
    return count;
  }

  // How much memory of its own a buffer needs, which may be so much for every thread.
  size_t temporary_bytes(const Buffer& buffer) const {
    if (buffer.role == Role::threads) return buffer.bytes * size_t(threads_);
    return buffer.role == Role::temporary ? buffer.bytes : 0;
  }

  const void* address(size_t number, int64_t began, const void* const* inputs) const {
    const Buffer& buffer = model_.buffers[number];
    switch (buffer.role) {
      case Role::state: return state_[buffer.number].data();
      case Role::constant: return constants_[buffer.number].data();
      case Role::temporary:
      case Role::threads: return temporaries_[number].data();
      case Role::sequence:
        return static_cast<const char*>(inputs[buffer.number]) +
               size_t(step_ - began) * model_.inputs[buffer.number].bytes;
      default: return nullptr;
    }
  }

  const Model& model_;
  const int threads_;
  std::vector<Memory> constants_, initial_, state_, temporaries_;
  std::vector<std::vector<char>> values_;
  std::vector<size_t> rows_;
  std::vector<std::vector<bdtorch_spike>> spikes_;
  int64_t step_ = 0;
  std::string error_;
};

// Run what may throw behind a C interface, where nothing may.
template <class F>
int guarded(F&& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return BDTORCH_NO_MEMORY;
  } catch (const std::length_error&) {
    return BDTORCH_NO_MEMORY;
  } catch (const std::system_error&) {
    return BDTORCH_NO_THREADS;
  }
}

// A handle is a type of the program's own that derives from Simulation.
template <class Handle>
int create(const Model& model, Handle** out, const void* data, size_t bytes, int threads) {
  if (!out || !data || threads < 1) return BDTORCH_BAD_ARGUMENT;
  const unsigned char* first = static_cast<const unsigned char*>(data);
  if (bytes < sizeof(Header) || !Simulation::fits(model, first, bytes)) return BDTORCH_BAD_DATA;
  return guarded([&] {
    *out = new Handle(model, first, threads);
    return int(BDTORCH_OK);
  });
}

template <class Handle>
int create_from_file(const Model& model, Handle** out, const char* path, int threads) {
  if (!out || !path || threads < 1) return BDTORCH_BAD_ARGUMENT;
  return guarded([&] {
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"), std::fclose);
    if (!file) return int(BDTORCH_NO_FILE);
    if (std::fseek(file.get(), 0, SEEK_END)) return int(BDTORCH_NO_FILE);
    const long size = std::ftell(file.get());
    if (size < 0 || std::fseek(file.get(), 0, SEEK_SET)) return int(BDTORCH_NO_FILE);
    std::vector<unsigned char> bytes(static_cast<size_t>(size));
    if (bytes.empty()) return int(BDTORCH_BAD_DATA);
    if (std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size()) return int(BDTORCH_NO_FILE);
    return create(model, out, bytes.data(), bytes.size(), threads);
  });
}

// The number of an array by its name, or `n`.
inline size_t find(const bdtorch_array* arrays, size_t n, const char* name) {
  size_t number = 0;
  while (number < n && (!name || std::strcmp(arrays[number].name, name))) ++number;
  return number;
}

// A state variable of that name and size, for reading or writing.
inline int look_up(const Model& model, const Simulation* simulation, const char* name, const void* values, size_t bytes,
                   char** variable) {
  if (!simulation || !values) return BDTORCH_BAD_ARGUMENT;
  const size_t number = find(model.variables, model.n_variables, name);
  if (number == model.n_variables) return BDTORCH_NO_SUCH_NAME;
  if (bytes != model.variables[number].bytes) return BDTORCH_BAD_SIZE;
  *variable = simulation->variable(number);
  return BDTORCH_OK;
}

inline int get(const Model& model, const Simulation* simulation, const char* name, void* values, size_t bytes) {
  char* variable = nullptr;
  const int status = look_up(model, simulation, name, values, bytes, &variable);
  if (!status) std::memcpy(values, variable, bytes);
  return status;
}

inline int set(const Model& model, Simulation* simulation, const char* name, const void* values, size_t bytes) {
  char* variable = nullptr;
  const int status = look_up(model, simulation, name, values, bytes, &variable);
  if (!status) std::memcpy(variable, values, bytes);
  return status;
}

// A record by its name: of spikes, or of values.
inline int look_up_record(const Model& model, const char* name, bool of_spikes, size_t* number) {
  *number = find(model.records, model.n_records, name);
  return *number < model.n_records && (model.every[*number] == 0) == of_spikes ? BDTORCH_OK : BDTORCH_NO_SUCH_NAME;
}

inline int trace(const Model& model, const Simulation* simulation, const char* name, const void** values, size_t* rows) {
  size_t number;
  if (!simulation || !values || !rows) return BDTORCH_BAD_ARGUMENT;
  if (const int status = look_up_record(model, name, false, &number)) return status;
  *values = simulation->values(number).data();
  *rows = simulation->rows(number);
  return BDTORCH_OK;
}

inline int spikes(const Model& model, const Simulation* simulation, const char* name, const bdtorch_spike** spikes,
                  size_t* count) {
  size_t number;
  if (!simulation || !spikes || !count) return BDTORCH_BAD_ARGUMENT;
  if (const int status = look_up_record(model, name, true, &number)) return status;
  *spikes = simulation->spikes(number).data();
  *count = simulation->spikes(number).size();
  return BDTORCH_OK;
}

// The first element of the state that is NaN or infinite; the name is a null pointer where all are finite.
inline const char* first_nonfinite(const Model& model, const Simulation* simulation, size_t* element) {
  const auto search = [&](auto* values, size_t bytes) {
    const size_t n = bytes / sizeof *values;
    size_t i = 0;
    while (i < n && op::is_finite(values[i])) ++i;
    if (i < n && element) *element = i;
    return i < n;
  };
  for (size_t i = 0; i < model.n_variables; ++i) {
    const bdtorch_array& variable = model.variables[i];
    const void* values = simulation->variable(i);
    if ((variable.dtype == BDTORCH_FLOAT32 && search(static_cast<const float*>(values), variable.bytes)) ||
        (variable.dtype == BDTORCH_FLOAT64 && search(static_cast<const double*>(values), variable.bytes)))
      return variable.name;
  }
  return nullptr;
}

}  // namespace embed
}  // namespace bdtorch
