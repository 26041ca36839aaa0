"""Readouts with other penalties and losses than ridge regression's, by scikit-learn's solvers."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bdtorch.train._checks import above_zero, flag, fraction, whole
from bdtorch.train.readout import ReadoutFit


class _Collected(ReadoutFit):
    """A fit that keeps its samples, in double precision, and hands them to scikit-learn.

    A weight of a sample multiplies its term of the sum over samples, and its part of their number $n$.
    """

    def __init__(self, penalty: float, intercept: bool, iterations: int) -> None:
        label = type(self).__name__
        if importlib.util.find_spec("sklearn") is None:
            raise ImportError(f"`{label}` needs scikit-learn: pip install 'bdtorch[readouts]'")
        self.penalty = above_zero(penalty, f"{label}(penalty=...)")
        self.intercept = flag(intercept, f"{label}(intercept=...)")
        self.iterations = whole(iterations, f"{label}(iterations=...)")
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        self.accumulate_weighted(x, y, torch.ones(len(x), dtype=torch.float64))

    def accumulate_weighted(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        self._rows.append((x.detach().double().cpu(), y.detach().double().cpu(), weight.cpu()))
        self._device = x.device

    def _samples(self) -> tuple[Any, Any, Any]:
        """Features, targets, and weights, which are None where all are 1."""
        if not self._rows:
            raise ValueError(f"`{type(self).__name__}.solve`: expected samples, but nothing was added")
        x, y, weight = (torch.cat(parts).numpy() for parts in zip(*self._rows, strict=True))
        return x, y, None if (weight == 1.0).all() else weight

    def _fitted(self, model: Any, x: Any, y: Any, weight: Any) -> Any:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                return model.fit(x, y, sample_weight=weight)
            except ConvergenceWarning as problem:
                raise RuntimeError(
                    f"`{type(self).__name__}.solve`: no convergence in iterations={self.iterations}: {problem}"
                ) from problem

    def _linear(self, weight: Any, bias: Any) -> nn.Linear:
        weight = torch.as_tensor(weight, dtype=self.dtype, device=self._device)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=self.intercept, dtype=self.dtype, device=self._device)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if self.intercept:
                layer.bias.copy_(torch.as_tensor(bias, dtype=self.dtype))
        return layer


class ElasticNet(_Collected):
    r"""Least squares with a penalty that makes weights sparse and small.

    $$\min_{W, b} \frac{1}{2n} \sum_n \lVert y_n - W x_n - b \rVert^2
    + \lambda \rho \lVert W \rVert_1 + \frac{\lambda (1 - \rho)}{2} \lVert W \rVert^2$$

    Args:
        penalty: $\lambda$, above 0.
        mix: $\rho$, in [0, 1]: 1 is the lasso.
        intercept: Whether to fit the bias, which is not penalised.
        iterations: Most passes of coordinate descent.

    Raises:
        ValueError: A number is out of range.
        RuntimeError: `solve` did not converge.

    Source: Zou & Hastie (2005), doi:10.1111/j.1467-9868.2005.00503.x.
    """

    def __init__(
        self, penalty: float = 1.0, *, mix: float = 0.5, intercept: bool = True, iterations: int = 10_000
    ) -> None:
        super().__init__(penalty, intercept, iterations)
        self.mix = fraction(mix, f"{type(self).__name__}(mix=...)")

    def solve(self) -> nn.Linear:
        from sklearn.linear_model import ElasticNet as Solver

        x, y, weight = self._samples()
        model = Solver(
            alpha=self.penalty,
            l1_ratio=self.mix,
            fit_intercept=self.intercept,
            max_iter=self.iterations,
            tol=1e-12,
        )
        fitted = self._fitted(model, x, y, weight)
        return self._linear(fitted.coef_.reshape(y.shape[1], -1), fitted.intercept_)


class Lasso(ElasticNet):
    r"""Least squares with a penalty $\lambda \lVert W \rVert_1$, which sets weights to zero: `ElasticNet` with ``mix=1``.

    Source: Tibshirani (1996), doi:10.1111/j.2517-6161.1996.tb02080.x.
    """

    def __init__(self, penalty: float = 1.0, *, intercept: bool = True, iterations: int = 10_000) -> None:
        super().__init__(penalty, mix=1.0, intercept=intercept, iterations=iterations)


class Logistic(_Collected):
    r"""Multinomial logistic regression: the readout's outputs are the classes' logits.

    $$\min_{W, b} -\sum_n \log \operatorname{softmax}(W x_n + b)_{c_n} + \frac{\lambda}{2} \lVert W \rVert^2$$

    Targets are one-hot, ``(samples, classes)``, as `bdtorch.train.one_hot` makes them.

    Args:
        penalty: $\lambda$, above 0.
        intercept: Whether to fit the bias, which is not penalised.
        iterations: Most iterations of the solver (Newton's method with conjugate gradients).

    Raises:
        ValueError: A number is out of range; targets are not one-hot, or a class has no sample.
        RuntimeError: `solve` did not converge.
    """

    def __init__(self, penalty: float = 1.0, *, intercept: bool = True, iterations: int = 1000) -> None:
        super().__init__(penalty, intercept, iterations)

    def solve(self) -> nn.Linear:
        from sklearn.linear_model import LogisticRegression

        x, y, each = self._samples()
        if y.shape[1] < 2 or not ((y == 0) | (y == 1)).all() or not (y.sum(1) == 1).all():
            raise ValueError(
                "`Logistic.solve`: expected one-hot targets of at least 2 classes; see bdtorch.train.one_hot"
            )
        if not y.any(0).all():
            missing = [number for number, present in enumerate(y.any(0)) if not present]
            raise ValueError(f"`Logistic.solve`: expected samples of every class, got none of {missing}")
        # Of two classes the solver has one logit w, which the two weights -w/2 and w/2 share with half its penalty.
        pair = y.shape[1] == 2
        strength = (2.0 if pair else 1.0) / self.penalty
        model = LogisticRegression(
            C=strength, fit_intercept=self.intercept, solver="newton-cg", max_iter=self.iterations, tol=1e-10
        )
        fitted = self._fitted(model, x, y.argmax(1), each)
        weight, bias = fitted.coef_, fitted.intercept_
        if pair:
            weight, bias = np.concatenate([-weight, weight]) / 2.0, np.concatenate([-bias, bias]) / 2.0
        return self._linear(weight, bias)
