"""The contract battery catches models that break the contract, and says how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import testing
from bdtorch.testing import Case


class Decay(bt.Flow):
    """A sound model, from which each of the faulty ones departs in one place."""

    class State(NamedTuple):
        x: Tensor
        steps: Tensor

    def __init__(self, n: int = 3) -> None:
        super().__init__(n)
        self.declare("tau", nn.Parameter(torch.linspace(2.0, 4.0, n)))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(self.fill(batch_shape, 1.0), self.fill(batch_shape, 0.0))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State((inputs - state.x) / self.tau, torch.ones_like(state.steps))

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(-1.0 / self.tau, torch.zeros_like(state.steps))


class WritesToTheState(Decay):
    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        state.x.add_(dt)
        return super().step(state, inputs, t, dt)


class WritesToItself(Decay):
    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        self.last = state.x
        return super().step(state, inputs, t, dt)


class Trains(Decay):
    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        with torch.no_grad():
            after = super().step(state, inputs, t, dt)
            self.tau.mul_(1.001)
        return after


class Draws(Decay):
    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        return super().step(state, inputs + torch.rand(3, dtype=self.dtype), t, dt)


class Grows(Decay):
    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        after, out = super().step(state, inputs, t, dt)
        return after._replace(x=torch.cat([after.x, after.x[..., :1]], -1)), out


class ChangesDtype(Decay):
    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        after, out = super().step(state, inputs, t, dt)
        return after._replace(x=after.x.float()), out


class HasADtypeOfItsOwn(Decay):
    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Any:
        return self.State(torch.ones((*batch_shape, 3)), self.fill(batch_shape, 0.0))


class Explodes(Decay):
    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return super().derivative(state, inputs, t)._replace(x=1e300 * (1.0 + state.x**8))

    def linear(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return self.State(-1.0 / self.tau, torch.zeros_like(state.steps))


class MixesTheBatch(Decay):
    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        x = (inputs - state.x) / self.tau
        return self.State(x - x.mean(), torch.ones_like(state.steps))


class ReadsValues(Decay):
    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        return super().step(state, inputs, t, dt if float(state.x.max()) > 0.9 else 0.5 * dt)


class HidesAWeight(Decay):
    count = 0

    def __init__(self) -> None:
        super().__init__()
        HidesAWeight.count += 1
        self.scale = float(HidesAWeight.count)

    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return self.State((inputs - state.x) / self.scale, torch.ones_like(state.steps))


class HoldsAFunction(Decay):
    def __init__(self) -> None:
        super().__init__()
        self.response = lambda x: x  # which no pickle takes


class StatesAWrongSlope(Decay):
    def linear(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return self.State(-2.0 / self.tau, torch.zeros_like(state.steps))


class CutsTheGradient(Decay):
    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return (
            super().derivative(state, inputs, t)._replace(x=(inputs.detach() - state.x) / self.tau * state.x.detach())
        )


class ReadsTheTime(Decay):
    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return super().derivative(state, inputs * torch.cos(t), t)


class IgnoresTheStep(Decay):
    def advance(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        return super().advance(state, inputs, t, 0.1)


FAULTS: list[tuple[type[Decay], Callable[[Case], None], str]] = [
    (WritesToTheState, testing.check_purity, r"arguments after step 0: 3 of 3 elements of 0\.x differ"),
    (WritesToItself, testing.check_purity, r"stepping set \['last'\] on the system"),
    (Trains, testing.check_purity, r"taken twice|state_dict after"),
    (Draws, testing.check_purity, r"step 0 taken twice: 3 of 3 elements"),
    (Draws, testing.check_determinism, r"two runs of seed 1"),
    (Grows, testing.check_stability, r"state after step 0: expected x to be \(3,\) .*, got \(4,\)"),
    (ChangesDtype, testing.check_stability, r"expected x to be \(3,\) torch.float64, got \(3,\) torch.float32"),
    (
        HasADtypeOfItsOwn,
        testing.check_stability,
        r"init_state: expected dtype torch.float64 for 'x', got torch.float32",
    ),
    (HasADtypeOfItsOwn, testing.check_dtype, r"expected state\.x in torch.float64, got torch.float32"),
    (Explodes, testing.check_stability, r"expected finite values of 'x'"),
    (MixesTheBatch, testing.check_batch, r"batch element 1 against a single run"),
    (HidesAWeight, testing.check_state_dict, r"a run after load_state_dict"),
    (HidesAWeight, testing.check_determinism, r"two runs of seed 1"),
    (StatesAWrongSlope, testing.check_linear, r"linear: the slope of 'x': 3 of 3 elements .* differ"),
    (CutsTheGradient, testing.check_gradients, r"gradients of CutsTheGradient.derivative"),
    (ReadsTheTime, testing.check_time, r"an autonomous model at another t"),
    (IgnoresTheStep, testing.check_time, r"\(advance\(dt=1e-05\) - state\) / dt against derivative"),
]


def _case(model: type[Decay]) -> Case:
    inputs = torch.linspace(0.5, 2.0, 30)[:, None] * torch.tensor([1.0, -1.0, 2.0])
    return Case(model, inputs)


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_the_sound_model_passes(check: Callable[[Case], None]) -> None:
    check(_case(Decay))


@pytest.mark.parametrize(("model", "check", "message"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_fault_is_caught(model: type[Decay], check: Callable[[Case], None], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(_case(model))


def test_what_cannot_be_traced_mapped_or_pickled_says_so_itself() -> None:
    with pytest.raises(bt.LoopError):
        testing.check_native(_case(ReadsValues))
    with pytest.raises(RuntimeError, match="vmap"):
        testing.check_vmap(_case(ReadsValues))
    with pytest.raises(Exception, match="pickle"):
        testing.check_copies(_case(HoldsAFunction))


def test_a_model_said_to_have_no_derivative_must_refuse_gradients() -> None:
    with pytest.raises(AssertionError, match="expected an error, since a step has no derivative"):
        testing.check_native_gradients(dataclasses.replace(_case(Decay), differentiable=False))


def test_a_loop_that_differs_is_caught() -> None:
    # Noise from the global generator differs between two runs of the same loop.
    with pytest.raises(AssertionError, match=r"a run in pieces|the final state of a run in pieces"):
        testing.check_chunks(_case(Draws))


def test_the_whole_contract_runs_every_check_but_those_left_out() -> None:
    testing.check_contract(_case(Decay), without=[testing.check_inductor, testing.check_native])
    with pytest.raises(AssertionError, match="linear"):
        testing.check_contract(_case(StatesAWrongSlope), without=[testing.check_inductor, testing.check_native])
