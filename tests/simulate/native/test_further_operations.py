"""Operations that are taken apart in families, forward and backward: each family is one model, shown name by name."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bdtorch as bt

pytestmark = pytest.mark.usefixtures("compiled_quickly")
D = torch.float64
INF = math.inf
FIXED = torch.linspace(-1.0, 1.0, 16, dtype=D).cos().roll(5).view(4, 4) + torch.eye(4, dtype=D)
FACTORS = torch.linalg.lu_factor(FIXED)
START = torch.linspace(-1.0, 1.2, 24, dtype=D)[torch.arange(24) * 7 % 24]
Function = Callable[[Tensor], Any]


def image(x: Tensor) -> Tensor:
    return x.view(1, 1, 4, 6)


def rows(x: Tensor) -> Tensor:
    return x.view(4, 6)


def square(x: Tensor) -> Tensor:
    return rows(x) @ rows(x).T + 2 * torch.eye(4, dtype=x.dtype)


def heads(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q = x.view(1, 2, 3, 4)
    return q, torch.sin(2 * q), torch.cos(q)


def weights(x: Tensor, *shape: int) -> Tensor:
    """A weight that depends on the state, so that it has a gradient too."""
    n = math.prod(shape)
    return (x.repeat(-(-n // x.numel()))[:n] * torch.linspace(-1, 1, n, dtype=x.dtype)).view(shape)


FAMILIES: dict[str, dict[str, Function]] = {
    "average pooling": {
        "padding": lambda x: F.avg_pool2d(image(x), 2, padding=1),
        "one axis": lambda x: F.avg_pool1d(x.view(1, 2, 12), 3, 2, padding=1),
        "without the padding": lambda x: F.avg_pool2d(image(x), (2, 3), padding=1, count_include_pad=False),
        "ceil_mode": lambda x: F.avg_pool2d(image(x), 3, 2, ceil_mode=True),
        "ceil_mode and padding": lambda x: F.avg_pool2d(x.view(2, 3, 4), (2, 3), 2, padding=1, ceil_mode=True),
        "windows that leave the end": lambda x: F.avg_pool2d(image(x), 2, 3),
        "a divisor": lambda x: F.avg_pool2d(image(x), 2, (1, 2), padding=1, divisor_override=3),
        "three axes": lambda x: F.avg_pool3d(x.view(1, 1, 2, 3, 4), 2, padding=1, ceil_mode=True, count_include_pad=False),
        "to a size": lambda x: F.adaptive_avg_pool2d(image(x), (3, 4)),
        "to a size, one axis": lambda x: F.adaptive_avg_pool1d(x.view(1, 24), 7),
        "to a size, three axes": lambda x: F.adaptive_avg_pool3d(x.view(1, 2, 3, 4), (1, 2, 3)),
        "area": lambda x: F.interpolate(image(x), size=(3, 5), mode="area"),
        "norms": lambda x: F.lp_pool1d(x.view(1, 1, 24).exp(), 3, 4),
    },
    "pooling of the greatest": {
        "padding": lambda x: F.max_pool2d(image(x), 3, 2, padding=1, ceil_mode=True),
        "gaps": lambda x: F.max_pool2d(image(x), 2, 1, dilation=2),
        "three axes": lambda x: F.max_pool3d(x.view(1, 1, 2, 3, 4), 2, padding=1),
        "to a size": lambda x: F.adaptive_max_pool2d(image(x), (3, 4)),
        "to a size, one axis": lambda x: F.adaptive_max_pool1d(x.view(1, 24), 7),
        "to a size, three axes": lambda x: F.adaptive_max_pool3d(x.view(1, 2, 3, 4), (1, 2, 3)),
        "where": lambda x: F.adaptive_max_pool2d(image(x), (2, 5), return_indices=True)[1].double() * x[0],
    },
    "resampling": {
        "linear": lambda x: F.interpolate(x.view(1, 2, 12), size=7, mode="linear"),
        "linear, aligned": lambda x: F.interpolate(x.view(1, 2, 12), scale_factor=1.7, mode="linear", align_corners=True),
        "bilinear": lambda x: F.interpolate(image(x), size=(7, 3), mode="bilinear"),
        "bilinear, by a scale": lambda x: F.interpolate(
            image(x), scale_factor=(1.6, 0.7), mode="bilinear", recompute_scale_factor=False
        ),
        "bicubic": lambda x: F.interpolate(image(x), size=(5, 8), mode="bicubic"),
        "bicubic, aligned": lambda x: F.interpolate(image(x), size=(5, 8), mode="bicubic", align_corners=True),
        "trilinear": lambda x: F.interpolate(x.view(1, 1, 2, 3, 4), size=(3, 2, 5), mode="trilinear"),
        "nearest": lambda x: F.interpolate(x.view(1, 1, 2, 3, 4), size=(3, 2, 5)),
        "nearest, centred": lambda x: F.interpolate(image(x), size=(7, 4), mode="nearest-exact"),
        "replicate": lambda x: F.pad(x.view(1, 24), (2, 3), mode="replicate"),
        "replicate, two axes": lambda x: F.pad(image(x), (2, 1, 0, 3), mode="replicate"),
        "replicate, three axes": lambda x: F.pad(x.view(1, 2, 3, 4), (1, 1, 2, 0, 1, 2), mode="replicate"),
        "reflect": lambda x: F.pad(image(x), (2, 1, 1, 2), mode="reflect"),
    },
    "transposed convolutions": {
        "one axis": lambda x: F.conv_transpose1d(x.view(1, 2, 12), weights(x, 2, 3, 3)),
        "strides": lambda x: F.conv_transpose1d(x.view(2, 2, 6), weights(x, 2, 3, 3), stride=2, padding=2, output_padding=1),
        "gaps and a bias": lambda x: F.conv_transpose1d(x.view(2, 12), weights(x, 2, 3, 2), x[:3], dilation=3),
        "groups": lambda x: F.conv_transpose1d(x.view(1, 4, 6), weights(x, 4, 2, 3), groups=2, stride=2, padding=1),
        "two axes": lambda x: F.conv_transpose2d(
            image(x), weights(x, 1, 2, 2, 3), stride=(2, 1), padding=(1, 0), output_padding=(1, 0), dilation=(1, 2)
        ),
        "three axes": lambda x: F.conv_transpose3d(x.view(1, 2, 1, 3, 4), weights(x, 2, 1, 1, 2, 2), stride=2, padding=(0, 1, 0)),
        "plain, for comparison": lambda x: F.conv2d(image(x), weights(x, 3, 1, 2, 3), x[:3], (1, 2), "valid", (2, 1)),
    },
    "attention and distances": {
        "causal": lambda x: F.scaled_dot_product_attention(*heads(x), is_causal=True),
        "masked": lambda x: F.scaled_dot_product_attention(
            *heads(x), attn_mask=torch.tensor([[True, True, False], [False, True, False], [False, True, True]]), scale=0.3
        ),
        "biased": lambda x: F.scaled_dot_product_attention(*heads(x), attn_mask=FIXED[:3, :3]),
        "euclidean": lambda x: torch.cdist(rows(x), rows(x) * 2),
        "of itself": lambda x: torch.cdist(rows(x), rows(x)),
        "a batch": lambda x: torch.cdist(x.view(2, 4, 3), x.view(2, 4, 3)[:, :3].sin()),
        "manhattan": lambda x: torch.cdist(rows(x), rows(x) * 2, p=1),
        "greatest": lambda x: torch.cdist(rows(x), rows(x) * 2, p=INF),
        "cubic": lambda x: torch.cdist(rows(x), rows(x) * 2, p=3.0),
        "bilinear": lambda x: F.bilinear(rows(x)[:, :3], rows(x)[:, 3:], weights(x, 2, 3, 3), x[:2]),
        "addbmm": lambda x: torch.addbmm(x[:4].view(2, 2), x.view(4, 2, 3), x.view(4, 3, 2), beta=0.5, alpha=2.0),
    },
    "linear algebra": {
        "slogdet": lambda x: torch.linalg.slogdet(square(x)),
        "slogdet of a negative": lambda x: torch.linalg.slogdet(square(x)[[1, 0, 2, 3]]),
        "slogdet of a batch": lambda x: torch.linalg.slogdet(x.view(6, 2, 2)),
        "logdet": lambda x: torch.logdet(square(x)),
        "solving from the right": lambda x: torch.linalg.solve(square(x), x[:8].view(2, 4), left=False),
        "triangular from the right": lambda x: torch.linalg.solve_triangular(
            square(x).triu(), x[:8].view(2, 4), upper=True, left=False
        ),
        "unit triangular from the right": lambda x: torch.linalg.solve_triangular(
            0.1 * square(x).tril(-1), x[:8].view(2, 4), upper=False, left=False, unitriangular=True
        ),
        "cholesky": lambda x: torch.linalg.cholesky(square(x)),
        "cholesky, upper": lambda x: torch.linalg.cholesky(square(x), upper=True),
        "cholesky_inverse": lambda x: torch.cholesky_inverse(torch.linalg.cholesky(square(x))),
        "by known factors": lambda x: torch.linalg.lu_solve(*FACTORS, x[:8].view(4, 2)),
        "by known factors, from the right": lambda x: torch.linalg.lu_solve(*FACTORS, x[:8].view(2, 4), left=False),
        "by known factors, transposed": lambda x: torch.linalg.lu_solve(*FACTORS, x[:8].view(4, 2), adjoint=True),
        "power": lambda x: torch.linalg.matrix_power(square(x), -2),
        "determinant of a regular one": lambda x: torch.linalg.det(square(x)) * 1e-3,
    },
    "places": {
        "put": lambda x: x.put(torch.tensor([3, -1, 5]), x[:3].sin()),
        "put and add": lambda x: rows(x).put(torch.tensor([[3, 3], [-1, 0]]), x[:4].view(2, 2), accumulate=True),
        "take": lambda x: rows(x).take(torch.tensor([[3, 3], [7, 0]])),
        "masked_scatter": lambda x: rows(x).masked_scatter(rows(x) > 0.2, x.cos()),
        "masked_select": lambda x: x.masked_select(torch.arange(24) % 5 == 1),
        "masked_select over rows": lambda x: rows(x).masked_select(torch.tensor([[True], [False], [True], [False]])),
        "combinations": lambda x: torch.combinations(x[:4]),
        "index_reduce": lambda x: rows(x).index_reduce(0, torch.tensor([1, 3, 1]), rows(x)[:3].cos(), "amax"),
        "index_reduce, prod": lambda x: rows(x).index_reduce(-1, torch.tensor([1, 2]), rows(x)[:, :2].cos(), "prod"),
        "diagonal_scatter": lambda x: torch.diagonal_scatter(rows(x), x[:3], -1),
        "a mask without axes": lambda x: x.detach().index_put((torch.tensor(True),), x[3].detach()),
        "no mask without axes": lambda x: x.detach().index_put((torch.tensor(False),), x[3].detach()),
        "transposed in place": lambda x: (rows(x) * 2).transpose_(0, 1).contiguous(),
        "nanmedian": lambda x: torch.where(x > 0.5, math.nan, x).nanmedian() + x.nanmedian(),
        "nanmedian of rows": lambda x: torch.where(rows(x) > 0.5, math.nan, rows(x)).nanmedian(0, keepdim=True)[0],
        "quantiles": lambda x: torch.quantile(rows(x), torch.tensor([0.2, 0.5, 0.9], dtype=D), dim=1),
        "histogram": lambda x: torch.histc(x, 5, -0.8, 0.9),
    },
    "running": {
        "cummax": lambda x: torch.cummax(x, 0),
        "cummax of rows": lambda x: torch.cummax(rows(x), 0)[0],
        "cummin": lambda x: torch.cummin(rows(x), 1),
        "logcumsumexp": lambda x: torch.logcumsumexp(x * 5, 0),
        "logcumsumexp of rows": lambda x: torch.logcumsumexp(torch.where(rows(x).roll(1, 1) > 0, -INF, rows(x)), 1),
    },
    "special": {
        "digamma": lambda x: torch.digamma(x * 5 + 0.02),
        "lgamma": lambda x: torch.lgamma(x * 5 + 0.02),
        "polygamma": lambda x: torch.polygamma(1, x.abs() + 0.1) + torch.polygamma(2, x.abs() + 0.5),
        "multigammaln": lambda x: torch.special.multigammaln(x.abs() + 2, 3),
        "erfinv": lambda x: torch.erfinv(torch.tanh(x * 3)),
        "erfcx": lambda x: torch.special.erfcx(x * 4),
        "log_ndtr": lambda x: torch.special.log_ndtr(x * 20),
        "von Mises": lambda x: torch.exp(3 * torch.cos(x)) / torch.i0(x * 9),
        "i0e": lambda x: torch.special.i0e(x * 30),
        "i1": lambda x: torch.special.i1(x * 9),
        "i1e": lambda x: torch.special.i1e(x * 30),
        "zeta": lambda x: torch.special.zeta(x.abs() + 1.5, 2.0).detach(),
        "angle": lambda x: torch.angle(x) * x,
    },
}  # fmt: skip


class Family(bt.DynamicalSystem):
    """v' = sin(1.7 v + w), and shows every function of a family of it."""

    def __init__(self, family: dict[str, Function], dtype: torch.dtype) -> None:
        super().__init__(24, dtype=dtype)
        self.family = family
        self.w = nn.Parameter(torch.linspace(-0.2, 0.3, 24, dtype=dtype))
        self.start = START.to(dtype)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return self.start.clone()

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Any]:
        x = state + 0.1 * self.w
        return torch.sin(1.7 * x + self.w), {name: function(x) for name, function in self.family.items()}


