"""What a stochastic equation and a method for it are."""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative
from bdtorch.integrate.noise import Noise


class Calculus(enum.Enum):
    """What the product ``g dW`` means: with ``g`` at the beginning of each moment (Ito), or in its middle."""

    ITO = "Ito"
    STRATONOVICH = "Stratonovich"


@dataclass(frozen=True, eq=False)
class StochasticEquation:
    """``dy = drift(y, t) dt + diffusion(y, t) dW``.

    Attributes:
        drift: Of the shapes of ``y``.
        diffusion: Of the shapes that ``noise`` prescribes.
        linear: The slope of each variable's own drift, which only exponential methods call.
        noise: Structure of the diffusion.
        calculus: Meaning of the equation.
    """

    drift: Derivative
    diffusion: Derivative
    linear: Derivative
    noise: Noise
    calculus: Calculus


class Kick(NamedTuple):
    """An increment of the driving processes, handed out to the leaves: see `Noise.spread`."""

    w: State
    """Increments."""
    area: State | None
    """Areas, for methods that set `StochasticIntegrator.needs_area`; see `bdtorch.integrate.brownian.Increment`."""


class StochasticIntegrator(abc.ABC):
    """A one-step method for a `StochasticEquation`. Methods hold no state and compare by value."""

    calculi: ClassVar[tuple[Calculus, ...]]
    """Meanings of the equation that the method solves."""
    noises: ClassVar[tuple[type[Noise], ...]]
    """Structures of noise that it solves."""
    takes_vectors: ClassVar[bool] = True
    """Whether leaves of the diffusion may have an axis of processes (`Noise.vector`)."""
    needs_area: ClassVar[bool] = False
    """Whether its step uses the area of the path."""
    needs_structure: ClassVar[bool] = False
    """Whether it is wrong, and not merely less exact, where the diffusion is not of the structure declared."""
    weak_order: ClassVar[float] = 1.0
    """Order at which expectations converge."""

    @abc.abstractmethod
    def strong_order(self, noise: Noise) -> float:
        """Order at which paths converge, in the mean square, for this structure of noise."""

    @abc.abstractmethod
    def step(self, equation: StochasticEquation, y: State, t: Tensor, dt: float, kick: Kick) -> State:
        """Advance ``y`` from ``t`` to ``t + dt``, pushed by ``kick``."""


def moved(y: State, dt: float, f: State, noise: State) -> State:
    """``y + dt f + noise``, leaf by leaf."""
    return tree.map(lambda value, slope, push: value + dt * slope + push, y, f, noise)
