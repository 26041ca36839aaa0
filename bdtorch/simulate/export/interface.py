"""The texts of an export: its C header, its C++ file, its CMake file and an example."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from bdtorch._version import __version__
from bdtorch.simulate.export.description import Array, Description
from bdtorch.simulate.loops.native.compiler import FLAGS

_DTYPES = {
    torch.float32: "BDTORCH_FLOAT32",
    torch.float64: "BDTORCH_FLOAT64",
    torch.int64: "BDTORCH_INT64",
    torch.int32: "BDTORCH_INT32",
    torch.int16: "BDTORCH_INT16",
    torch.int8: "BDTORCH_INT8",
    torch.uint8: "BDTORCH_UINT8",
    torch.bool: "BDTORCH_BOOL",
    torch.bfloat16: "BDTORCH_BFLOAT16",
    torch.float16: "BDTORCH_FLOAT16",
}

_COMMON = """\
#ifndef BDTORCH_EMBEDDED_TYPES
#define BDTORCH_EMBEDDED_TYPES

/* What functions return. */
enum {
  BDTORCH_OK = 0,
  BDTORCH_NO_FILE = 1,
  BDTORCH_BAD_DATA = 2,
  BDTORCH_NO_MEMORY = 3,
  BDTORCH_NO_THREADS = 4,
  BDTORCH_NO_SUCH_NAME = 5,
  BDTORCH_BAD_SIZE = 6,
  BDTORCH_NO_INPUT = 7,
  BDTORCH_INDEX_OUT_OF_RANGE = 8,
  BDTORCH_BAD_ARGUMENT = 9,
  BDTORCH_OPERATOR_FAILED = 10
};

/* Types of elements: float, double, signed integers of 8, 4, 2 and 1 bytes, unsigned of 1, 0 or 1 in one byte, and
   floating point numbers of two bytes: the upper half of a float, and IEEE binary16. */
enum {
  BDTORCH_FLOAT32 = 0,
  BDTORCH_FLOAT64 = 1,
  BDTORCH_INT64 = 2,
  BDTORCH_INT32 = 3,
  BDTORCH_INT16 = 4,
  BDTORCH_INT8 = 5,
  BDTORCH_UINT8 = 6,
  BDTORCH_BOOL = 7,
  BDTORCH_BFLOAT16 = 8,
  BDTORCH_FLOAT16 = 9
};

/* An array of one step: a state variable, an input, or a row of a record; rows of the last axis lie together. */
typedef struct bdtorch_array {
  const char* name;
  int dtype;
  size_t rank;
  const size_t* shape;
  size_t bytes;
} bdtorch_array;

/* A spike: the number of the step at whose end it came, and the place in the flattened population. */
typedef struct bdtorch_spike {
  size_t step;
  size_t index;
} bdtorch_spike;

#endif
"""

_HEADER = """\
/* {name}: a simulation written by bdtorch {version}. C89 and C++; no function uses state outside of its handle.
   Handles are independent: different threads may use different ones. Times are ms, steps are counted from t = 0. */
#ifndef {guard}
#define {guard}

#include <stddef.h>

#ifdef __cplusplus
extern "C" {{
#endif

{common}
#if defined(__GNUC__)
#define {upper}_API __attribute__((visibility("default")))
#else
#define {upper}_API
#endif

typedef struct {name}_handle {name}_handle;

/* The version of bdtorch that wrote this, and what a status means. */
{upper}_API const char* {name}_version(void);
{upper}_API const char* {name}_message(int status);

/* Make a simulation at its initial state from the data file {name}.bin, or from its content in memory, which is copied.
   Results do not depend on the number of threads. */
{upper}_API int {name}_create({name}_handle** out, const char* data_file, int threads);
{upper}_API int {name}_create_from_memory({name}_handle** out, const void* data, size_t bytes, int threads);
{upper}_API void {name}_destroy({name}_handle* handle);

/* Go back to the initial state. */
{upper}_API void {name}_reset({name}_handle* handle);

/* Take steps. inputs[i] points to the slices of input i for all of them, one after the other; where there are no inputs
   it may be null. The records of the run before are dropped. */
{upper}_API int {name}_run({name}_handle* handle, size_t steps, const void* const* inputs);

/* The step, the steps taken since t = 0, and the time. */
{upper}_API double {name}_dt(void);
{upper}_API size_t {name}_steps(const {name}_handle* handle);
{upper}_API double {name}_time(const {name}_handle* handle);

/* What there is; null where the number is too large. */
{upper}_API const bdtorch_array* {name}_variable(size_t number);
{upper}_API const bdtorch_array* {name}_input(size_t number);
{upper}_API const bdtorch_array* {name}_record(size_t number);

/* Copy a state variable out or in; bytes must be its size. */
{upper}_API int {name}_get(const {name}_handle* handle, const char* variable, void* values, size_t bytes);
{upper}_API int {name}_set({name}_handle* handle, const char* variable, const void* values, size_t bytes);

/* What the last run recorded, valid until the next run, reset or destroy. */
{upper}_API int {name}_trace(const {name}_handle* handle, const char* record, const void** values, size_t* rows);
{upper}_API int {name}_spikes(const {name}_handle* handle, const char* record, const bdtorch_spike** spikes, size_t* count);

/* The name of a variable that is NaN or infinite somewhere, and where; null if there is none. */
{upper}_API const char* {name}_nonfinite(const {name}_handle* handle, size_t* element);

/* What went wrong in the last run, in words; empty if nothing did. */
{upper}_API const char* {name}_error(const {name}_handle* handle);

#ifdef __cplusplus
}}
#endif

