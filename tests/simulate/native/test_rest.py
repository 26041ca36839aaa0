"""Elements behind the last whole vector of a pass, which are copied to vectors of their own: no bit tells."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate.loops.native.made import generate
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.stepping import Step, body_of, run

MOST = 200


def step_of(n: int) -> Step:
    """Long enough for the copies to pay: of two neighbours in one array, a truth value, and whole numbers that divide."""

    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        a, pair, fired, count = x
        left, right = pair[:n], pair[n:]
        for _ in range(3):
            a = torch.exp(-a * a) + torch.log1p(a.abs()) * left - torch.where(fired, right.tanh(), a.sin())
        spikes = a > 0.4
        return [a, torch.cat([left + a, right.cos()]), spikes, 1 + 1000 // count], (spikes, a)

    return step


@functools.cache
def drawn(dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    a, left, right = (torch.randn(MOST, generator=generator, dtype=dtype) for _ in range(3))
    return a, left, right, a > 0, torch.randint(1, 9, (MOST,), generator=generator)


def state(n: int, dtype: torch.dtype) -> list[Tensor]:
    a, left, right, fired, count = (x[:n] for x in drawn(dtype))
    return [a, torch.cat([left, right]), fired, count]


def test_the_copies_are_made_where_they_pay() -> None:
    def text(step: Step, n: int) -> str:
        body = body_of(step, *(initial := state(n, torch.float32)))
        return generate(body, trace(body, initial))[1]

    def light(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        return [x[0] * 0.5, *x[1:]], x[0] > 0

    assert all("take_rest" in text(step_of(n), n) for n in (12, 26, 100))
    assert not any("take_rest" in text(step_of(n), n) for n in (1, 64))
    assert not any("take_rest" in text(light, n) for n in (12, 26, 100))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_element_knows_how_many_there_are(dtype: torch.dtype, threads: int) -> None:
    """Neither by the rest it belongs to, nor by what lies behind it in the same array."""
    whole = run(step_of(128), *state(128, dtype), loop=bt.Native(threads=1), steps=5)  # has no rest
    reference = run(step_of(MOST), *state(MOST, dtype), loop="reference", steps=1)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for n in (5, 8, 26, 63, 65, 100, 127, 170):
        solution = run(step_of(n), *state(n, dtype), loop=bt.Native(threads=threads), steps=5)
        spikes, a, last, pair, fired, count = [*solution.out, *solution.state.values()]
        assert torch.equal(spikes, a > 0.4) and torch.equal(fired, spikes[-1]) and torch.equal(last, a[-1])
        if n < 128:
            both, counts = whole.state["x1"], whole.state["x3"]
            assert torch.equal(a, whole.out[1][:, :n]) and torch.equal(count, counts[:n])
            assert torch.equal(pair, torch.cat([both[:n], both[128 : 128 + n]]))
        torch.testing.assert_close(a[0], reference.out[1][0, :n], rtol=tolerance, atol=tolerance)
