"""Delay equations: kinds of delays, breaks, histories, loops, transforms and gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch
from bdtorch.integrate import (
    RK4,
    BogackiShampine,
    Heun,
    History,
    Pointwise,
    Rodas4,
    Trapezoidal,
    Tsit5,
    ddeint,
    odeint,
    sampled,
)

F64 = torch.float64
ONE = torch.ones(1, dtype=F64)


def _sine(t: Tensor) -> Tensor:
    return torch.sin(t).reshape(1)


def _decay(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    return -past[0]


def _polynomial(t: float) -> float:
    """y' = -y(t - 1), y = 1 before 0, by the method of steps."""
    return sum((-1) ** k * (t - (k - 1)) ** k / math.factorial(k) for k in range(int(t) + 2))


@pytest.mark.parametrize("dt", [0.1, 0.07, None])
def test_method_of_steps_polynomials(dt: float | None) -> None:
    # The solution is of degree 4 up to t = 3 and the method is exact for these: only a break inside a step would show.
    t = torch.tensor([0.0, 0.35, 1.2, 2.9], dtype=F64)
    found = ddeint(_decay, ONE, t, delays=1.0, dt=dt)
    exact = torch.tensor([_polynomial(float(s)) for s in t], dtype=F64)
    torch.testing.assert_close(found.y[:, 0], exact, rtol=0, atol=1e-12 if dt else 1e-10)
    assert dt is not None or found.steps < 40


def test_without_the_breaks_the_order_is_lost() -> None:
    exact = _polynomial(2.9)
    met, missed = (
        abs(float(ddeint(_decay, ONE, [0.0, 2.9], delays=1.0, dt=0.0725, levels=levels).y[-1]) - exact)
        for levels in (None, 0)
    )
    assert met < 1e-12 and missed > 1e-6


