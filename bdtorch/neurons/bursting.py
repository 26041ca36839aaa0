"""Two bursting neurons: a fast spiking subsystem, and a slow variable that carries it to and fro."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.neurons._smooth import SmoothNeuron


class HindmarshRose(SmoothNeuron):
    r"""Square-wave bursts in dimensionless units.

    $$\dot x = y - a x^3 + b x^2 - z + I_{ext} + I(x), \qquad \dot y = c - d x^2 - y, \qquad
    \dot z = r\,(s (x - x_r) - z)$$

    Args:
        size: Shape of the population.
        a: Cubic coefficient.
        b: Quadratic coefficient.
        c: Offset of the recovery.
        d: Quadratic coefficient of the recovery.
        r: Rate of the slow variable.
        s: Its gain.
        x_r: Potential at which it rests.
        i_ext: Constant current, added to the input.
        v_th: Value of ``x`` whose upward crossing counts as a spike.
        x_init: Initial ``x``.
        y_init: Initial ``y``.
        z_init: Initial ``z``.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Hindmarsh & Rose (1984), doi:10.1098/rspb.1984.0024.
    """

    class State(NamedTuple):
        x: Tensor
        """After the membrane potential."""
        y: Tensor
        """Recovery variable."""
        z: Tensor
        """Slow adaptation."""

    membrane: ClassVar[str] = "x"

    def __init__(
        self,
        size: Size,
        *,
        a: Value | Initialiser = 1.0,
        b: Value | Initialiser = 3.0,
        c: Value | Initialiser = 1.0,
        d: Value | Initialiser = 5.0,
        r: Value | Initialiser = 0.001,
        s: Value | Initialiser = 4.0,
        x_r: Value | Initialiser = -1.6,
        i_ext: Value | Initialiser = 0.0,
        v_th: Value | Initialiser = 1.0,
        x_init: Value | Initialiser = -1.6,
        y_init: Value | Initialiser = -11.8,
        z_init: Value | Initialiser = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(size, v_th=v_th, **options)
        self.declare("r", r, positive=True)
        for name, value in (("a", a), ("b", b), ("c", c), ("d", d), ("s", s), ("x_r", x_r), ("i_ext", i_ext)):
            self.declare(name, value)
        for name, value in (("x_init", x_init), ("y_init", y_init), ("z_init", z_init)):
            self.declare_initial(name, value)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        starts = (self.x_init, self.y_init, self.z_init)
        return self.State(*(self.fill(batch_shape, value, seed=seed + i) for i, value in enumerate(starts)))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        x, y, z = state
        square = x * x
        return self.State(
            x=y - self.a * square * x + self.b * square - z + (self.i_ext + Drive.of(inputs).at(x)),
            y=self.c - self.d * square - y,
            z=self.r * (self.s * (x - self.x_r) - z),
        )


class FitzHughRinzel(SmoothNeuron):
    r"""Elliptic bursts: the FitzHugh-Nagumo equations with a slow current.

    $$\dot v = v - v^3/3 - w + y + I_{ext} + I(v), \qquad \dot w = \delta (a + v - b w), \qquad
    \dot y = \mu (c - v - d y)$$

    Args:
        size: Shape of the population.
        a: Offset of the recovery.
        b: Its leak.
        c: Offset of the slow current.
        d: Its leak.
        delta: Rate of the recovery.
        mu: Rate of the slow current.
        i_ext: Constant current, added to the input.
        v_th: Value of ``v`` whose upward crossing counts as a spike.
        v_init: Initial ``v``.
        w_init: Initial ``w``.
        y_init: Initial ``y``.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Rinzel (1987), A formal classification of bursting mechanisms in excitable systems,
        doi:10.1007/978-3-642-93360-8_26.
    """

    class State(NamedTuple):
        v: Tensor
        """After the membrane potential."""
        w: Tensor
        """Recovery variable."""
        y: Tensor
        """Slow current."""

    def __init__(
        self,
        size: Size,
        *,
        a: Value | Initialiser = 0.7,
        b: Value | Initialiser = 0.8,
        c: Value | Initialiser = -0.775,
        d: Value | Initialiser = 1.0,
        delta: Value | Initialiser = 0.08,
        mu: Value | Initialiser = 1e-4,
        i_ext: Value | Initialiser = 0.3125,
        v_th: Value | Initialiser = 1.0,
        v_init: Value | Initialiser = -1.0,
        w_init: Value | Initialiser = -0.4,
        y_init: Value | Initialiser = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(size, v_th=v_th, **options)
        for name, value in (("a", a), ("b", b), ("c", c), ("d", d), ("i_ext", i_ext)):
            self.declare(name, value)
        self.declare("delta", delta, positive=True)
        self.declare("mu", mu, positive=True)
        for name, value in (("v_init", v_init), ("w_init", w_init), ("y_init", y_init)):
            self.declare_initial(name, value)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        starts = (self.v_init, self.w_init, self.y_init)
        return self.State(*(self.fill(batch_shape, value, seed=seed + i) for i, value in enumerate(starts)))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, w, y = state
        return self.State(
            v=v - v**3 / 3.0 - w + y + (self.i_ext + Drive.of(inputs).at(v)),
            w=self.delta * (self.a + v - self.b * w),
            y=self.mu * (self.c - v - self.d * y),
        )
