"""Backpropagation through time: a recurrent spiking network, forward, backward and optimizer step.

100 Poisson inputs, 256 recurrent leaky integrate-and-fire neurons, 2 leaky readouts, 500 steps, batch 64, cross-entropy,
Adam; about 3 % of the neurons spike in a step. The same modules and the same spikes run in bdtorch's native loop and in a
plain PyTorch loop, in turn, in one process; the first losses must agree.

    python benchmarks/training.py --steps 500 --threads 1 --repeats 5 --json FILE
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import bdtorch as bt

INPUTS, NEURONS, READOUTS, BATCH = 100, 256, 2, 64
RATE_HZ, TAU_MEMBRANE, TAU_READOUT, SLOPE = 20.0, 20.0, 20.0, 25.0


class RecurrentNetwork(bt.DynamicalSystem):
    """Leaky integrate-and-fire neurons with input, recurrent and readout weights; puts out the readouts' potentials."""

    class State(NamedTuple):
        v: Tensor
        z: Tensor
        y: Tensor

    def __init__(self) -> None:
        super().__init__(NEURONS)
        self.surrogate = bt.surrogate.SuperSpike(SLOPE)
        self.w_in = torch.nn.Parameter(torch.randn(INPUTS, NEURONS) * 1.5 / math.sqrt(INPUTS))
        self.w_rec = torch.nn.Parameter(torch.randn(NEURONS, NEURONS) * 1.0 / math.sqrt(NEURONS))
        self.w_out = torch.nn.Parameter(torch.randn(NEURONS, READOUTS) / math.sqrt(NEURONS))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Any:
        zeros = self.fill(batch_shape, 0.0)
        return self.State(v=zeros, z=zeros.clone(), y=zeros.new_zeros(*batch_shape, READOUTS))

    def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> tuple[Any, Tensor]:
        keep, keep_out = math.exp(-dt / TAU_MEMBRANE), math.exp(-dt / TAU_READOUT)
        drive = inputs @ self.w_in + state.z @ self.w_rec
        v = keep * state.v * (1.0 - state.z.detach()) + drive
        z = self.surrogate(v - 1.0)
        y = keep_out * state.y + z @ self.w_out
        return self.State(v=v, z=z, y=y), y


def eager(model: RecurrentNetwork, x: Tensor) -> Tensor:
    """The plain loop."""
    state, t, outs = model.init_state((x.shape[1],)), torch.zeros((), dtype=torch.float64), []
    for now in x.unbind(0):
        state, y = model.step(state, now, t, 1.0)
        outs.append(y)
    return torch.stack(outs)


def native(model: RecurrentNetwork, x: Tensor) -> Tensor:
    """The native loop."""
    return bt.simulate(model, x, dt=1.0, loop="native", check_finite=False).out


def train(run: Callable[..., Tensor], x: Tensor, labels: Tensor, repeats: int) -> dict[str, Any]:
    """Median seconds of an iteration, after one that is not counted."""
    torch.manual_seed(0)
    model = RecurrentNetwork()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses, seconds = [], []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(model, x).mean(0), labels)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
        losses.append(loss.item())
    return {"first_s": seconds[0], "seconds": seconds[1:], "losses": losses}


def main() -> None:
    """Print the table, and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(arguments.steps, BATCH, INPUTS, generator=generator) < RATE_HZ * 1e-3).float()
    labels = torch.randint(0, READOUTS, (BATCH,), generator=generator)
    with torch.no_grad():
        torch.manual_seed(0)
        sol = bt.simulate(RecurrentNetwork(), x, dt=1.0, record={"z": lambda state, out: state.z.mean()})
    rows = []
    for name, run in (("bdtorch native", native), ("plain PyTorch", eager)):
        result = train(run, x, labels, arguments.repeats)
        rows.append({"implementation": name, "steps": arguments.steps, "threads": arguments.threads, **result})
    ours, plain = rows
    if abs(ours["losses"][0] - plain["losses"][0]) > 1e-4:
        raise SystemExit(f"the first losses differ: {ours['losses'][0]} and {plain['losses'][0]}")
    print(f"{float(sol['z'].mean()):.1%} of the neurons spike in a step; {arguments.threads} thread(s)")
    for row in rows:
        median = statistics.median(row["seconds"])
        print(f"{row['implementation']:16} {median:7.3f} s an iteration, first {row['first_s']:.1f} s")
    ratio = statistics.median(plain["seconds"]) / statistics.median(ours["seconds"])
    print(f"plain PyTorch takes {ratio:.1f} times as long")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