def assert_equal_both_ways(family: dict[str, Function]) -> None:
    """In the reference loop and in the native one, where threads make no difference to the bits."""
    shown, gradients = [], []
    for loop in ("reference", bt.Native(threads=1), bt.Native(threads=2)):
        system = Family(family, D)
        start = system.init_state().requires_grad_()
        sol = bt.simulate(system, dt=0.1, duration=0.3, state=start, loop=loop, check_finite=False, keep_out=True)
        leaves = {
            f"{key} {k}": y
            for key, part in sol.out.items()
            for k, y in enumerate(torch.utils._pytree.tree_leaves(part))
        }
        shown.append({key: y.detach() for key, y in leaves.items()})
        terms = [
            (torch.where(y.isfinite(), y, 0.0) * torch.linspace(-1, 1, y.numel(), dtype=D).view(y.shape)).sum()
            for y in leaves.values() if y.requires_grad
        ]  # fmt: skip
        gradients.append(torch.autograd.grad(sum(terms), [start, system.w]))
    for key, expected in shown[0].items():
        text = lambda default, key=key: f"{key}: {default}"  # noqa: E731
        torch.testing.assert_close(shown[1][key], expected, rtol=1e-9, atol=1e-9, equal_nan=True, msg=text)
    assert all(torch.equal(x.nan_to_num(), shown[2][key].nan_to_num()) for key, x in shown[1].items())
    for found, again, expected in zip(gradients[1], gradients[2], gradients[0], strict=True):
        assert torch.equal(found, again)
        assert expected.isfinite().all() and (found - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("name", FAMILIES)
def test_operations_and_their_gradients(name: str) -> None:
    assert_equal_both_ways(FAMILIES[name])


def drawn(draw: random.Random) -> tuple[str, Function]:
    """Pooling, resampling, padding or a transposed convolution with random arguments, over one to three axes."""
    space = draw.randint(1, 3)
    extents = [draw.randint(2, {1: 9, 2: 6, 3: 4}[space]) for _ in range(space)]
    channels = draw.choice([1, 2, 4])
    shape = (draw.randint(1, 2), channels, *extents)

    def pick(low: int, high: int) -> list[int]:
        return [draw.randint(low, high) for _ in range(space)]

    kernel = [draw.randint(1, n) for n in extents]
    padding = [draw.randint(0, size // 2) for size in kernel]
    stride, dilation, ceil, counted = pick(1, 3), pick(1, 2), draw.random() < 0.5, draw.random() < 0.5
    out, groups = draw.randint(1, 3), draw.choice([1, channels])
    further = [draw.randint(0, max(step, gap) - 1) for step, gap in zip(stride, dilation, strict=True)]
    size, aligned = pick(1, 7), draw.random() < 0.5
    scale = draw.choice([0.6, 1.3, 2.0] if space < 3 else [0.6, 1.7, 2.0])  # 1.3 is one where PyTorch 2.13 errs
    mode = draw.choice(
        [
            "nearest",
            "nearest-exact",
            "area",
            {1: "linear", 2: draw.choice(["bilinear", "bicubic"]), 3: "trilinear"}[space],
        ]
    )
    options = {"align_corners": aligned} if "linear" in mode or "cubic" in mode else {}
    ends = [draw.randint(0, 3) for _ in range(2 * space)]
    named = {
        name: getattr(F, f"{name}{space}d")
        for name in ("avg_pool", "max_pool", "conv_transpose", "adaptive_avg_pool", "adaptive_max_pool")
    }
    image = lambda x: weights(x, *shape).sin()  # noqa: E731
    forms: list[tuple[str, Function]] = [
        (f"average {kernel} {stride} {padding} {ceil} {counted}",
         lambda x: named["avg_pool"](image(x), kernel, stride, padding, ceil, counted)),
        (f"greatest {kernel} {stride} {padding} {ceil}", lambda x: named["max_pool"](image(x), kernel, stride, padding, 1, ceil)),
        (f"average to {size}", lambda x: named["adaptive_avg_pool"](image(x), size)),
        (f"greatest to {size}", lambda x: named["adaptive_max_pool"](image(x), size)),
        (f"{mode} to {size} {aligned}", lambda x: F.interpolate(image(x), size=size, mode=mode, **options)),
        (f"{mode} by {scale} {aligned}", lambda x: F.interpolate(image(x), scale_factor=scale, mode=mode, **options)),
        (f"replicate {ends}", lambda x: F.pad(image(x), ends, mode="replicate")),
        (f"transposed {kernel} {stride} {padding} {further} {groups} {dilation}",
         lambda x: named["conv_transpose"](image(x), weights(x, channels, out, *kernel), x[: out * groups], stride, padding,
                                           further, groups, dilation)),
    ]  # fmt: skip
    name, function = draw.choice(forms)
    return f"{shape} {name}", function


def random_family(seed: int, count: int) -> dict[str, Function]:
    """So many of them that PyTorch accepts."""
    draw, family = random.Random(seed), {}
    while len(family) < count:
        name, function = drawn(draw)
        with contextlib.suppress(RuntimeError, ValueError):
            if function(START).numel():
                family[name] = function
    return family


@pytest.mark.parametrize("seed", [1, 2])
def test_random_pooling_resampling_and_transposed_convolutions(seed: int) -> None:
    assert_equal_both_ways(random_family(seed, 25))
