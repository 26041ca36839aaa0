"""Systems as named vector fields, and their derivatives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.analyze import VectorField
from bdtorch.analyze._evaluate import Evaluator
from bdtorch.analyze._lower import Lowered


def _models() -> list[Any]:
    return [
        pytest.param(bt.rates.WilsonCowan(1), {"inputs": (0.3, 0.1)}, ("inputs.0", "w_ee"), id="WilsonCowan"),
        pytest.param(bt.neurons.HodgkinHuxley(1), {"inputs": 5.0}, ("inputs", "channels.Na.g"), id="HodgkinHuxley"),
        pytest.param(bt.rates.WongWang(1), {}, ("coherence", "mu_0"), id="WongWang"),
        pytest.param(bt.neurons.MorrisLecar(()), {"fixed": {"w": 0.1}}, ("w", "i_ext"), id="fixed"),
        pytest.param(bt.rates.LeakyRate(3, x_init=0.2), {}, ("tau", "inputs"), id="three-units"),
    ]


@pytest.mark.parametrize(("system", "options", "active"), _models())
def test_derivatives_agree_with_differences(system: bt.Flow, options: dict[str, Any], active: tuple[str, ...]) -> None:
    field = VectorField(system, **options)
    z = np.concatenate([field.initial(), [field.value(name) for name in active]])
    rng = np.random.default_rng(1)
    evaluator = Evaluator(field, active, z)
    z = z * (1 + 0.01 * rng.standard_normal(len(z))) + 0.01
    u, v, w = rng.standard_normal((3, len(z)))

    def difference(function: Any, along: np.ndarray, step: float = 1e-5) -> np.ndarray:
        return (function(z + step * along) - function(z - step * along)) / (2 * step)

    first = np.stack([difference(evaluator.at, e) for e in np.eye(len(z))], axis=1)
    np.testing.assert_allclose(evaluator.slopes(z), first, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        evaluator.along(z, u, v), difference(lambda y: evaluator.slopes(y) @ u, v), rtol=1e-5, atol=1e-7
    )
    third = difference(lambda y: evaluator.along(y, u, v), w)
    np.testing.assert_allclose(evaluator.along(z, u, v, w), third, rtol=1e-4, atol=1e-6)
    # These run in NumPy, over many points as over one.
    assert all(isinstance(run, Lowered) for run in evaluator._runs.values())
    many = z * (1 + 0.01 * rng.standard_normal((5, len(z))))
    np.testing.assert_allclose(evaluator.f(many), [evaluator.at(y) for y in many], rtol=1e-13)
    np.testing.assert_allclose(evaluator.jacobian(many), [evaluator.slopes(y) for y in many], rtol=1e-13)


def test_control_flow_on_values_runs_as_it_is() -> None:
    def system(s: dict[str, Tensor], p: dict[str, Any]) -> list[Tensor]:
        return [-2.0 * s["x"] ** 2 if s["x"] > 0 else s["x"] * p["k"]]

    field = VectorField(system, variables=["x"], parameters={"k": 3.0})
    evaluator = Evaluator(field, ("k",), np.array([0.5, 3.0]))
    z = np.array([[0.5, 3.0], [-0.5, 4.0]])
    np.testing.assert_allclose(evaluator.f(z), [[-0.5], [-2.0]])
    np.testing.assert_allclose(evaluator.jacobian(z), [[[-2.0, 0.0]], [[4.0, -0.5]]])


def test_vector_functions_and_the_order_of_names() -> None:
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    field = VectorField(lambda x, p: matrix @ x, variables=2)
    assert field.names == ("x0", "x1")
    evaluator = Evaluator(field, (), np.array([0.3, 0.1]))
    np.testing.assert_allclose(evaluator.slopes(np.array([1.0, 1.0])), matrix)
    named = VectorField(lambda s, p: {"b": s["a"], "a": -2 * s["b"]}, variables=["a", "b"])
    np.testing.assert_allclose(Evaluator(named, (), np.ones(2)).at(np.array([3.0, 5.0])), [-10.0, 3.0])


def test_the_module_stays_as_it_was_and_parameters_are_found_by_name() -> None:
    cell = bt.neurons.HodgkinHuxley(1, c=torch.nn.Parameter(torch.tensor([1.5])))
    before = {k: v.clone() for k, v in cell.state_dict().items()}
    field = VectorField(cell, inputs=3.0, parameters={"channels.K.g": 30.0})
    assert field.names == ("v", "channels.Na.m", "channels.Na.h", "channels.K.n")
    assert (field.value("inputs"), field.value("channels.K.g"), field.value("c")) == (3.0, 30.0, 1.5)
    evaluator = Evaluator(field, ("c",), np.array([*field.initial(), 1.5]))
    evaluator.jacobian(np.array([[*field.initial(), 2.0]]))
    assert isinstance(cell.c, torch.nn.Parameter) and cell.c.dtype == torch.float32 and cell.channels["K"].g == 36.0
    assert all(torch.equal(v, before[k]) for k, v in cell.state_dict().items())
    other = field.replaced(fixed={"v": -50.0})
    assert "v" not in other.names and other.value("v") == -50.0 and "v" in field.names


class _Forced(bt.Flow):
    class State(NamedTuple):
        x: Tensor

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(x=self.fill(batch_shape, 0.3))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(x=torch.cos(t) - state.x)


class _Random(_Forced):
    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return self.State(x=torch.randn_like(state.x) - state.x)


class _Broken(_Forced):
    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return (state.x, state.x)


@pytest.mark.parametrize(
    ("make", "x", "error", "message"),
    [
        (lambda: VectorField(_Forced(1)), [0.3], ValueError, "depends on the time"),
        (lambda: VectorField(_Random(1)), [0.3], ValueError, "hidden\nrandomness|hidden randomness"),
        (lambda: VectorField(_Broken(1)), [0.3], ValueError, "structure"),
        (lambda: VectorField(lambda s, p: [s["x"].log()], variables=["x"]), [-1.0], ValueError, "not finite"),
        (lambda: VectorField(lambda s, p: [s["x"]] * 2, variables=["x"]), [1.0], ValueError, "1 variables"),
        (lambda: VectorField(lambda s, p: {"y": s["x"]}, variables=["x"]), [1.0], ValueError, "expected the variables"),
        (lambda: VectorField(lambda s, p: [torch.ones(2)], variables=["x"]), [1.0], ValueError, "single number"),
        (lambda: VectorField(lambda s, p: s), [1.0], ValueError, "names of the function's variables"),
        (lambda: VectorField(torch.nn.Linear(1, 1)), [1.0], TypeError, "Flow or a function"),
        (lambda: VectorField(bt.rates.WilsonCowan(1), fixed={"q": 1.0}), [1.0], ValueError, "'q'"),
        (lambda: VectorField(bt.rates.WilsonCowan(1), fixed={"e": 1.0, "i": 0.0}), [], ValueError, "free"),
        (lambda: VectorField(bt.rates.WilsonCowan(1), parameters={"w": 1.0}), [1.0], ValueError, "'w' is no number"),
        (lambda: VectorField(bt.rates.WilsonCowan(1), parameters={"r": float("nan")}), [1.0], ValueError, "finite"),
        (lambda: VectorField(bt.rates.WilsonCowan(1), inputs="a"), [1.0], TypeError, "number"),
    ],
)
def test_bad_systems_are_refused(make: Any, x: list[float], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make().check(np.array(x))
