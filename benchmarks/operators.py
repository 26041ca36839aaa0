"""The operators' speed against its bounds, in one run: torch.sparse, brainevent, synaptic events, calls, and scale.

    python benchmarks/operators.py [--json FILE] [--brainevent-python PYTHON] [--steps 100] [--million 1000000]

Contestants take turns; figures are medians. The matrix has 10,000 x 10,000 neurons and a density of 1 %. Torch's product
s W gets the transpose as CSR, made beforehand. How to install brainevent beside bdtorch stands in `brainevent_csr.py`;
without it, its row says so. `bound` is what each figure must meet, in the direction of `better`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # as a script, this file sees only its own folder

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch._dynamo.backends.common import aot_autograd  # noqa: E402

from bdtorch import ops  # noqa: E402
from benchmarks.ops._compare import median_microseconds, random_csr  # noqa: E402
from benchmarks.ops.event_csr import door_overhead  # noqa: E402
from benchmarks.ops.procedural import measure_product, step_network  # noqa: E402

N, DENSITY = 10_000, 0.01
Row = dict[str, Any]


def figure(name: str, value: float | None, unit: str, better: str, bound: float, **details: Any) -> Row:
    """One figure and the bound that it is to meet; a value of None was not measured."""
    met = None if value is None else value >= bound if better == "higher" else value <= bound
    return {"name": name, "value": value, "unit": unit, "better": better, "bound": bound, "met": met} | details


def against_torch(weights: Tensor, indices: Tensor, indptr: Tensor) -> list[Row]:
    """Speed as a multiple of torch's, at 1 % and 100 % activity, both directions, vectors and a batch of 32."""
    matrix = torch.sparse_csr_tensor(indptr.int(), indices, weights, (N, N), check_invariants=True)
    return [
        *compare_products(weights, indices, indptr, matrix, active=0.01, batch=(), bound=20.0),
        *compare_products(weights, indices, indptr, matrix, active=1.0, batch=(), bound=1 / 1.2),
        *compare_products(weights, indices, indptr, matrix, active=1.0, batch=(32,), bound=1 / 1.2),
    ]


def compare_products(
    weights: Tensor, indices: Tensor, indptr: Tensor, matrix: Tensor, *, active: float, batch: tuple[int, ...],
    bound: float,
) -> list[Row]:  # fmt: skip
    """Products with spikes, and at full activity with values of the other side."""
    generator = torch.Generator().manual_seed(1)
    transposed = matrix.to_sparse_csc().t()
    spikes = torch.rand(*batch, N, generator=generator) < active
    factors, values = (torch.randn(*batch, N, generator=generator) for _ in range(2))
    scaled = spikes * factors

    def columns(x: Tensor) -> Tensor:
        """What torch multiplies a sparse matrix with: the batch as columns."""
        return x.mT.contiguous() if batch else x

    s, f, g = columns(spikes.float()), columns(scaled), columns(values)
    contestants: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "s W, bool": (lambda: ops.event_csr(spikes, weights, indices, indptr, N), lambda: transposed @ s),
        "s W, float": (lambda: ops.event_csr(scaled, weights, indices, indptr, N), lambda: transposed @ f),
    }
    if active == 1.0:
        contestants["W g"] = (lambda: ops.event_csr_t(values, weights, indices, indptr), lambda: matrix @ g)
    rows = []
    for name, (ours, theirs) in contestants.items():
        torch.testing.assert_close(columns(ours()), theirs(), rtol=1e-3, atol=1e-3)
        us = median_microseconds({"bdtorch": ours, "torch": theirs})
        label = f"{name}, {active:.0%} active" + (f", batch of {batch[0]}" if batch else "")
        rows.append(figure(f"{label}: times torch.sparse", us["torch"] / us["bdtorch"], "x", "higher", bound, us=us))
    return rows


