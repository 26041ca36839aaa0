"""The CUDA kernels in the simulator under sanitizers, and proof by planted faults that the checkers see them.

A planted fault is a change of the kernel's source text; each must be reported by the checker that it is meant for.
"""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
SIMULATOR = TESTS / "simulator"
CUDA = TESTS.parents[1] / "csrc" / "cuda"
FLAGS = ["-std=c++20", "-O1", "-g", "-ffp-contract=off", "-DBDTORCH_SIMULATE_CUDA", f"-I{SIMULATOR}"]
FLAGS += [f"-I{CUDA.parent / 'include'}", f"-I{TESTS / 'kernels'}"]
KERNEL_FLAGS = {
    "simulator": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}
# ThreadSanitizer must see the kernels only: the simulator's own switching would look like races.
SIMULATOR_FLAGS = KERNEL_FLAGS | {"thread": ["-DSIMULATOR_THREAD_SANITIZER"]}


# The launches of each program with three schedules.
LAUNCHES = {"event_csr": 63, "procedural": 48, "random": 54, "event_dense": 24, "plasticity": 24, "delay": 36}


class Fault(NamedTuple):
    name: str
    found_by: str  # the checker
    report: str  # what it says
    original: str
    planted: str
    program: str = "event_csr"
    source: str = ""  # the file of the kernel, where it is not named after the program


FAULTS = [
    Fault("no barrier before the prefix sum", "thread", "data race",
          "warp_offset[warp] = __popc(active_lanes);\n    __syncthreads();",
          "warp_offset[warp] = __popc(active_lanes);"),
    Fault("no barrier after the last read", "thread", "data race",
          "    __syncthreads();  // the next stride overwrites the offsets\n", ""),
    Fault("events counted without an atomic", "thread", "data race",
          "int64_t(atomicAdd(n_events, (unsigned long long)total));",
          "int64_t(*n_events);\n      *n_events += (unsigned long long)total;"),
    Fault("sums added without an atomic", "thread", "data race",
          "atomicAdd(&y[b * n_post + indices[k]], T(shared_weight ? weights[0] : weights[k]) * spike);",
          "y[b * n_post + indices[k]] += T(shared_weight ? weights[0] : weights[k]) * spike;"),
    Fault("all lanes write the sum", "thread", "data race",
          "if (lane == 0) out[row] = sum;", "out[row] = sum;"),
    Fault("no barrier between rows", "thread", "data race",
          "      __syncthreads();  // the next row adds to the same targets\n", ""),
    Fault("parallel synapses by two threads", "thread", "data race",
          "if (k > k_begin && indices[k - 1] == j) continue;", ""),
    Fault("a target of the next part", "thread", "data race",
          "first_at_least(indices, k_begin, row_end, end);", "first_at_least(indices, k_begin, row_end, end + 1);"),
    Fault("one spike too many", "address", "heap-buffer-overflow",
          "active = n < n_spikes &&", "active = n <= n_spikes &&"),
    Fault("beyond a shared array", "address", "out of bounds",
          "w < n_warps", "w <= n_warps"),
    Fault("a row too far", "address", "heap-buffer-overflow",
          "for (int64_t i = first; i < n_pre; i += n_warps)", "for (int64_t i = first; i <= n_pre; i += n_warps)"),
    Fault("threads return before a barrier", "simulator", "returned",
          "const unsigned active_lanes =", "if (n >= n_spikes) return;\n    const unsigned active_lanes ="),
    Fault("shuffle in a divergent loop", "simulator", "mismatched warp collectives",
          "* T(spikes_b[indices[k]]);", "* T(spikes_b[indices[k]]) + 0 * __shfl_down_sync(kAllLanes, sum, 16);"),
    Fault("mask of the lanes that happen to be active", "simulator", "not in its mask",
          "sum += __shfl_down_sync(kAllLanes, sum, distance);",
          "sum += __shfl_down_sync(__activemask(), sum, distance);"),
    Fault("a number too many", "address", "heap-buffer-overflow",
          "if (i < streams.n) store", "if (i <= streams.n) store", "random"),
    Fault("a count too many", "address", "heap-buffer-overflow",
          "e < streams.n_batch * streams.n; e +=", "e <= streams.n_batch * streams.n; e +=", "random"),
    Fault("threads that draw one number twice", "thread", "data race",
          "first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;",
          "first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x / 2;", "random"),
    Fault("procedural sums added without an atomic", "thread", "data race",
          "atomicAdd(&y[b * matrix.n_post + tile.target[j]], weight[j] * spike);",
          "y[b * matrix.n_post + tile.target[j]] += weight[j] * spike;", "procedural"),
    Fault("a target beyond the last", "address", "heap-buffer-overflow",
          "candidate < end_ && candidate != barred_", "candidate <= end_ && candidate != barred_", "procedural"),
    Fault("a lane that leaves the scan", "simulator", "mismatched warp collectives",
          "if (lane >= distance) value += below;",
          "if (lane >= distance) value += below + 0 * __shfl_sync(kAllLanes, value, 0);", "procedural"),
    Fault("every lane stores the row", "thread", "data race",
          "if (lane == 0) out[row] = sum;", "out[row] = sum;", "procedural"),
    Fault("a list read while it is written", "thread", "ThreadSanitizer",
          "= int(threadIdx.x);\n      __syncthreads();", "= int(threadIdx.x);", "event_dense"),
    Fault("counts read while they are summed", "thread", "ThreadSanitizer",
          "      __syncthreads();\n      if (active) listed", "      if (active) listed", "event_dense"),
    Fault("a column too many", "address", "heap-buffer-overflow",
          "if (j < n_columns) y[", "if (j <= n_columns) y[", "event_dense"),
    Fault("a weight changed twice", "thread", "data race",
          "m = int64_t(indptr[i]) + lane; m < end; m += 32", "m = int64_t(indptr[i]) + lane / 2; m < end; m += 16",
          "plasticity"),
    Fault("delayed sums added without an atomic", "thread", "data race",
          "atomicAdd(&ring[(b * n_slots + slot) * n_post + indices[k]], weight * T(spike));",
          "ring[(b * n_slots + slot) * n_post + indices[k]] += weight * T(spike);", "delay"),
    Fault("a slot beyond the ring", "address", "heap-buffer-overflow",
          "slot_after(cursor[b], delays[k], n_slots);\n      const", "cursor[b] + delays[k];\n      const", "delay"),
    Fault("an ordered slot beyond the ring", "address", "heap-buffer-overflow",
          "slot_after(cursor[b], delays[k], n_slots);\n                               ring_b",
          "cursor[b] + delays[k];\n                               ring_b", "delay"),
    Fault("targets with two owners", "thread", "data race",
          "end = begin + part_size < n_post ? begin + part_size : n_post;",
          "end = begin + part_size + 1 < n_post ? begin + part_size + 1 : n_post;", "delay"),
    Fault("a trace advanced twice", "thread", "data race",
          "k = int64_t(indptr[i]) + lane; k < end; k += 32", "k = int64_t(indptr[i]) + lane / 2; k < end; k += 16",
          "delay", "eligibility"),
    Fault("a trace too many", "address", "heap-buffer-overflow",
          "row < n_batch * n_pre; row", "row <= n_batch * n_pre; row", "delay", "eligibility"),
    Fault("rows that do not wait for one another", "thread", "data race",
          "        __syncwarp();  // the next row adds to the same targets\n", "", "procedural"),
    Fault("a tile with two owners", "thread", "data race",
          "first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;\n  for (int64_t task = first; task < n_batch * "
          "matrix.n_tiles;",
          "first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 64;\n  for (int64_t task = first; task < n_batch * "
          "matrix.n_tiles;", "procedural"),
    Fault("a row after the last", "address", "heap-buffer-overflow",
          "mine < matrix.n_pre && spikes_b[mine]", "mine <= matrix.n_pre && spikes_b[mine]", "procedural"),
    Fault("a weight too many", "address", "heap-buffer-overflow",
          "j = lane; j < n_columns;", "j = lane; j <= n_columns;", "plasticity"),
]  # fmt: skip


