"""Solvers of other libraries through the same door."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative, IntegrationError
from bdtorch.integrate._coupling import Dense


class External(abc.ABC):
    """A solver of another library. The state goes to it as one flat vector, so all trajectories share their steps."""

    example = "options={}"
    """How its steps are set."""

    @abc.abstractmethod
    def solve(self, derivative: Derivative, y0: State, times: Tensor, rtol: float, atol: Any) -> tuple[State, int]:
        """The solution at the output times, and how often the derivative was called."""


def _flat_tolerance(atol: Any, y0: State) -> Tensor:
    flat, spec = tree.flatten(y0)
    given = tree.leaves(atol)
    given = given * len(flat) if len(given) == 1 and len(flat) > 1 else given
    rows = [torch.as_tensor(a, dtype=y.dtype).expand(y.shape) for a, y in zip(given, flat, strict=True)]
    return Dense().pack(tree.unflatten(rows, spec))[0]


@dataclass(frozen=True)
class SciPy(External):
    """`scipy.integrate.solve_ivp`: in double precision on the CPU, without gradients.

    Args:
        method: ``"RK45"``, ``"RK23"``, ``"DOP853"``, ``"Radau"``, ``"BDF"`` or ``"LSODA"``.
        options: Further keywords of ``solve_ivp``.
    """

    method: str = "RK45"
    options: dict[str, Any] = field(default_factory=dict)
    example = 'SciPy(options={"max_step": 0.1})'

    def __post_init__(self) -> None:
        known = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")
        if self.method not in known:
            raise ValueError(f"`SciPy(method=...)`: expected one of {', '.join(known)}, got {self.method!r}")

    def solve(self, derivative: Derivative, y0: State, times: Tensor, rtol: float, atol: Any) -> tuple[State, int]:
        from scipy.integrate import solve_ivp  # heavy, and not needed elsewhere

        packed, unpack = Dense().pack(y0)
        slope = tree.leaves(derivative(y0, times[0]))
        traced = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in slope)
        if packed.requires_grad or traced or torch._C._are_functorch_transforms_active():
            raise ValueError(
                "`odeint(method=SciPy(...))`: expected no gradients and no torch.func transform; for a solution without "
                "gradients wrap the call in torch.no_grad()"
            )
        number = torch.float64

        def right(t: float, y: Any) -> Any:
            z = torch.as_tensor(y).to(packed.dtype)
            with torch.no_grad():
                slope = derivative(unpack(z), torch.tensor(t, dtype=number))
            return Dense().pack(slope)[0].to(number).numpy()

        grid = times.tolist()
        start = packed.detach().to(number).numpy()
        tolerance = _flat_tolerance(atol, y0).to(number).numpy()
        result = solve_ivp(
            right,
            (grid[0], grid[-1]),
            start,
            method=self.method,
            t_eval=grid,
            rtol=rtol,
            atol=tolerance,
            **self.options,
        )
        if not result.success:
            raise IntegrationError(f"`odeint(method={self!r})`: {result.message}")
        rows = torch.as_tensor(result.y.T.copy()).to(packed.dtype)
        return _stacked(unpack, rows), int(result.nfev)


@dataclass(frozen=True)
class TorchDiffEq(External):
    """`torchdiffeq.odeint`: with gradients through its operations.

    Args:
        method: Its name for a method.
        options: Its ``options``.
    """

    method: str = "dopri5"
    options: dict[str, Any] = field(default_factory=dict)
    example = 'TorchDiffEq("rk4", options={"step_size": 0.1})'

    def solve(self, derivative: Derivative, y0: State, times: Tensor, rtol: float, atol: Any) -> tuple[State, int]:
        try:
            import torchdiffeq  # an optional dependency
        except ImportError as error:
            raise ImportError("`odeint(method=TorchDiffEq(...))` needs torchdiffeq: pip install torchdiffeq") from error
        packed, unpack = Dense().pack(y0)
        calls = 0

        def right(t: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return Dense().pack(derivative(unpack(y), t))[0]

        rows = torchdiffeq.odeint(
            right,
            packed,
            times,
            rtol=rtol,
            atol=_flat_tolerance(atol, y0),
            method=self.method,
            options=self.options or None,
        )
        return _stacked(unpack, rows), calls


def _stacked(unpack: Any, rows: Tensor) -> State:
    parts = [unpack(row) for row in rows.unbind()]
    return tree.map(lambda *leaves: torch.stack(leaves), *parts)
