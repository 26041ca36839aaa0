"""Terms that are added to a loss: on the activity of populations, and on weights."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.nn.utils import parametrize

from bdtorch.simulate import Solution
from bdtorch.train._checks import not_negative


class Penalty(Protocol):
    """Anything that makes a scalar of a module and what its simulation recorded."""

    def __call__(self, system: nn.Module, sol: Solution) -> Tensor:
        """The term, 0-d."""


@dataclass(frozen=True)
class RatePenalty:
    """``weight * mean_j (rate_j - target)^2`` over the cells of a record, each rate a mean over time and batch.

    Args:
        record: Name of a record of the cells' output, ``(time, *batch, cells)``, such as ``bdtorch.trace("0.out")``.
        target: Rate, Hz (for records of rates, which are no spikes, 1000 / dt times their mean).
        weight: Factor, per Hz squared.
    """

    record: str
    target: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.record, str):
            raise ValueError(f"`RatePenalty(record=...)`: expected the name of a record, got {self.record!r}")
        not_negative(self.target, "RatePenalty(target=...)")
        not_negative(self.weight, "RatePenalty(weight=...)")

    def __call__(self, system: nn.Module, sol: Solution) -> Tensor:
        if self.record not in sol.records:
            known = ", ".join(map(repr, sol.records)) or "none"
            raise ValueError(f"`RatePenalty(record=...)`: expected one of the records, {known}, got {self.record!r}")
        values: Tensor = sol[self.record]
        rates = values.reshape(-1, values.shape[-1]).mean(0) * (1000.0 / sol.dt)
        return self.weight * (rates - self.target).square().mean()


@dataclass(frozen=True)
class WeightPenalty:
    """``weight * sum |w|^power`` over the trained parameters whose names match.

    What has a parametrisation, as under `bdtorch.train.dale`, counts under its own name with its own values, not with
    those of the free parameter behind it.

    Args:
        pattern: Shell-style pattern of names, such as ``"*recurrent.weight"``.
        weight: Factor.
        power: 1 for sparse weights, 2 for small ones.
    """

    pattern: str = "*weight"
    weight: float = 1e-4
    power: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise ValueError(f"`WeightPenalty(pattern=...)`: expected a pattern of names, got {self.pattern!r}")
        not_negative(self.weight, "WeightPenalty(weight=...)")
        if self.power not in (1, 2):
            raise ValueError(f"`WeightPenalty(power=...)`: expected 1 or 2, got {self.power!r}")

    def __call__(self, system: nn.Module, sol: Solution) -> Tensor:
        named = _named_values(system)
        chosen = [p for name, p in named.items() if p.requires_grad and fnmatch.fnmatch(name, self.pattern)]
        if not chosen:
            names = ", ".join(map(repr, named)) or "none"
            raise ValueError(f"`WeightPenalty(pattern=...)`: expected a match among {names}, got {self.pattern!r}")
        terms = [p.abs().sum() if self.power == 1 else p.square().sum() for p in chosen]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return self.weight * total


def _named_values(system: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, each once, and parametrised ones as what their parametrisations make of them."""
    found: dict[str, Tensor] = {}
    for path, module in system.named_modules():
        if parametrize.is_parametrized(module):
            at = f"{path}." if path else ""
            found |= {at + name: getattr(module, name) for name in module.parametrizations}
    plain = {name: p for name, p in system.named_parameters() if "parametrizations." not in name}
    return plain | found
