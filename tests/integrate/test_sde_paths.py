"""Brownian paths: their law, and that they are one path at every step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from bdtorch.integrate import Additive, BrownianPath, Diagonal, General, Scalar
from bdtorch.ops.random import make_key

_PATH = BrownianPath(0.5, seed=11, batch_shape=(2000,))


def _increments(path: BrownianPath, steps: int, depth: int, width: int = 1) -> tuple[Tensor, Tensor]:
    taken = [
        path.increment(number, width, dtype=torch.float64, depth=depth, area=True)
        for number in torch.arange(steps).unbind()
    ]
    return torch.stack([one.w for one in taken]), torch.stack([one.area for one in taken])


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_increments_and_areas_of_every_level_are_independent_and_normal(depth: int) -> None:
    h = 0.5 / 2**depth
    w, area = _increments(_PATH, 8, depth)
    columns = torch.cat([w / h**0.5, area / (h / 12.0) ** 0.5]).squeeze(-1)
    for column in columns:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-4
    correlations = torch.corrcoef(columns) - torch.eye(len(columns), dtype=torch.float64)
    assert float(correlations.abs().max()) < 4.5 / 2000**0.5


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_halves_make_up_the_whole(depth: int) -> None:
    # Of two halves: W = W1 + W2, and the integrals of the path, h (W/2 + A), add up with what the first leaves behind.
    for level in range(depth):
        h = 0.5 / 2 ** (level + 1)
        (w, area), (half, half_area) = _increments(_PATH, 3, level), _increments(_PATH, 6, level + 1)
        torch.testing.assert_close(half[0::2] + half[1::2], w, rtol=0.0, atol=1e-13)
        integral = h * (0.5 * half + half_area)
        whole = integral[0::2] + integral[1::2] + h * half[0::2]
        torch.testing.assert_close(whole, 2.0 * h * (0.5 * w + area), rtol=0.0, atol=1e-13)


def test_the_area_is_that_of_the_finer_path() -> None:
    # The mean height above the chord, by the trapezoidal rule over 1,024 points of the same path.
    path, depth = BrownianPath(0.5, seed=3, batch_shape=(50,)), 8
    motion = path.motion(2**depth, 1, depth=depth)
    chord = torch.linspace(0.0, 1.0, 2**depth + 1, dtype=torch.float64).reshape(-1, 1, 1) * motion[-1]
    height = torch.trapezoid(motion - chord, dim=0) / 2**depth
    area = path.increment(torch.tensor(0), 1, dtype=torch.float64, area=True).area
    assert area is not None
    assert float((height - area).abs().max()) < 5.0 * (0.5 / 12.0) ** 0.5 / 2**depth


def test_a_level_below_the_grid_is_the_step_of_that_level() -> None:
    number = torch.tensor(3)
    fine = _PATH.increment(number << 4, 2, dtype=torch.float64, depth=6, level=2, area=True)
    same = _PATH.increment(number, 2, dtype=torch.float64, depth=2, area=True)
    assert torch.equal(fine.w, same.w)
    assert fine.area is not None and same.area is not None and torch.equal(fine.area, same.area)


def test_an_increment_is_the_same_with_and_without_area_and_however_many_are_drawn() -> None:
    number = torch.tensor(5)
    for depth in (0, 2):
        alone = _PATH.increment(number, 1, dtype=torch.float64, depth=depth)
        assert alone.area is None
        assert torch.equal(alone.w, _PATH.increment(number, 1, dtype=torch.float64, depth=depth, area=True).w)
    assert torch.equal(
        _PATH.increment(number, 1, dtype=torch.float64).w, _PATH.increment(number, 3, dtype=torch.float64).w[..., :1]
    )


def test_a_batch_element_is_the_path_of_its_key() -> None:
    single = BrownianPath(0.5, seed=make_key(11, (2000,))[7])
    assert torch.equal(_PATH.motion(4, 3)[:, 7], single.motion(4, 3))


def test_motion_begins_at_0_and_sums_the_increments() -> None:
    motion = _PATH.motion(3, 2)
    assert motion.shape == (4, 2000, 2) and not bool(motion[0].any())
    torch.testing.assert_close(motion.diff(dim=0), _increments(_PATH, 3, 0, 2)[0])
    assert _PATH.motion(0, 2).shape == (1, 2000, 2)


_MATRIX = torch.tensor([[1.0, 0.7, -0.2], [0.7, 1.0, 0.1], [-0.2, 0.1, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "noise", [Diagonal(_MATRIX), Additive(_MATRIX), General(_MATRIX, processes=3), Additive(_MATRIX, processes=3)]
)
def test_correlated_processes_have_the_correlations_that_were_asked_for(noise: Any) -> None:
    y = (torch.zeros(2000, 1), torch.zeros(2000, 2)) if not noise.vector else torch.zeros(2000, 5)
    values = _PATH.increment(torch.tensor(0), noise.width(y, 1), dtype=torch.float64).w / 0.5**0.5
    spread = noise.spread(values, y, 1)
    together = torch.cat(spread, -1) if not noise.vector else spread.squeeze(1)
    assert float((torch.cov(together.T) - _MATRIX).abs().max()) < 4.5 * (2.0 / 2000) ** 0.5


def test_scalar_noise_is_one_process_for_all_leaves() -> None:
    y = {"a": torch.zeros(2000, 3), "b": torch.zeros(2000)}
    values = _PATH.increment(torch.tensor(0), Scalar().width(y, 1), dtype=torch.float64).w
    spread = Scalar().spread(values, y, 1)
    assert spread["a"].shape == (2000, 1) and spread["b"].shape == (2000,)
    assert torch.equal(spread["a"][:, 0], spread["b"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"step": 0.0}, ValueError, r"`BrownianPath\(step=...\)`: expected a finite number above 0, got 0.0"),
        ({"step": True}, ValueError, "step"),
        ({"step": 1.0, "seed": torch.zeros(2)}, TypeError, "expected an integer or int64 keys, got torch.float32"),
        ({"step": 1.0, "seed": make_key(0, (2,)), "batch_shape": (3,)}, ValueError, r"the shape of the keys, \(2,\)"),
    ],
)
def test_paths_reject_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BrownianPath(**arguments)


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        ([[1.0, 0.0]], ValueError, r"a square matrix, got shape \(1, 2\)"),
        ([[1.0, 0.5], [0.4, 1.0]], ValueError, "a symmetric matrix"),
        ([[1.0, 0.5], [0.5, 2.0]], ValueError, "ones on the diagonal"),
        ([[1.0, 1.2], [1.2, 1.0]], ValueError, "a positive definite matrix, got the eigenvalue -0.2"),
        ([[1.0, 1.0], [1.0, 1.0]], ValueError, "a positive definite matrix"),
        ([[1, 0], [0, 1]], TypeError, "a floating tensor"),
    ],
)
def test_correlation_matrices_are_checked(matrix: list[list[float]], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=r"`Diagonal\(correlation=...\)`: expected " + message):
        Diagonal(torch.tensor(matrix))


def test_the_number_of_processes_is_checked() -> None:
    with pytest.raises(ValueError, match=r"`General\(processes=...\)`: expected a positive integer, got 0"):
        General(processes=0)
    with pytest.raises(ValueError, match=r"`Additive\(correlation=...\)`: expected shape \(2, 2\) for processes=2"):
        Additive(_MATRIX, processes=2)