def compile_cpp(arguments: list[str], target: Path) -> None:
    subprocess.run([os.environ.get("CXX", "g++"), *FLAGS, *arguments, "-o", str(target)], check=True)


class Runner:
    """Compiles the simulator once for each checker, and programs against it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def simulator(self, checker: str) -> list[str]:
        objects = []
        for name in ("fiber", "scheduler"):
            target = self.directory / f"{name}_{checker}.o"
            if not target.exists():
                compile_cpp([*SIMULATOR_FLAGS[checker], "-c", str(SIMULATOR / f"{name}.cpp")], target)
            objects.append(str(target))
        return objects

    def run(self, checker: str, program: str, arguments: list[str], kernels: Path) -> subprocess.CompletedProcess[str]:
        """Runs a program of tests/cuda/kernels under a checker, with the kernels' source taken from `kernels` first."""
        executable = self.directory / "program"
        includes = [f"-I{kernels}", f"-I{CUDA}"]
        source = str(TESTS / "kernels" / f"{program}.cpp")
        compile_cpp([*includes, *KERNEL_FLAGS[checker], source, *self.simulator(checker)], executable)
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
        return subprocess.run(
            [str(executable), *arguments], capture_output=True, text=True, env=environment, timeout=300, check=False
        )

    def run_kernels(
        self, checker: str, program: str, kernels: Path = CUDA
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Three schedules, and more work than the grid of 3 x 64 threads takes in one stride."""
        large = {
            "event_csr": "517",
            "procedural": "250",
            "random": "1601",
            "event_dense": "517",
            "plasticity": "301",
            "delay": "301",
        }
        small = {
            "event_csr": "250",
            "procedural": "100",
            "random": "901",
            "event_dense": "250",
            "plasticity": "150",
            "delay": "150",
        }
        return self.run(checker, program, ["3", (small if checker == "thread" else large)[program]], kernels)


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize(
    "program", [name if name == "event_csr" else pytest.param(name, marks=pytest.mark.slow) for name in LAUNCHES]
)
@pytest.mark.parametrize("checker", ["address", "thread"])
def test_kernels_are_clean(checker: str, program: str, runner: Runner) -> None:
    result = runner.run_kernels(checker, program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"0 failures in {LAUNCHES[program]} launches" in result.stdout


def test_simulator_reports_violations(runner: Runner) -> None:
    result = runner.run("simulator", "violations", [], CUDA)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 violations went unnoticed" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_faults_are_found(fault: Fault, runner: Runner, tmp_path: Path) -> None:
    name = f"{fault.source or fault.program}.cuh"
    source = (CUDA / name).read_text()
    assert source.count(fault.original) == 1
    (tmp_path / name).write_text(source.replace(fault.original, fault.planted))
    result = runner.run_kernels(fault.found_by, fault.program, tmp_path)
    assert result.returncode != 0
    assert fault.report in result.stdout + result.stderr
