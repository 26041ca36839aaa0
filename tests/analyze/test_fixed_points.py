"""Fixed and slow points and linearisation, against closed forms and SciPy."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import pytest
import scipy.optimize
import torch

import bdtorch as bt
from bdtorch.analyze import GaussNewton, GradientDescent, Newton, fixed_points, linearise, slow_points
from bdtorch.analyze.fixed_points import distinct

matplotlib.use("Agg")
F64 = torch.float64
METHODS = [Newton(), GaussNewton(), GradientDescent(rate=0.02, decay=0.9995)]


def wells(x: torch.Tensor) -> torch.Tensor:
    """Independent double wells: 3 ** n fixed points, at -1, 0 and 1 of each variable."""
    return x - x**3


def random_network(n: int, gain: float) -> Any:
    """Symmetric weights, with many fixed points."""
    weight = gain * torch.randn(n, n, dtype=F64, generator=torch.Generator().manual_seed(n)) / math.sqrt(n)
    weight = (weight + weight.T) / 2
    return lambda x: torch.tanh(x) @ weight - x


def starts(count: int, n: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, n, dtype=F64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_all_fixed_points_of_double_wells_are_found_once_with_their_stability(method: Any) -> None:
    found = fixed_points(wells, starts(200, 2, 1.2), method=method, tolerance=1e-14)
    assert len(found) == 9
    assert torch.allclose(found.x.round(), found.x, atol=1e-6)
    assert len({tuple(row) for row in found.x.round().tolist()}) == 9
    at_rest = found.x.round() == 0
    assert torch.equal(found.linearisation.unstable_modes, at_rest.sum(1))
    assert torch.equal(found.linearisation.stable, ~at_rest.any(1))
    assert int(found.arrivals.sum()) == int(found.converged.sum()) > 150
    assert torch.equal(found.point >= 0, found.converged)
    assert torch.allclose(found.ends[found.converged], found.x[found.point[found.converged]], atol=1e-5)


@pytest.mark.parametrize("method", METHODS[:2], ids=lambda m: type(m).__name__)
def test_a_networks_fixed_points_are_roots_for_scipy(method: Any) -> None:
    network = random_network(20, 1.8)
    found = fixed_points(network, starts(60, 20), method=method)
    assert len(found) >= 3
    for x in found.x[:8]:
        root = scipy.optimize.root(lambda v: network(torch.tensor(v)).numpy(), x.numpy() + 1e-6, tol=1e-12)
        assert root.success
        assert abs(root.x - x.numpy()).max() < 1e-6
    assert float(found.q.max()) <= 1e-16


def test_a_map_and_its_stability() -> None:
    """x' = r x (1 - x) stands still at 0 and 1 - 1/r, with slopes r and 2 - r."""
    r = torch.tensor([2.5, 3.4], dtype=F64)
    found = fixed_points(lambda x: r * x * (1 - x), starts(50, 2).abs(), discrete=True)
    assert len(found) == 4
    for x, values in zip(found.x, found.linearisation.eigenvalues, strict=True):
        slopes = torch.where(x.abs() < 1e-6, r, 2 - r)
        assert torch.allclose(values.real.sort()[0], slopes.sort()[0], atol=1e-6)
    assert not found.linearisation.stable.any()  # for r = 3.4 neither is


def test_flow_step_and_state_agree() -> None:
    """The step of a flow stands still where its derivative does, with multipliers exp(lambda dt)."""
    model = bt.rates.WilsonCowan(1, dtype=F64)
    start = model.State(torch.rand(30, 1, dtype=F64), torch.rand(30, 1, dtype=F64))
    flow = fixed_points(model, start, inputs=0.5)
    step = fixed_points(model, start, inputs=0.5, dt=0.05)
    assert len(flow) == len(step) >= 1
    order = [int((step.x - x).norm(dim=1).argmin()) for x in flow.x]
    assert torch.allclose(step.x[order], flow.x, atol=1e-6)
    assert isinstance(flow.state, model.State) and flow.state.e.shape == (len(flow), 1)
    grown = torch.exp(0.05 * flow.linearisation.eigenvalues)
    assert torch.allclose(step.linearisation.eigenvalues[order].abs(), grown.abs(), atol=1e-4)


