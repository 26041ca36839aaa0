"""`Sequential`: systems and plain modules one after the other."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.ops.random import fold


class Sequential(DynamicalSystem):
    """Layers in a row; in every step each takes the output that the layer before it has put out in this step.

    The state is a dict by the layer's number, with an entry for each dynamical system. Plain modules (`nn.Linear`,
    `nn.Dropout`...) have none and act on each step alone.

    Args:
        *layers: Dynamical systems and modules, at least one of them a dynamical system.

    Raises:
        TypeError: a layer is no module, none is a dynamical system, or dtypes differ.
    """

    def __init__(self, *layers: nn.Module) -> None:
        for number, layer in enumerate(layers):
            if not isinstance(layer, nn.Module):
                raise TypeError(f"`Sequential(layers[{number}])`: expected a module, got {layer!r}")
        systems = [layer for layer in layers if isinstance(layer, DynamicalSystem)]
        if not systems:
            raise TypeError(f"`Sequential(layers=...)`: expected at least one DynamicalSystem, got {layers!r}")
        for system in systems:
            if system.dtype != systems[0].dtype:
                raise TypeError(
                    f"`Sequential(layers=...)`: expected one dtype, got {systems[0].dtype} and {system.dtype}"
                )
        super().__init__(systems[-1].size, dtype=systems[0].dtype, device=systems[0].device)
        self.layers = nn.ModuleList(layers)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        return {
            str(number): initial_state(layer, batch_shape, dt=dt, seed=fold(seed, str(number)))
            for number, layer in enumerate(self.layers)
            if isinstance(layer, DynamicalSystem)
        }

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Any]:
        after: dict[str, Any] = {}
        signal = inputs
        for number, layer in enumerate(self.layers):
            if isinstance(layer, DynamicalSystem):
                after[str(number)], signal = layer(state[str(number)], signal, t, dt)
            else:
                signal = layer(signal)
        return after, signal
