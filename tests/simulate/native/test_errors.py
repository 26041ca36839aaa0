"""What the native loop refuses says what and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bdtorch as bt
from bdtorch.simulate.loops import LoopError
from bdtorch.simulate.loops.native import decompositions
from tests.simulate.native.stepping import assert_same, both, run

V = torch.linspace(-1.0, 1.0, 9)
WEIGHTS = torch.ones(9)


@torch.library.custom_op("bdtorch_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x * 2.0


@mystery.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    def backward(ctx, g):
        return g * 2.0


STEPS = {
    "bounds": (
        lambda x: x + torch.histc(x, 3)[0],
        r"no lowering to C\+\+: a histogram between bounds that are not given",
    ),
    "a mask among indices": (
        lambda x: x.view(3, 3).index_put((torch.tensor(True), torch.tensor([1])), x[:3]),
        r"no lowering to C\+\+: a mask without axes; use torch\.where",
    ),
    "strides": (lambda x: torch.as_strided(x[1:], (9,), (1,), 0), r"no lowering to C\+\+: as_strided beyond"),
    "mean": (
        lambda x: x.long().scatter_reduce(0, torch.arange(9), x.long(), "mean", include_self=False),
        r"no lowering to C\+\+: a mean of integers; use scatter_add and a division",
    ),
    "random": (lambda x: x + torch.rand(9), r"aten\.rand\.default draws from torch's global generator"),
    "dropout": (lambda x: torch.dropout(x, 0.5, True), r"draws from torch's global generator"),
    "item": (lambda x: x * x.max().item(), r"item needs the value of a tensor"),
    "float": (
        lambda x: x * float(x[0]),
        r"needs the value of a tensor while tracing: write the choice with torch\.where",
    ),
    "branch": (lambda x: x if x.max() > 0 else -x, r"needs the value of a tensor"),
    "masked": (lambda x: x + x[x > 0].sum(), r"needs the value of a tensor|indices other than int64"),
    "nonzero": (lambda x: x + (x > 0).nonzero().sum(), r"needs the value of a tensor"),
    "print": (lambda x: x + len(str(x)), r"__repr__ takes a tensor out of PyTorch"),
    "format": (lambda x: x + len(f"{x}"), r"__format__ takes a tensor out of PyTorch"),
    "numpy": (lambda x: x + float(x.numpy()[0]), r"numpy takes a tensor out of PyTorch"),
    "array": (lambda x: x + float(np.asarray(x)[0]), r"__array__ takes a tensor out of PyTorch"),
    "list": (lambda x: x + x.tolist()[0], r"tolist takes a tensor out of PyTorch"),
    "parameter": (
        lambda x: x + WEIGHTS.add_(1.0),
        r"add_\.Tensor writes to .* a parameter or a buffer; step must be pure",
    ),
    "out": (lambda x: torch.add(x, x, out=torch.empty(9)), r"add\.out writes to tensors in a way"),
    "eight bits": (lambda x: x.to(torch.float8_e5m2).float(), r"dtype torch\.float8_e5m2"),
    "complex": (lambda x: torch.view_as_real(x + 1j)[..., 0], r"add\.Tensor works with complex numbers"),
    "made complex": (lambda x: torch.complex(x, x).abs(), r"aten\.complex\.default works with complex .*apart"),
    "cast to complex": (lambda x: x.to(torch.complex64).abs(), r"abs\.default works with complex numbers"),
    "seen as complex": (lambda x: torch.view_as_complex(x[:8].view(4, 2)).real, r"view_as_complex\.default works with"),
    "masked_select": (
        lambda x: x + x.masked_select(x > 0).sum(),
        r"masked_select\.default needs the value of a tensor",
    ),
    "factors": (lambda x: torch.linalg.lu_factor(torch.diag(x) + 3.0)[0], r"lu_factor_ex\.default has no lowering"),
    "an error code": (
        lambda x: torch.linalg.inv_ex(torch.diag(x) + 3.0)[1] + x,
        r"aten\.linalg_inv_ex\.default is asked for more than its result",
    ),
    "mode": (lambda x: x - x.mode()[0], r"aten\.mode\.default has no lowering to C\+\+"),
    "fft": (lambda x: torch.fft.rfft(x).abs().sum() + x, r"aten\._fft_r2c\.default has no lowering"),
    "custom op": (mystery, r"bdtorch_tests\.mystery\.default has no lowering"),
}


@pytest.mark.parametrize("name", STEPS)
def test_refusals_name_operation_and_line(name):
    function, message = STEPS[name]
    with pytest.raises(LoopError, match=message) as caught:
        run(lambda x, t: (x, function(x[0])), V.clone(), loop="native")
    assert "test_errors.py:" in str(caught.value)


def test_writing_to_the_state_is_an_error_of_the_front_door():
    with pytest.raises(RuntimeError, match=r"step must not write to its arguments.*'x0'"):
        run(lambda x, t: ([x[0].add_(1.0)], x[0]), V.clone(), loop="native")


def test_a_changing_shape_is_an_error_of_the_front_door():
    with pytest.raises(ValueError, match=r"step must keep shape.*'x0' was \(9,\) .* and became \(8,\)"):
        run(lambda x, t: ([x[0][1:]], x[0]), V.clone(), loop="native")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "read",
    [
        lambda x, i: x.gather(0, i),
        lambda x, i: x.index_select(0, i),
        lambda x, i: x[i],
        lambda x, i: x.scatter(0, i, 1.0),
    ],
)
@pytest.mark.parametrize("direction", [1, -4])
def test_an_index_out_of_range_stops_the_run(threads, read, direction):
    def step(x, t):
        return [x[0], x[1] + direction], read(*x)

    with pytest.raises(IndexError, match=r"an index is out of range in step \d+: aten\.\w+\.\w+ \(test_errors\.py:"):
        run(step, V, torch.arange(3, 6), loop=bt.Native(threads=threads), steps=9)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "divide",
    [
        lambda x: 10 // x,
        lambda x: torch.arange(9, dtype=torch.int32) % x.int(),
        lambda x: x.roll(1).fmod(x[2]),
        lambda x: torch.div(x, x.view(3, 3).t().reshape(9), rounding_mode="trunc"),
        lambda x: (x.to(torch.int16) % (-x.to(torch.int16))).long() + x // (x * 0 + x[2]),
    ],
)
def test_integers_are_divided_by_what_changes_until_it_is_0(threads, divide):
    def step(x, t):
        return [x[0] - 1], divide(x[0])

    start, loop = torch.tensor([9, 8, 5, 11, 12, 40, 7, 6, 99]), bt.Native(threads=threads)
    native, reference = (run(step, start, loop=each, steps=5) for each in (loop, "reference"))
    assert torch.equal(native.out, reference.out)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run(step, start, loop="reference", steps=8)
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: .* in step 6 \(test_errors\.py:"):
        run(step, start, loop=loop, steps=8)


def test_functions_of_a_user_are_seen_through():
    def step(x, t):
        return x, Doubled.apply(x[0]) + torch.func.vmap(lambda row: row * row.sum())(x[0].view(3, 3)).view(9)

    for native, reference in zip(*both(step, V), strict=True):
        assert_same(native, reference, exact=False)


def test_derivatives_within_a_step():
    def step(x, t):
        value, slope = torch.func.jvp(lambda v: torch.exp(-v) * v, (x[0],), (torch.ones_like(x[0]),))
        return [x[0] + 0.1 * value], slope

    for native, reference in zip(*both(step, V), strict=True):
        assert_same(native, reference, exact=False)


def test_forward_derivatives_of_what_holds_numbers():
    """A number has a tangent of zeros that have no memory."""

    def step(x, t):
        def function(v):
            return 3.0 * v - (2.0 - v) / 4.0 + 1.0 / (1.5 + v * v) + torch.where(v > 0, 2.0 * v, 0.5)

        value, slope = torch.func.jvp(function, (x[0],), (x[0] + 1.0,))
        return [0.1 * value], slope

    for native, reference in zip(*both(step, V), strict=True):
        assert_same(native, reference, exact=False)


def test_constants_written_to_within_a_step():
    def step(x, t):
        weights = torch.ones(9)
        before = weights * x[0]
        weights.mul_(3.0)
        weights.add_(x[0])
        twin = weights.detach()
        twin.sub_(0.5)
        return [weights * 0.1], (before, weights, twin)

    for native, reference in zip(*both(step, V), strict=True):
        assert_same(native, reference, exact=True)


def test_states_that_are_tensors_of_the_model():
    def step(x, t):
        return [x[0] + WEIGHTS, x[1] * 0.5, x[2]], x[0] + x[1] * WEIGHTS

    for native, reference in zip(*both(step, WEIGHTS, WEIGHTS, WEIGHTS.view(3, 3).t()), strict=True):
        assert_same(native, reference, exact=True)


def test_what_fails_only_in_the_trace_names_the_line(monkeypatch):
    """A decomposition may refuse what PyTorch's kernel takes."""
    monkeypatch.setitem(decompositions.TABLE, "aten.roll.default", len)  # which takes one argument
    message = r"cannot trace this model: TypeError: len.* \(test_errors.py:\d+: .*x\[0\].roll\(1\)"
    with pytest.raises(LoopError, match=message):
        run(lambda x, t: (x, x[0].roll(1)), torch.linspace(-1.0, 1.0, 4), loop="native")


def test_a_decomposition_that_gives_up_names_the_operation(monkeypatch):
    monkeypatch.setitem(decompositions.TABLE, "aten.roll.default", lambda *arguments, **options: NotImplemented)
    with pytest.raises(LoopError, match=r"roll\.default has no lowering to C\+\+ \(test_errors\.py:"):
        run(lambda x, t: (x, x[0].roll(1)), V.clone(), loop="native")
