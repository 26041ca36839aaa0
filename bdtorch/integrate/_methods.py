"""The list of methods: what each is called, of what order, and where it was published."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

_MODULES = {
    "ODE": ("runge_kutta", "exponential", "implicit", "rosenbrock"),
    "SDE": ("sde",),
    "DDE": ("dde",),
    "FDE": ("fde",),
}  # each defines a tuple METHODS


@dataclass(frozen=True)
class Method:
    """An entry of `methods`.

    Attributes:
        name: Name of the class or function in `bdtorch.integrate`.
        family: ``"ODE"``, ``"SDE"``, ``"DDE"`` or ``"FDE"``.
        kind: Such as ``"explicit"``, ``"exponential"``, ``"implicit"``, ``"Rosenbrock"``, ``"Ito, diagonal noise"``.
        order: Order of convergence in the step; strong order of a stochastic method; None where the method is exact.
        weak_order: Weak order of a stochastic method.
        stages: Stages per step.
        embedded_order: Order of the embedded method that estimates the error, where there is one.
        source: Where the method was published, with DOI.
    """

    name: str
    family: str
    kind: str
    order: float | None
    weak_order: float | None = None
    stages: int | None = None
    embedded_order: int | None = None
    source: str = ""


def methods(family: str | None = None) -> tuple[Method, ...]:
    """Every method of `bdtorch.integrate`.

    Args:
        family: ``"ODE"``, ``"SDE"``, ``"DDE"`` or ``"FDE"``; default all.

    Raises:
        ValueError: ``family`` is none of these.
    """
    if family is not None and family not in _MODULES:
        raise ValueError(f"`methods(family=...)`: expected {', '.join(map(repr, _MODULES))} or None, got {family!r}")
    names = [name for key in _MODULES if family in (None, key) for name in _MODULES[key]]
    modules = [importlib.import_module(f"bdtorch.integrate.{name}") for name in names]
    return tuple(method for module in modules for method in module.METHODS)
