"""e-prop through a layer of adapting spiking neurons: `bdtorch.train.EProp` against traces written by hand.

40 inputs at 20 Hz, 100 ALIF neurons all to all, 2 leaky readouts, batch 64, cross-entropy at every step. By hand: plain PyTorch,
one pass over the traces of all synapses a step, with the presynaptic trace of `v` kept per source, as it may be. Both
gradients of the first 50 steps must agree; they take turns for several rounds.

    python benchmarks/eprop.py --steps 500
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import bdtorch as bt

INPUTS, CELLS, BATCH = 40, 100, 64
TAU, TAU_A, TAU_OUT, V_TH, BETA = 20.0, 2000.0, 20.0, 0.6, 0.02
SLOPE = bt.surrogate.Triangle(0.5, 0.6)


def network() -> bt.Sequential:
    """The network of both."""
    cell = bt.neurons.ALIF(
        CELLS, tau=TAU, tau_a=TAU_A, beta=BETA, v_th=V_TH, r=1.0 / (1.0 - math.exp(-1.0 / TAU)), surrogate=SLOPE
    )
    layer = bt.Recurrent(cell, INPUTS, w_in=bt.init.Normal(0.05, 0.2), seed=1)
    return bt.Sequential(layer, bt.Readout(CELLS, 2, tau=TAU_OUT, seed=1))


@torch.no_grad()
def by_hand(model: bt.Sequential, x: Tensor, side: Tensor) -> list[Tensor]:
    """Gradients of input, recurrent and readout weights."""
    w_in, w_rec, w_out = (parameter.detach() for parameter in model.parameters())
    fade, fade_a, keep = (math.exp(-1.0 / tau) for tau in (TAU, TAU_A, TAU_OUT))
    v = a = z = heard = x.new_zeros(BATCH, CELLS)
    y = x.new_zeros(BATCH, 2)
    sources = x.new_zeros(BATCH, INPUTS + CELLS)
    adaptation = filtered = x.new_zeros(BATCH, INPUTS + CELLS, CELLS)
    gradient, grad_out = x.new_zeros(INPUTS + CELLS, CELLS), torch.zeros_like(w_out)
    target = nn.functional.one_hot(side, 2).float() / BATCH
    for now in x:
        sources = fade * sources + torch.cat([now, z], 1)
        v, a = fade * v + now @ w_in + z @ w_rec, fade_a * a
        above = v - V_TH - BETA * a
        z, slope = (above >= 0).float(), SLOPE.slope(above).unsqueeze(1)
        v, a = v - V_TH * z, a + z
        trace = slope * (sources.unsqueeze(2) - BETA * fade_a * adaptation)
        adaptation = fade_a * adaptation + trace
        filtered = keep * filtered + trace
        heard, y = keep * heard + z, keep * y + z @ w_out
        error = y.softmax(1) / BATCH - target
        gradient += torch.einsum("bj,bij->ij", error @ w_out.mT, filtered)
        grad_out += heard.mT @ error
    return [gradient[:INPUTS], gradient[INPUTS:], grad_out]


def by_eprop(model: bt.Sequential, x: Tensor, side: Tensor) -> list[Tensor]:
    """The same."""
    model.zero_grad()
    bt.train.EProp(model, nn.functional.cross_entropy).backward(x, side.expand(len(x), -1), dt=1.0)
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def main() -> None:
    """Both in turn, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(arguments.steps, BATCH, INPUTS, generator=generator) < 0.02).float()
    side = torch.randint(0, 2, (BATCH,), generator=generator)
    model = network()
    ways: dict[str, Callable[..., list[Tensor]]] = {"bdtorch": by_eprop, "by hand": by_hand}
    few = x[:50]  # later, the last digit of a sum decides whether a neuron fires, and the two part
    for one, other in zip(by_eprop(model, few, side), by_hand(model, few, side), strict=True):
        distance = float((one - other).abs().max() / other.abs().max())
        if not distance < 1e-3:
            raise SystemExit(f"the gradients differ, by {distance:.1e} of the largest")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way(model, x, side)
            seconds[name].append(time.perf_counter() - began)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in middle.items():
        print(
            f"{name:8} {value:7.3f} s an iteration of {arguments.steps} steps, {value / middle['by hand']:.2f} of by hand"
        )


if __name__ == "__main__":
    main()
