"""Every number and switch that a rule, a penalty or a trainer is made with is checked, and named where it is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import bdtorch as bt
from bdtorch.train import (
    LMS,
    RLS,
    ElasticNet,
    EProp,
    Force,
    FullForce,
    Lasso,
    Logistic,
    OnlineReadout,
    RatePenalty,
    Ridge,
    WeightPenalty,
    cross_validate,
)

CELL = bt.rates.LeakyRate(3)
MODEL = bt.Sequential(bt.Recurrent(bt.rates.LeakyRate(3), 2), bt.Readout(3, 1))
X = torch.eye(4)

ABOVE_ZERO: dict[str, Callable[[Any], Any]] = {
    "RLS(alpha=...)": RLS,
    "LMS(rate=...)": LMS,
    "Lasso(penalty=...)": Lasso,
    "ElasticNet(penalty=...)": ElasticNet,
    "Logistic(penalty=...)": Logistic,
    "Force(gain=...)": lambda v: Force(CELL, gain=v),
    "FullForce(gain=...)": lambda v: FullForce(CELL, gain=v),
}
NOT_NEGATIVE: dict[str, Callable[[Any], Any]] = {
    "Ridge(penalty=...)": Ridge,
    "cross_validate(penalties=...)": lambda v: cross_validate(X, X, [v], folds=2),
    "RatePenalty(target=...)": lambda v: RatePenalty("z", v),
    "RatePenalty(weight=...)": lambda v: RatePenalty("z", 1.0, v),
    "WeightPenalty(weight=...)": lambda v: WeightPenalty(weight=v),
    "EProp(rate=...)": lambda v: EProp(MODEL, torch.nn.functional.mse_loss, rate=v),
    "EProp(rate_weight=...)": lambda v: EProp(MODEL, torch.nn.functional.mse_loss, rate_weight=v),
}
FRACTION: dict[str, Callable[[Any], Any]] = {
    "RLS(forgetting=...)": lambda v: RLS(forgetting=v),
    "ElasticNet(mix=...)": lambda v: ElasticNet(mix=v),
}
WHOLE: dict[str, Callable[[Any], Any]] = {
    "Lasso(iterations=...)": lambda v: Lasso(iterations=v),
    "Logistic(iterations=...)": lambda v: Logistic(iterations=v),
    "OnlineReadout(n_in=...)": lambda v: OnlineReadout(v, 1, RLS()),
    "OnlineReadout(n_out=...)": lambda v: OnlineReadout(1, v, RLS()),
    "Force(n_out=...)": lambda v: Force(CELL, v),
    "Force(every=...)": lambda v: Force(CELL, every=v),
    "EProp(chunk=...)": lambda v: EProp(MODEL, torch.nn.functional.mse_loss, chunk=v),
}
FLAG: dict[str, Callable[[Any], Any]] = {
    "Ridge(intercept=...)": lambda v: Ridge(intercept=v),
    "Ridge(standardise=...)": lambda v: Ridge(standardise=v),
    "Lasso(intercept=...)": lambda v: Lasso(intercept=v),
    "Logistic(intercept=...)": lambda v: Logistic(intercept=v),
    "LMS(normalised=...)": lambda v: LMS(normalised=v),
    "OnlineReadout(bias=...)": lambda v: OnlineReadout(1, 1, RLS(), bias=v),
}
NO_NUMBERS = ("a", [1.0], (2,), {}, True, math.nan, torch.ones(1), torch.tensor(1j))
WRONG = (
    (ABOVE_ZERO, (*NO_NUMBERS, None, 0.0, -1.0, math.inf)),
    (NOT_NEGATIVE, (*NO_NUMBERS, -1.0, math.inf)),
    (FRACTION, (*NO_NUMBERS, None, -0.1, 1.1)),
    (WHOLE, (*NO_NUMBERS, None, 0, -1, 1.0)),
    (FLAG, ("yes", None, 1, 0.0)),
)


@pytest.mark.parametrize(
    ("label", "make", "values"), [(label, make, wrong) for makers, wrong in WRONG for label, make in makers.items()]
)
def test_what_is_no_such_number_is_named(label: str, make: Callable[[Any], Any], values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError, match="expected") as caught:
            make(value)
        assert str(caught.value).startswith(f"`{label}`: expected"), value
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("number", [1, np.float32(1.0), np.int64(1), torch.tensor(1.0)], ids=lambda n: type(n).__name__)
def test_numbers_of_other_libraries_are_numbers(number: Any) -> None:
    for make in (*ABOVE_ZERO.values(), *NOT_NEGATIVE.values(), *FRACTION.values()):
        make(number)
    assert type(RLS(number).alpha) is float
