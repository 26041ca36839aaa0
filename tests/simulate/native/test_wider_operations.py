"""Operations beyond arithmetic: layers of torch.nn, sorting, running sums, small linear algebra, writing through views."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bdtorch as bt
from bdtorch.simulate.loops import LoopError
from tests.simulate.native.stepping import assert_same, both, flat, run

GENERATOR = torch.Generator().manual_seed(0)
V = torch.linspace(-1.0, 1.0, 12)
M = torch.randn(12, 12, generator=GENERATOR)
S = M @ M.T + 12 * torch.eye(12)
INDEX = torch.randint(0, 12, (12,), generator=GENERATOR)


def layer(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make().eval()


GRU, LSTM, RNN = (layer(lambda kind=kind: kind(12, 12)) for kind in (nn.GRUCell, nn.LSTMCell, nn.RNNCell))
CONV, CONV2 = layer(lambda: nn.Conv1d(2, 4, 3, padding=1, groups=2)), layer(lambda: nn.Conv2d(1, 2, (2, 3), stride=2))
NORM, GROUP, BATCH, RMS = (
    layer(lambda: nn.LayerNorm(12)), layer(lambda: nn.GroupNorm(3, 12)), layer(lambda: nn.BatchNorm1d(12)),
    layer(lambda: nn.RMSNorm(12)),
)  # fmt: skip
ATTENTION = layer(lambda: nn.MultiheadAttention(12, 3, batch_first=True))
EMBEDDING = layer(lambda: nn.Embedding(12, 12))


def spd(x: Tensor) -> Tensor:
    return S.to(x.dtype) + torch.diag(x * x)


STEPS: dict[str, Callable[[Tensor], Any]] = {
    "softmax": lambda x: (torch.softmax(x, 0), torch.log_softmax(x, 0), torch.logsumexp(x, 0)),
    "gru cell": lambda x: GRU(x[None], x[None]),
    "lstm cell": lambda x: LSTM(x[None], (x[None], x[None])),
    "rnn cell": lambda x: RNN(x[None], x[None]),
    "layer norm": lambda x: (NORM(x), RMS(x)),
    "group norm": lambda x: GROUP(x[None]),
    "batch norm": lambda x: BATCH(x[None]),
    "conv 1d": lambda x: CONV(x.view(1, 2, 6)),
    "conv 2d": lambda x: CONV2(x.view(1, 1, 3, 4)),
    "dilated conv": lambda x: F.conv1d(x.view(1, 1, 12), M[:2, None, :3], dilation=2, padding=1, stride=3),
    "average pool": lambda x: (F.avg_pool1d(x[None], 3), F.adaptive_avg_pool1d(x[None], 4)),
    "attention": lambda x: F.scaled_dot_product_attention(*(x.view(1, 3, 4) * k for k in (1, 2, 3)), is_causal=True),
    "multi-head": lambda x: ATTENTION(*(torch.stack([x, x.sin()])[None],) * 3, need_weights=False)[0],
    "embedding": lambda x: EMBEDDING((x > 0).long()),
    "activations": lambda x: (F.gelu(x), F.silu(x), F.elu(x), F.softplus(x), F.hardswish(x), F.glu(x), F.mish(x)),
    "distances": lambda x: torch.cdist(x.view(4, 3), x.view(4, 3).flip(0)),
    "elementary": lambda x: (torch.asinh(x), torch.acosh(x + 3), torch.atanh(x * 0.5), torch.hypot(x, x + 1),
                             torch.lgamma(x + 3), torch.sinc(x)),
    "signs": lambda x: (torch.copysign(x, -x), torch.copysign(x, -1.0), torch.signbit(x), torch.signbit((9 * x).long())),
    "fmax": lambda x: (torch.fmax(x, torch.where(x > 0, x * torch.nan, -x)), torch.fmin(x * torch.nan, x)),
    "shifts": lambda x: ((x * 40).long() << 2, (x * 40).long() >> 1, (x * 40).int() >> 40, (x * 40).int() << 40,
                         (x * 40).long() << (x * 5).abs().long(), (x * 40).long() >> (x * 5).abs().long()),
    "bitwise shifts": lambda x: [f(a, b) for f in (torch.bitwise_left_shift, torch.bitwise_right_shift)
                                 for a, b in (((x * 40).int(), (x * 40).int()), ((x * 40).int(), 3), (-100, (x * 40).int()))],
    "round": lambda x: (x.round(decimals=2), x.frac()),
    "sort": lambda x: (x.view(3, 4).sort(1), x.view(3, 4).sort(0, descending=True), x.argsort()),
    "sort with nan": lambda x: [torch.where(x > 0.5, torch.nan, -x).sort(descending=d)[0] for d in (False, True)],
    "stable": lambda x: ((x > 0).sort(stable=True), (x * 3).round().sort(stable=True, descending=True)),
    "topk": lambda x: (x.topk(3), x.topk(2, largest=False), x.view(3, 4).topk(1, 0)),
    "order statistics": lambda x: (x.median(), x.view(3, 4).median(1), x.kthvalue(3), x.quantile(0.3),
                                   torch.where(x > 0.5, torch.nan, x).median()),
    "extremes": lambda x: (x.argmax(), x.argmin(), x.view(3, 4).argmax(1), x.view(3, 4).max(0), x.view(3, 4).min(1, True),
                           torch.where(x > 0.5, torch.nan, x).max(0), x.argmax(keepdim=True), x.sum().max(0)),
    "equal extremes": lambda x: ((x > 0).int().argmax(), (x > 0).int().max(0), torch.zeros_like(x).min(0)),
    "running": lambda x: (x.cumsum(0), x.view(3, 4).cumsum(1), (x + 1).cumprod(0), (x > 0).cumsum(0), x.sum().cumsum(0),
                          torch.cumulative_trapezoid(x)),
    "triangles": lambda x: (torch.outer(x, x).tril(-1), torch.outer(x, x).triu(1), torch.diag(x), torch.diag_embed(x)),
    "diagonals": lambda x: (torch.outer(x, x).diagonal(), torch.outer(x, x).diagonal(2), torch.outer(x, x[:5]).diagonal(-3),
                            torch.outer(x, x).trace(), x.view(3, 2, 2).diagonal(dim1=1, dim2=2), torch.outer(x, x).diagonal(30)),
    "windows": lambda x: (x.unfold(0, 3, 2), x.view(3, 4).unfold(1, 2, 1)),
    "searching": lambda x: (torch.searchsorted(V, x), torch.bucketize(x, V[::3].contiguous(), right=True)),
    "several indices": lambda x: (torch.outer(x, x)[INDEX, INDEX - 12], torch.outer(x, x)[INDEX[:3, None], INDEX[None]]),
    "masked": lambda x: x.clone().masked_fill_(x > 0, 2.0),
    "loss": lambda x: (F.cross_entropy(x[None], torch.tensor([2])), F.mse_loss(x, V), F.huber_loss(x, V)),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_equals_reference(name: str) -> None:
    for native, reference in zip(*both(lambda x, t: ([x[0] * 0.9], STEPS[name](x[0])), V), strict=True):
        assert_same(native, reference, exact=False, units=64)


ALGEBRA: dict[str, Callable[[Tensor], Any]] = {
    "solve": lambda x: (torch.linalg.solve(spd(x), x), torch.linalg.solve(spd(x), M.to(x.dtype)[:, :3])),
    "pivots": lambda x: torch.linalg.solve(M.to(x.dtype).flip(0) + torch.diag(x), x),
    "constant matrix": lambda x: torch.linalg.solve(S.to(x.dtype), x),
    "batch": lambda x: torch.linalg.solve(x.view(3, 2, 2) + 3 * torch.eye(2, dtype=x.dtype), x[:6].view(3, 2)),
    "inverse": lambda x: torch.linalg.inv(spd(x)),
    "cholesky": lambda x: (torch.linalg.cholesky(spd(x)), torch.linalg.cholesky(spd(x), upper=True)),
    "cholesky solve": lambda x: torch.cholesky_solve(x[:, None], torch.linalg.cholesky(spd(x))),
    "triangular": lambda x: (
        torch.linalg.solve_triangular(spd(x).tril(), x[:, None], upper=False),
        torch.linalg.solve_triangular(spd(x).triu() / 20, x[:, None], upper=True, unitriangular=True),
    ),
    "determinant": lambda x: (
        torch.linalg.det(torch.eye(12, dtype=x.dtype) + torch.diag(x)),
        torch.linalg.det(M[:4, :4].to(x.dtype) * x[:4]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALGEBRA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_linear_algebra(name: str, dtype: torch.dtype) -> None:
    """Against LAPACK: two backward-stable algorithms on well-conditioned matrices."""
    for native, reference in zip(*both(lambda x, t: ([x[0] * 0.9], ALGEBRA[name](x[0])), V.to(dtype)), strict=True):
        assert_same(native, reference, exact=False, units=2000)


def test_a_matrix_that_is_too_large_names_operation_and_line() -> None:
    x = torch.ones(200)
    with pytest.raises(
        LoopError, match=r"_linalg_solve_ex\.default takes a matrix of 200 x 200, more than \d+ entries \(test_wider"
    ):
        run(lambda x, t: (x, torch.linalg.solve(torch.eye(200) + torch.diag(x[0]), x[0])), x, loop="native")
    with pytest.raises(LoopError, match=r"sort\.default sorts 70000 elements, more than \d+ \(test_wider"):
        run(lambda x, t: (x, x[0].sort()[0]), torch.ones(70_000), loop="native")


def through_slices(x: Tensor) -> Any:
    y = x.clone()
    seen = y[1:4]
    y[0:3] = 0.0
    y[2:5] += x[:3]
    return y, seen, seen * y[5]


def through_columns(x: Tensor) -> Any:
    y = torch.zeros(3, 4)
    y[:, 1] = x[:3]
    y.t()[2].mul_(2.0).add_(x[0])
    row = y[1]
    y[1, 3] = x[1]
    y *= 3.0
    return y, row


def through_masks(x: Tensor) -> Any:
    y = x * 2.0
    y[y > 0.5] = 0.5
    z = y.view(3, 4)
    z[z < -1] = 10.0
    y.view(3, 4).diagonal().add_(x[0])
    z[torch.tensor([True, False, True])] = 7.0
    return y, z


def at_ends(x: Tensor) -> Any:
    y = torch.empty(5)
    y[0], y[-1] = x[0], x[-1]
    y[1:-1] = 0.5 * (x[:3] + x[3:6])
    return y, F.pad(x[None], (2, 1), mode="circular")


def into_views_of_themselves(x: Tensor) -> Any:
    y, z = x.unsqueeze(1) * 2.0, torch.outer(x[:3], x[3:6])
    row = z[1]
    y.squeeze_(1)
    y[0] += 1.0
    z.t_()
    return y + x, z.unsqueeze_(0).sum(1), row


@pytest.mark.parametrize("write", [through_slices, through_columns, through_masks, at_ends, into_views_of_themselves])
def test_writing_through_views_of_what_the_step_made(write: Callable[[Tensor], Any]) -> None:
    for native, reference in zip(*both(lambda x, t: ([x[0] * 0.9], write(x[0])), V), strict=True):
        assert_same(native, reference, exact=True)


def test_writing_through_a_view_of_the_state_is_refused() -> None:
    def step(x: list[Tensor], t: Tensor) -> Any:
        x[0][2:4] = 0.0
        return x, x[0]

    with pytest.raises(RuntimeError, match="step must not write to its arguments"):
        run(step, V.clone(), loop="native")

    def parameter(x: list[Tensor], t: Tensor) -> Any:
        M[0, :3] += 1.0
        return x, x[0] + M[0]

    with pytest.raises(LoopError, match=r"writes to (memory of which there are other views|the state)"):
        run(parameter, V.clone(), loop="native")


def test_several_indices_are_each_checked() -> None:
    def step(x: list[Tensor], t: Tensor) -> Any:
        return [x[0], x[1] + 1], torch.outer(x[0], x[0])[torch.tensor([0, 1]), x[1]]

    with pytest.raises(IndexError, match="an index is out of range in step 3"):
        run(step, V, torch.tensor([3, 10]), loop="native", steps=9)


@pytest.mark.parametrize(
    ("step", "operation"),
    [
        (lambda x: torch.fft.rfft(x).abs().sum() + x, "_fft_r2c"),
        (lambda x: torch.linalg.eigvalsh(spd(x)), "_linalg_eigh"),
        (lambda x: torch.special.bessel_j0(x), "bessel_j0"),
        (lambda x: torch.complex(x, -x).abs(), "complex"),
    ],
)
def test_what_has_no_lowering_goes_on_in_the_inductor_loop(step: Callable[[Tensor], Tensor], operation: str) -> None:
    """By name, with the line, and with the same result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sol = run(lambda x, t: ([x[0] * 0.9], step(x[0])), V, loop="auto")
    text = str(caught[0].message)
    assert operation in text and "test_wider_operations.py:" in text and "falling back to the inductor loop" in text
    reference = run(lambda x, t: ([x[0] * 0.9], step(x[0])), V, loop="reference")
    assert sol.loop == "inductor"
    for a, b in zip(flat(sol), flat(reference), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_gradients_through_wider_operations() -> None:
    weight = nn.Parameter(torch.linspace(0.5, 1.5, 12, dtype=torch.float64))

    class Cell(bt.DynamicalSystem):
        def __init__(self) -> None:
            super().__init__((12,), dtype=torch.float64)
            self.weight = weight

        def init_state(self, batch_shape: tuple[int, ...] = ()) -> tuple[Tensor]:
            return (torch.linspace(-1, 1, 12, dtype=torch.float64),)

        def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
            y = torch.softmax(state[0] * self.weight, 0).cumsum(0)
            z = y.clone()
            z[2:5] = y[:3] * self.weight[4]
            return (torch.tanh(z.sort(descending=True)[0]) + F.layer_norm(state[0], (12,)) * 0.1,), z.max(0)[0]

    gradients = []
    for loop in ("native", "reference"):
        weight.grad = None
        sol = bt.simulate(Cell(), dt=0.1, duration=1.0, loop=loop)
        (sol.out.sum() + sol.state[0].pow(2).sum()).backward()
        gradients.append(weight.grad.clone())
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
