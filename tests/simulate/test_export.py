"""Exported loops: compiled and run as programs without Python, against bdtorch's own runs, to the bit."""

from __future__ import annotations

import ctypes
import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch import _tree as tree
from benchmarks import coba, stdp
from tests.simulate.native.stepping import Stepping

PROGRAM = Path(__file__).with_name("export_program.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv")
STEPS = 600


class Model(NamedTuple):
    system: bt.DynamicalSystem
    inputs: Any
    record: dict[str, Any]
    batch_shape: tuple[int, ...] | None = None
    steps: int = STEPS


class Drifting(bt.DynamicalSystem):
    """Products with matrices, noise, counters and booleans in one state, in double precision."""

    def __init__(self) -> None:
        super().__init__((6,), dtype=torch.float64)
        self.register_buffer("w", torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> dict[str, Tensor]:
        x = torch.linspace(-1, 1, 6, dtype=torch.float64).expand(*batch_shape, 6).clone()
        key = bt.ops.random.make_key(seed, batch_shape)
        return {"x": x, "count": torch.zeros(*batch_shape, dtype=torch.int64), "up": x > 0, "key": key}

    def step(self, state: dict[str, Tensor], inputs: Any, t: Tensor, dt: float) -> tuple[dict[str, Tensor], Tensor]:
        x = torch.tanh(state["x"] @ self.w + inputs["a"] + 0.1 * inputs["b"].to(torch.float64).sum(-1, keepdim=True))
        x = x + torch.sin(t) * 0.1 + 0.2 * bt.ops.random.normal(state["key"], state["count"], 6, dtype=x.dtype)
        up = x > 0
        return {"x": x, "count": state["count"] + 1, "up": up, "key": state["key"]}, up


def coba_model() -> Model:
    record = {"E": bt.spikes("E"), "v": bt.trace("E.v", index=range(3), every=7), "I": bt.spikes("I")}
    return Model(coba.build(400), 20.0, record)


def stdp_model() -> Model:
    record = {"cell": bt.spikes("cell"), "w": bt.trace("input->cell.weight", every=200)}
    rates = bt.Constant(torch.full((60,), 20.0 * stdp.RATE))
    return Model(stdp.build(40, 60), {"input": rates}, record, None, 2000)


def drifting_model() -> Model:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(STEPS, 2, 6, generator=generator, dtype=torch.float64)
    b = torch.randint(0, 5, (STEPS, 2, 3), generator=generator)
    record = {"up": bt.Record(lambda state, out: out, sparse=True), "state": lambda state, out: state}
    return Model(Drifting(), {"a": a, "b": b}, record, (2,))


def mixed_model() -> Model:
    """Neurons in double, projections in single precision, weights in two bytes, and records of numbers of two bytes."""
    cell = bt.neurons.LIF(30, tau=5.0, v_init=bt.init.Uniform(0.0, 20.0))
    weights = [bt.init.Uniform(0.0, 0.9), (torch.arange(30.0) / 40).half()]
    jump = bt.synapses.Jump()
    several = [
        bt.Projection(bt.connect.FixedProbability(0.3), weights[0], receptor=jump, weight_dtype=torch.bfloat16),
        bt.Projection(bt.connect.OneToOne(), weights[1], bt.synapses.Exponential(3.0)),
    ]
    net = bt.Network({"E": cell}, {("E", "E"): several})
    net.populations.double()
    record = {"E": bt.spikes("E"), "v": bt.trace("E.v", every=9), "half": lambda state, out: state["E"].v.bfloat16()}
    return Model(net, 30.0, record)


MODELS = {"coba": coba_model, "stdp": stdp_model, "drifting": drifting_model, "mixed": mixed_model}


def exported(folder: Path, name: str, *, library: bool = False, more: tuple[str, ...] = ()) -> tuple[Model, Path]:
    """Export a model and compile it with the program of the tests, or as a shared library."""
    model = MODELS[name]()
    bt.export_loop(
        folder, model.system, model.inputs, dt=0.1, batch_shape=model.batch_shape, record=model.record, name=name
    )
    compiled = folder / f"{name}_loop.o"
    c = ["gcc", "-std=c89", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{folder}", *more]
    subprocess.run(
        ["g++", "-std=c++17", *FLAGS, "-fPIC", *more, f"-I{folder / 'include'}", "-c", folder / f"{name}_loop.cpp",
         "-o", compiled], check=True,
    )  # fmt: skip
    subprocess.run([*c, "-c", folder / "example.c", "-o", folder / "example.o"], check=True)
    if library:
        made = folder / f"lib{name}.so"
        subprocess.run(["g++", "-shared", compiled, "-pthread", "-o", made], check=True)
        return model, made
    defined = [f"-DNAME={name}", f'-DHEADER="{name}_loop.h"']
    subprocess.run([*c, *defined, "-c", PROGRAM, "-o", folder / "program.o"], check=True)
    subprocess.run(["g++", *more, folder / "program.o", compiled, "-pthread", "-o", folder / "program"], check=True)
    return model, folder / "program"


def run_program(program: Path, folder: Path, name: str, model: Model, threads: int, pieces: list[int]) -> str:
    """Run the program with an empty environment in a folder of its own, and return what it prints."""
    folder.mkdir()
    for number, leaf in enumerate(tree.leaves(model.inputs)):
        if isinstance(leaf, Tensor):
            (folder / f"input{number}.bin").write_bytes(leaf.numpy().tobytes())
    data = program.parent / f"{name}.bin"
    command = [program, data, folder, str(threads), *map(str, pieces)]
    return subprocess.run(command, env={}, capture_output=True, text=True, check=True).stdout


def expect_equal(folder: Path, sol: bt.Solution) -> None:
    """What the program wrote is what bdtorch's own run left, to the bit."""
    for number, leaf in enumerate(tree.leaves(sol.state)):
        assert (folder / f"state{number}.bin").read_bytes() == leaf.contiguous().numpy().tobytes()
    number = 0
    for record in sol.records.values():
        for leaf in [record] if isinstance(record, bt.Spikes) else tree.leaves(record):
            written = (folder / f"record{number}.bin").read_bytes()
            number += 1
            if isinstance(leaf, bt.Spikes):
                pairs = np.frombuffer(written, dtype=np.int64).reshape(-1, 2)
                assert np.array_equal(pairs, np.stack([leaf.step.numpy(), leaf.train.numpy()], 1))
                assert len(pairs) > 0
            else:
                assert written == leaf.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_a_program_without_python_gives_the_bits_of_bdtorch(tmp_path: Path, name: str) -> None:
    model, program = exported(tmp_path, name)
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    assert "python" not in libraries and "torch" not in libraries
    sol = bt.simulate(
        model.system, model.inputs, dt=0.1, duration=0.1 * model.steps, batch_shape=model.batch_shape,
        record=model.record, loop=bt.Native(threads=1),
    )  # fmt: skip
    for threads, pieces in ((1, [model.steps]), (3, [1, 130, 0, model.steps - 131])):
        printed = run_program(program, tmp_path / f"out{threads}", name, model, threads, pieces)
        expect_equal(tmp_path / f"out{threads}", sol)
        assert printed.split()[:2] == [bt.__version__, str(model.steps)]
        assert math.isclose(float(printed.split()[2]), sol.t_end)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_no_access_outside_and_no_race(tmp_path: Path, kind: str) -> None:
    _, program = exported(tmp_path, "coba", more=("-g", f"-fsanitize={kind}", "-fno-sanitize-recover=all"))
    command = ["setarch", "-R", program, tmp_path / "coba.bin", tmp_path, "3", "50", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr[-3000:]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake")
def test_cmake_builds_two_simulations_into_one_program(tmp_path: Path) -> None:
    for name, n in (("first", 3), ("second", 5)):
        lif = bt.neurons.LIF(n, tau=10.0, v_rest=0.0, v_reset=0.0, v_th=1.0)
        bt.export_loop(tmp_path / name, lif, 2.0, dt=0.1, record={"s": bt.spikes()}, name=name)
    (tmp_path / "main.c").write_text("""
        #include <stdio.h>
        #include "first_loop.h"
        #include "second_loop.h"
        int main(void) {
          first_handle* a;
          second_handle* b;
          const bdtorch_spike* spikes;
          size_t m, n;
          if (first_create(&a, "first/first.bin", 1) || second_create(&b, "second/second.bin", 2)) return 1;
          if (first_run(a, 300, 0) || second_run(b, 300, 0)) return 2;
          first_spikes(a, "s", &spikes, &m);
          second_spikes(b, "s", &spikes, &n);
          printf("%d %d\\n", (int)m, (int)n);
          first_destroy(a);
          second_destroy(b);
          return 0;
        }""")
    (tmp_path / "CMakeLists.txt").write_text("""
        cmake_minimum_required(VERSION 3.15)
        project(both C CXX)
        add_subdirectory(first)
        add_subdirectory(second)
        add_executable(both main.c)
        target_link_libraries(both first second)""")
    for source in (tmp_path, tmp_path / "first"):
        subprocess.run(["cmake", "-S", source, "-B", source / "build"], check=True, capture_output=True)
        subprocess.run(["cmake", "--build", source / "build"], check=True, capture_output=True)
    done = subprocess.run([tmp_path / "build" / "both"], cwd=tmp_path, capture_output=True, text=True, check=True)
    lif = bt.neurons.LIF(1, tau=10.0, v_rest=0.0, v_reset=0.0, v_th=1.0)
    one = len(bt.simulate(lif, 2.0, dt=0.1, duration=30.0, record={"s": bt.spikes()})["s"])
    assert one > 0 and done.stdout.split() == [str(3 * one), str(5 * one)]
    example = [tmp_path / "first" / "build" / "first_example", tmp_path / "first" / "first.bin", "300"]
    assert f"s: {3 * one} spikes" in subprocess.run(example, capture_output=True, text=True, check=True).stdout


class Library:
    """An exported simulation through its C interface, for what a program would hardly do."""

    def __init__(self, library: Path, name: str) -> None:
        self.library, self.name, self.handle = ctypes.CDLL(str(library)), name, ctypes.c_void_p()
        for text in ("message", "error", "nonfinite"):
            self.function(text).restype = ctypes.c_char_p

    def function(self, name: str) -> Any:
        return getattr(self.library, f"{self.name}_{name}")

    def status(self, name: str, *arguments: Any) -> str:
        return self.function("message")(self.function(name)(*arguments)).decode()

    def create(self, data: bytes, path: Path, threads: int = 1) -> str:
        path.write_bytes(data)
        return self.status("create", ctypes.byref(self.handle), os.fsencode(path), threads)


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Library, bytes]:
    folder = tmp_path_factory.mktemp("export")
    model, made = exported(folder, "drifting", library=True)
    return model, Library(made, "drifting"), (folder / "drifting.bin").read_bytes()


def test_damaged_data_are_refused(drifting: tuple[Model, Library, bytes], tmp_path: Path) -> None:
    _, library, data = drifting
    damaged = bytearray(data)
    damaged[-100] ^= 1
    other = data[:8] + b"0" * 32 + data[40:]
    for wrong in (b"", data[:100], data[:-64], data + bytes(64), bytes(damaged), other):
        assert library.create(wrong, tmp_path / "wrong.bin") == "the data are damaged or belong to other code"
    handle = ctypes.byref(library.handle)
    assert library.status("create", handle, b"/no/such/file", 1) == "the data file cannot be read"
    assert library.create(data, tmp_path / "right.bin", 0) == "an argument is null or not positive"
    assert library.status("create", None, b"x", 1) == "an argument is null or not positive"
    assert library.handle.value is None


def test_reading_writing_and_resetting_the_state(drifting: tuple[Model, Library, bytes]) -> None:
    model, library, data = drifting
    handle = library.handle
    made = library.status("create_from_memory", ctypes.byref(handle), data, ctypes.c_size_t(len(data)), 1)
    assert made == "success"
    a, b = (leaf[:50].contiguous() for leaf in tree.leaves(model.inputs))
    inputs = (ctypes.c_void_p * 2)(a.data_ptr(), b.data_ptr())
    x = torch.empty(2, 6, dtype=torch.float64)

    def get() -> Tensor:
        assert library.status("get", handle, b"x", ctypes.c_void_p(x.data_ptr()), ctypes.c_size_t(96)) == "success"
        return x.clone()

    start = get()
    assert library.status("run", handle, ctypes.c_size_t(50), inputs) == "success"
    first = get()
    assert not torch.equal(first, start)
    library.function("reset")(handle)
    assert torch.equal(get(), start)
    assert library.status("run", handle, ctypes.c_size_t(50), inputs) == "success"
    assert torch.equal(get(), first)

    # From another state, set by name, as `simulate` from that state.
    library.function("reset")(handle)
    new = torch.full((2, 6), 0.3, dtype=torch.float64)
    assert library.status("set", handle, b"x", ctypes.c_void_p(new.data_ptr()), ctypes.c_size_t(96)) == "success"
    assert library.status("run", handle, ctypes.c_size_t(50), inputs) == "success"
    state = {**bt.initial_state(model.system, (2,)), "x": new}
    sol = bt.simulate(model.system, {"a": a, "b": b}, dt=0.1, state=state, loop="native")
    assert torch.equal(get(), sol.state["x"])

    where = ctypes.c_size_t()
    assert library.function("nonfinite")(handle, ctypes.byref(where)) is None
    new[1, 2] = math.nan
    library.status("set", handle, b"x", ctypes.c_void_p(new.data_ptr()), ctypes.c_size_t(96))
    assert library.function("nonfinite")(handle, ctypes.byref(where)) == b"x" and where.value == 8

    unknown = library.status("get", handle, b"y", ctypes.c_void_p(x.data_ptr()), ctypes.c_size_t(96))
    assert unknown == "there is no array of that name"
    short = library.status("get", handle, b"x", ctypes.c_void_p(x.data_ptr()), ctypes.c_size_t(95))
    assert short == "the size in bytes is not that of the array"
    assert library.status("run", handle, ctypes.c_size_t(5), None) == "an input is missing"
    rows, values = ctypes.c_size_t(), ctypes.c_void_p()
    asked = (ctypes.byref(values), ctypes.byref(rows))
    assert library.status("trace", handle, b"up", *asked) == "there is no array of that name"  # it holds spikes
    assert library.status("trace", handle, b"state.x", *asked) == "success"
    library.function("destroy")(handle)
    library.handle = ctypes.c_void_p()


def made_by(folder: Path, step: Any, *state: Tensor) -> Library:
    """The exported run of a step, with its output as a record."""
    bt.export_loop(folder, Stepping(step, *state), dt=0.1, record={"read": lambda state, out: out}, name="lookup")
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", f"-I{folder / 'include'}", folder / "lookup_loop.cpp",
         "-o", folder / "lookup.so"], check=True,
    )  # fmt: skip
    library = Library(folder / "lookup.so", "lookup")
    assert library.create((folder / "lookup.bin").read_bytes(), folder / "data.bin") == "success"
    return library