def against_brainevent(weights: Tensor, indices: Tensor, indptr: Tensor, python: str | None) -> Row:
    """Speed as a multiple of brainevent's at 1 % activity."""
    name, bound = "s W, bool, 1 % active: times brainevent (CPU)", 3.0
    if python is None:
        return figure(name, None, "x", "higher", bound, note="not measured: no --brainevent-python")
    spikes = torch.rand(N, generator=torch.Generator().manual_seed(1)) < 0.01
    with tempfile.TemporaryDirectory() as folder:
        problem, product = Path(folder) / "problem.npz", Path(folder) / "product.npy"
        np.savez(problem, weights=weights, indices=indices, indptr=indptr.int(), spikes=spikes)
        command = [python, str(ROOT / "benchmarks" / "brainevent_csr.py"), str(problem), str(product)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
            assert child.stdin is not None and child.stdout is not None
            version = child.stdout.readline().strip()
            ours = ops.event_csr(spikes, weights, indices, indptr, N)
            np.testing.assert_allclose(np.load(product), ours.numpy(), rtol=1e-4, atol=1e-4)
            times: dict[str, list[float]] = {"bdtorch": [], "brainevent": []}
            for _ in range(15):
                child.stdin.write("\n")
                times["brainevent"].append(float(child.stdout.readline()))
                call = {"bdtorch": lambda: ops.event_csr(spikes, weights, indices, indptr, N)}
                times["bdtorch"].append(median_microseconds(call, rounds=3)["bdtorch"])
            child.stdin.close()
    us = {side: statistics.median(samples) for side, samples in times.items()}
    return figure(name, us["brainevent"] / us["bdtorch"], "x", "higher", bound, us=us, version=version)


def event_costs(weights: Tensor, indices: Tensor, indptr: Tensor) -> list[Row]:
    """Time for each synapse of an active neuron, and for a call that has nothing to do."""
    spikes = torch.rand(N, generator=torch.Generator().manual_seed(1)) < 0.01
    events = int(indptr.diff()[spikes].sum())
    us = median_microseconds({"call": lambda: ops.event_csr(spikes, weights, indices, indptr, N)})["call"]
    return [
        figure("synaptic event, targets in cache, whole call", us * 1e3 / events, "ns", "lower", 3.0, events=events),
        figure("overhead of a call from Python", door_overhead(), "us", "lower", 10.0),
    ]


def raw_op_in_graph() -> Row:
    """1 if a compiled graph calls the raw op, which runs without Python."""
    names: list[str] = []

    def record(module: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        names.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module.forward

    spikes, indices = torch.ones(3, dtype=torch.bool), torch.tensor([0, 1, 2], dtype=torch.int32)
    structure = (torch.ones(3), indices, torch.arange(4))
    compiled = torch.compile(lambda s: ops.event_csr(s, *structure, 3) + 1, fullgraph=True,
                             backend=aot_autograd(fw_compiler=record))  # fmt: skip
    compiled(spikes)
    found = float("bdtorch._event_csr_raw.default" in names and "bdtorch.event_csr.default" not in names)
    return figure("a compiled graph contains the raw op", found, "", "higher", 1.0)


def procedural_costs() -> list[Row]:
    """Time for each synapse generated, for 1,000 synapses a row."""
    rows = []
    for law in ("probability", "number"):
        for draws in ("none", "uniform", "normal"):
            for row in measure_product(law, N, draws):
                name = f"procedural, {law}, {draws}, {row['product']}: synapse generated"
                rows.append(figure(name, row["ns"], "ns", "lower", 8.0, neurons=N))
    return rows


def scale(steps: int, million: int) -> list[Row]:
    """Procedural networks with 1,000 inputs per neuron. To be called first: it reports the memory of the process."""
    networks = {(law, n): step_network(n, steps, law) for n in (10_000, million) for law in ("probability", "number")}
    rows = []
    for law in ("probability", "number"):
        small, large = networks[law, 10_000], networks[law, million]
        growth = large["us_per_event"] / small["us_per_event"]
        rows.append(figure(f"{million:,} neurons, {law}: memory", large["peak_memory_gb"], "GB", "lower", 2.0, **large))
        rows.append(figure(f"{million:,} neurons, {law}: cost of an event over that among 10,000", growth, "x", "lower",
                           1.5, us_per_event={"10000": small["us_per_event"], str(million): large["us_per_event"]}))  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--brainevent-python", help="Python of the environment that has brainevent")
    parser.add_argument("--steps", type=int, default=100, help="steps of the networks")
    parser.add_argument("--million", type=int, default=1_000_000, help="neurons of the largest network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # one core for all, brainevent's process included
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    default = ROOT / ".venv-brainevent" / "bin" / "python"
    python = arguments.brainevent_python or (str(default) if default.exists() else None)

    rows = scale(arguments.steps, arguments.million)
    matrix = random_csr(N, DENSITY)
    rows += against_torch(*matrix)
    rows.append(against_brainevent(*matrix, python))
    rows += event_costs(*matrix)
    rows.append(raw_op_in_graph())
    rows += procedural_costs()
    for row in rows:
        value = "not measured" if row["value"] is None else f"{row['value']:.2f} {row['unit']}"
        mark = {True: "", False: "  MISSED", None: ""}[row["met"]]
        sign = ">=" if row["better"] == "higher" else "<="
        print(f"{row['name']:72} {value:>14}  {sign} {row['bound']:.2f}{mark}")
    if arguments.json:
        setting = {"torch": torch.__version__, "neurons": N, "density": DENSITY, "threads": 1}
        arguments.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
