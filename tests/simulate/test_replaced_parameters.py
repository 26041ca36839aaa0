"""Parts of a system that are in several places, and threads that put other tensors in the place of its parameters."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch._replaced import call_with, places_of


class Twice(bt.DynamicalSystem):
    """One cell under two names, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__((3,), dtype=torch.float64)
        self.cell = self.same = nn.GRUCell(3, 3, dtype=torch.float64)
        self.first, self.second = nn.Linear(3, 3, dtype=torch.float64), nn.Linear(3, 3, dtype=torch.float64)
        self.second.weight = self.first.weight

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.full((*batch_shape, 3), 0.1, dtype=torch.float64)

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        x = self.same(inputs, self.cell(inputs, state))
        return torch.tanh(self.first(x) + self.second(self.second(x))), state


def drive() -> Tensor:
    return torch.linspace(-1.0, 1.0, 6 * 2 * 3, dtype=torch.float64).view(6, 2, 3)


@pytest.mark.parametrize("loop", ["native", bt.Native(recompute=2)])
def test_a_part_in_two_places_has_its_gradient_and_stays(loop: Any) -> None:
    torch.manual_seed(0)
    system, found = Twice(), []
    before = dict(system.named_parameters())
    for each in ("reference", loop):
        system.zero_grad()
        bt.simulate(system, drive(), dt=1.0, loop=each).out.square().sum().backward()
        found.append([x.grad for x in before.values()])
    assert all(new is before[name] for name, new in system.named_parameters())
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_parameters_go_by_any_of_their_names() -> None:
    torch.manual_seed(0)
    system = Twice()
    new = torch.eye(3, dtype=torch.float64, requires_grad=True)
    outs = []
    for name in ("first.weight", "second.weight"):
        for loop in ("reference", "native"):
            out = bt.simulate(system, drive(), dt=1.0, loop=loop, parameters={name: new}).out
            outs += [out, torch.autograd.grad(out.sum(), new)[0]]
    for out, gradient in zip(outs[2::2], outs[3::2], strict=True):
        torch.testing.assert_close([out, gradient], outs[:2], rtol=1e-9, atol=1e-12)
    whole = {k: 2 * v.detach() for k, v in system.state_dict(keep_vars=True).items()}
    with pytest.raises(ValueError, match=r"expected one tensor for 'cell\.weight_ih' and 'same\.weight_ih'"):
        bt.simulate(system, drive(), dt=1.0, parameters=whole)
    with pytest.raises(TypeError, match=r"expected tensors, got float for 'first\.weight'"):
        bt.simulate(system, drive(), dt=1.0, parameters={"first.weight": 2.0})  # type: ignore[dict-item]


def test_a_call_leaves_the_module_as_it_was() -> None:
    system = Twice()
    before = list(system.parameters())
    new = {name: torch.zeros_like(x) for name, x in system.named_parameters()}
    arguments = (system.init_state((1,)), drive()[0, :1], torch.zeros(()), 1.0)
    state, _ = call_with(system, new, arguments, places_of(system))
    assert bool((state == 0.0).all()) and all(x is y for x, y in zip(before, system.parameters(), strict=True))


def test_an_adjoint_of_a_derivative_with_a_part_in_two_places() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(2, 2, dtype=torch.float64)

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = self.b = layer

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.b(self.a(y)))

    f, times, found = Slope(), torch.tensor([0.0, 0.5], dtype=torch.float64), []
    weight = layer.weight
    for gradient in (None, bt.integrate.Adjoint()):
        chosen = {} if gradient is None else {"gradient": gradient}
        y = bt.integrate.odeint(f, torch.ones(2, dtype=torch.float64), times, rtol=1e-10, atol=1e-10, **chosen).y
        found.append(torch.autograd.grad(y[-1].sum(), weight)[0])
    assert layer.weight is weight
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loop", ["native", "reference", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shared", ["the system", "a part"])
def test_threads_do_not_see_the_parameters_of_others(loop: str, shared: str) -> None:
    class Decay(bt.DynamicalSystem):
        def __init__(self) -> None:
            super().__init__((2,), dtype=torch.float64)
            self.rate = nn.Parameter(torch.tensor(0.0, dtype=torch.float64), requires_grad=False)

        def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
            return torch.zeros((*batch_shape, 2), dtype=torch.float64)

        def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
            for _ in range(20):
                state = state + self.rate
            return state, state

    class Around(Decay):
        def __init__(self, part: Decay) -> None:
            super().__init__()
            self.part = part

        def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
            return self.part(state, inputs, t, dt)

    part, wrong = Decay(), []
    systems = [part] * 4 if shared == "the system" else [Around(part) for _ in range(4)]
    name = "rate" if shared == "the system" else "part.rate"

    def work(number: int) -> None:
        for turn in range(8):
            rate = torch.tensor(float(100 * number + turn), dtype=torch.float64)
            with torch.no_grad():
                out = bt.simulate(systems[number], dt=1.0, duration=8.0, parameters={name: rate}, loop=loop).out
            if not torch.equal(out[-1], (160.0 * rate).expand(2)):
                wrong.append((number, turn))

    if loop == "inductor":
        for number in range(4):
            work(number)  # compiles
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
