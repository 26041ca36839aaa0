"""What continuation returns: branches of equilibria and of cycles, and the special points on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from bdtorch.analyze._results import LimitCycle

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class SpecialPoint:
    """A bifurcation."""

    kind: str
    """On equilibria ``"fold"``, ``"Hopf"``, ``"branch point"``; on cycles ``"fold of cycles"``, ``"period doubling"``,
    ``"torus"``; on curves in two parameters ``"cusp"``, ``"Bogdanov-Takens"``, ``"generalised Hopf"``, ``"zero-Hopf"``."""
    x: Tensor
    """The variables, ``(n,)``; for cycles where they are at phase 0."""
    parameters: dict[str, float]
    """The values of the free parameters."""
    eigenvalues: Tensor
    """Complex ``(n,)``; for cycles the Floquet multipliers, the trivial one first."""
    coefficients: dict[str, float]
    """Of a Hopf point ``lyapunov`` (first Lyapunov coefficient), ``omega`` and ``period`` (of the cycles born); of a fold
    ``quadratic`` (its modulus); of a bifurcation of cycles ``period``."""
    branch: int
    """Number of the branch that it lies on."""

    @property
    def criticality(self) -> str:
        """``"supercritical"``, ``"subcritical"`` or ``"degenerate"`` (first coefficient zero) for a Hopf point, else empty."""
        coefficient = self.coefficients.get("lyapunov")
        if coefficient is None:
            return ""
        return "degenerate" if coefficient == 0.0 else "supercritical" if coefficient < 0 else "subcritical"


@dataclass(frozen=True)
class Branch:
    """A branch of equilibria, in order along it."""

    parameter: Tensor
    """``(points,)``."""
    x: Tensor
    """``(points, n)``."""
    eigenvalues: Tensor
    """Complex, ``(points, n)``."""
    stable: Tensor
    """Whether every eigenvalue has a negative real part, boolean ``(points,)``; False at the bifurcations, which are among
    the points, so that a stretch is stable where one of its ends is."""
    reasons: tuple[str, str]
    """Why it ends where it begins and where it ends."""
    converged: bool
    """False where an end is one at which Newton's method failed or the number of steps ran out."""


@dataclass(frozen=True)
class CycleBranch:
    """A branch of limit cycles."""

    parameter: Tensor
    """``(points,)``."""
    period: Tensor
    """``(points,)``."""
    minimum: Tensor
    """Smallest value of every variable on each cycle, ``(points, n)``."""
    maximum: Tensor
    """Largest value, ``(points, n)``."""
    multipliers: Tensor
    """Floquet multipliers, the trivial one first, complex ``(points, n)``."""
    stable: Tensor
    """Boolean ``(points,)``; False at the bifurcations, which are among the points."""
    cycles: tuple[LimitCycle, ...]
    """The cycles themselves; at a Hopf point one of size zero."""
    origin: SpecialPoint | None
    """The Hopf point at which it begins; None for a branch that was met by simulation."""
    reasons: tuple[str, str]
    """Why it ends where it begins and where it ends."""
    converged: bool
    """False where an end is one at which Newton's method failed or the number of steps ran out."""


@dataclass(frozen=True)
class Diagram:
    """A bifurcation diagram in one parameter."""

    names: tuple[str, ...]
    """The variables."""
    parameter: str
    """The parameter that varies."""
    bounds: tuple[float, float]
    """Its range."""
    branches: tuple[Branch, ...]
    """Branches of equilibria."""
    points: tuple[SpecialPoint, ...]
    """Bifurcations of equilibria; ``branch`` counts ``branches``."""
    cycles: tuple[CycleBranch, ...]
    """Branches of limit cycles."""
    cycle_points: tuple[SpecialPoint, ...]
    """Bifurcations of limit cycles; ``branch`` counts ``cycles``."""
    remarks: tuple[str, ...]
    """What the diagram does not show, and why."""

    @property
    def converged(self) -> bool:
        """Whether everything was followed to where it ends."""
        return all(b.converged for b in self.branches) and all(c.converged for c in self.cycles)

    def of(self, kind: str) -> tuple[SpecialPoint, ...]:
        """The special points of one kind, by rising parameter."""
        found = [p for p in (*self.points, *self.cycle_points) if p.kind == kind]
        return tuple(sorted(found, key=lambda p: p.parameters[self.parameter]))

    def plot(self, ax: Axes | None = None, variable: str | None = None) -> Axes:
        """Draw ``variable`` (default the first) against the parameter into ``ax`` (default: a new figure)."""
        from bdtorch.analyze._draw import draw_diagram

        return draw_diagram(self, ax, variable)
