"""What rules that fit a linear readout share, and the coding of classes."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from bdtorch.train._checks import whole


class ReadoutFit(abc.ABC):
    """A rule that fits a linear readout to features and targets that arrive piece by piece.

    A new rule implements `accumulate` and `solve`, and `accumulate_weighted` where samples may have weights; `add`, the
    front door, is written once.
    """

    features: int | None = None
    """Number of features, known from the first `add` on."""
    targets: int | None = None
    """Number of targets, known from the first `add` on."""
    dtype: torch.dtype
    """Dtype of the readout: that of the first features, or the default dtype where they were whole numbers."""

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """Take in samples; all leading axes (time, batch) are flattened into one.

        Args:
            x: Features, ``(*leading, features)``.
            y: Targets, ``(*leading, targets)``; or ``(*leading,)`` for a single one.
            weight: How many times each sample counts, ``(*leading,)``: at least 0, any numbers; None for once each.

        Raises:
            TypeError: An argument is no tensor of real numbers, or the rule takes no weights.
            ValueError: Shapes do not fit each other or what was added before, or a value is NaN, infinite or a negative
                weight.
        """
        label = f"{type(self).__name__}.add"
        rows_x, rows_y = checked_samples(x, y, label)
        if self.features is None:
            self.features, self.targets = rows_x.shape[1], rows_y.shape[1]
            self.dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        for name, rows, width in (("x", rows_x, self.features), ("y", rows_y, self.targets)):
            if rows.shape[1] != width:
                kind = "features" if name == "x" else "targets"
                raise ValueError(f"`{label}({name}=...)`: expected {width} {kind} as before, got {rows.shape[1]}")
        if weight is None:
            if len(rows_x):
                self.accumulate(rows_x, rows_y)
            return
        rows_weight = _checked_weights(weight, x, label)
        counted = rows_weight > 0
        if bool(counted.any()):
            self.accumulate_weighted(rows_x[counted], rows_y[counted], rows_weight[counted])

    @abc.abstractmethod
    def accumulate(self, x: Tensor, y: Tensor) -> None:
        """Take in checked rows ``(samples, features)`` and ``(samples, targets)``, at least one, of any real dtype."""

    def accumulate_weighted(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """Likewise, with weights above 0, ``(samples,)``, float64."""
        raise TypeError(f"`{type(self).__name__}.add(weight=...)`: expected None, since this rule takes no weights")

    @abc.abstractmethod
    def solve(self) -> nn.Module:
        """The readout that fits what was added so far: from ``(*leading, features)`` to ``(*leading, targets)``."""


def checked_samples(x: Tensor, y: Tensor, label: str) -> tuple[Tensor, Tensor]:
    """``x`` and ``y`` as finite rows of equal number, or an error that names ``label``."""
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            raise TypeError(f"`{label}({name}=...)`: expected a tensor, got {type(value).__name__}")
        if value.is_complex():
            raise TypeError(f"`{label}({name}=...)`: expected real numbers, got {value.dtype}")
    if x.dim() < 1 or x.shape[-1] == 0:
        raise ValueError(
            f"`{label}(x=...)`: expected at least one feature on the last axis, got shape {tuple(x.shape)}"
        )
    leading = x.shape[:-1]
    if y.shape == leading:
        y = y.unsqueeze(-1)
    if y.shape[:-1] != leading or y.dim() != x.dim() or y.shape[-1] == 0:
        raise ValueError(
            f"`{label}(y=...)`: expected shape {tuple(leading)} or ({', '.join([*map(str, leading), 'targets'])}) "
            f"to go with features of shape {tuple(x.shape)}, got {tuple(y.shape)}"
        )
    if x.device != y.device:
        raise ValueError(f"`{label}(y=...)`: expected device {x.device} like the features, got {y.device}")
    for name, value in (("x", x), ("y", y)):
        finite = value.isfinite()
        if not bool(finite.all()):
            where = tuple((~finite).nonzero()[0].tolist())
            raise ValueError(f"`{label}({name}=...)`: expected finite numbers, got {value[where].item()} at {where}")
    return x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])


def _checked_weights(weight: Tensor, x: Tensor, label: str) -> Tensor:
    if not isinstance(weight, Tensor) or weight.is_complex():
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"`{label}(weight=...)`: expected a tensor of real numbers, got {got}")
    if weight.shape != x.shape[:-1]:
        raise ValueError(f"`{label}(weight=...)`: expected shape {tuple(x.shape[:-1])}, got {tuple(weight.shape)}")
    if not bool((weight.isfinite() & (weight >= 0)).all()):
        raise ValueError(f"`{label}(weight=...)`: expected finite numbers of at least 0, got others")
    return weight.reshape(-1).to(device=x.device, dtype=torch.float64)


def one_hot(labels: Tensor, classes: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Class labels as targets: 1 for the class, 0 for the others.

    Args:
        labels: Whole numbers in ``[0, classes)``, any shape.
        classes: Number of classes.
        dtype: Floating dtype; default `torch.get_default_dtype`.

    Returns:
        Tensor ``(*labels.shape, classes)``.

    Raises:
        TypeError: ``labels`` is no tensor of whole numbers.
        ValueError: A label is out of range.
    """
    _check_whole("one_hot(labels=...)", labels)
    whole(classes, "one_hot(classes=...)")
    if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise ValueError(
            f"`one_hot(labels=...)`: expected labels in [0, {classes}), got {int(labels.min())} to {int(labels.max())}"
        )
    return nn.functional.one_hot(labels.long(), classes).to(dtype or torch.get_default_dtype())


def accuracy(prediction: Tensor, target: Tensor) -> float:
    """Fraction of samples whose largest prediction is that of the right class.

    Args:
        prediction: ``(*leading, classes)``.
        target: Labels ``(*leading,)``, or one-hot ``(*leading, classes)``.

    Raises:
        TypeError: Labels are no whole numbers.
        ValueError: Shapes do not fit, or there is no sample.
    """
    if not isinstance(prediction, Tensor) or not isinstance(target, Tensor):
        raise TypeError("`accuracy(prediction, target)`: expected tensors")
    if prediction.dim() < 1 or target.shape not in (prediction.shape, prediction.shape[:-1]) or not target.numel():
        raise ValueError(
            "`accuracy(prediction, target)`: expected (*leading, classes) and the same or (*leading,), with at least "
            f"one sample, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if target.dim() == prediction.dim():
        target = target.argmax(-1)
    _check_whole("accuracy(target=...)", target)
    return float((prediction.argmax(-1) == target).double().mean())


def _check_whole(label: str, labels: Tensor) -> None:
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"`{label}`: expected a tensor of whole numbers, got {kind}")
