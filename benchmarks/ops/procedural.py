"""Time and memory of products with matrices that are never stored, and a network of a million neurons made of one.

    python benchmarks/ops/procedural.py [--json FILE] [--threads 1] [--steps 100] [--million 1000000]

Nanoseconds are per synapse drawn: of the active rows for the product `s W`, of all rows for `W g`. `ratio` compares them
with the product of the same matrix stored as CSR, in the same run: times procedural over stored. Medians are over rounds
in which the contestants take turns. With one thread its processor time is measured, which other processes disturb less;
with more, the time on the wall.

The network: leaky integrate-and-fire neurons with a thousand inputs each, every synapse with a weight of its own. Those
of a million neurons would need 8 GB if they were stored. It steps in eager PyTorch; memory is the peak of the process.
"""

import argparse
import itertools
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops import ProceduralMatrix

ROW = 1000  # synapses of a row, or their expected number


def seconds() -> float:
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds_in_turns(contestants: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()
    for _ in range(rounds):
        for name, call in contestants.items():
            start = seconds()
            call()
            samples[name].append(seconds() - start)
    return samples


def matrix_of(law: str, n_pre: int, n_post: int, draws: str) -> ProceduralMatrix:
    if law == "probability":
        return ProceduralMatrix(n_pre, n_post, 5, p=ROW / n_post, draws=draws)
    return ProceduralMatrix(n_pre, n_post, 5, number=ROW, draws=draws)


def measure_product(law: str, n: int, draws: str) -> list[dict[str, Any]]:
    """One row for each direction: 200 events, or as many rows, of a thousand synapses."""
    n_pre = 200
    matrix = matrix_of(law, n_pre, n, draws)
    offset, scale = torch.tensor(0.7), None if draws == "none" else torch.tensor(0.1)
    indptr, targets, numbers = ops.procedural_rows(torch.arange(n_pre), matrix)
    weights = offset if scale is None else offset + scale * numbers
    spikes, g = torch.ones(n_pre, dtype=torch.bool), torch.randn(n, generator=torch.Generator().manual_seed(0))
    # The raw ops: synapses stay in the order of their drawing, which for a fixed number does not ascend.
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "s W": (
            lambda: ops.procedural_event(spikes, offset, scale, matrix),
            lambda: torch.ops.bdtorch._event_csr_raw(spikes, weights, targets, indptr, n),
        ),
        "W g": (
            lambda: ops.procedural_gather(g, offset, scale, matrix),
            lambda: torch.ops.bdtorch._event_csr_t_raw(g, weights, targets, indptr),
        ),
    }
    rows = []
    for product, (drawn, stored) in pairs.items():
        if not torch.equal(drawn(), stored()):
            raise RuntimeError(f"{law}, {draws}, {product}: the procedural product differs from the stored one")
        samples = seconds_in_turns({"procedural": drawn, "stored": stored})
        ns = {name: statistics.median(times) / len(targets) * 1e9 for name, times in samples.items()}
        rows.append(
            {"n": n, "law": law, "draws": draws, "product": product, "synapses": len(targets)}
            | {"ns": ns["procedural"], "stored_ns": ns["stored"], "ratio": ns["procedural"] / ns["stored"]}
        )
    return rows


def measure_products() -> list[dict[str, Any]]:
    cases = itertools.product((10_000, 100_000, 1_000_000), ("probability", "number"), ("none", "uniform", "normal"))
    return [row for n, law, draws in cases for row in measure_product(law, n, draws)]


def step_network(n: int, steps: int, law: str) -> dict[str, Any]:
    """LIF neurons, tau 20 ms, threshold 20 mV, driven to about 20 mV on average, each with its own phase."""
    dt, tau, threshold = 0.1, 20.0, 20.0
    matrix = matrix_of(law, n, n, "normal")
    offset, scale = torch.tensor(2e-3), torch.tensor(5e-4)  # mV
    v = ops.uniform(ops.make_key(1), torch.tensor(0), n, dtype=torch.float32) * threshold
    spikes = torch.zeros(n, dtype=torch.bool)
    n_events, seconds_of_products = 0, 0.0
    start = seconds()
    for _ in range(steps):
        before = seconds()
        received = ops.procedural_event(spikes, offset, scale, matrix)
        seconds_of_products += seconds() - before
        n_events += int(spikes.sum())
        v = v + dt / tau * (21.0 - v) + received
        spikes = v > threshold
        v = v.masked_fill(spikes, 0.0)
    seconds_of_steps = seconds() - start
    return {
        "law": law,
        "neurons": n,
        "synapses": n * ROW,
        "steps": steps,
        "rate_hz": n_events / n / (steps * dt) * 1e3,
        "ms_per_step": seconds_of_steps / steps * 1e3,
        "ns_per_synapse": seconds_of_products / max(1, n_events * ROW) * 1e9,
        "us_per_event": seconds_of_products / max(1, n_events) * 1e6,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--million", type=int, default=1_000_000, help="neurons of the largest network")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    networks = []
    for n in (10_000, 100_000, arguments.million):
        for law in ("probability", "number"):
            networks.append(step_network(n, arguments.steps, law))
            print("{law:12} {neurons:8} neurons  {rate_hz:5.1f} Hz  {ms_per_step:8.2f} ms/step  {us_per_event:6.2f} us/event  "
                  "{ns_per_synapse:5.2f} ns/synapse  peak {peak_memory_gb:.2f} GB".format(**networks[-1]))  # fmt: skip
    products = measure_products()
    for row in products:
        print("n {n:8} {law:12} {draws:8} {product}  {ns:6.2f} ns/synapse  stored {stored_ns:6.2f}  "
              "ratio {ratio:5.2f}".format(**row))  # fmt: skip
    if arguments.json:
        setting = {"torch": torch.__version__, "threads": arguments.threads, "processor": platform.processor()}
        result = {"setting": setting, "products": products, "networks": networks}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
