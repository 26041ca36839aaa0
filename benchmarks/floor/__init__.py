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
from pathlib import Path

import numpy as np

from benchmarks.wiring import PlasticWiring, Wiring

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-fPIC")


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("neurons", "excitatory", "steps")),
        *((name, ctypes.c_void_p) for name in ("indptr", "indices", "state", "spike_step", "spike_index")),
        *((name, ctypes.c_int64) for name in ("capacity", "inputs", "input_spikes")),
        *((name, ctypes.c_void_p) for name in ("weights", "input_step", "input_index")),
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

    def __call__(
        self, wiring: Wiring | PlasticWiring, steps: int, dt: float, most_hz: float = 200.0
    ) -> tuple[np.ndarray, np.ndarray]:
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
        arrays = _arrays(wiring)
        capacity = int(wiring.neurons * (steps * dt * 1e-3 * most_hz + 2))
        step, index = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        pointers = {label: array.ctypes.data for label, array in arrays.items()}
        problem = _Problem(
            neurons=wiring.neurons, steps=steps, capacity=capacity,
            spike_step=step.ctypes.data, spike_index=index.ctypes.data, **pointers,
        )  # fmt: skip
        if isinstance(wiring, PlasticWiring):
            problem.inputs, problem.input_spikes = wiring.inputs, len(wiring.input_step)
        else:
            problem.excitatory = wiring.excitatory
        spikes = self._run(ctypes.byref(problem))
        if spikes < 0:
            raise RuntimeError(f"the floor met more than {most_hz:g} spikes a second and neuron")
        return step[:spikes].copy(), index[:spikes].copy()


def _arrays(wiring: Wiring | PlasticWiring) -> dict[str, np.ndarray]:
    """What the C++ reads, in its types; the state, which it writes to, is a copy."""
    arrays = {"state": np.array(wiring.state, np.float32, order="C")}
    if isinstance(wiring, PlasticWiring):
        arrays["weights"] = np.ascontiguousarray(wiring.weights, np.float32)
        arrays["input_step"] = np.ascontiguousarray(wiring.input_step, np.int32)
        arrays["input_index"] = np.ascontiguousarray(wiring.input_index, np.int32)
    else:
        arrays["indptr"] = np.ascontiguousarray(wiring.indptr, np.int64)
        arrays["indices"] = np.ascontiguousarray(wiring.indices, np.int32)
    return arrays


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
