"""`export_loop`: a simulation as C++ source and data, for programs without Python."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bdtorch._files import replacing
from bdtorch._system import DynamicalSystem
from bdtorch._types import State
from bdtorch.ops import include_dir
from bdtorch.simulate._functorch import transformed
from bdtorch.simulate._ready import made_ready
from bdtorch.simulate.export import interface
from bdtorch.simulate.export.description import describe, packed
from bdtorch.simulate.loops import LoopError
from bdtorch.simulate.loops._loop import expect_pure, expect_repeatable
from bdtorch.simulate.loops.native.made import generate, note_finite, prepared
from bdtorch.simulate.loops.native.trace import trace
from bdtorch.simulate.records import Record


def export_loop(
    folder: str | os.PathLike[str],
    system: DynamicalSystem,
    inputs: Any = None,
    *,
    dt: float,
    state: State | None = None,
    t0: float = 0.0,
    batch_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    record: Mapping[str, Record | Callable[[State, Any], Any]] | None = None,
    name: str = "model",
) -> Path:
    """Write the native loop of a system as C++ with a C interface, so that another program runs it without Python.

    The folder then holds ``NAME_loop.h`` (the C89 header: create, run, get, set, records), ``NAME_loop.cpp``,
    ``NAME.bin`` (connectivity, other constants and the initial state), ``include/bdtorch/*.h`` (the kernels that the
    loop calls), ``CMakeLists.txt`` and ``example.c``. Files of these names are replaced. A run gives the bits of
    ``simulate(..., loop="native")``, where it is compiled for the same processor.

    Args:
        folder: Where to write; made where it is missing.
        system: What to run, on the CPU.
        inputs: As `simulate` takes them. A tensor with a leading axis time becomes an input that the program hands over
            for every step: only shape and dtype of its slices matter here. Numbers, `Constant` and functions of time
            become part of the loop.
        dt: Step, ms.
        state: State to start from; default a fresh one from ``batch_shape`` and ``seed``.
        t0: Time of ``state``, ms, a multiple of ``dt``.
        batch_shape: Batch of the fresh state; default what the inputs imply.
        seed: Names the fresh state's random initial values and noise.
        record: What runs keep, by name, as in `simulate`.
        name: A C identifier, the prefix of every function and file.

    Returns:
        The folder.

    Raises:
        TypeError, ValueError, KeyError: An argument is not as described; the message names it.
        LoopError: The native loop cannot run this system; the message names operation and line.
        OSError: The folder cannot be written.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"`export_loop(name=...)`: expected a C identifier that begins with a letter, got {name!r}")
    if transformed() or torch._C._are_functorch_transforms_active():
        raise LoopError("`export_loop` runs outside torch.func transforms: a batch is a leading axis of the state")
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"`export_loop(folder=...)`: expected a folder, got the file {os.fspath(folder)!r}")
    with torch.no_grad(), _speaking_for("export_loop"):
        ready = made_ready(system, inputs, dt=dt, state=state, t0=t0, batch_shape=batch_shape, seed=seed, record=record)
        body, flat = ready.body, ready.state
        if body.inputs.steps == 0:
            raise ValueError("`export_loop(inputs=...)`: expected one slice at least on the leading axis time, got 0")
        body.try_out(flat, ready.start)
        if system.device.type != "cpu":
            raise LoopError(f"the native loop runs on the CPU, and this system is on {system.device}")
        graph = trace(body, flat, ready.start)
        expect_pure(body, "native")
        expect_repeatable(body, flat, "native", graph.results)
        note_finite(graph)
        graph = prepared(graph)
        layout, loop = generate(body, graph, in_long_runs=False)
        description = describe(body, graph, layout, flat, inputs, ready.start)
    unkeyed = packed(description, flat, "")
    text = interface.code(name, description, loop, "")
    key = hashlib.sha256(text.encode() + unkeyed).hexdigest()[:32]
    files: dict[str, str | bytes] = {
        f"{name}_loop.h": interface.header(name),
        f"{name}_loop.cpp": interface.code(name, description, loop, key),
        f"{name}.bin": packed(description, flat, key),
        "CMakeLists.txt": interface.cmake(name),
        "example.c": interface.example(name, description),
        **{f"include/bdtorch/{header}": (include_dir() / "bdtorch" / header).read_text() for header in _included(text)},
    }
    _write(target, files)
    return target


@contextlib.contextmanager
def _speaking_for(function: str) -> Iterator[None]:
    """Let errors of the front door that this function shares with `simulate` name the one that was called."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("`simulate(", f"`{function}(")) from error


def _included(text: str) -> list[str]:
    """The kernel headers that a text includes, and those that they include."""
    found: list[str] = []
    pending = re.findall(r'#include "bdtorch/([\w.]+)"', text)
    while pending:
        header = pending.pop()
        if header not in found:
            found.append(header)
            path = include_dir() / "bdtorch" / header
            pending += re.findall(r'#include "(?:bdtorch/)?([\w.]+)"', path.read_text())
    return sorted(found)


def _write(folder: Path, files: dict[str, str | bytes]) -> None:
    (folder / "include" / "bdtorch").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.chmod(0o644)
