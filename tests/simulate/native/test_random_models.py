"""Random whole models: several populations of states, with rings of delays, products, reductions, spikes and plastic weights.

`test_random_graphs.py` and `test_random_operations.py` draw operations; here the planner meets what models are made of:
states of unlike shapes and dtypes that feed one another, are read before and after they change, and share what they compute.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from tests.simulate.native.stepping import flat

pytestmark = pytest.mark.usefixtures("compiled_quickly")
D = torch.float64
STEPS = 9


class Drawn(bt.DynamicalSystem):
    """A model of a few populations, wired at random; the same seed draws the same one."""

    def __init__(self, seed: int, batch: bool, dtype: torch.dtype = D) -> None:
        super().__init__((), dtype=dtype)
        draw, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self.batch = (2,) if batch else ()
        self.sizes = [draw.choice([1, 2, 3, 5, 8, 17, 65]) for _ in range(draw.randint(1, 3))]
        self.kinds = [draw.choice(["smooth", "spiking", "counting"]) for _ in self.sizes]
        self.depth = draw.randint(2, 5)
        self.weights = nn.ParameterDict()
        self.links: list[tuple[int, int, str, int]] = []
        for number in range(draw.randint(1, 4)):
            a, b = draw.randrange(len(self.sizes)), draw.randrange(len(self.sizes))
            kind = draw.choice(
                ["dense", "plastic", "mean", "extreme", "gather", "softmax", "outer", "delayed", "scatter"]
            )
            self.links.append((a, b, kind, draw.randint(1, self.depth)))
            self.weights[str(number)] = nn.Parameter(self._drawn(self.sizes[a], self.sizes[b]) / self.sizes[a] ** 0.5)
        self.gains = nn.Parameter(self._drawn(len(self.sizes)))
        self.places = [
            torch.tensor([draw.randrange(self.sizes[b]) for _ in range(self.sizes[a])]) for a, b, *_ in self.links
        ]
        self.writes_first = draw.random() < 0.5

    def _drawn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=D).to(self.dtype)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {"k": torch.zeros((), dtype=torch.int64)}
        for number, size in enumerate(self.sizes):
            state[f"v{number}"] = torch.linspace(-1.0, 1.0, size, dtype=self.dtype).expand(*self.batch, size).clone()
            state[f"ring{number}"] = torch.zeros(self.depth, *self.batch, size, dtype=self.dtype)
            state[f"n{number}"] = torch.zeros(*self.batch, size, dtype=torch.int32)
        for number, (_, _, kind, _) in enumerate(self.links):
            if kind == "plastic":
                state[f"w{number}"] = self.weights[str(number)].detach().expand(*self.batch, -1, -1).clone()
        return state

    def _sent(self, state: dict[str, Tensor], number: int, x: Tensor) -> Tensor:
        """What a link makes of its source, for its target."""
        a, b, kind, delay = self.links[number]
        weight, places, size = self.weights[str(number)], self.places[number], self.sizes[b]
        if kind == "delayed":
            return state[f"ring{a}"][(state["k"] - delay) % self.depth] @ weight
        if kind == "plastic":
            return (x.unsqueeze(-2) @ (state[f"w{number}"] + 0.1 * weight)).squeeze(-2)
        if kind == "mean":
            return (x - x.mean(-1, keepdim=True)) @ weight + x.var(-1, correction=0, keepdim=True)
        if kind == "extreme":
            return x.amax(-1, keepdim=True) * weight[0] - x.sort(-1)[0][..., :1]
        if kind == "gather":
            return (x @ weight).index_select(-1, places % size).sum(-1, keepdim=True) * weight[0]
        if kind == "softmax":
            return torch.softmax(x, -1) @ weight.tanh()
        if kind == "outer":
            return (x.unsqueeze(-1) * weight).cumsum(-2)[..., -1, :]
        if kind == "scatter":
            return torch.zeros(*x.shape[:-1], size, dtype=x.dtype).index_add(-1, places, x) + weight[0]
        return x @ weight

    def step(self, state: dict[str, Tensor], inputs: Tensor, t: Tensor, dt: float) -> Any:
        after: dict[str, Tensor] = {"k": state["k"] + 1}
        values = [state[f"v{number}"] for number in range(len(self.sizes))]
        drives = [torch.zeros_like(v) + torch.sin(0.3 * t).to(v.dtype) for v in values]
        for number, (a, b, *_) in enumerate(self.links):
            drives[b] = drives[b] + self._sent(state, number, torch.tanh(values[a]))
        shown: list[Tensor] = []
        for number, (v, drive, kind) in enumerate(zip(values, drives, self.kinds, strict=True)):
            drive = drive * self.gains[number] + inputs[..., :1]
            new, count = 0.8 * v + 0.2 * torch.tanh(drive), state[f"n{number}"]
            if kind == "spiking":
                spike = bt.surrogate.SuperSpike(2.0)(new - 0.4)
                new, count = new - spike * 0.7, torch.where(spike > 0, 2, (count - 1).clamp(min=0)).to(torch.int32)
                shown.append(spike.sum(-1))
            elif kind == "counting":
                new = torch.where(count % 3 == 0, new, 0.5 * new + 0.1 * v.flip(-1))
                count = count * 1103515245 + 12345
            ring = state[f"ring{number}"]
            slot = torch.arange(self.depth).view(-1, *[1] * v.dim()) == (state["k"] % self.depth)
            after |= {f"v{number}": new, f"ring{number}": torch.where(slot, new if self.writes_first else v, ring)}
            after[f"n{number}"] = count
            shown.append((new * v).sum(-1) + ring.mean())
        for number, (a, b, kind, _) in enumerate(self.links):
            if kind == "plastic":
                w = state[f"w{number}"] * 0.99 + 0.05 * after[f"v{a}"].unsqueeze(-1) * values[b].unsqueeze(-2)
                after[f"w{number}"] = w.clamp(-1.0, 1.0) / (1.0 + 0.01 * w.square().sum(-2, keepdim=True))
        return {name: after[name] for name in state}, shown


def simulated(seed: int, loop: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What the run gives, and its gradients."""
    system = Drawn(seed, batch=seed % 3 == 0)
    start = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in system.init_state().items()}
    generator = torch.Generator().manual_seed(seed)
    drive = torch.randn(STEPS, *system.batch, 1, generator=generator, dtype=D).requires_grad_()
    sol = bt.simulate(system, drive, dt=0.1, state=start, loop=loop)
    ends = flat(sol)
    wanted = [*system.parameters(), drive, *(x for x in start.values() if x.requires_grad)]
    weighted = [
        (x * torch.linspace(-1.0, 1.0, x.numel(), dtype=D).view(x.shape)).sum() for x in ends if x.requires_grad
    ]
    found = torch.autograd.grad(sum(weighted, torch.zeros((), dtype=D)), wanted, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]
    with torch.no_grad():
        plain = bt.simulate(system, drive, dt=0.1, state=start, loop=loop)
    return [x.detach() for x in (*ends, *flat(plain))], gradients


def check(seed: int) -> None:
    expected, slopes = simulated(seed, "reference")
    first: list[Tensor] = []
    for loop in (bt.Native(threads=1), bt.Native(threads=2), bt.Native(threads=3, recompute=2)):
        found, gradients = simulated(seed, loop)
        for number, (x, y) in enumerate(zip([*found, *gradients], [*expected, *slopes], strict=True)):
            assert x.shape == y.shape and x.dtype == y.dtype
            bound = 1e-9 * max(1.0, float(y.double().abs().max())) if y.is_floating_point() and y.numel() else 0.0
            torch.testing.assert_close(
                x, y, rtol=1e-9 if bound else 0.0, atol=bound, msg=lambda m, k=number: f"{seed}, {k}: {m}"
            )
        first = first or found
        assert all(torch.equal(x, y) for x, y in zip(found, first, strict=True)), seed


@pytest.mark.parametrize("seed", range(4))
def test_models(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 124))
def test_many_models(seed: int) -> None:
    check(seed)
