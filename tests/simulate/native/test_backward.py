"""Gradients, through the native loop, of operations whose backward operations PyTorch does not take apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bdtorch as bt

pytestmark = pytest.mark.usefixtures("compiled_quickly")
D = torch.float64
Function = Callable[[Tensor, Tensor], Any]


class Model(bt.DynamicalSystem):
    """v' = 0.9 sin(v + 0.1 t), and shows a function of it and of a parameter."""

    def __init__(self, shape: tuple[int, ...], weight: tuple[int, ...], function: Function) -> None:
        super().__init__(shape, dtype=D)
        generator = torch.Generator().manual_seed(0)
        self.start = torch.randn(shape, generator=generator, dtype=D)
        self.weight = nn.Parameter(torch.randn(weight, generator=generator, dtype=D))
        self.function = function

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return self.start.expand((*batch_shape, *self.start.shape)).clone()

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Any]:
        shown = self.function(state, self.weight)
        return 0.9 * torch.sin(state + 0.1 * t) + 0.01 * shown.sum(), shown


def expect_gradients_of_the_reference(make: Callable[[], Model]) -> None:
    found = []
    for loop in ("reference", bt.Native(threads=2, recompute=2)):
        system = make()
        start = system.init_state().requires_grad_()
        out = bt.simulate(system, dt=0.1, duration=0.4, state=start, loop=loop).out
        weights = torch.linspace(-1.0, 1.0, out.numel(), dtype=D).view(out.shape)
        found.append([out.detach(), *torch.autograd.grad((out * weights).sum(), [start, *system.parameters()])])
    for native in found[1:]:
        for x, y in zip(native, found[0], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9 * max(1.0, float(y.abs().max())))


def along(size: int, kernel: int, out: int, groups: int, **options: Any) -> tuple[Any, Any, Function]:
    channels = 2 * groups
    function = lambda x, w: F.conv1d(x, w, w.sum((1, 2)), groups=groups, **options)  # noqa: E731
    return (2, channels, size), (out, 2, kernel), function


def matrix(v: Tensor, w: Tensor) -> Tensor:
    return w + torch.diag(torch.tanh(v) + 6.0)


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Function]] = {
    "convolution": along(9, 3, 4, 1, stride=2, padding=1),
    "convolution with gaps": along(9, 3, 4, 2, padding=0, dilation=2),
    "convolution that leaves the end": along(7, 2, 6, 3, stride=3, padding=2),
    "convolution with wide padding": along(10, 3, 4, 2, stride=2, padding=3, dilation=2),
    "convolution over two axes": (
        (2, 2, 6, 5),
        (3, 2, 2, 3),
        lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(0, 1)).tanh(),
    ),
    "average pooling": ((2, 3, 7, 8), (1,), lambda x, w: F.avg_pool2d(w * x, (3, 2), 2) ** 2),
    "average pooling that overlaps": (
        (3, 7, 8),
        (1,),
        lambda x, w: F.avg_pool2d(w * x, 3, (1, 2), divisor_override=2) ** 2,
    ),
    "upsampling": ((1, 2, 4), (1,), lambda x, w: F.interpolate(w * x, scale_factor=2.5) ** 2),
    "upsampling to a size": ((1, 2, 4, 3), (1,), lambda x, w: F.interpolate(w * x, size=(7, 2)) ** 2),
    "solving": ((5,), (5, 5), lambda v, w: torch.linalg.solve(matrix(v, w), v)),
    "solving by the transpose": ((5,), (5, 5), lambda v, w: torch.linalg.solve(matrix(v, w).T, w[:, :2])),
    "determinant": ((4,), (4, 4), lambda v, w: torch.linalg.det(matrix(v, w)) * 1e-3 + torch.linalg.det(w.T + v)),
    "one-hot": ((5,), (5,), lambda v, w: F.one_hot((v * w).argmax(), 5) * w + F.one_hot(v.argmin(), num_classes=6)[:5] * v),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    expect_gradients_of_the_reference(lambda: Model(*CASES[name]))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_determinant_of_exactly_0_has_the_slope_that_pytorch_gives_it(rank: int) -> None:
    """PyTorch divides by the pivots, of which it moves those that are 0: nothing is left of a slope that is 0 times that."""

    def shown(v: Tensor, w: Tensor) -> Tensor:
        matrix = torch.stack([v.sign() * 2, v.sign() * 4, v.sign() if rank < 2 else w])
        return torch.linalg.det(matrix * (1.0 if rank else 0.0)) + (v * w).sum() * 0.1

    expect_gradients_of_the_reference(lambda: Model((3,), (3,), shown))


def test_a_nearly_singular_determinant_has_its_cofactors_for_a_slope() -> None:
    def shown(v: Tensor, w: Tensor) -> Tensor:
        return torch.linalg.det(torch.stack([w, w * 2 + 1e-7 * v, v.cos()]))

    model = Model((3,), (3,), shown)
    start, w = model.init_state(), model.weight
    (found,) = torch.autograd.grad(bt.simulate(model, dt=0.1, duration=0.1, state=start, loop="native").out.sum(), w)
    rows = torch.stack([w, w * 2 + 1e-7 * start, start.cos()]).detach()
    a, b, c = rows
    expected = torch.linalg.cross(b, c) + 2 * torch.linalg.cross(c, a)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_gradients_of_weight_normalisation() -> None:
    def make() -> Model:
        torch.manual_seed(0)
        model = Model((3,), (1,), lambda v, w: model.layer(w * v))
        model.layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2, dtype=D))
        return model

    expect_gradients_of_the_reference(make)


def test_a_class_out_of_range_stops_the_run() -> None:
    class Count(bt.DynamicalSystem):
        def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
            return torch.zeros((), dtype=torch.int64)

        def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
            return state + 1, F.one_hot(state, 3)

    sol = bt.simulate(Count(()), dt=1.0, duration=3.0, loop="native")
    assert torch.equal(sol.out, torch.eye(3, dtype=torch.int64))
    with pytest.raises(IndexError, match=r"out of range in step 4: .*\(test_backward\.py:"):
        bt.simulate(Count(()), dt=1.0, duration=5.0, loop="native")
