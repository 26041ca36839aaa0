"""Readouts of products of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from bdtorch.reservoirs import polynomial_features
from bdtorch.reservoirs.polynomial import checked_degrees
from bdtorch.train.readout import ReadoutFit


class Monomials(nn.Module):
    """`polynomial_features` as a module: ``(*leading, features)`` to ``(*leading, monomials)``."""

    def __init__(self, features: int, degrees: tuple[int, ...]) -> None:
        super().__init__()
        self.features, self.degrees = features, degrees

    def forward(self, x: Tensor) -> Tensor:
        if not x.dim() or x.shape[-1] != self.features:
            raise ValueError(
                f"`Monomials(x)`: expected {self.features} features on the last axis, got {tuple(x.shape)}"
            )
        return polynomial_features(x, self.degrees)


class Polynomial(ReadoutFit):
    """Fits another rule to the monomials of the features, so that the readout is a polynomial.

    Args:
        fit: The rule, such as ``Ridge(1e-6)``, `Lasso` or `Logistic`; nothing was added to it so far.
        degrees: Degrees of the monomials. The constant, degree 0, is a matter of the rule's intercept.

    Raises:
        TypeError: ``fit`` is no rule.
        ValueError: ``degrees`` are not distinct whole numbers, or ``fit`` has been used.
    """

    def __init__(self, fit: ReadoutFit, degrees: Sequence[int] = (1, 2)) -> None:
        if not isinstance(fit, ReadoutFit):
            raise TypeError(f"`Polynomial(fit=...)`: expected a rule such as Ridge(), got {fit!r}")
        if fit.features is not None:
            raise ValueError("`Polynomial(fit=...)`: expected a rule that has no samples, got one that has")
        self.fit, self.degrees = fit, checked_degrees(degrees, "Polynomial")

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        self.fit.add(self._monomials(x), y)

    def accumulate_weighted(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        self.fit.add(self._monomials(x), y, weight)

    def _monomials(self, x: Tensor) -> Tensor:
        return polynomial_features(x if x.is_floating_point() else x.to(self.dtype), self.degrees)

    def solve(self) -> nn.Sequential:
        """The readout, ``Sequential(Monomials, readout of the rule)``, from the raw features.

        Raises:
            ValueError, RuntimeError: As the rule does.
        """
        readout = self.fit.solve()
        return nn.Sequential(Monomials(cast(int, self.features), self.degrees), readout)
