"""Ridge regression in closed form, from moments that are accumulated sample by sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from bdtorch.train._checks import flag, not_negative
from bdtorch.train.readout import ReadoutFit

_EPS = torch.finfo(torch.float64).eps
_BLOCK = 8192  # rows turned into double precision at a time, so that the copy stays small


class Ridge(ReadoutFit):
    r"""Least squares with a quadratic penalty on the weights, the usual readout of a reservoir.

    $$\min_{W, b} \sum_n \lVert y_n - W x_n - b \rVert^2 + \lambda \lVert W \rVert^2$$

    The sums that the solution needs are kept in double precision; their memory is ``features * (features + targets)``
    numbers, whatever the number of samples. The penalty belongs to the sum over samples, not to their mean. A weight of a
    sample multiplies its term of the sum.

    Along directions in which the features do not vary (eigenvalues of the scatter matrix that are rounding: below
    ``features * 2.2e-16`` of the largest) the weight is zero, so that a penalty of 0 gives the least-squares solution
    of the smallest norm.

    Args:
        penalty: $\lambda$ where `solve` is given none; 0 is ordinary least squares.
        intercept: Whether to fit the bias $b$, which is not penalised.
        standardise: Penalise the weights of features that are divided by their standard deviation over the samples, so
            that the unit of a feature does not matter; constant features are left as they are. The readout takes the
            raw features all the same.

    Raises:
        ValueError: ``penalty`` is negative or not finite, or an option is neither True nor False.

    Source: Hoerl & Kennard (1970), doi:10.1080/00401706.1970.10488634; for reservoirs Lukosevicius & Jaeger (2009),
        doi:10.1016/j.cosrev.2009.03.005.
    """

    def __init__(self, penalty: float = 0.0, *, intercept: bool = True, standardise: bool = False) -> None:
        self.penalty = not_negative(penalty, "Ridge(penalty=...)")
        self.intercept = flag(intercept, "Ridge(intercept=...)")
        self.standardise = flag(standardise, "Ridge(standardise=...)")
        self._moments: _Moments | None = None

    @property
    def samples(self) -> int:
        """Number of samples added."""
        return 0 if self._moments is None else self._moments.samples

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        self._take(x, y, None)

    def accumulate_weighted(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        self._take(x, y, weight)

    def _take(self, x: Tensor, y: Tensor, weight: Tensor | None) -> None:
        if self._moments is None:
            self._moments = _Moments.zeros(x.shape[1], y.shape[1], x.device)
        elif self._moments.mean_x.device != x.device:
            raise ValueError(f"`Ridge.add(x=...)`: expected device {self._moments.mean_x.device}, got {x.device}")
        for start in range(0, len(x), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._moments.take(x[block].double(), y[block].double(), None if weight is None else weight[block])

    def merge(self, other: Ridge) -> Ridge:
        """A fit of the samples of both, which stay as they are. Its penalty is that of ``self``.

        Raises:
            TypeError: ``other`` is no `Ridge`.
            ValueError: The two differ in their options, features, targets or device.
        """
        if not isinstance(other, Ridge):
            raise TypeError(f"`Ridge.merge(other=...)`: expected a Ridge, got {type(other).__name__}")
        if (self.intercept, self.standardise) != (other.intercept, other.standardise):
            raise ValueError(
                f"`Ridge.merge(other=...)`: expected intercept={self.intercept}, standardise={self.standardise}, "
                f"got intercept={other.intercept}, standardise={other.standardise}"
            )
        both = Ridge(self.penalty, intercept=self.intercept, standardise=self.standardise)
        for part in (self, other):
            both._absorb(part)
        return both

    def _absorb(self, other: Ridge) -> None:
        if other._moments is None:
            return
        if self._moments is None:
            self.features, self.targets, self.dtype = other.features, other.targets, other.dtype
            self._moments = other._moments.clone()
            return
        mine, its = (self.features, self.targets), (other.features, other.targets)
        if mine != its:
            raise ValueError(f"`Ridge.merge(other=...)`: expected {mine} features and targets, got {its}")
        if self._moments.mean_x.device != other._moments.mean_x.device:
            raise ValueError(
                f"`Ridge.merge(other=...)`: expected device {self._moments.mean_x.device}, "
                f"got {other._moments.mean_x.device}"
            )
        self._moments.absorb(other._moments)

    def solve(self, penalty: float | None = None) -> nn.Linear:
        """The readout at a penalty; default the one of the constructor.

        Returns:
            An `nn.Linear` from features to targets, on the device of the features, which may be trained further.

        Raises:
            ValueError: ``penalty`` is negative or not finite, or nothing was added.
        """
        return self.path([self.penalty if penalty is None else penalty])[0]

    def path(self, penalties: Iterable[float], *, dtype: torch.dtype | None = None) -> list[nn.Linear]:
        """The readouts at several penalties, for the price of one eigendecomposition.

        Args:
            penalties: Numbers of at least 0.
            dtype: Dtype of the readouts; default that of the features.

        Raises:
            ValueError: A penalty is negative or not finite, or nothing was added.
        """
        if not isinstance(penalties, Iterable):
            raise TypeError(f"`Ridge.path(penalties=...)`: expected numbers, got {penalties!r}")
        checked = [not_negative(penalty, "Ridge.solve(penalty=...)") for penalty in penalties]
        moments = self._added("solve")
        xx, xy = moments.scatter(self.intercept)
        scale = moments.deviation() if self.standardise else torch.ones_like(moments.mean_x)
        eigenvalue, vector = torch.linalg.eigh(xx / torch.outer(scale, scale))
        rounding = max(len(scale) * _EPS * eigenvalue[-1], moments.count * (moments.rounding() / scale).max() ** 2)
        kept = eigenvalue > rounding
        eigenvalue, vector = eigenvalue[kept, None], vector[:, kept]
        projected = vector.mT @ (xy / scale[:, None])
        weights = [(vector @ (projected / (eigenvalue + penalty))) / scale[:, None] for penalty in checked]
        return [self._readout(moments, weight, dtype or self.dtype) for weight in weights]

    def _readout(self, moments: _Moments, weight: Tensor, dtype: torch.dtype) -> nn.Linear:
        # Skipping the random initialisation leaves the user's random state alone.
        readout: nn.Linear = nn.utils.skip_init(
            nn.Linear, *weight.shape, bias=self.intercept, device=weight.device, dtype=dtype
        )
        with torch.no_grad():
            readout.weight.copy_(weight.mT)
            if self.intercept:
                readout.bias.copy_(moments.mean_y - moments.mean_x @ weight)
        return readout

    @torch.no_grad()
    def mean_squared_error(self, readout: nn.Linear) -> float:
        """The mean squared error of a readout over all samples added and all targets, from the moments alone.

        Exact to rounding: relative to the variance of the targets, a perfect fit may show some 1e-16 of either sign.

        Raises:
            ValueError: The readout has other features or targets, or nothing was added.
        """
        moments = self._added("mean_squared_error")
        shape = (readout.in_features, readout.out_features)
        if shape != (self.features, self.targets):
            raise ValueError(
                f"`Ridge.mean_squared_error(readout=...)`: expected {(self.features, self.targets)} features and "
                f"targets, got {shape}"
            )
        weight = readout.weight.double()
        bias = 0.0 if readout.bias is None else readout.bias.double()
        offset = moments.mean_y - weight @ moments.mean_x - bias
        spread = moments.yy.sum() + ((weight @ moments.xx - 2.0 * moments.xy.mT) * weight).sum()
        return float((spread / moments.count + (offset**2).sum()) / len(offset))

    def _added(self, caller: str) -> _Moments:
        if self._moments is None:
            raise ValueError(f"`Ridge.{caller}(...)`: expected samples; call add first")
        return self._moments


@dataclass(eq=False)
class _Moments:
    """Means and centred sums of products, which lose no digits to large means as raw sums would.

    Source of the update: Chan, Golub & LeVeque (1983), doi:10.1080/00031305.1983.10483115.
    """

    samples: int
    count: float
    """The sum of their weights."""
    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor
    """``(features, features)``"""
    xy: Tensor
    """``(features, targets)``"""
    yy: Tensor
    """``(targets,)``: only the diagonal is ever needed."""

    @classmethod
    def zeros(cls, features: int, targets: int, device: torch.device) -> _Moments:
        shapes = ((features,), (targets,), (features, features), (features, targets), (targets,))
        return cls(0, 0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def clone(self) -> _Moments:
        return _Moments(self.samples, self.count, *(getattr(self, field.name).clone() for field in fields(self)[2:]))

    def take(self, x: Tensor, y: Tensor, weight: Tensor | None) -> None:
        self.samples += len(x)
        if weight is None:
            count, mean_x, mean_y = float(len(x)), x.mean(0), y.mean(0)
            x, y = x - mean_x, y - mean_y
        else:
            count, root = float(weight.sum()), weight.sqrt().unsqueeze(-1)
            mean_x, mean_y = weight @ x / count, weight @ y / count
            x, y = root * (x - mean_x), root * (y - mean_y)
        self.xx.addmm_(x.mT, x)
        self.xy.addmm_(x.mT, y)
        self.yy.add_((y**2).sum(0))
        self._shift(count, mean_x, mean_y)

    def absorb(self, other: _Moments) -> None:
        self.xx.add_(other.xx)
        self.xy.add_(other.xy)
        self.yy.add_(other.yy)
        self.samples += other.samples
        self._shift(other.count, other.mean_x, other.mean_y)

    def _shift(self, count: float, mean_x: Tensor, mean_y: Tensor) -> None:
        """What the distance between the two means adds to the sums, and the mean of both."""
        total = self.count + count
        dx, dy = mean_x - self.mean_x, mean_y - self.mean_y
        between = self.count * count / total
        self.xx.addr_(dx, dx, alpha=between)
        self.xy.addr_(dx, dy, alpha=between)
        self.yy.add_(dy**2, alpha=between)
        self.mean_x.add_(dx, alpha=count / total)
        self.mean_y.add_(dy, alpha=count / total)
        self.count = total

    def scatter(self, centred: bool) -> tuple[Tensor, Tensor]:
        """Sums of products of features, and of features with targets, about the mean or about zero."""
        if centred:
            return self.xx, self.xy
        n = self.count
        return self.xx.addr(self.mean_x, self.mean_x, alpha=n), self.xy.addr(self.mean_x, self.mean_y, alpha=n)

    def deviation(self) -> Tensor:
        """Standard deviation of every feature over the samples, and 1 for those that are constant but for rounding."""
        deviation = (self.xx.diagonal() / self.count).sqrt()
        return torch.where(deviation <= self.rounding(), 1.0, deviation)

    def rounding(self) -> Tensor:
        """The deviation that a constant feature may show because its mean is rounded."""
        return 64 * _EPS * self.mean_x.abs()
