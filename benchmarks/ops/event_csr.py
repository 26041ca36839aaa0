"""Time of the event-driven CSR ops against torch's sparse CSR product, in one run on the same matrix.

    python benchmarks/ops/event_csr.py [--json FILE] [--n 10000] [--density 0.01] [--active 0.01] [--threads 1]

Times are medians over rounds in which the contestants take turns. `ratio` is torch's time over bdtorch's.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bdtorch import ops


def random_csr(n: int, density: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, indices and indptr of an n x n matrix whose entries exist independently of each other."""
    generator = torch.Generator().manual_seed(0)
    connected = torch.rand(n, n, generator=generator) < density
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), connected.sum(1).cumsum(0)])
    indices = connected.nonzero()[:, 1].to(torch.int32)
    return torch.randn(len(indices), generator=generator), indices, indptr


def median_microseconds(contestants: dict[str, Callable[[], object]], rounds: int = 30) -> dict[str, float]:
    """The median time of a call for each contestant; every sample lasts about 5 ms."""
    calls = {}
    for name, call in contestants.items():
        call()
        start = time.perf_counter()
        call()
        calls[name] = max(1, int(0.005 / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                call()
            samples[name].append((time.perf_counter() - start) / calls[name] * 1e6)
    return {name: statistics.median(times) for name, times in samples.items()}


def run(n: int, density: float, active: float) -> list[dict[str, float | str]]:
    """One row for each comparison."""
    weights, indices, indptr = random_csr(n, density)
    generator = torch.Generator().manual_seed(1)
    spikes = torch.rand(n, generator=generator) < active
    values, batch = spikes.float(), torch.rand(32, n, generator=generator) < active
    gradient = torch.randn(n, generator=generator)
    matrix = torch.sparse_csr_tensor(indptr.int(), indices, weights, (n, n), check_invariants=True)
    # What torch needs for s W: the transpose as CSR, made beforehand.
    transposed = matrix.to_sparse_csc().t()
    structure = (indices, indptr)
    comparisons = {
        "s W, bool spikes": (lambda: ops.event_csr(spikes, weights, *structure, n), lambda: transposed @ values),
        "s W, bool spikes, one weight": (
            lambda: ops.event_csr(spikes, weights[0], *structure, n),
            lambda: transposed @ values,
        ),
        "s W, float spikes": (lambda: ops.event_csr(values, weights, *structure, n), lambda: transposed @ values),
        "s W, batch of 32": (
            lambda: ops.event_csr(batch, weights, *structure, n),
            lambda: transposed @ batch.T.float(),
        ),
        "W g": (lambda: ops.event_csr_t(gradient, weights, *structure), lambda: matrix @ gradient),
    }
    torch.testing.assert_close(comparisons["s W, bool spikes"][0](), transposed @ values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(comparisons["W g"][0](), matrix @ gradient, rtol=1e-4, atol=1e-4)
    rows = []
    for name, (ours, theirs) in comparisons.items():
        times = median_microseconds({"bdtorch": ours, "torch": theirs})
        rows.append({"case": name} | times | {"ratio": times["torch"] / times["bdtorch"]})
    return rows


def door_overhead() -> float:
    """Microseconds of a call on ten neurons without synapses: all of it is overhead."""
    spikes, weight = torch.zeros(10, dtype=torch.bool), torch.tensor(1.0)
    indices, indptr = torch.zeros(0, dtype=torch.int32), torch.zeros(11, dtype=torch.int64)
    return median_microseconds({"door": lambda: ops.event_csr(spikes, weight, indices, indptr, 10)})["door"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--active", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    rows = run(arguments.n, arguments.density, arguments.active)
    overhead = door_overhead()
    print(f"n {arguments.n}, density {arguments.density}, active {arguments.active}, threads {arguments.threads}")
    print(f"{'case':32} {'bdtorch us':>12} {'torch us':>12} {'ratio':>8}")
    for row in rows:
        print(f"{row['case']:32} {row['bdtorch']:12.1f} {row['torch']:12.1f} {row['ratio']:8.1f}")
    print(f"{'overhead of a call':32} {overhead:12.1f}")
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("n", "density", "active", "threads")}
        result = {"settings": settings, "torch": torch.__version__, "rows": rows, "overhead_us": overhead}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
