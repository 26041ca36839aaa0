"""What an ion channel is: gates that relax at voltage-dependent rates, and the conductance they open."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from bdtorch import _tree as tree
from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Value
from bdtorch.integrate.exponential import phi1


class Channel(Flow):
    r"""A population of channels with gates $\dot x = \alpha_x(v)(1 - x) - \beta_x(v)\,x$ and current $g(x)(E - v)$.

    A channel is element-wise: it takes the shape of the potential handed to it. A subclass names its gates in a
    ``NamedTuple`` called ``State`` and implements `rates` and `conductance`.

    Args:
        g: Maximal conductance, nS (or mS/cm2 where the membrane is in uF/cm2).
        e: Reversal potential, mV.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.
    """

    State: type

    def __init__(self, g: Value | Initialiser, e: Value | Initialiser, **options: Any) -> None:
        super().__init__((), **options)
        self.declare("g", g)
        self.declare("e", e)
        if bool((torch.as_tensor(self.g) < 0).any()):
            raise ValueError(f"`{type(self).__name__}(g=...)`: expected at least 0, got {g!r}")

    @abc.abstractmethod
    def rates(self, v: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Opening and closing rate ``(alpha, beta)`` of every gate at potential ``v`` (mV), per ms."""

    @abc.abstractmethod
    def conductance(self, state: Any) -> Tensor | float:
        """The open conductance ``g(x)``."""

    def steady_state(self, v: Tensor) -> Any:
        """The gates after a long time at potential ``v``."""
        return self.State(**{gate: alpha / (alpha + beta) for gate, (alpha, beta) in self.rates(v).items()})

    def init_state(self, batch_shape: tuple[int, ...] = (), *, v: Tensor | float = -65.0) -> Any:
        potential = torch.as_tensor(v, dtype=self.dtype, device=self.device).expand(batch_shape)
        return tree.map(torch.clone, self.steady_state(potential))

    def derivative(self, state: Any, inputs: Tensor, t: Tensor) -> Any:
        rates = self.rates(inputs)
        return self.State(
            **{gate: alpha - (alpha + beta) * getattr(state, gate) for gate, (alpha, beta) in rates.items()}
        )

    def linear(self, state: Any, inputs: Tensor, t: Tensor) -> Any:
        return self.State(**{gate: -(alpha + beta) for gate, (alpha, beta) in self.rates(inputs).items()})

    def drive(self, state: Any) -> Drive:
        """The channel's current, as a drive that is affine in ``v``."""
        g = self.conductance(state)
        return Drive(current=g * self.e, conductance=g)


def exprel(x: Tensor) -> Tensor:
    """The relative exponential ``(exp(x) - 1) / x``, 1 at 0, so ``x / (1 - exp(-x))`` is 1 over its value at ``-x``.

    Args:
        x: Floating, of any shape, which the result has too.
    """
    return phi1(x)


def linoid(x: Tensor) -> Tensor:
    """``x / (exp(x) - 1)``, 1 at 0: `exprel` upside down, with one division in place of two.

    Args:
        x: Floating, of any shape, which the result has too.
    """
    if has_torch_function_unary(x):  # PyTorch's protocol, by which a compiled loop may take it as one function
        return handle_torch_function(linoid, (x,), x)
    near = x.abs() < torch.finfo(x.dtype).eps ** 0.25  # where the slope of the quotient would lose digits
    far = torch.where(near, 1.0, x)
    return torch.where(near, 1.0 - x * (1 / 2 - x * (1 / 12)), far / torch.expm1(far))