#endif
"""

_FUNCTIONS = """\
struct {name}_handle : bdtorch::embed::Simulation {{
  using Simulation::Simulation;
}};

namespace embed = bdtorch::embed;

extern "C" {{

const char* {name}_version(void) {{ return "{version}"; }}

const char* {name}_message(int status) {{
  static const char* const messages[] = {{
      "success",
      "the data file cannot be read",
      "the data are damaged or belong to other code",
      "out of memory",
      "the threads cannot be started",
      "there is no array of that name",
      "the size in bytes is not that of the array",
      "an input is missing",
      "an index is out of range, or integers are divided by 0",
      "an argument is null or not positive",
      "an operator of the model raised an exception",
  }};
  return status >= 0 && size_t(status) < sizeof messages / sizeof *messages ? messages[status] : "unknown status";
}}

int {name}_create({name}_handle** out, const char* data_file, int threads) {{
  return embed::create_from_file(model, out, data_file, threads);
}}
int {name}_create_from_memory({name}_handle** out, const void* data, size_t bytes, int threads) {{
  return embed::create(model, out, data, bytes, threads);
}}
void {name}_destroy({name}_handle* handle) {{ delete handle; }}
void {name}_reset({name}_handle* handle) {{ handle->reset(); }}
int {name}_run({name}_handle* handle, size_t steps, const void* const* inputs) {{
  return handle ? embed::guarded([&] {{ return handle->run(steps, inputs); }}) : int(BDTORCH_BAD_ARGUMENT);
}}
double {name}_dt(void) {{ return model.dt; }}
size_t {name}_steps(const {name}_handle* handle) {{ return size_t(handle->step()); }}
double {name}_time(const {name}_handle* handle) {{ return double(handle->step()) * model.dt; }}
const bdtorch_array* {name}_variable(size_t number) {{
  return number < model.n_variables ? model.variables + number : nullptr;
}}
const bdtorch_array* {name}_input(size_t number) {{ return number < model.n_inputs ? model.inputs + number : nullptr; }}
const bdtorch_array* {name}_record(size_t number) {{ return number < model.n_records ? model.records + number : nullptr; }}
int {name}_get(const {name}_handle* handle, const char* variable, void* values, size_t bytes) {{
  return embed::get(model, handle, variable, values, bytes);
}}
int {name}_set({name}_handle* handle, const char* variable, const void* values, size_t bytes) {{
  return embed::set(model, handle, variable, values, bytes);
}}
int {name}_trace(const {name}_handle* handle, const char* record, const void** values, size_t* rows) {{
  return embed::trace(model, handle, record, values, rows);
}}
int {name}_spikes(const {name}_handle* handle, const char* record, const bdtorch_spike** spikes, size_t* count) {{
  return embed::spikes(model, handle, record, spikes, count);
}}
const char* {name}_nonfinite(const {name}_handle* handle, size_t* element) {{
  return embed::first_nonfinite(model, handle, element);
}}
const char* {name}_error(const {name}_handle* handle) {{ return handle->error(); }}

}}  // extern "C"
"""

_EXAMPLE = """\
/* Runs the simulation for a number of steps, with inputs of zero, and says what it recorded. */
#include <stdio.h>
#include <stdlib.h>

#include "{name}_loop.h"

static int failed(int status) {{
  fprintf(stderr, "%s\\n", {name}_message(status));
  return 1;
}}

int main(int argc, char** argv) {{
  {name}_handle* handle;
  const void* inputs[{n_inputs}];
  const bdtorch_array* array;
  size_t i, steps;
  int status;
  if (argc < 3) {{
    fprintf(stderr, "usage: %s {name}.bin steps [threads]\\n", argv[0]);
    return 2;
  }}
  steps = (size_t)strtoul(argv[2], NULL, 10);
  status = {name}_create(&handle, argv[1], argc > 3 ? atoi(argv[3]) : 1);
  if (status) return failed(status);
  for (i = 0; (array = {name}_input(i)) != NULL; ++i) inputs[i] = calloc(steps + 1, array->bytes + 1);
  status = {name}_run(handle, steps, inputs);
  for (i = 0; {name}_input(i); ++i) free((void*)inputs[i]);
  if (status) return failed(status);
  printf("t = %g ms\\n", {name}_time(handle));
  for (i = 0; (array = {name}_record(i)) != NULL; ++i) {{
    const bdtorch_spike* spikes;
    const void* values;
    size_t count;
    if ({name}_spikes(handle, array->name, &spikes, &count) == BDTORCH_OK)
      printf("%s: %lu spikes\\n", array->name, (unsigned long)count);
    else if ({name}_trace(handle, array->name, &values, &count) == BDTORCH_OK)
      printf("%s: %lu rows of %lu bytes\\n", array->name, (unsigned long)count, (unsigned long)array->bytes);
  }}
  {name}_destroy(handle);
  return 0;
}}
"""

_CMAKE = """\
# {name}: a simulation written by bdtorch {version}. `cmake -B build && cmake --build build` makes the library and, where
# this is the project that is built, the example; `add_subdirectory` and `target_link_libraries(... {name})` embed it.
cmake_minimum_required(VERSION 3.15)
project({name} LANGUAGES C CXX)