def test_a_recurrent_layer_is_a_map() -> None:
    layer = bt.reservoirs.EchoState(12, 2, spectral_radius=0.5, bias=0.3, dtype=F64)
    found = fixed_points(layer, starts(10, 12), inputs=torch.zeros(2, dtype=F64), dt=1.0)
    assert len(found) == 1 and found.linearisation.stable.all() and found.discrete
    ends = bt.simulate(layer, torch.zeros(300, 2, dtype=F64), dt=1.0, loop="reference").state.x
    assert torch.allclose(found.x[0], ends, atol=1e-8)


def test_slow_points_include_the_ghost_of_a_fold() -> None:
    """dx/dt = x^2 + c is slowest at 0, where q = c^2 / 2, and has no fixed point."""

    def ghost(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[..., 0] ** 2 + 1e-3, -x[..., 1]], -1)

    for method in METHODS[1:]:
        found = slow_points(ghost, starts(20, 2, 0.5), tolerance=1.01 * 0.5e-6, method=method, unique=0.1)
        assert len(found) == 1
        assert float(found.x.abs().max()) < 0.02
    none = fixed_points(ghost, starts(20, 2, 0.5))
    assert len(none) == 0 and not none.converged.any() and "20 of 20 starts did not converge" in none.remarks[0]
    assert none.linearisation is None and none.x.shape == (0, 2)
    none.plot()


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fixed_points(random_network(10, 2.0), starts(33, 10))
    monkeypatch.setattr("bdtorch.analyze._search._BYTES", 30_000)
    parts = fixed_points(random_network(10, 2.0), starts(33, 10))
    assert torch.allclose(whole.ends, parts.ends, atol=1e-9)
    assert torch.equal(whole.point, parts.point)


def test_distinct_is_the_greedy_grouping() -> None:
    x = starts(300, 3)
    expected: list[int] = []
    firsts: list[torch.Tensor] = []
    for row in x:
        near = [k for k, first in enumerate(firsts) if float((first - row).norm()) <= 0.5]
        expected.append(near[0] if near else len(firsts))
        if not near:
            firsts.append(row)
    assert distinct(x, 0.5).tolist() == expected
    assert distinct(torch.ones(5, 2), 0.1).tolist() == [0] * 5
    assert distinct(x[:4], None).tolist() == [0, 1, 2, 3]
    assert distinct(x[:0], 0.1).tolist() == []


def test_outliers_are_left_out_and_said() -> None:
    def far(x: torch.Tensor) -> torch.Tensor:  # roots at 0 and 100
        return x * (x - 100.0) / 100.0

    begin = torch.tensor([[0.1], [-0.2], [0.3], [0.2], [60.0]], dtype=F64)
    every = fixed_points(far, begin)
    some = fixed_points(far, begin, outliers=3.0)
    assert len(every) == 2 and len(some) == 1
    assert some.outlier.tolist() == [False] * 4 + [True] and "outliers" in some.remarks[0]


def test_what_is_not_finite_on_the_way_is_said() -> None:
    found = fixed_points(lambda x: torch.log(x) - 1.0, torch.tensor([[1.0], [-1.0]], dtype=F64))
    assert found.converged.tolist() == [True, False]
    assert math.isclose(float(found.x[0, 0]), math.e)
    assert found.remarks == ("at 1 starts the system is not finite",)


def test_derivatives_are_closed_forms() -> None:
    model = bt.rates.LeakyRate(3, tau=torch.nn.Parameter(torch.tensor([1.0, 2.0, 4.0], dtype=F64)), dtype=F64)
    x = starts(4, 3)
    made = linearise(model, x, inputs=torch.ones(3, dtype=F64), by_inputs=True, by_parameters=["tau"])
    tau = model.tau.detach()
    assert torch.allclose(made.jacobian, torch.diag_embed(-1 / tau.expand(4, 3)))
    assert torch.allclose(made.inputs, torch.diag_embed(1 / tau.expand(4, 3)))
    assert torch.allclose(made.parameters["tau"], torch.diag_embed(-(1 - x) / tau**2))
    assert torch.allclose(made.time_constants, torch.tensor([4.0, 2.0, 1.0], dtype=F64).expand(4, 3))
    assert model.tau.grad is None
    plain = bt.rates.LeakyRate(3, tau=2.0, dtype=F64)
    by_float = linearise(plain, x, inputs=1.0, by_parameters=["tau"]).parameters["tau"]
    assert torch.allclose(by_float, -(1 - x) / 4.0) and plain.tau == 2.0


