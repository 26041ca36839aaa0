"""`sdeint`: what it returns, under transforms, in compiled loops and with step-size control."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import bdtorch as bt
from bdtorch.integrate import (
    SRI1,
    Additive,
    BrownianPath,
    Diagonal,
    EulerMaruyama,
    ExponentialEulerMaruyama,
    General,
    Milstein,
    Noise,
    Scalar,
    SDESolution,
    StochasticHeun,
    sdeint,
)
from bdtorch.integrate.sde import _Driver, _equation
from bdtorch.ops.random import make_key
from tests.integrate.sde_problems import METHODS, PROBLEMS, STRATONOVICH, double

_TIMES = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
_CORRELATION = torch.tensor([[1.0, 0.2, 0.1], [0.2, 1.0, 0.3], [0.1, 0.3, 1.0]], dtype=torch.float64)


def _drift(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"a": torch.sin(y["a"]) - y["b"], "b": 0.5 * y["a"] - y["b"] ** 3 + torch.cos(t)}


def _diagonal(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"a": 0.3 * torch.sqrt(1.0 + y["a"] ** 2), "b": 0.2 * torch.cos(y["b"])}


def _timed(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"a": (0.3 + 0.1 * torch.sin(t)).expand_as(y["a"]), "b": torch.full_like(y["b"], 0.2)}


def _three(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.stack([0.3 * x, 0.2 * x, -0.1 * x], -1) for name, x in y.items()}


_GENERAL = General(_CORRELATION, processes=3, commutative=True)
_CASES: dict[str, tuple[str, Any, Noise]] = {
    **{name: (name, _diagonal, Diagonal()) for name in METHODS if not name.startswith("SRA")},
    **{name: (name, _timed, Additive()) for name in METHODS if name.startswith("SRA")},
    "EulerMaruyama, general": ("EulerMaruyama", _three, _GENERAL),
    "Milstein, general": ("Milstein", _three, _GENERAL),
    "Milstein, scalar": ("Milstein", _diagonal, Scalar()),
    "SRI2, scalar": ("SRI2", _diagonal, Scalar()),
}


def _start() -> dict[str, Tensor]:
    return {"a": torch.linspace(-1.0, 1.0, 6).double().reshape(2, 3), "b": torch.zeros(2, 3).double()}


def _solve(case: str, y0: Any, **more: Any) -> SDESolution:
    name, g, noise = _CASES[case]
    arguments = {"batch_shape": (2,), "dt": 1 / 16, "progress": False, **more}
    method = METHODS[name]
    return sdeint(_drift, g, y0, _TIMES, method=method, noise=noise, calculus=method.calculi[0], **arguments)


@pytest.mark.parametrize("case", _CASES)
def test_the_native_loop_gives_the_solution_of_the_python_loop(case: str) -> None:
    expected, found = _solve(case, _start()).y, _solve(case, _start(), loop=bt.Native()).y
    for name, leaf in expected.items():
        assert leaf.shape == (5, 2, 3)
        torch.testing.assert_close(found[name], leaf, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["EulerMaruyama", "Milstein, general", "SRI1"])
def test_the_inductor_loop_gives_the_solution_of_the_python_loop(case: str) -> None:
    expected, found = _solve(case, _start()).y, _solve(case, _start(), loop=bt.Inductor(4)).y
    for name, leaf in expected.items():
        torch.testing.assert_close(found[name], leaf, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", _CASES)
def test_vmap_over_states_and_over_keys_is_the_batch(case: str) -> None:
    batch = _solve(case, _start()).y["a"]
    keys = make_key(0, (2,))

    def single(a: Tensor, key: Tensor) -> Tensor:
        return _solve(case, {"a": a, "b": torch.zeros(3).double()}, batch_shape=(), seed=key).y["a"]

    mapped = torch.func.vmap(single)(_start()["a"], keys)
    torch.testing.assert_close(mapped.movedim(0, 1), batch, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", _CASES)
def test_a_step_compiles_into_one_graph(case: str) -> None:
    name, g, noise = _CASES[case]
    method = METHODS[name]
    equation = _equation(_drift, g, None, (), noise, method.calculi[0])
    driver = _Driver(equation, method, BrownianPath(1 / 16, batch_shape=(2,)), 1 / 32, 0.0, 0)
    torch._dynamo.reset()
    step = torch.compile(lambda y, number: driver.advance(y, number), fullgraph=True, backend="aot_eager")
    number = torch.tensor(3)
    for found, expected in zip(step(_start(), number).values(), driver.advance(_start(), number).values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", _CASES)
def test_gradients_agree_with_finite_differences(case: str) -> None:
    def end(a: Tensor) -> Tensor:
        return _solve(case, {"a": a, "b": torch.zeros(2, 1).double()}, dt=1 / 4).y["a"][-1]

    assert torch.autograd.gradcheck(end, (double(0.3, -0.4).reshape(2, 1).requires_grad_(),))


def test_gradients_reach_further_arguments_and_the_functions_own_parameters() -> None:
    sigma = double(0.4).requires_grad_()
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def end(rate: Tensor, sigma: Tensor) -> Tensor:
        return sdeint(
            lambda t, y, rate: -rate * y, lambda t, y, rate: sigma * y, double(1.0), _TIMES, dt=1 / 8, args=(rate,)
        ).y[-1]

    assert torch.autograd.gradcheck(end, (rate, sigma))


def test_a_run_in_two_pieces_on_one_path_is_the_run_in_one() -> None:
    problem, method = PROBLEMS["hyperbolic, Ito"], SRI1()
    path = BrownianPath(0.25, seed=2, batch_shape=(3,), start=1.0)

    def run(y: Tensor, *times: float) -> Tensor:
        return sdeint(
            problem.f, problem.g, y, double(*times), dt=0.0625, method=method, path=path, progress=False
        ).y[-1]  # fmt: skip

    y0 = problem.y0.expand(3, 2)
    torch.testing.assert_close(run(run(y0, 1.0, 1.5), 1.5, 2.25), run(y0, 1.0, 2.25), rtol=1e-13, atol=1e-14)


def test_outputs_stand_at_the_times_asked_for() -> None:
    problem = PROBLEMS["geometric, Ito"]

    def at(times: Tensor) -> Tensor:
        return sdeint(problem.f, problem.g, problem.y0, times, dt=0.1, seed=4).y

    every = at(torch.arange(11, dtype=torch.float64) * 0.1)
    assert torch.equal(at(double(0.0, 0.3, 0.4, 1.0)), every[[0, 3, 4, 10]])
    assert torch.equal(at(torch.tensor([0.0, 0.5, 1.0])), every[[0, 5, 10]])  # float32 times
    assert torch.equal(at(double(0.0)), every[:1])
    loop = sdeint(problem.f, problem.g, problem.y0, double(0.0, 0.3, 0.9), dt=0.1, seed=4, loop=bt.Native()).y
    torch.testing.assert_close(loop, every[[0, 3, 9]])


def test_single_precision_states_stay_so() -> None:
    y = sdeint(lambda t, y: -y, lambda t, y: torch.ones_like(y), torch.zeros(4), _TIMES, dt=0.25).y
    assert y.dtype == torch.float32 and len(set(y[-1].tolist())) == 4


@pytest.mark.parametrize("method", [EulerMaruyama(), ExponentialEulerMaruyama(), StochasticHeun()])
def test_an_ornstein_uhlenbeck_process_has_its_moments(method: Any) -> None:
    # dy = -a y dt + b dW from y = 2; with steps, a method's own moments are the closed forms of its recursion.
    a, b, dt, n = 2.0, 0.9, 0.125, 20_000
    calculus = method.calculi[0]
    y = sdeint(
        lambda t, y: -a * y, lambda t, y: torch.full_like(y, b), torch.full((n,), 2.0).double(), double(0.0, 1.0),
        dt=dt, method=method, noise=Additive(), calculus=calculus, seed=1,
    ).y[-1]  # fmt: skip
    mean, variance = 2.0 * math.exp(-a), b * b * (1.0 - math.exp(-2.0 * a)) / (2.0 * a)
    if not isinstance(method, ExponentialEulerMaruyama):  # which is exact
        factor = 1.0 - a * dt if isinstance(method, EulerMaruyama) else 1.0 - a * dt + 0.5 * (a * dt) ** 2
        push = b if isinstance(method, EulerMaruyama) else b * (1.0 - 0.5 * a * dt)
        mean, variance = 2.0 * factor**8, push**2 * dt * (1.0 - factor**16) / (1.0 - factor**2)
    assert stats.kstest(((y - mean) / math.sqrt(variance)).numpy(), "norm").pvalue > 1e-3


def test_stochastic_heun_without_noise_is_heun() -> None:
    y = sdeint(
        lambda t, y: torch.sin(t) - y, lambda t, y: torch.zeros_like(y), double(1.0), double(0.0, 1.0), dt=1 / 64,
        calculus=STRATONOVICH,
    ).y[-1]  # fmt: skip
    exact = 1.5 * math.exp(-1.0) + 0.5 * (math.sin(1.0) - math.cos(1.0))
    assert abs(float(y) - exact) < 5e-5


@pytest.mark.parametrize("method", [Milstein(), SRI1()])
def test_tolerances_are_met_on_the_path_of_fixed_steps(method: Any) -> None:
    # Rejected steps leave the path as it is, so the solution belongs to the end of the very path that was asked for.
    problem = PROBLEMS["hyperbolic, Ito"]
    path = BrownianPath(0.25, seed=3, batch_shape=(20,))
    exact = problem.solution(path.motion(4, 2)[-1])  # type: ignore[misc]
    steps, errors = [], []
    for rtol in (1e-1, 1e-2, 1e-3):
        found = sdeint(
            problem.f, problem.g, problem.y0.expand(20, 2), _TIMES, dt=0.25, method=method, path=path, rtol=rtol,
            atol=rtol, progress=False,
        )  # fmt: skip
        assert found.y.shape == (5, 20, 2)
        errors.append(float((found.y[-1] - exact).abs().max()))
        steps.append(found.accepted)
        assert errors[-1] < 4.0 * rtol
    assert steps[0] < steps[1] < steps[2] and found.rejected > 0


def test_steps_shrink_where_the_equation_is_fast_and_grow_again() -> None:
    def drift(t: Tensor, y: Tensor) -> Tensor:
        return -200.0 * torch.exp(-200.0 * (t - 0.5) ** 2) * y

    found = sdeint(
        drift, lambda t, y: 0.1 * y, double(1.0), double(0.0, 0.25, 0.75, 1.0, 8.0), dt=0.25, method=Milstein(),
        rtol=1e-2, atol=1e-6, progress=False,
    )  # fmt: skip
    fixed = sdeint(
        drift, lambda t, y: 0.1 * y, double(1.0), double(0.0, 0.25, 0.75, 1.0, 8.0), dt=2.0**-12, method=Milstein(),
        path=BrownianPath(0.25), progress=False, loop=bt.Native(),
    )  # fmt: skip
    assert found.accepted < 1000 and found.rejected > 3
    torch.testing.assert_close(found.y[:2], fixed.y[:2], rtol=0.02, atol=1e-6)


def test_gradients_pass_through_chosen_steps() -> None:
    def end(y0: Tensor) -> Tensor:
        return sdeint(
            lambda t, y: torch.sin(3.0 * y), lambda t, y: 0.3 * y, y0, double(0.0, 0.5), dt=0.25, method=Milstein(),
            rtol=0.02, progress=False,
        ).y[-1]  # fmt: skip

    assert torch.autograd.gradcheck(end, (double(0.8).requires_grad_(),))


def test_an_explosion_is_reported() -> None:
    with pytest.raises(FloatingPointError, match=r"`sdeint\(rtol=0.01\)`: no step from t = .* meets the tolerance"):
        sdeint(
            lambda t, y: y**3, lambda t, y: 0.1 * y, double(2.0), double(0.0, 1.0), dt=0.25, method=Milstein(),
            rtol=0.01, progress=False,
        )  # fmt: skip
