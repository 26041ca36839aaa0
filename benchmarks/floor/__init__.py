"""The hand-written loops that bdtorch's generated ones are measured against.

Each ``<network>.cpp`` is one network written out in C++ with its constants in place, one fused pass over all neurons,
and the compiler free to reorder arithmetic: what an expert would write for this network and nothing else. Torch is not
imported, so that a process that runs a floor shows what the floor needs.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-fPIC")


@dataclass(frozen=True)
class Wiring:
    """A network as arrays; neurons are numbered through, excitatory ones first.

    Attributes:
        excitatory: Number of excitatory neurons.
        indptr: Where each neuron's targets start, int64, ``(neurons + 1,)``.
        indices: Targets, int32, ``(synapses,)``.
        state: Initial state, float32, ``(variables, neurons)``.
    """

    excitatory: int
    indptr: np.ndarray
    indices: np.ndarray
    state: np.ndarray

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return len(self.indptr) - 1

    def save(self, path: Path) -> None:
        """Write to a ``.npz`` file."""
        np.savez(path, excitatory=self.excitatory, indptr=self.indptr, indices=self.indices, state=self.state)

    @classmethod
    def load(cls, path: Path) -> Wiring:
        """Read what `save` has written."""
        with np.load(path) as file:
            return cls(int(file["excitatory"]), file["indptr"], file["indices"], file["state"])


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("neurons", "excitatory", "steps")),
        *((name, ctypes.c_void_p) for name in ("indptr", "indices", "state", "spike_step", "spike_index")),
        ("capacity", ctypes.c_int64),
    )


class Floor:
    """A hand-written loop, compiled.

    Args:
        name: Stem of the source file.
        cache: Folder for the library; what lies there already is taken as it is.

    Raises:
        RuntimeError: There is no C++ compiler, or it fails.
    """

    def __init__(self, name: str, cache: Path) -> None:
        library = cache / f"{name}.so"
        if not library.exists():
            _compile(Path(__file__).with_name(f"{name}.cpp"), library)
        self._run = ctypes.CDLL(str(library)).run
        self._run.argtypes = [ctypes.POINTER(_Problem)]
        self._run.restype = ctypes.c_int64

    def __call__(self, wiring: Wiring, steps: int, dt: float, most_hz: float = 200.0) -> tuple[np.ndarray, np.ndarray]:
        """Take ``steps`` steps from the wiring's initial state, which is not written to.

        Args:
            wiring: Connectivity and initial state.
            steps: Number of steps.
            dt: Step, ms, as it is written in the C++.
            most_hz: Mean rate for which the record has room.

        Returns:
            Step numbers and indices of the spikes, int64; a spike bears the number of the step at whose end it falls.

        Raises:
            RuntimeError: There were more spikes than the record has room for.
        """
        arrays: dict[str, np.ndarray] = {
            "indptr": np.ascontiguousarray(wiring.indptr, np.int64),
            "indices": np.ascontiguousarray(wiring.indices, np.int32),
            "state": np.array(wiring.state, np.float32, order="C"),
        }
        capacity = int(wiring.neurons * (steps * dt * 1e-3 * most_hz + 2))
        step, index = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        pointers = {label: array.ctypes.data for label, array in arrays.items()}
        problem = _Problem(
            neurons=wiring.neurons, excitatory=wiring.excitatory, steps=steps, capacity=capacity,
            spike_step=step.ctypes.data, spike_index=index.ctypes.data, **pointers,
        )  # fmt: skip
        spikes = self._run(ctypes.byref(problem))
        if spikes < 0:
            raise RuntimeError(f"the floor met more than {most_hz:g} spikes a second and neuron")
        return step[:spikes].copy(), index[:spikes].copy()


def _compile(source: Path, library: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("the floor needs a C++ compiler ($CXX, g++ or clang++)")
    compiled = library.with_suffix(".o")
    # Linked apart: linking with -ffast-math adds start-up code that makes the whole process flush subnormals to zero.
    for command in (
        [compiler, *FLAGS, "-c", str(source), "-o", str(compiled)],
        [compiler, "-shared", str(compiled), "-lm", "-o", str(library)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