def test_modes_diagonalise_and_defective_ones_are_said() -> None:
    matrix = torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    made = linearise(lambda x: x @ matrix.T, starts(1, 6))
    assert torch.allclose(made.jacobian[0], matrix)
    assert torch.allclose(made.left[0] @ made.right[0], torch.eye(6, dtype=torch.complex128), atol=1e-10)
    whole = made.right[0] @ torch.diag(made.eigenvalues[0]) @ made.left[0]
    assert torch.allclose(whole.real, matrix, atol=1e-10)
    assert (made.eigenvalues.real.diff(dim=1) <= 1e-12).all()
    block = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=F64)
    assert linearise(lambda x: x @ block.T, starts(1, 2)).left.isnan().all()


def test_pictures() -> None:
    found = fixed_points(wells, starts(40, 3))
    assert found.plot().get_xlabel().startswith("component 1")
    assert found.linearisation.plot(1).get_xlabel().startswith("real")


class Counting(bt.DynamicalSystem):
    """A state that is not made of floats."""

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Any:
        return {"count": torch.zeros((*batch_shape, 1), dtype=torch.int64)}

    def step(self, state: Any, inputs: Any, t: Any, dt: float) -> Any:
        return state, None


ONE = torch.zeros(1, 2, dtype=F64)


@pytest.mark.parametrize(
    ("system", "begin", "options", "error", "message"),
    [
        (wells, torch.zeros(0, 2, dtype=F64), {}, ValueError, "at least one point"),
        (wells, torch.zeros(2, dtype=F64), {}, ValueError, "expected shape"),
        (wells, torch.tensor([[0.0], [math.nan]]), {}, ValueError, "row 1"),
        (wells, torch.zeros(1, 2, dtype=torch.int64), {}, TypeError, "floating"),
        (wells, [[0.0]], {}, TypeError, "expected a tensor"),
        (wells, ONE, {"tolerance": 0.0}, ValueError, "tolerance"),
        (wells, ONE, {"unique": -1.0}, ValueError, "unique"),
        (wells, ONE, {"method": "newton"}, TypeError, "Newton"),
        (wells, ONE, {"dt": 0.1}, ValueError, "takes neither"),
        ("wells", ONE, {}, TypeError, "a system or a function"),
        (lambda x: torch.randn_like(x) * x, ONE + 1, {}, ValueError, "hidden randomness"),
        (lambda x: (x > 0).double(), ONE, {}, ValueError, "no gradient"),
        (lambda x: x[..., :1], ONE, {}, ValueError, "over the last axis"),
        (lambda x: x - x.sum(0), ONE.expand(3, 2) + 1, {}, ValueError, "rows influence each other"),
        (bt.rates.LeakyRate(3), torch.zeros(1, 3, dtype=F64), {}, TypeError, "float32"),
        (bt.rates.LeakyRate(3), torch.zeros(1, 4), {}, ValueError, "expected 3 variables"),
        (bt.reservoirs.EchoState(3, 1), torch.zeros(1, 3), {}, ValueError, "expected a step"),
        (bt.rates.LeakyRate(3), torch.zeros(1, 3), {"dt": -1.0}, ValueError, "above 0"),
        (Counting(1), torch.zeros(1, 1), {"dt": 1.0}, TypeError, "count of Counting is torch.int64"),
    ],
)
def test_bad_arguments_are_named(system: Any, begin: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fixed_points(system, begin, **options)


def test_bad_arguments_of_methods_and_of_linearise_are_named() -> None:
    for make in (
        lambda: Newton(iterations=0),
        lambda: GaussNewton(inner=0),
        lambda: GaussNewton(accuracy=1.0),
        lambda: GradientDescent(rate=0.0),
        lambda: GradientDescent(decay=1.5),
    ):
        with pytest.raises(ValueError, match="expected"):
            make()
    model = bt.rates.LeakyRate(3, dtype=F64)
    with pytest.raises(TypeError, match="floating tensor"):
        linearise(model, starts(1, 3), inputs=1.0, by_inputs=True)
    with pytest.raises(ValueError, match=r"expected some of .*tau"):
        linearise(model, starts(1, 3), by_parameters=["tua"])
    with pytest.raises(ValueError, match="depends on the time"):
        linearise(Driven(1, dtype=F64), starts(1, 1))


class Driven(bt.Flow):
    """A flow that depends on time."""

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Any:
        return (self.fill(batch_shape, 0.0),)

    def derivative(self, state: Any, inputs: Any, t: Any) -> Any:
        return (torch.sin(t) - state[0],)
