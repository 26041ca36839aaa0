"""The numerical parts of the analysers, each against a plainer way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bdtorch.analyze import VectorField
from bdtorch.analyze._collocation import Collocation, Cycle, multipliers
from bdtorch.analyze._contour import zero_curves
from bdtorch.analyze._evaluate import Evaluator
from bdtorch.analyze._periodic import reduce
from bdtorch.analyze._roots import newton
from bdtorch.analyze._trajectory import flow_many, flow_one


@pytest.mark.parametrize("count", [1, 2, 7, 16, 21])
def test_chains_of_equations_against_a_dense_solution(count: int) -> None:
    rng = np.random.default_rng(count)
    n, columns = 3, 2
    first, last = rng.standard_normal((2, count, n, n))
    side = rng.standard_normal((count, n, columns))
    w = rng.standard_normal(columns)
    reduced = reduce(first, last, side)
    x0 = np.linalg.solve(reduced.first + reduced.last, reduced.side @ w)
    dense, right = np.zeros((count * n, count * n)), np.zeros(count * n)
    for j in range(count):
        rows, following = slice(j * n, j * n + n), ((j + 1) % count) * n
        dense[rows, j * n : j * n + n] += first[j]
        dense[rows, following : following + n] += last[j]
        right[rows] = side[j] @ w
    want = np.linalg.solve(dense, right).reshape(count, n)
    np.testing.assert_allclose(reduced.points[:-1] @ np.concatenate([x0, w]), want, atol=1e-8)
    # The chain carries x_0 to x_N: the product of the single steps.
    product = np.eye(n)
    for a, b in zip(first, last, strict=True):
        product = np.linalg.solve(b, -a @ product)
    np.testing.assert_allclose(np.linalg.solve(reduced.last, -reduced.first), product, rtol=1e-6)


def _oscillator() -> Evaluator:
    field = VectorField(
        lambda s, p: (s["y"], 2.0 * (1 - s["x"] ** 2) * s["y"] - s["x"]), variables=("x", "y"), parameters={}
    )
    return Evaluator(field, (), np.array([0.1, 0.2]))


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_collocation_converges_with_twice_its_degree(degree: int) -> None:
    evaluator = _oscillator()
    end = flow_one(evaluator, np.array([0.1, 0.2]), np.array([0.0, 60.0]))[-1]
    times = np.linspace(0.0, 7.6299, 800)
    loop = flow_one(evaluator, end, times)
    exact = 7.6298744796767  # 160 intervals of degree 5, and 160 of degree 4 agree so far
    errors = []
    for intervals in (20, 40):
        problem = Collocation(evaluator, np.ones(2), degree=degree)
        found = problem.refined(problem.sampled(times, loop, intervals), passes=6)
        assert found is not None
        errors.append(abs(found[0].period - exact))
    assert errors[0] / errors[1] > 2 ** (2 * degree - 1.5)


def test_moving_a_cycle_to_another_mesh_keeps_it() -> None:
    problem = Collocation(_oscillator(), np.ones(2))
    edges = np.linspace(0.0, 1.0, 31)
    at = edges[:-1, None] + np.diff(edges)[:, None] * np.arange(5) / 4
    cycle = Cycle(edges, np.stack([np.cos(2 * np.pi * at), np.sin(2 * np.pi * at)], axis=-1), 1.0)
    moved = problem.moved(cycle, np.sort(np.concatenate([[0.0, 1.0], np.random.default_rng(0).random(40)])))
    unit, values = moved.profile
    np.testing.assert_allclose(values[:, 0], np.cos(2 * np.pi * unit), atol=1e-6)
    assert np.array_equal(values[0], values[-1])


def test_multipliers_of_the_plane_survive_what_the_matrix_does_not() -> None:
    # r' = -k (r - 1), angle' = 1: the other multiplier is exp(-2 pi k), here 1e-82.
    k = 30.0

    def field(s: dict, p: dict) -> list:
        r = (s["x"] ** 2 + s["y"] ** 2).sqrt()
        return [-k * (r - 1) * s["x"] / r - s["y"], -k * (r - 1) * s["y"] / r + s["x"]]

    evaluator = Evaluator(VectorField(field, variables=("x", "y")), (), np.array([0.9, 0.3]))
    problem = Collocation(evaluator, np.ones(2))
    times = np.linspace(0.0, 2 * math.pi, 200)
    found = problem.refined(problem.sampled(times, np.stack([np.cos(times), np.sin(times)], axis=1), 40))
    assert found is not None
    trivial, other = multipliers(found[1])
    assert abs(trivial - 1.0) < 1e-6 and math.log(other.real) == pytest.approx(-2 * math.pi * k, rel=1e-8)


def test_crossing_curves_are_told_apart_by_the_middle_of_their_cell() -> None:
    def hyperbola(z: np.ndarray) -> np.ndarray:
        return z[:, 0] * z[:, 1] - 1e-4

    axis = np.linspace(-1.0, 1.0, 20)  # no line of the grid through 0
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    curves = zero_curves(hyperbola, axis, axis, hyperbola(grid.reshape(-1, 2)).reshape(20, 20))
    assert len(curves) == 2
    for curve in curves:
        assert np.abs(hyperbola(curve)).max() < 1e-13 and len(set(np.sign(curve[:, 0]))) == 1


def test_newton_finds_all_roots_once_and_double_roots_too() -> None:
    field = VectorField(lambda s, p: [s["x"] ** 2 - 1.0, (s["y"] - 0.5) ** 2], variables=("x", "y"))
    evaluator = Evaluator(field, (), np.zeros(2))
    starts = np.random.default_rng(0).uniform(-2.0, 2.0, (60, 2))
    roots = newton(evaluator, starts, np.ones(2))
    np.testing.assert_allclose(roots, [[-1.0, 0.5], [1.0, 0.5]], atol=2e-4)


def test_trajectories_with_steps_of_their_own_go_both_ways() -> None:
    field = VectorField(lambda s, p: [-s["x"] * p["k"]], variables=("x",), parameters={"k": 1.0})
    evaluator = Evaluator(field, ("k",), np.array([1.0, 1.0]))
    starts, rates = np.array([[1.0], [2.0], [-3.0]]), np.array([[1.0], [20.0], [0.1]])
    for backward in (False, True):
        runs = flow_many(
            evaluator, starts, 0.4, np.ones(1), parameters=rates, tolerance=1e-9, backward=backward, limit=1e9
        )
        for (t, x), start, k in zip(runs, starts[:, 0], rates[:, 0], strict=True):
            assert t[-1] == pytest.approx(-0.4 if backward else 0.4)
            np.testing.assert_allclose(x[:, 0], start * np.exp(-k * t), rtol=1e-6)
