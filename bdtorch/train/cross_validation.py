"""The choice of a ridge penalty by cross-validation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bdtorch.train._checks import not_negative
from bdtorch.train.readout import checked_samples
from bdtorch.train.ridge import Ridge


class Validation(NamedTuple):
    """Outcome of a cross-validation."""

    penalty: float
    """The penalty of the best mean score over folds; of equals the largest."""
    penalties: tuple[float, ...]
    """What was tried."""
    scores: Tensor
    """Score of each penalty on each fold held out, float64, ``(penalties, folds)``; larger is better."""


def choose_penalty(folds: Sequence[Ridge], penalties: Iterable[float]) -> Validation:
    """Cross-validate from the moments of each fold, without a second pass over the data.

    Each fold is held out in turn and the others are merged, which gives exactly what refits on the data would.

    Args:
        folds: At least 2 fits, each of which was given the samples of one fold.
        penalties: Numbers of at least 0.

    Returns:
        The `Validation`; a score is the negative mean squared error on the fold held out.

    Raises:
        TypeError: A fold is no `Ridge`.
        ValueError: There are too few folds, one is empty, they do not fit each other, or a penalty is out of range.
    """
    tried = _checked_penalties(penalties, "choose_penalty")
    for number, fold in enumerate(folds):
        if not isinstance(fold, Ridge):
            raise TypeError(
                f"`choose_penalty(folds=...)`: expected Ridge objects, got {type(fold).__name__} at {number}"
            )
        if not fold.samples:
            raise ValueError(f"`choose_penalty(folds=...)`: expected samples in every fold, got none in fold {number}")
    if len(folds) < 2:
        raise ValueError(f"`choose_penalty(folds=...)`: expected at least 2 folds, got {len(folds)}")
    scores = [
        [-held_out.mean_squared_error(readout) for readout in _others(folds, k).path(tried, dtype=torch.float64)]
        for k, held_out in enumerate(folds)
    ]
    return _best(tried, scores)


@torch.no_grad()
def cross_validate(
    x: Tensor,
    y: Tensor,
    penalties: Iterable[float],
    *,
    folds: int | Tensor = 5,
    score: Callable[[Tensor, Tensor], float] | None = None,
    intercept: bool = True,
    standardise: bool = False,
) -> Validation:
    """Cross-validate on arrays, by any score.

    Args:
        x: Features, ``(samples, *more, features)``. Folds divide the first axis: a sample's time steps stay together.
        y: Targets, ``(samples, *more, targets)`` or ``(samples, *more)``.
        penalties: Numbers of at least 0.
        folds: Number of contiguous folds, of sizes that differ by at most 1; or the fold of each sample (to stratify or
            shuffle), whole numbers from 0, ``(samples,)``.
        score: ``score(prediction, target)`` of a fold, where larger is better, such as `accuracy`; ``prediction`` is
            ``(samples, *more, targets)`` in double precision and ``target`` the fold's part of ``y``. Default the
            negative mean squared error.
        intercept: As in `Ridge`.
        standardise: As in `Ridge`; the deviations are those of the training folds.

    Raises:
        TypeError, ValueError: An argument is not as described; the message names it.
    """
    tried = _checked_penalties(penalties, "cross_validate")
    checked_samples(x, y, "cross_validate")
    if x.dim() < 2:
        raise ValueError(f"`cross_validate(x=...)`: expected an axis of samples before features, got {tuple(x.shape)}")
    members = _members(x, folds)
    fits = []
    for mine in members:
        fit = Ridge(intercept=intercept, standardise=standardise)
        fit.add(x[mine], y[mine])
        fits.append(fit)
    if score is None:
        return choose_penalty(fits, tried)
    scores = []
    for k, mine in enumerate(members):
        features, target = x[mine].double(), y[mine]
        scores.append(
            [float(score(readout(features), target)) for readout in _others(fits, k).path(tried, dtype=torch.float64)]
        )
    return _best(tried, scores)


def _others(folds: Sequence[Ridge], held_out: int) -> Ridge:
    return functools.reduce(Ridge.merge, [fold for k, fold in enumerate(folds) if k != held_out])


def _best(tried: tuple[float, ...], scores: list[list[float]]) -> Validation:
    table = torch.tensor(scores, dtype=torch.float64).mT
    mean = table.mean(1).tolist()
    if not all(value == value for value in mean):
        raise ValueError("`cross_validate(score=...)`: expected numbers, got NaN")
    return Validation(max(zip(mean, tried, strict=True))[1], tried, table)


def _checked_penalties(penalties: Iterable[float], caller: str) -> tuple[float, ...]:
    if not isinstance(penalties, Iterable):
        raise TypeError(f"`{caller}(penalties=...)`: expected numbers, got {penalties!r}")
    tried = tuple(not_negative(penalty, f"{caller}(penalties=...)") for penalty in penalties)
    if not tried:
        raise ValueError(f"`{caller}(penalties=...)`: expected at least one penalty, got none")
    return tried


def _members(x: Tensor, folds: int | Tensor) -> list[Tensor]:
    """The samples of each fold."""
    samples = len(x)
    if isinstance(folds, Tensor):
        if folds.shape != (samples,) or folds.is_floating_point() or folds.is_complex() or folds.dtype == torch.bool:
            raise ValueError(
                f"`cross_validate(folds=...)`: expected a whole number for each of {samples} samples, "
                f"got {folds.dtype} of shape {tuple(folds.shape)}"
            )
        present = folds.unique()
        if len(present) < 2 or not torch.equal(present, torch.arange(len(present)).to(present)):
            raise ValueError(
                f"`cross_validate(folds=...)`: expected folds 0, 1, ... without gaps, got {present.tolist()}"
            )
        return [(folds == fold).nonzero()[:, 0].to(x.device) for fold in present]
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= samples:
        raise ValueError(f"`cross_validate(folds=...)`: expected 2 to {samples} folds (the samples), got {folds!r}")
    return list(torch.arange(samples, device=x.device).tensor_split(folds))
