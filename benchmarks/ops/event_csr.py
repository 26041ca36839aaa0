"""Time of the event-driven CSR ops against torch's sparse CSR product, in one run on the same matrix.

    python benchmarks/ops/event_csr.py [--json FILE] [--n 10000] [--density 0.01] [--active 0.01] [--threads 1]

Times are medians over rounds in which the contestants take turns. `ratio` is torch's time over bdtorch's.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch

from bdtorch import ops
from benchmarks.ops._compare import median_microseconds, random_csr


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
