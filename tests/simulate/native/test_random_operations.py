"""Random operations on tensors of any shape, layout and dtype: the native loop does what PyTorch does, or says why not.

`test_random_graphs.py` has the planner on trial with many operations on one shape; here it is each operation's own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch.simulate.loops import LoopError
from bdtorch.simulate.loops.native import compiler
from bdtorch.simulate.loops.native.made import generate, prepared
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.cases import Case
from tests.simulate.native.stepping import body_of, flat, run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of arguments that nobody would choose
D = torch.float64
STEPS = 3


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch):
    """What operations mean is on trial here, not the optimiser."""
    monkeypatch.setattr(compiler, "FLAGS", tuple("-O1" if flag == "-O3" else flag for flag in compiler.FLAGS))


def step_of(cases: Sequence[Case]) -> Callable[[list[Tensor], Tensor], tuple[list[Tensor], list[list[Tensor]]]]:
    def step(leaves: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        after, seen = [], []
        for number, case in enumerate(cases):
            own = leaves[7 * number : 7 * number + 7]
            after += case.after(own)
            seen.append(case.run(own))
        return after, seen

    return step


def is_taken(case: Case) -> bool:
    """Whether the native loop takes a case; what it refuses it must refuse by name."""
    try:
        generate(body := body_of(step_of([case]), *case.leaves), prepared(trace(body, case.leaves)))
    except LoopError as error:
        if not (str(error).startswith("the native loop cannot run this model") and ".py:" in str(error)):
            raise
        return False
    return True


def assert_equals(native: Tensor, reference: Tensor, case: Case) -> None:
    assert native.dtype == reference.dtype and native.shape == reference.shape, case
    single = any(x.dtype == torch.float32 for x in (native, *case.leaves, *case.run(case.leaves)))
    relative = (2e-5 if single else 1e-10) if native.is_floating_point() else 0.0
    finite = reference.to(D).nan_to_num(0.0, 0.0, 0.0)
    scale = max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    text = lambda default: f"{case}\n{default}"  # noqa: E731
    torch.testing.assert_close(native, reference, rtol=relative, atol=relative * scale, equal_nan=True, msg=text)


def check(first: int, count: int) -> None:
    cases = [case for case in map(Case, range(first, first + count)) if case.operations]
    taken = [case for case in cases if is_taken(case)]
    assert len(taken) > 0.85 * len(cases)
    step, state = step_of(taken), [x for case in taken for x in case.leaves]
    reference, native = (run(step, *state, loop=loop, steps=STEPS) for loop in ("reference", bt.Native(threads=1)))
    for case, those, expected in zip(taken, native.out, reference.out, strict=True):
        for one, other in zip(those, expected, strict=True):
            assert_equals(one, other, case)
    for threads in (2, 3):
        several = flat(run(step, *state, loop=bt.Native(threads=threads), steps=STEPS))
        assert all(bool(((x == y) | ((x != x) & (y != y))).all()) for x, y in zip(several, flat(native), strict=True))


def test_operations() -> None:
    check(0, 110)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 250))
def test_many_operations(first: int) -> None:
    check(first, 250)


class Trained(bt.DynamicalSystem):
    """Cases whose floating leaves have a parameter each, which is added in every step."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__((), dtype=D)
        self.cases = cases
        self.leaves = [x for case in cases for x in case.leaves]
        generator = torch.Generator().manual_seed(0)
        self.added = nn.ParameterDict({
            str(k): nn.Parameter(0.1 * torch.randn(x.shape, dtype=D, generator=generator))
            for k, x in enumerate(self.leaves) if x.is_floating_point()
        })  # fmt: skip

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
        return {f"x{k}": x.clone().requires_grad_(x.is_floating_point()) for k, x in enumerate(self.leaves)}

    def step(self, state: dict[str, Tensor], inputs: Any, t: Tensor, dt: float) -> Any:
        values = [x + self.added[str(k)] if str(k) in self.added else x for k, x in enumerate(state.values())]
        after, seen = step_of(self.cases)(values, t)
        return dict(zip(state, (0.9 * x if x.is_floating_point() else x for x in after), strict=True)), seen


def gradients(cases: Sequence[Case], loop: Any) -> list[Tensor]:
    system = Trained(cases)
    start = system.init_state()
    sol = bt.simulate(system, dt=0.1, duration=0.4, state=start, loop=loop, check_finite=False, keep_out=True)
    ends = [x for x in flat(sol) if x.requires_grad and x.numel()]
    weights = [torch.linspace(-1.0, 1.0, x.numel(), dtype=x.dtype).view(x.shape) for x in ends]
    sources = [*system.added.values(), *(x for x in start.values() if x.requires_grad)]
    found = torch.autograd.grad(ends, sources, weights, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, sources, strict=True)]


def has_gradient(case: Case) -> bool:
    """Whether PyTorch has one."""
    try:
        return any(x.is_floating_point() for x in case.run(case.leaves)) and bool(gradients([case], "reference"))
    except RuntimeError:  # it does not, in many words: of integers, of truth values, of reductions that it forgot
        return False


def has_native_gradient(case: Case) -> bool:
    """Whether the native loop takes it; what it refuses it must refuse by name."""
    try:
        gradients([case], Refusing())
    except LoopError as error:
        if not str(error).startswith("the native loop cannot run this model"):
            raise
        return False
    return True


class Refusing(bt.Native):
    """Traces and lays out what a gradient needs, and takes the reference loop then: nothing is compiled."""

    def start(self, body: Any, state: list[Tensor]) -> Any:
        from bdtorch.simulate.loops.native.reverse import Reversed, reversed_graph

        parameters = {k: v for k, v in body.system.state_dict(keep_vars=True).items() if v.requires_grad}
        reverse = Reversed(body, state, [], [], parameters)
        generate(body, prepared(trace(body, state)))
        generate(reverse, prepared(reversed_graph(reverse).graph))
        return bt.Reference().start(body, state)


def is_exact(case: Case) -> bool:
    """Whether it computes in double precision, and with numbers; `pow` with NaN has a gradient only in PyTorch."""
    return not any(word in text for text, *_ in case.operations for word in ("float32", "nan"))


def check_gradients(first: int, count: int) -> None:
    drawn = [Case(seed, dtypes=(D, torch.int64, torch.bool), special=False) for seed in range(first, first + count)]
    cases = [case for case in drawn if is_exact(case) and has_gradient(case)]
    taken = [case for case in cases if has_native_gradient(case)]
    assert len(taken) > 0.75 * len(cases)  # gradients of a few are refused, by name
    expected = gradients(taken, "reference")
    for loop in (bt.Native(threads=1), bt.Native(threads=2, recompute=3)):
        for number, (native, reference) in enumerate(zip(gradients(taken, loop), expected, strict=True)):
            scale = float(reference.nan_to_num(0.0, 0.0, 0.0).abs().max()) if reference.numel() else 0.0
            text = lambda default, number=number: f"gradient {number} of {len(expected)}: {default}"  # noqa: E731
            torch.testing.assert_close(
                native, reference, rtol=1e-9, atol=1e-9 * max(1.0, scale), equal_nan=True, msg=text
            )


def test_gradients() -> None:
    check_gradients(0, 40)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1400, 100))
def test_gradients_of_many(first: int) -> None:
    check_gradients(first, 100)
