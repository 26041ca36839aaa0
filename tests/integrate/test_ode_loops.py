"""Fixed and adaptive methods through the loops, under vmap, and as one compiled graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch
import bdtorch.integrate as integrate
from bdtorch.integrate import (
    RK4,
    DormandPrince5,
    ODESolver,
    Pointwise,
    Recompute,
    _adaptive,
    _derivatives,
    _outputs,
    odeint,
)
from bdtorch.integrate.runge_kutta import RungeKutta
from tests.integrate.problems import lorenz

NAMES = [entry.name for entry in integrate.methods("ODE")]
FAST = ["Euler", "RK4", "ExponentialRK2", "ROS3P"]


def _forced(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(t) - y * y.roll(1, -1)


def _solve(y: Tensor, name: str) -> Tensor:
    return odeint(_forced, y, [0.0, 0.1, 0.3], method=getattr(integrate, name)(), dt=0.1).y


def _start(*shape: int) -> Tensor:
    return torch.linspace(0.2, 1.4, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_equals_singles(name: str) -> None:
    y = _start(3, 4)
    many = torch.func.vmap(lambda row: _solve(row, name))(y)
    torch.testing.assert_close(many, torch.stack([_solve(row, name) for row in y]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in NAMES])
def test_the_whole_solve_compiles_as_one_graph(name: str) -> None:
    torch._dynamo.reset()
    y = _start(4)
    compiled = torch.compile(_solve, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y, name), _solve(y, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [{"dt": 0.05}, {}], ids=["every tenth", "unequal"])
def test_loops_agree_on_fixed_steps(steps: Any) -> None:
    y0, times = {"a": _start(2, 3)}, [0.0, 0.5, 2.0] if steps else [0.0, 0.1, 0.15, 0.3]

    def f(t: Tensor, y: dict[str, Tensor], rate: Tensor, shift: float) -> dict[str, Tensor]:
        return {"a": torch.cos(t) * shift - rate * torch.sin(y["a"])}

    args = (torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 0.5)
    plain = odeint(f, y0, times, args=args, method=RK4(), **steps).y["a"]
    for loop in (bdtorch.Native(), bdtorch.Reference(), Recompute(3)):
        y = odeint(f, y0, times, args=args, method=RK4(), loop=loop, **steps).y["a"]
        torch.testing.assert_close(y, plain, rtol=1e-13, atol=1e-14)


@pytest.mark.slow
def test_the_inductor_loop_agrees() -> None:
    y0, times = _start(2, 3), [0.0, 0.1, 0.3]
    plain = odeint(_forced, y0, times, method=RK4(), dt=0.05).y
    compiled = odeint(_forced, y0, times, method=RK4(), dt=0.05, loop=bdtorch.Inductor(chunk=2)).y
    torch.testing.assert_close(compiled, plain, rtol=1e-13, atol=1e-14)


def _relaxation(t: Tensor, y: Tensor) -> Tensor:
    v, w = y.unbind(-1)
    force = torch.cos(t.squeeze(-1) if t.dim() else t)  # in adaptive steps each trajectory has a time of its own
    return torch.stack([5.0 * (v - v**3 / 3.0 - w + 0.1 * force), 0.08 * (v + 0.7 - 0.8 * w)], -1)


_NATIVE = {"ExponentialRK2", "Rodas4"}
_ADAPTIVE = [entry.name for entry in integrate.methods("ODE") if entry.embedded_order is not None]


@pytest.mark.parametrize(
    "name",
    # A matrix exponential that changes from step to step is the one thing that the native loop has no kernel for.
    [pytest.param(n, marks=() if n in _NATIVE else pytest.mark.slow) for n in NAMES if n != "ExponentialRosenbrock"],
)
def test_every_method_runs_in_the_native_loop(name: str) -> None:
    y0 = torch.linspace(-1.0, 1.0, 10, dtype=torch.float64).reshape(5, 2)
    for dt in (0.05, None) if name in _ADAPTIVE else (0.05,):
        y = [
            odeint(
                _relaxation, y0, [0.0, 0.5, 1.0], method=getattr(integrate, name)(), dt=dt, batch_dims=1, loop=loop
            ).y
            for loop in (None, bdtorch.Native())
        ]
        torch.testing.assert_close(y[1], y[0], rtol=1e-11, atol=1e-12)


def test_the_slopes_of_many_variables_are_found_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    y0 = _start(2, 30)
    whole = odeint(_forced, y0, [0.0, 0.5], method=integrate.ExponentialEuler(), dt=0.1).y
    monkeypatch.setattr(_derivatives, "_ENTRIES", 480)  # of 60 x 60: eight rows of the Jacobian at once
    pieces = odeint(_forced, y0, [0.0, 0.5], method=integrate.ExponentialEuler(), dt=0.1).y
    torch.testing.assert_close(pieces, whole, rtol=1e-14, atol=1e-15)


def test_a_solver_keeps_its_compiled_loop_and_reads_new_arguments() -> None:
    solver = ODESolver(lambda t, y, k: -k * y, method=RK4(), dt=0.1, loop=bdtorch.Native())
    for rate, start in ((1.0, 0.0), (3.0, 5.0)):
        k, y0 = torch.tensor(rate, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        y = solver(y0, [start, start + 1.0], args=(k,)).y[-1]
        torch.testing.assert_close(y, torch.exp(-k).expand(2), rtol=1e-3, atol=0)
    assert len(solver._prepared) == 1
    doubled = ODESolver(lambda t, y, k: -k * y, method=RK4(), dt=0.1, loop=bdtorch.Native())
    for factor in (1.0, 2.0):  # a number is part of the compiled loop
        y = doubled(torch.ones(1, dtype=torch.float64), [0.0, 1.0], args=(factor,)).y[-1]
        torch.testing.assert_close(y, torch.exp(torch.tensor([-factor], dtype=torch.float64)), rtol=1e-3, atol=0)
    assert len(doubled._prepared) == 2


def test_loops_agree_on_adaptive_steps() -> None:
    y0 = _start(8, 3) + torch.tensor([0.0, 0.0, 20.0], dtype=torch.float64)
    times = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    plain = odeint(lorenz, y0, times, method=DormandPrince5(), batch_dims=1)
    native = odeint(lorenz, y0, times, method=DormandPrince5(), batch_dims=1, loop=bdtorch.Native())
    torch.testing.assert_close(native.y, plain.y, rtol=1e-9, atol=1e-9)
    assert torch.equal(native.steps, plain.steps)


def test_vmap_of_an_adaptive_solve_gives_each_sample_its_own_steps() -> None:
    y0 = _start(4, 3) + torch.tensor([0.0, 0.0, 20.0], dtype=torch.float64)
    times = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    many = torch.func.vmap(lambda y: odeint(lorenz, y, times).y)(y0)
    torch.testing.assert_close(many, torch.stack([odeint(lorenz, y, times).y for y in y0]), rtol=1e-9, atol=1e-9)
    rates = torch.tensor([1.0, 5.0], dtype=torch.float64)  # a captured value may be mapped over as well
    one = torch.ones(1, dtype=torch.float64)
    decays = torch.func.vmap(lambda r: odeint(lambda t, y: -r * y, one, [0.0, 1.0], rtol=1e-9, atol=1e-10).y[-1, 0])(
        rates
    )
    torch.testing.assert_close(decays, torch.exp(-rates), rtol=1e-7, atol=0)


def _fitzhugh_nagumo(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    v, w = y["v"], y["w"]
    return {"v": 5.0 * (v - v**3 / 3.0 - w + 0.5), "w": 0.08 * (v + 0.7 - 0.8 * w)}


@pytest.mark.parametrize("name", ["ImplicitEuler", "Kvaerno3", "Rodas4"])
def test_pointwise_blocks_are_the_dense_jacobian_and_run_in_native_loops(name: str) -> None:
    y0 = {"v": _start(5), "w": 0.1 * _start(5)}
    times = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    make = getattr(integrate, name)
    dense = odeint(_fitzhugh_nagumo, y0, times, method=make(), dt=0.1).y
    for loop in (None, bdtorch.Native()):
        blocks = odeint(_fitzhugh_nagumo, y0, times, method=make(coupling=Pointwise()), dt=0.1, loop=loop).y
        torch.testing.assert_close(blocks, dense, rtol=1e-7, atol=1e-9)


def test_implicit_methods_integrate_a_flow() -> None:
    class Oscillator(bdtorch.Flow):
        def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
            v = torch.ones(*batch_shape, *self.size, dtype=self.dtype)
            return {"v": v, "w": torch.zeros_like(v)}

        def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
            return {"v": state["w"], "w": -state["v"]}

    period = 2.0 * torch.pi
    for method in (integrate.ImplicitMidpoint(coupling=Pointwise()), integrate.Tsit5(), integrate.Rodas4(Pointwise())):
        system = Oscillator(3, integrator=method, dtype=torch.float64)
        sol = bdtorch.simulate(
            system, dt=period / 1000, duration=period, record={"v": bdtorch.trace("v")}, loop="reference"
        )
        torch.testing.assert_close(sol["v"][-1], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_eliminate_pivots() -> None:
    from bdtorch.integrate._coupling import eliminate

    torch.manual_seed(1)
    matrix, right = torch.randn(50, 4, 4, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)
    matrix[:10, 0, 0] = 0.0  # no elimination without exchange of rows
    torch.testing.assert_close(eliminate(matrix, right), torch.linalg.solve(matrix, right), rtol=1e-8, atol=1e-9)


def test_a_kept_solver_does_not_depend_on_its_earlier_runs() -> None:
    y0 = torch.tensor([[0.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    f = lambda t, y: torch.stack([y[..., 1], -y[..., 0]], -1)  # noqa: E731
    solver = ODESolver(f, batch_dims=1, loop=bdtorch.Native())
    solver(y0, [0.0, 50.0])  # which leaves behind how many trials, and how long ones, to expect
    kept, fresh = solver(y0, [0.0, 1.0]), ODESolver(f, batch_dims=1, loop=bdtorch.Native())(y0, [0.0, 1.0])
    assert torch.equal(kept.y, fresh.y) and torch.equal(kept.steps, fresh.steps)
    assert kept.evaluations <= 1.5 * fresh.evaluations
    fixed = ODESolver(f, method=RK4(), dt=0.01, loop=bdtorch.Native())
    once = fixed(y0, [0.0, 1.0, 3.0]).y
    assert torch.equal(fixed(y0, [0.0, 1.0, 3.0]).y, once)


def test_lent_records_change_nothing_of_what_was_returned() -> None:
    # The memory that the trials of one call are kept in serves the next: no solution may look into it.
    solver = ODESolver(lorenz, method=DormandPrince5(), batch_dims=1, loop=bdtorch.Native(), progress=False)
    times = torch.linspace(0.0, 0.4, 9, dtype=torch.float64)
    starts = [20.0 * _start(40, 3) - 10.0, 12.0 * _start(40, 3) - 5.0]
    for _ in range(2):  # the second time with chunks as long as the first proved to need
        solutions = [solver(y0, times) for y0 in starts]
        alone = [ODESolver(lorenz, method=DormandPrince5(), batch_dims=1, progress=False)(y0, times) for y0 in starts]
        for ours, plain in zip(solutions, alone, strict=True):
            torch.testing.assert_close(ours.y, plain.y, rtol=1e-9, atol=1e-9)
            assert torch.equal(ours.steps, plain.steps)
    assert not torch.equal(solutions[0].y, solutions[1].y)


@pytest.mark.parametrize("loop", [None, bdtorch.Native()], ids=["python", "native"])
def test_no_bit_depends_on_chunks_of_trials_and_blocks_of_outputs(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    y0, times = 20.0 * _start(5, 3) - 10.0, torch.linspace(0.0, 0.5, 150, dtype=torch.float64)

    def solve() -> Tensor:
        y: Tensor = odeint(lorenz, y0, times, batch_dims=1, loop=loop, progress=False).y
        return y

    whole = solve()
    monkeypatch.setattr(_outputs, "_BLOCK", 7)
    monkeypatch.setattr(_adaptive, "_LARGEST", 1)
    assert torch.equal(solve(), whole) and bool(whole.isfinite().all())


def test_a_solve_in_inference_mode_leaves_nothing_in_the_way_of_later_gradients() -> None:
    weights = (0.123456789, 0.987654321)  # of no other test, so that they are made here
    method = RungeKutta(a=((), (1.0,)), b=(1.0 - weights[0], weights[0]), order=1, error=(weights,), error_order=2)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)

    def solve() -> Tensor:
        solved: Tensor = odeint(lambda t, y: -y, y, [0.0, 0.5], method=method, rtol=1e-2, atol=1e-2).y
        return solved

    with torch.inference_mode():
        solve()
    (gradient,) = torch.autograd.grad(solve()[-1].sum(), y)
    assert bool((gradient > 0.5).all()) and bool((gradient < 0.7).all())