def test_adaptive_steps_meet_the_tolerance() -> None:
    def f(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
        return torch.cos(t) + past[0] - torch.sin(t - 0.7) + 2.0 * (past[1] ** 2 - torch.sin(t - 1.3) ** 2)

    t = torch.linspace(0.0, 5.0, 11, dtype=F64)
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        found = ddeint(f, _sine, t, delays=(0.7, 1.3), rtol=rtol, atol=rtol)
        errors.append(float((found.y[:, 0] - torch.sin(t)).abs().max()))
        assert errors[-1] < 200 * rtol
        assert torch.allclose(found.history(2.345), torch.sin(torch.tensor([2.345], dtype=F64)), atol=200 * rtol)
    assert errors[2] < 1e-2 * errors[0]


@pytest.mark.parametrize("method", [BogackiShampine(), Tsit5(), Rodas4()], ids=["BogackiShampine", "Tsit5", "Rodas4"])
def test_a_delay_that_depends_on_the_state_carries_breaks(method: Any) -> None:
    # y' = y y(ln y) / t with y = 1 up to t = 1: t, then e^{t/e} from t = e, then (e / (3 - ln t))^e from e^2. The breaks at e
    # and e^2 appear where ln y passes those before. Source: Neves (1975), doi:10.1145/355656.355661.
    def f(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
        return y * past[0] / t

    def exact(t: float) -> float:
        if t <= math.e:
            return t
        return math.exp(t / math.e) if t <= math.e**2 else (math.e / (3.0 - math.log(t))) ** math.e

    t = [1.0, 2.0, 3.0, 5.0, 7.0, 8.0]
    rtol = 1e-8 if method.order == 5 else 1e-6
    found = ddeint(f, ONE, t, delays=lambda t, y: t - torch.log(y), rtol=rtol, atol=1e-10, method=method)
    expected = torch.tensor([exact(s) for s in t], dtype=F64)
    torch.testing.assert_close(found.y[:, 0], expected, rtol=50 * rtol, atol=0)
    for place in (math.e, math.e**2):
        assert float((found.history.edges - place).abs().min()) < 100 * rtol


def test_steps_longer_than_the_delay() -> None:
    # A delay of t / 2 vanishes at the start, and one of 0.01 is far shorter than the steps that smoothness allows.
    found = ddeint(
        lambda t, y, past: -y + past[0] - torch.exp(-0.5 * t),
        ONE,
        [0.0, 1.0, 5.0],
        delays=lambda t, y: 0.5 * t,
        rtol=1e-8,
    )
    torch.testing.assert_close(found.y[:, 0], torch.exp(-found.t), rtol=0, atol=1e-7)
    short = ddeint(_decay, _growing_back, [0.0, 3.0], delays=0.01, rtol=1e-7)
    root = _root(0.01)
    assert float(short.y[-1]) == pytest.approx(math.exp(3.0 * root), rel=1e-5)
    assert short.steps < 100  # of 300 delays


def _root(delay: float) -> float:
    """The real root of z = -e^{-z delay}."""
    from scipy.special import lambertw

    return float(lambertw(-delay).real) / delay


def _growing_back(t: Tensor) -> Tensor:
    return torch.exp(_root(0.01) * t).reshape(1)


@pytest.mark.parametrize("dt", [0.3, None])
def test_a_neutral_equation_with_jumping_slopes(dt: float | None) -> None:
    # y' = 1 + y'(t - 1) / 2 from rest: slopes 1, 1.5, 1.75 in successive intervals.
    found = ddeint(
        lambda t, y, past, slopes: 1.0 + 0.5 * slopes[0], 0 * ONE, [0.0, 1.0, 1.5, 3.0], delays=(), neutral=1.0, dt=dt
    )
    torch.testing.assert_close(found.y[:, 0], torch.tensor([0.0, 1.0, 1.75, 4.25], dtype=F64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dt", [0.05, 0.07, None])
def test_a_jump_at_the_start_and_a_kink_in_the_history(dt: float | None) -> None:
    # y' = y(t - 1) with y = max(0, t + 1/2) before the start and 2 at it: the integral of a ramp, then of what follows.
    ramp = lambda t: torch.where(t < -0.5, 0.0, t + 0.5).reshape(1)  # noqa: E731
    found = ddeint(lambda t, y, past: past[0], ramp, [0.0, 0.4, 0.9, 1.5], delays=1.0, y0=2 * ONE, kinks=(-0.5,), dt=dt)
    first = lambda t: 2.0 + 0.5 * max(0.0, t - 0.5) ** 2  # noqa: E731
    expected = [2.0, first(0.4), first(0.9), first(1.0) + 2.0 * 0.5]
    torch.testing.assert_close(found.y[:, 0], torch.tensor(expected, dtype=F64), rtol=0, atol=1e-9)


_DELAYS = torch.tensor([[0.0, 0.7], [1.1, 0.9]], dtype=F64)
_PHASES = torch.tensor([0.3, 1.0], dtype=F64)


def _pairs(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    return torch.cos(t + _PHASES) + (past[0] - torch.sin(t - _DELAYS + _PHASES)).sum(-1)


@pytest.mark.parametrize("options", [{"dt": 0.02, "levels": 0}, {"dt": 0.02}, {"rtol": 1e-8}], ids=str)
def test_a_delay_for_every_pair(options: dict[str, Any]) -> None:
    found = ddeint(_pairs, lambda t: torch.sin(t + _PHASES), [0.0, 3.0], delays=_DELAYS, **options)
    torch.testing.assert_close(found.y[-1], torch.sin(3.0 + _PHASES), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dt", [0.02, None])
def test_trees_with_a_delay_for_each_leaf(dt: float | None) -> None:
    def f(t: Tensor, y: dict[str, Tensor], past: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
        assert past[0]["v"].shape == (3,) and past[0]["w"].shape == ()
        return {
            "v": torch.cos(t) + past[0]["v"] - torch.sin(t - 0.6),
            "w": -torch.sin(t) + past[0]["w"] - torch.cos(t - 0.9),
        }

    history = lambda t: {"v": torch.sin(t).expand(3), "w": torch.cos(t)}  # noqa: E731
    found = ddeint(f, history, [0.0, 2.0], delays={"v": 0.6, "w": 0.9}, dt=dt)
    torch.testing.assert_close(found.y["v"][-1], torch.full((3,), math.sin(2.0), dtype=F64), rtol=0, atol=1e-6)
    assert float(found.y["w"][-1]) == pytest.approx(math.cos(2.0), abs=1e-6)


@pytest.mark.parametrize("dt", [0.05, None])
def test_a_run_goes_on_from_the_history_of_another(dt: float | None) -> None:
    whole = ddeint(_decay, ONE, [0.0, 2.5, 5.0], delays=1.0, dt=dt)
    first = ddeint(_decay, ONE, [0.0, 2.5], delays=1.0, dt=dt)
    second = ddeint(_decay, first.history, [2.5, 5.0], delays=1.0, dt=dt, kinks=(2.0,))
    torch.testing.assert_close(second.y[-1], whole.y[-1], rtol=0, atol=1e-7)
    late = ddeint(_decay, first.history, [2.5, 2.6], delays=1.0, dt=0.05)
    assert late.y[0] == first.y[-1]


def test_sampled_histories() -> None:
    t = torch.linspace(-1.0, 0.0, 41, dtype=F64)
    table = sampled(t, torch.sin(t).unsqueeze(-1))
    cubic = sampled(t, (t**3 - t).unsqueeze(-1))
    s = torch.tensor(-0.377, dtype=F64)
    torch.testing.assert_close(cubic(s)[0], s**3 - s, rtol=0, atol=1e-13)
    run = lambda history: float(ddeint(_decay, history, [0.0, 3.0], delays=1.0, dt=0.05).y[-1])  # noqa: E731
    assert run(table) == pytest.approx(run(_sine), abs=1e-6)
    with pytest.raises(ValueError, match=r"`ddeint\(history=...\)`: expected it to reach back to t = -2"):
        ddeint(_decay, table, [0.0, 1.0], delays=2.0, dt=0.05)


def _variable(t: Tensor, y: Tensor) -> Tensor:
    return 1.2 + 0.3 * y**2


_LOOPED = {
    "multiples": (_decay, {"delays": 1.0}),
    "cut steps": (_decay, {"delays": math.pi / 2}),
    "pairs": (_pairs, {"delays": _DELAYS, "levels": 0}),
    "state": (_decay, {"delays": _variable, "max_delay": 1.6}),
    "stiff": (_decay, {"delays": 1.0, "method": Trapezoidal(coupling=Pointwise())}),
    "order 5": (_decay, {"delays": 1.0, "method": Tsit5()}),
    "neutral": (lambda t, y, past, slopes: -past[0] + 0.3 * slopes[0], {"delays": 1.0, "neutral": 0.75}),
}


@pytest.mark.parametrize("name", _LOOPED)
def test_the_native_loop_gives_the_same(name: str) -> None:
    f, options = _LOOPED[name]
    history = lambda t: torch.sin(t + _PHASES)  # noqa: E731
    plain, native = (
        ddeint(f, history, [0.0, 1.0, 4.0], dt=0.125, loop=loop, **options).y for loop in (None, bdtorch.Native())
    )
    torch.testing.assert_close(native, plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", _LOOPED)
def test_a_step_compiles_in_one_graph(name: str) -> None:
    from bdtorch.integrate import PythonLoop

    class Compiled:
        def prepare(self, step: Any, state: Any, sequences: Any = (), *, every: int = 1) -> Any:
            whole = torch.compile(step, fullgraph=True, backend="eager", dynamic=False)
            return PythonLoop().prepare(whole, state, sequences, every=every)

    f, options = _LOOPED[name]
    torch._dynamo.reset()
    history = lambda t: torch.sin(t + _PHASES)  # noqa: E731
    plain, compiled = (ddeint(f, history, [0.0, 0.5], dt=0.125, loop=loop, **options).y for loop in (None, Compiled()))
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-13)


def test_vmap_over_history_and_parameters() -> None:
    def end(level: Tensor, rate: Tensor, delay: Tensor) -> Tensor:
        lag = lambda t, y, rate, delay: delay  # noqa: E731
        f = lambda t, y, past, rate, delay: -rate * past[0]  # noqa: E731
        return ddeint(f, level * ONE, [0.0, 2.0], delays=lag, max_delay=1.5, dt=0.1, args=(rate, delay)).y[-1]

    levels, rates, delays = (torch.tensor(values, dtype=F64) for values in ([1.0, 2.0], [0.5, 0.7], [1.0, 1.3]))
    batched = torch.func.vmap(end)(levels, rates, delays)
    singles = torch.stack([end(*arguments) for arguments in zip(levels, rates, delays, strict=True)])
    torch.testing.assert_close(batched, singles, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dt", [0.05, None])
def test_gradients_against_finite_differences(dt: float | None) -> None:
    # For the rate, the history and the delay itself; steps cut at breaks would move with the delay, so none are.
    def end(rate: Tensor, level: Tensor, delay: Tensor) -> Tensor:
        f = lambda t, y, past, rate: -rate * past[0] - 0.2 * y**3  # noqa: E731
        options: dict[str, Any] = {"dt": dt, "levels": 0} if dt else {"rtol": 1e-10, "atol": 1e-12}
        return ddeint(
            f, lambda t: level * torch.cos(t).reshape(1), [0.0, 2.0], delays=delay, args=(rate,), **options
        ).y[-1, 0]

    point = [torch.tensor(value, dtype=F64, requires_grad=True) for value in (0.8, 1.3, 0.83)]
    gradients = torch.autograd.grad(end(*point), point)
    for k, gradient in enumerate(gradients):
        h = 1e-4
        ends = []
        for sign in (1.0, -1.0):
            moved = [value.detach() + (sign * h if k == number else 0.0) for number, value in enumerate(point)]
            ends.append(float(end(*moved)))
        assert float(gradient) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=2e-3 if dt else 2e-5, abs=1e-7)


def test_without_delay_it_is_odeint() -> None:
    f = lambda t, y, past: -(y**3) + torch.cos(t)  # noqa: E731
    t = torch.linspace(0.0, 2.0, 5, dtype=F64)
    delayed = ddeint(f, ONE, t, delays=1.0, dt=0.125, method=RK4()).y
    torch.testing.assert_close(
        delayed, odeint(lambda t, y: f(t, y, ()), ONE, t, dt=0.125, method=RK4()).y, rtol=0, atol=1e-14
    )


def test_single_precision() -> None:
    double = ddeint(_decay, ONE, [0.0, 2.0], delays=1.0, dt=0.07).y
    single = ddeint(_decay, ONE.float(), [0.0, 2.0], delays=1.0, dt=0.07).y
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


@pytest.mark.parametrize("grows", [False, True])
def test_mackey_glass_oscillates_beyond_its_hopf_point(grows: bool) -> None:
    # x = 1 loses its stability at tau = arccos(-1/4) / sqrt(0.4^2 - 0.1^2) = 4.708 ms, with linear slopes -0.1 and -0.4.
    critical = math.acos(-0.25) / math.sqrt(0.15)
    f = lambda t, x, past: 0.2 * past[0] / (1.0 + past[0] ** 10) - 0.1 * x  # noqa: E731
    t = torch.arange(0.0, 1500.0, 0.5, dtype=F64)
    delay = critical * (1.05 if grows else 0.95)
    x = ddeint(f, 1.01 * ONE, t, delays=delay, dt=0.25, method=Heun(), levels=0, loop=bdtorch.Native()).y[:, 0]
    late, later = (x[a:b].max() - x[a:b].min() for a, b in ((600, 1000), (2600, 3000)))
    assert later > late > 0.02 if grows else later < 0.1 * late


@pytest.mark.slow
@pytest.mark.parametrize(("delay", "published", "uncertainty"), [(17.0, 1.95, 0.03), (23.0, 2.44, 0.05)])
def test_mackey_glass_attractor_has_the_published_dimension(delay: float, published: float, uncertainty: float) -> None:
    # Correlation dimensions of Grassberger & Procaccia (1983), doi:10.1016/0167-2789(83)90298-1.
    f = lambda t, x, past: 0.2 * past[0] / (1.0 + past[0] ** 10) - 0.1 * x  # noqa: E731
    start = 0.5 + torch.rand(8, generator=torch.Generator().manual_seed(0), dtype=F64)
    t = torch.arange(0.0, 6000.5, 1.0, dtype=F64)
    x = ddeint(f, start, t, delays=delay, dt=0.1, loop=bdtorch.Native(), progress=False).y[1000:]
    found = torch.tensor([_correlation_dimension(series) for series in x.T])
    assert abs(float(found.mean()) - published) < uncertainty + 2.0 * float(found.std()) / math.sqrt(len(found))


def _correlation_dimension(series: Tensor, axes: int = 6, lag: int = 6, apart: int = 100) -> float:
    """The slope of the logarithm of how many pairs are closer than r, over that of r, in delay coordinates."""
    points = series.unfold(0, (axes - 1) * lag + 1, 1)[:, ::lag]
    radii = torch.logspace(math.log10(0.03), math.log10(0.2), 8, dtype=F64)
    counts = torch.zeros(8, dtype=F64)
    numbers = torch.arange(len(points))
    for k in torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:800].tolist():
        distances = (points - points[k]).abs().amax(1)[(numbers - k).abs() > apart]  # not those next to it in time
        counts += (distances.unsqueeze(-1) < radii).sum(0)
    x, y = radii.log(), counts.log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("delay", "published", "uncertainty", "time"),
    # Lyapunov dimensions: Farmer (1982), doi:10.1016/0167-2789(82)90042-2. Lyapunov times, ms, computed with jitcdde: the data
    # set of NeuroBench, huggingface.co/datasets/NeuroBench/mackey_glass.
    [(17.0, 2.10, 0.02, 197.0), (30.0, 3.58, 0.04, 139.0)],
)
def test_mackey_glass_attractor_has_the_published_lyapunov_exponents(
    delay: float, published: float, uncertainty: float, time: float
) -> None:
    exponents = _lyapunov_exponents(delay, count=5, runs=8, blocks=30, length=120.0)
    sums = exponents.cumsum(0)
    assert float(exponents[0]) == pytest.approx(1.0 / time, rel=0.15)
    assert exponents[1:].abs().min() < 1e-3  # along the flow nothing grows or shrinks
    if delay == 17.0:  # another program's spectrum: sites.google.com/view/lyapunov-spectrum/home/mackey-glass_eq
        torch.testing.assert_close(
            exponents[2:], torch.tensor([-0.0394, -0.0552, -0.0694], dtype=F64), rtol=0.06, atol=0
        )
    j = int((sums > 0).sum())
    assert abs(float(j + sums[j - 1] / -exponents[j]) - published) < uncertainty + 0.05


def _lyapunov_exponents(delay: float, count: int, runs: int, blocks: int, length: float) -> Tensor:
    """Mean growth rates of ``count`` orthogonal perturbations of the past, 1/ms; Kaplan & Yorke make a dimension of them."""

    def f(t: Tensor, y: dict[str, Tensor], past: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
        x = past[0]["x"]
        slope = 0.2 * (1.0 - 9.0 * x**10) / (1.0 + x**10) ** 2
        return {"d": slope * past[0]["d"] - 0.1 * y["d"], "x": 0.2 * x / (1.0 + x**10) - 0.1 * y["x"]}

    generator = torch.Generator().manual_seed(1)
    times = torch.linspace(-delay, 0.0, round(delay) + 1, dtype=F64)
    random = torch.randn(len(times), runs, count, generator=generator, dtype=F64)
    # x = 1 is a fixed point, from which runs would take long to leave.
    start = torch.linspace(0.3, 0.85, runs, dtype=F64).reshape(runs, 1).expand(len(times), runs, 1)
    history: Any = sampled(times, {"d": random, "x": start})
    sums, now, first = torch.zeros(runs, count, dtype=F64), 0.0, blocks // 6
    for block in range(blocks):
        found = ddeint(
            f, history, [now, now + length], delays=delay, dt=0.25, levels=0, loop=bdtorch.Native(), progress=False
        ).history  # fmt: skip
        perturbed = found.pieces[0].movedim(2, 0)  # (runs, steps, powers, count)
        upper = torch.linalg.qr(perturbed[:, :, 0])[1]  # of their values at the beginnings of the steps
        flat = torch.linalg.solve_triangular(upper, perturbed.flatten(1, 2), upper=True, left=False)
        history = History(found.edges, [flat.reshape(perturbed.shape).movedim(0, 2), found.pieces[1]], found.spec)
        if block >= first:  # those before lead to the attractor
            sums += upper.diagonal(dim1=-2, dim2=-1).abs().log()
        now += length
    return sums.mean(0) / (length * (blocks - first))
