"""The FitzHugh-Nagumo model."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Size, State, Value


class FitzHughNagumo(Flow):
    r"""An excitable element: a fast variable that is cubic, and a slow one that recovers.

    $$\dot v = v - v^3/3 - w + I_{ext} + I(v), \qquad \tau \dot w = v + a - b w$$

    The output is ``v``.

    Args:
        size: Number (shape) of independent elements.
        a: Offset of the recovery.
        b: Its leak.
        tau: Its time constant, in the time unit of ``v``.
        i_ext: Constant current, added to the input.
        v_init: Initial ``v``.
        w_init: Initial ``w``.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: FitzHugh (1961), doi:10.1016/S0006-3495(61)86902-6; Nagumo, Arimoto & Yoshizawa (1962),
        doi:10.1109/JRPROC.1962.288235.
    """

    class State(NamedTuple):
        v: Tensor
        """Fast variable, after the membrane potential."""
        w: Tensor
        """Recovery variable."""

    def __init__(
        self,
        size: Size,
        *,
        a: Value | Initialiser = 0.7,
        b: Value | Initialiser = 0.8,
        tau: Value | Initialiser = 12.5,
        i_ext: Value | Initialiser = 0.0,
        v_init: Value | Initialiser = -1.2,
        w_init: Value | Initialiser = -0.6,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        for name, value in (("a", a), ("b", b), ("i_ext", i_ext)):
            self.declare(name, value)
        self.declare("tau", tau, positive=True)
        self.declare_initial("v_init", v_init)
        self.declare_initial("w_init", w_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(
            v=self.fill(batch_shape, self.v_init, seed=seed), w=self.fill(batch_shape, self.w_init, seed=seed + 1)
        )

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, w = state
        return self.State(
            v=v - v**3 / 3.0 - w + (self.i_ext + Drive.of(inputs).at(v)), w=(v + self.a - self.b * w) / self.tau
        )

    def emit(self, before: State, after: State) -> tuple[State, Tensor]:
        return after, after.v
