"""Constraints on trained weights, as parametrisations of `torch.nn.utils.parametrize`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bdtorch.connect import CSR, Weights
from bdtorch.train._checks import finite


class Signed(nn.Module):
    """Weights of fixed signs: the free parameter's modulus times the sign."""

    signs: Tensor

    def __init__(self, signs: Tensor) -> None:
        super().__init__()
        self.register_buffer("signs", signs)

    def forward(self, free: Tensor) -> Tensor:
        # As the modulus, but with a slope of 1 at zero, where weights would stay for ever.
        return torch.where(free < 0, -free, free) * self.signs

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.abs()


class Masked(nn.Module):
    """Weights that are zero where the mask is."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, free: Tensor) -> Tensor:
        return free * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class Positive(nn.Module):
    """Numbers above a bound: the bound plus the exponential of the free parameter."""

    def __init__(self, above: float) -> None:
        super().__init__()
        self.above = above

    def forward(self, free: Tensor) -> Tensor:
        return self.above + free.exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        return (value - self.above).log()


def dale(module: nn.Module, signs: Tensor, *, name: str = "weight", axis: int = 0) -> nn.Module:
    """Give every source's weights one sign (Dale's law), during training and after.

    The sign belongs to the sender: with the layout of this package, ``y_j = sum_i x_i w_ij``, it goes along rows.
    A free parameter of the same shape is what is trained; the weight is its modulus times the sign, so weights that
    have the other sign are turned over.

    Args:
        module: Holds the weight: a `bdtorch.connect.Weights` (dense or sparse), or any module.
        signs: 1 for excitatory sources, -1 for inhibitory ones (0 for none), ``(sources,)``.
        name: Its parameter.
        axis: The parameter's axis of sources; 1 for an `nn.Linear`.

    Returns:
        ``module``.

    Raises:
        TypeError: There is no such parameter.
        ValueError: ``signs`` are others than -1, 0 and 1, or not one for each source.
    """
    weight = _parameter(module, name, "dale")
    if not isinstance(signs, Tensor):
        raise TypeError(f"`dale(signs=...)`: expected a tensor, got {type(signs).__name__}")
    if not bool(((signs == 1) | (signs == -1) | (signs == 0)).all()):
        raise ValueError(f"`dale(signs=...)`: expected -1, 0 or 1 for each source, got {signs.tolist()}")
    signs = signs.to(dtype=weight.dtype, device=weight.device)
    if isinstance(module, Weights) and name == "weight":
        sources = module.connect.n_pre
        each = signs[module.connect.rows] if isinstance(module.connect, CSR) else signs.unsqueeze(-1)
    else:
        if isinstance(axis, bool) or not isinstance(axis, int) or not -weight.dim() <= axis < weight.dim():
            raise ValueError(f"`dale(axis=...)`: expected an axis of {tuple(weight.shape)}, got {axis!r}")
        sources = weight.shape[axis]
        each = signs.reshape([-1 if other == axis % weight.dim() else 1 for other in range(weight.dim())])
    if signs.shape != (sources,):
        raise ValueError(
            f"`dale(signs=...)`: expected one sign for each of {sources} sources, got {tuple(signs.shape)}"
        )
    parametrize.register_parametrization(module, name, Signed(each))
    return module


def masked(module: nn.Module, mask: Tensor, *, name: str = "weight") -> nn.Module:
    """Keep weights at zero where ``mask`` is, during training and after.

    Args:
        module: Any module.
        mask: Boolean, of the parameter's shape.
        name: Its parameter.

    Returns:
        ``module``.

    Raises:
        TypeError: There is no such parameter.
        ValueError: ``mask`` is of another shape or dtype.
    """
    weight = _parameter(module, name, "masked")
    if not isinstance(mask, Tensor):
        raise TypeError(f"`masked(mask=...)`: expected a tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise ValueError(
            f"`masked(mask=...)`: expected booleans of shape {tuple(weight.shape)}, got {mask.dtype} {tuple(mask.shape)}"
        )
    parametrize.register_parametrization(module, name, Masked(mask.to(weight.device)))
    return module


def positive(module: nn.Module, name: str, *, above: float = 0.0) -> nn.Module:
    """Keep a parameter above a bound, during training and after, such as a time constant that is learnt.

    The logarithm of its distance from the bound is what is trained, so a step of an optimizer is one in relative terms.

    Args:
        module: Any module, such as a cell.
        name: Its parameter.
        above: The bound.

    Returns:
        ``module``.

    Raises:
        TypeError: There is no such parameter.
        ValueError: A value is not above ``above``, or that is no finite number.
    """
    value = _parameter(module, name, "positive")
    bound = finite(above, "positive(above=...)")
    if not bool(((value > bound) & value.isfinite()).all()):
        raise ValueError(f"`positive(name=...)`: expected finite values above {bound:g}, got {value.min().item():g}")
    parametrize.register_parametrization(module, name, Positive(bound))
    return module


def _parameter(module: nn.Module, name: str, label: str) -> Tensor:
    if not isinstance(module, nn.Module):
        raise TypeError(f"`{label}(module=...)`: expected a module, got {type(module).__name__}")
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        known = ", ".join(repr(key) for key, _ in module.named_parameters()) or "none"
        raise TypeError(f"`{label}(name=...)`: expected a parameter among {known}, got {name!r}")
    return weight