def failed(folder: Path, step: Any, *state: Tensor) -> tuple[str, str]:
    """What the exported step says when it fails, in step 4; its records are those of the steps that were taken."""
    library = made_by(folder, step, *state)
    status = library.status("run", library.handle, ctypes.c_size_t(9), None)
    assert library.function("steps")(library.handle) == 4
    rows, values = ctypes.c_size_t(), ctypes.c_void_p()
    assert library.status("trace", library.handle, b"read", ctypes.byref(values), ctypes.byref(rows)) == "success"
    assert rows.value == 4
    return status, library.function("error")(library.handle).decode()


def test_an_index_out_of_range_is_named(tmp_path: Path) -> None:
    state = torch.arange(5.0), torch.tensor([2, 1])
    status, message = failed(tmp_path, lambda x, t: ([x[0], x[1] + 1], x[0].gather(0, x[1])), *state)
    assert status == "an index is out of range, or integers are divided by 0"
    assert message.startswith("an index is out of range in step 4: aten.gather.default (test_export.py:")


def test_a_division_by_zero_is_named(tmp_path: Path) -> None:
    status, message = failed(tmp_path, lambda x, t: ([x[0] - 1], 7 // x[0]), torch.tensor([5, 3]))
    assert status == "an index is out of range, or integers are divided by 0"
    assert message.startswith("integers are divided by 0 in step 4: bdtorch.divisor (test_export.py:")


def test_an_exception_in_an_operator_is_named(tmp_path: Path) -> None:
    source = """#include <stdexcept>
    namespace exported_refusing {
    inline void apply(bdtorch::View<const float> x, bdtorch::View<float> out) {
      if (x[0] > 7.0f) throw std::runtime_error("the battery is flat");
      for (int64_t k = 0; k < x.numel(); ++k) out[k] = 2.0f * x[k];
    } }"""
    kernel = bt.ops.NativeKernel(source, "exported_refusing::apply")
    op = bt.ops.define("exported_refusing(Tensor x) -> Tensor", lambda x: 2.0 * x, fake=torch.empty_like, native=kernel)
    status, message = failed(tmp_path, lambda x, t: ([op(x[0])], x[0]), torch.ones(2))
    assert status == "an operator of the model raised an exception"
    assert message.startswith(
        "the battery is flat in step 4: bdtorch_user._exported_refusing_raw.default (test_export.py:"
    )


def test_more_steps_than_there_is_memory_for(tmp_path: Path) -> None:
    """Sizes do not wrap around: no record is written outside of its memory, and the simulation goes on from where it was."""
    library = made_by(tmp_path, lambda x, t: ([x[0] + 1], x[0] * 2), torch.arange(4.0))
    run, record = (lambda n: library.status("run", library.handle, ctypes.c_size_t(n), None)), b"read"
    rows, values = ctypes.c_size_t(), ctypes.c_void_p()
    for steps, status in ((2**60, "out of memory"), (2**64 - 1, "an argument is null or not positive"), (3, "success")):
        assert run(steps) == status
        assert library.status("trace", library.handle, record, ctypes.byref(values), ctypes.byref(rows)) == "success"
        assert rows.value == (steps if status == "success" else 0)
    assert library.function("steps")(library.handle) == 3


def lif(**options: Any) -> bt.DynamicalSystem:
    return bt.neurons.LIF(3, **options)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"name": "1x"}, ValueError, r"`export_loop\(name=...\)`: expected a C identifier"),
        ({"name": "a-b"}, ValueError, r"`export_loop\(name=...\)`"),
        ({"dt": -1.0}, ValueError, r"`export_loop\(dt=...\)`: expected a finite number of ms above 0"),
        ({"t0": 0.05}, ValueError, r"`export_loop\(t0=...\)`"),
        ({"inputs": torch.zeros(0, 3)}, ValueError, r"`export_loop\(inputs=...\)`: expected one slice at least"),
        ({"inputs": torch.zeros(4, 3).half()}, TypeError, r"`export_loop\(inputs=...\)`: expected dtype"),
        ({"record": {"v": bt.trace("w")}}, KeyError, "names nothing"),
        ({"system": torch.nn.Linear(2, 2)}, TypeError, r"`export_loop\(system=...\)`: expected a DynamicalSystem"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = {"system": lif(), "inputs": 1.0, "dt": 0.1} | change
    with pytest.raises(kind, match=message):
        bt.export_loop(tmp_path / "out", arguments.pop("system"), arguments.pop("inputs"), **arguments)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`export_loop\(folder=...\)`: expected a folder, got the file"):
        bt.export_loop(tmp_path / "file", lif(), 1.0, dt=0.1)
    system = Stepping(lambda x, t: ([torch.fft.fft(x[0]).abs()], x[0]), torch.ones(4))
    with pytest.raises(bt.LoopError, match=r"_fft_\w+\.default has no lowering to C\+\+ \(test_export.py:"):
        bt.export_loop(tmp_path / "out", system, dt=0.1)
    with pytest.raises(bt.LoopError, match=r"outside torch.func transforms"):
        torch.func.vmap(lambda i: bt.export_loop(tmp_path / "out", lif(), i, dt=0.1))(torch.ones(2))


def test_the_example_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(bt.__file__).parents[1] / "docs" / "export.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (c,) = re.findall(r"```c\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "export.md", "exec"), {})
    declared, rest = c.split("\n\n", 1)
    rest = rest.replace("cell.bin", "cell/cell.bin")
    Path("main.c").write_text(f"#include <stdio.h>\n{declared}\nint main(void) {{\n{rest}\nreturn (int)count; }}\n")
    c_flags, cpp_flags = ["-std=c99", "-Werror", "-Icell"], ["-std=c++17", "-O1", "-Icell/include"]
    subprocess.run(["gcc", *c_flags, "-c", "main.c"], check=True)
    subprocess.run(["g++", *cpp_flags, "-c", "cell/cell_loop.cpp"], check=True)
    subprocess.run(["g++", "main.o", "cell_loop.o", "-pthread", "-o", "example"], check=True)
    assert subprocess.run(["./example"], check=False).returncode == 0  # no drive, no spikes