set(BDTORCH_ARCH native CACHE STRING "Processor to compile for, as -march takes it (on ARM -mcpu); empty for any")
find_package(Threads REQUIRED)

add_library({name} {name}_loop.cpp)
target_compile_features({name} PRIVATE cxx_std_17)
target_include_directories({name} PUBLIC "$<BUILD_INTERFACE:${{CMAKE_CURRENT_SOURCE_DIR}}>" PRIVATE include)
target_link_libraries({name} PUBLIC Threads::Threads)
# These flags change no result; -ffast-math would.
target_compile_options({name} PRIVATE {flags})
if(BDTORCH_ARCH AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)")
  target_compile_options({name} PRIVATE -mcpu=${{BDTORCH_ARCH}})
elseif(BDTORCH_ARCH)
  target_compile_options({name} PRIVATE -march=${{BDTORCH_ARCH}})
endif()
set_target_properties({name} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                        VISIBILITY_INLINES_HIDDEN ON)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  add_executable({name}_example example.c)
  target_link_libraries({name}_example PRIVATE {name})
endif()
"""


def header(name: str) -> str:
    """The C header."""
    upper = name.upper()
    return _HEADER.format(name=name, upper=upper, guard=f"{upper}_LOOP_H", version=__version__, common=_COMMON)


def code(name: str, description: Description, loop: str, key: str) -> str:
    """The C++ file: the generated loop, what the loop is handed, and the functions of the header."""
    parts = [
        f'#include "{name}_loop.h"',
        f"#define bdtorch_loop {name}_bdtorch_loop  // several simulations may meet in one program",
        loop,
        '#include "bdtorch/embed.h"\n',
        "namespace {\n",
        _tables(description, key),
        "}  // namespace\n",
        _FUNCTIONS.format(name=name, version=__version__),
    ]
    return "\n".join(parts)


def _tables(description: Description, key: str) -> str:
    lines: list[str] = []
    for label, arrays in _tables_of_arrays(description).items():
        lines += [f"const size_t {label}_{k}[] = {{{_list(x.shape)}}};" for k, x in enumerate(arrays)]
        rows = [
            f"{{{_text(x.name)}, {_DTYPES[x.dtype]}, {len(x.shape)}, {label}_{k}, {x.bytes}}}"
            for k, x in enumerate(arrays)
        ]
        lines += [f"const bdtorch_array {label}[] = {{{', '.join(rows) or '{}'}}};"]
    buffers = [f"{{bdtorch::embed::Role::{role}, {number}, {size}}}" for role, number, size in description.buffers]
    sites = [f"{{{number}, {_text(text)}}}" for number, text in description.sites]
    lines += [
        f"const size_t every[] = {{{_list([x.every for x in description.records])}}};",
        f"const bdtorch::embed::Buffer buffers[] = {{{', '.join(buffers) or '{}'}}};",
        f"const size_t constants[] = {{{_list([x.numel() * x.element_size() for x in description.constants])}}};",
        f"const bdtorch::embed::Site sites[] = {{{', '.join(sites) or '{}'}}};",
        f"const bdtorch::embed::Model model = {{bdtorch_loop, variables, inputs, records, {len(description.variables)}, "
        f"{len(description.inputs)}, {len(description.records)}, every, buffers, {len(buffers)}, constants, "
        f'{len(description.constants)}, sites, {len(sites)}, "{key}", {description.first}, {description.dt.hex()}}};',
    ]
    return "\n".join(lines)


def _tables_of_arrays(description: Description) -> dict[str, list[Array]]:
    return {"variables": description.variables, "inputs": description.inputs, "records": description.records}


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers)) or "0"  # no array is empty


def _text(text: str) -> str:
    """A C string; what is not plain ASCII is escaped."""
    escaped = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(escaped)}"'


def example(name: str, description: Description) -> str:
    """A program in C89 that runs the simulation."""
    return _EXAMPLE.format(name=name, n_inputs=len(description.inputs) or 1)


def cmake(name: str) -> str:
    """The CMake file."""
    left_out = ("-std=", "-march=", "-mcpu=", "-fPIC", "-shared", "-pthread")
    flags = " ".join(flag for flag in FLAGS if not flag.startswith(left_out))
    return _CMAKE.format(name=name, version=__version__, flags=flags)
