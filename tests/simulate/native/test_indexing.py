"""Indexing of every form, reductions onto places, and integers that wrap: each against PyTorch step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import bdtorch as bt
from bdtorch.simulate.loops import LoopError
from tests.simulate.native.stepping import assert_same, both, run

X = torch.linspace(-2.0, 2.0, 6)
Y = torch.arange(24.0).view(2, 3, 4)
I = torch.tensor([-3, -1, 2, 0, 1, 5])  # noqa: E741
K = torch.tensor(2)
put = torch.ops.aten.index_put
MASK = torch.tensor([True, False, True, True, False, True])


def into_rings(x: Tensor, y: Tensor, i: Tensor, k: Tensor) -> Any:
    ring, deep = x.clone(), y.clone()
    ring[k % 6] = 7.0
    ring[(k + 1) % 6] += 1
    deep[k % 2] = y[1] * 2
    deep[:, (k - 3) % 3] -= y[:, 0]
    deep[k % 2, :, k] += y[0, :, 1]
    deep[..., k - 2] *= 2
    deep[None, k % 2, 1, k] = -1.0
    return ring, deep


def in_place(x: Tensor, y: Tensor, i: Tensor, k: Tensor) -> Any:
    z, w = i.clone(), x.abs()
    z <<= 1
    z |= i
    z >>= i.abs()
    z **= 2
    z &= 7
    z ^= i
    w **= x
    return z, w


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Any]] = {
    "other integers": lambda x, y, i, k: (x[i.int() % 6], y[:, (i % 3).int()]),
    "later axes": lambda x, y, i, k: (y[:, i % 3, i % 4], y[..., i % 4], y[:, 1, i % 4], y[:, (i % 3)[:, None], i % 4]),
    "axes apart": lambda x, y, i, k: (y[i % 2, :, i % 4 - 4], y[0, :, i % 4], y[(i % 2)[:, None], 1:, (i % 4)[:2]]),
    "constant masks": lambda x, y, i, k: (x[MASK], y[:, MASK[:3]], y[MASK[:2]], y[:, MASK[:3], 2]),
    "single numbers": lambda x, y, i, k: (x[i[2]], y[k % 2], y[:, k], y[..., k], y[k % 2, k], y[None, k % 2, :, k], y[1, k],
                                          y[k % 2, ..., k - 3], y[k % 2 - 2, 1:, None, k], y[k % 2, 2, k]),
    "rings": into_rings,
    "in place": in_place,
    "put at one axis": lambda x, y, i, k: (
        put(x, [i.int() % 6], x), put(x, [i % 6], x[0], True), put(y, [None, i[:2] % 3], y[:, :2] * 2)),
    "put at several": lambda x, y, i, k: (put(y, [i % 2, i % 3], y[0, 0]), put(y, [i % 2, i % 3], x[0], True),
                                          put(y, [None, i % 3, i % 4], x[1]), put(y, [i % 2, None, i % 4], x[1])),
    "put where": lambda x, y, i, k: (put(y, [None, y[0, :, 0] > 5], x[0]), put(y, [y > 7], x[1], True)),
    "reduced onto places": lambda x, y, i, k: [
        z.scatter_reduce(0, i % 3, z, how, include_self=within)
        for z in (x, i) for how in ("sum", "prod", "amax", "amin") for within in (True, False)
    ] + [x.scatter_reduce(0, i % 3, x, "mean", include_self=within) for within in (True, False)],
    "truth onto places": lambda x, y, i, k: [
        (x > 0).scatter_reduce(0, i % 3, x < 1, how, include_self=within) for how in ("amax", "amin") for within in (True, False)
    ],
    "remainders of a number": lambda x, y, i, k: (7 % x, 2**31 % x, torch.remainder(7, x)),
    "axes of a single number": lambda x, y, i, k: (k.sum(-1), k.amax(0), k.prod(-1), (k > 1).all(0), x[0].logsumexp(0),
                                                   x[1].softmax(-1), x[2].transpose(0, -1), x[3].flip(0), x[4].squeeze(-1)),
    "parts without elements": lambda x, y, i, k: (torch.cat([x[:0], x[6:]]).exp(), torch.stack([y[:0], y[:0]])),
    "no places": lambda x, y, i, k: (y.gather(1, i[:0]), y.scatter(0, i[:0], 2.0), x.scatter_add(0, i[:0], x[:0])),
    "bytes": lambda x, y, i, k: ((i % 6).to(torch.uint8) * 100, (i % 6).to(torch.uint8).any(0), ~(i % 6).to(torch.uint8)),
    "truth with bytes": lambda x, y, i, k: torch.maximum((x > 0) | (x < -1), i > 0),
    "far weights": lambda x, y, i, k: torch.lerp(x, 1 / (x + 2.0), -x),
}  # fmt: skip


def test_every_form_equals_pytorch() -> None:
    """In one loop, which is compiled once."""

    def step(leaves: list[Tensor], t: Tensor) -> Any:
        x, y, i, k = leaves
        return [x.roll(1), y.flip(2), i, (k + 1) % 3], {name: form(*leaves) for name, form in FORMS.items()}

    native, reference = (run(step, X, Y, I, K, loop=loop, steps=4) for loop in ("native", "reference"))
    for name in FORMS:
        for one, other in zip(tree_leaves(native.out[name]), tree_leaves(reference.out[name]), strict=True):
            try:
                assert_same(one, other, exact=False)
            except AssertionError as error:
                raise AssertionError(name) from error


def test_a_single_number_out_of_range_is_named() -> None:
    step = lambda s, t: ([s[0], s[1] + 1], s[0][s[1]])  # noqa: E731
    with pytest.raises(IndexError, match=r"out of range in step 5: aten.index.Tensor \(test_indexing"):
        run(step, X, K, loop="native", steps=9)


def test_a_slice_of_changing_length_is_refused() -> None:
    with pytest.raises(LoopError, match=r"needs the value of a tensor while tracing.*test_indexing"):
        run(lambda s, t: (s, s[0][s[1] :][0]), X, K, loop="native")


def test_integers_wrap_as_in_pytorch() -> None:
    """The compiler may not assume that sums are greater than their parts."""
    for dtype in (torch.int64, torch.int32, torch.int16):
        top = torch.iinfo(dtype).max
        x = torch.tensor([top, top - 1, -top - 1, 5, 0], dtype=dtype)

        def step(s: list[Tensor], t: Tensor) -> Any:
            (a,) = s
            return [a * 6364136223846793005 + 1442695040888963407], (
                a + 1 > a, a - 1 < a, a * 2 // 2, -a, a.abs() < 0, a.sum(), a.cumsum(0), a.prod(), torch.maximum(a + 1, a), a**3,
            )  # fmt: skip

        for native, reference in zip(*both(step, x, steps=4), strict=True):
            assert torch.equal(native, reference)


def test_gradients_of_look_ups() -> None:
    class Ring(bt.DynamicalSystem):
        def __init__(self) -> None:
            super().__init__((6,), dtype=torch.float64)
            self.table = nn.Parameter(torch.linspace(-1.0, 1.0, 18, dtype=torch.float64).view(3, 6))

        def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
            return {"ring": torch.linspace(0.0, 1.0, 6, dtype=torch.float64), "k": torch.tensor(0)}

        def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
            ring, k = state["ring"].clone(), state["k"]
            ring[k % 6] = (self.table[k % 3] * state["ring"]).sum()
            ring = ring + self.table[:, I % 6].amax(0) * self.table.diagonal(1).sum()
            reduced = ring.scatter_reduce(0, I % 3, ring * self.table[k % 3, 2], "amax")
            return {"ring": torch.tanh(ring), "k": k + 1}, reduced

    gradients = []
    for loop in ("native", "reference"):
        system = Ring()
        sol = bt.simulate(system, dt=0.1, duration=1.0, loop=loop)
        (sol.out * torch.linspace(0.5, 1.5, 6, dtype=torch.float64)).sum().backward()
        gradients.append(system.table.grad)
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
