"""The continuous attractor neural network on a ring."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._system import checked_size
from bdtorch._types import Initialiser, State, Value


class ContinuousAttractor(Flow):
    r"""A ring of units, each with a preferred angle, that holds a bump of activity anywhere along it.

    $$\tau \dot u_i = -u_i + \sum_j J_{ij} r_j + I_i, \qquad r_i = \frac{u_i^2}{1 + k \sum_j u_j^2}, \qquad
    J_{ij} = \frac{J_0}{\sqrt{2\pi}\,a} \exp\Bigl(-\frac{d_{ij}^2}{2 a^2}\Bigr)$$

    with $d_{ij}$ the distance of two angles around the ring. The input is $I$; the output is the rate $r$ of the new
    state. Without input there is a bump $u_0 \exp(-d^2/4a^2)$ at every angle, of `bump_height`, as long as inhibition is
    weaker than a critical $k$ (and $a$ is well below the length of the ring).

    Args:
        size: Number of units.
        tau: Time constant, ms.
        k: Strength of divisive inhibition.
        a: Half width of the interaction, rad.
        j0: Strength of the interaction. In a network of another density of units, scale it with 1 / ``size``.
        u_init: Initial input current.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Raises:
        TypeError, ValueError: An argument is not as described.

    Source: Wu, Hamaguchi & Amari (2008), doi:10.1162/neco.2008.10-06-378; Fung, Wong & Wu (2010),
    doi:10.1162/neco.2009.07-08-824.
    """

    class State(NamedTuple):
        u: Tensor
        """Synaptic input, ``(*batch, size)``."""

    def __init__(
        self,
        size: int,
        *,
        tau: Value | Initialiser = 1.0,
        k: Value | Initialiser = 8.1,
        a: float = 0.5,
        j0: float = 4.0,
        u_init: Value | Initialiser = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(*checked_size(size, "ContinuousAttractor(size=...)"), **options)
        for name, value in (("a", a), ("j0", j0)):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ValueError(f"`ContinuousAttractor({name}=...)`: expected a finite number above 0, got {value!r}")
        self.declare("tau", tau, positive=True)
        self.declare("k", k, positive=True)
        self.declare_initial("u_init", u_init)
        self.a, self.j0 = float(a), float(j0)
        angles = (
            torch.arange(self.count, dtype=torch.float64, device=self.device) * (2.0 * math.pi / self.count) - math.pi
        )
        self.register_buffer("angles", angles.to(self.dtype), persistent=False)
        distance = _around(angles[:, None] - angles)
        weight = self.j0 / (math.sqrt(2.0 * math.pi) * self.a) * torch.exp(-distance.square() / (2.0 * self.a**2))
        self.register_buffer("weight", weight.to(self.dtype), persistent=False)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(u=self.fill(batch_shape, self.u_init, seed=seed))

    def rate(self, u: Tensor) -> Tensor:
        """The rates ``r`` at the synaptic inputs ``u``, ``(*batch, size)``."""
        square = u.square()
        return square / (1.0 + self.k * square.sum(-1, keepdim=True))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        recurrent = torch.matmul(self.rate(state.u), self.weight)  # symmetric
        return self.State(u=(Drive.of(inputs).at(state.u) + recurrent - state.u) / self.tau)

    def emit(self, before: State, after: State) -> tuple[State, Tensor]:
        return after, self.rate(after.u)

    def bump(self, angle: Tensor | float, height: float = 1.0) -> Tensor:
        r"""``height`` times $\exp(-d^2/4a^2)$ around an angle or several, ``(*angle.shape, size)``: a stimulus, or a state."""
        at = torch.as_tensor(angle, dtype=self.dtype, device=self.device)
        return height * torch.exp(-_around(self.angles - at.unsqueeze(-1)).square() / (4.0 * self.a**2))

    @property
    def bump_height(self) -> float:
        r"""$u_0$ of the stable bump that lasts without input, on an infinite line.

        Raises:
            ValueError: ``k`` is above its critical value, where no bump lasts.
        """
        density = self.count / (2.0 * math.pi)
        drive, inhibition = (
            density * self.j0 / math.sqrt(2.0),
            float(self.k) * density * math.sqrt(2.0 * math.pi) * self.a,
        )
        inside = drive**2 - 4.0 * inhibition
        if inside < 0.0:
            critical = drive**2 / (4.0 * inhibition) * float(self.k)
            raise ValueError(f"no bump lasts: expected k of at most {critical:g}, got {float(self.k):g}")
        return (drive + math.sqrt(inside)) / (2.0 * inhibition)

    def decode(self, activity: Tensor) -> Tensor:
        """The angle at which activity, ``(*batch, size)``, points: that of its population vector, ``(*batch,)``."""
        return torch.atan2((activity * self.angles.sin()).sum(-1), (activity * self.angles.cos()).sum(-1))


def _around(difference: Tensor) -> Tensor:
    """Differences of angles, in [-pi, pi)."""
    return torch.remainder(difference + math.pi, 2.0 * math.pi) - math.pi
