"""`FractionalFlow`: a flow whose derivative is of fractional order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._flow import Flow
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State, Value
from bdtorch.integrate import L1, AdamsBashforthMoulton, Dense, FractionalIntegrator, SumOfExponentials
from bdtorch.integrate._door import check_number, renamed
from bdtorch.integrate.fde import checked_alpha, checked_method
from bdtorch.integrate.fractional import Solver

_ROUNDING = 1e-6  # of a step, by which a duration may exceed a whole number of them


def _default() -> FractionalIntegrator:
    return AdamsBashforthMoulton(fast=SumOfExponentials())


class FractionalFlow(DynamicalSystem):
    r"""A flow with a memory: $D^\alpha y = \text{derivative}(y)$, with the derivative of Caputo from the start of the run.

    The memory is part of the state: a run may be saved and resumed as any other. What happens beside the integration (spikes,
    resets, the output) stays as the flow has it. A reset shifts the solution from then on, as an impulse does: it changes
    the initial value from which the memory integrates, and not what is remembered of the slopes.

    Args:
        flow: The flow, such as a neuron or a rate model. Its own integrator is not used.
        alpha: Order, in (0, 1]: a number, a tensor that broadcasts to the variables, or a mapping from names of variables to
            such; other variables have order 1. An `nn.Parameter` is trained.
        duration: The longest run there is memory for, ms; `simulate` refuses longer ones, and pieces of a run that together
            are longer yield NaN. Not needed where the integrator's own
            ``memory`` is short.
        integrator: Method object for fractional equations, such as `bdtorch.integrate.GrunwaldLetnikov`; default
            `bdtorch.integrate.AdamsBashforthMoulton` with ``fast``, whose state is small and whose steps are cheap, however
            long the run.

    Raises:
        TypeError, ValueError: An argument is not as described.

    Source: Diethelm (2010), The Analysis of Fractional Differential Equations, doi:10.1007/978-3-642-14574-2; Feckan, Zhou &
        Wang (2012), doi:10.1016/j.cnsns.2011.11.017, for impulses.
    """

    class State(NamedTuple):
        flow: Any
        """The flow's state."""
        origin: Any
        """Of its form: the initial state, shifted by every reset since."""
        memory: Any
        """What the method remembers: tensors of shape ``(*batch, rows, *size)``, and perhaps the first slopes."""
        counter: Tensor
        """Steps taken, int64, shape ``(*batch,)``."""

    def __init__(
        self,
        flow: Flow,
        alpha: Value | Mapping[str, Value],
        *,
        duration: float | None = None,
        integrator: FractionalIntegrator | None = None,
    ) -> None:
        if not isinstance(flow, Flow):
            raise TypeError(f"`FractionalFlow(flow=...)`: expected a Flow, got {flow!r}")
        super().__init__(flow.size, dtype=flow.dtype, device=flow.device)
        self.flow, self.takes_input = flow, flow.takes_input
        with renamed("FractionalFlow", method="integrator"):
            self.integrator = checked_method(_default() if integrator is None else integrator)
        self.rows: int | None = getattr(self.integrator, "memory", None)
        if duration is None and self.rows is None:
            raise ValueError(
                "`FractionalFlow(duration=...)`: expected the longest duration of a run, for whose memory there is to be room, "
                "or an integrator with a short memory, got None"
            )
        self.duration = None if duration is None else check_number("FractionalFlow", "duration", duration)
        example = initial_state(flow)
        names = [name for name, leaf in tree.named_leaves(example)]
        if not all(leaf.is_floating_point() for leaf in tree.leaves(example)):
            raise TypeError(f"`FractionalFlow(flow=...)`: expected variables of a floating dtype, got {names}")
        self._orders = self._declare_orders(alpha, names)
        with renamed("FractionalFlow"):
            checked_alpha(tree.unflatten(self._alpha(), tree.flatten(example)[1]), example)

    def room(self, dt: float) -> int | None:
        """How many steps there is memory for; None where any number, since the method's own memory is short."""
        room = None if self.duration is None else int(self.duration / dt + 1.0 - _ROUNDING)
        return None if self.rows is not None and (room is None or self.rows < room) else room

    def _declare_orders(self, alpha: Value | Mapping[str, Value], names: list[str]) -> list[str | None]:
        """The parameter that holds the order of each variable; None for order 1."""
        if not isinstance(alpha, Mapping):
            self.declare("alpha", alpha)
            return ["alpha"] * len(names)
        for name, value in alpha.items():
            if name not in names:
                raise ValueError(f"`FractionalFlow(alpha=...)`: expected names among {names}, got {name!r}")
            self.declare(f"alpha_{name.replace('.', '_')}", value)
        return [f"alpha_{name.replace('.', '_')}" if name in alpha else None for name in names]

    def _alpha(self) -> list[Tensor]:
        values = [1.0 if name is None else getattr(self, name) for name in self._orders]
        return [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values]

    def _solver(self, origin: State, dt: float, batch_dims: int) -> tuple[Solver, int | None]:
        """The method with the weights of its memory, and how many steps there is room for."""
        method: FractionalIntegrator = self.integrator
        if isinstance(method, L1) and method.coupling is None:
            method = replace(method, coupling=Dense(batch_dims))
        room = self.room(dt)
        return method.start(origin, self._alpha(), self.rows or room or 1, dt), room

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        if dt is None:
            raise ValueError("`init_state(dt=...)`: expected the step in ms, since the memory depends on it, got None")
        flow = initial_state(self.flow, batch_shape, dt=dt, seed=seed)
        solver, _ = self._solver(flow, dt, len(batch_shape))
        begun = solver.begin(lambda y, t: tree.map(torch.zeros_like, y), torch.zeros((), dtype=torch.float64))
        memory = {
            "past": [leaf.movedim(0, len(batch_shape)).contiguous() for leaf in begun["past"]],
            "first": [torch.zeros_like(leaf) for leaf in begun.get("first", [])],
        }
        counter = torch.zeros(batch_shape, dtype=torch.int64, device=self.device)
        return self.State(flow, tree.map(torch.clone, flow), memory, counter)

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return self.flow.init_out(batch_shape)

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Any]:
        before, origin, memory, counter = state
        batch = counter.dim()
        solver, room = self._solver(origin, dt, batch)
        number = counter.reshape(-1)[0].to(torch.float64)  # every trajectory has taken as many steps

        def derivative(y: State, s: Tensor) -> State:
            return self.flow.derivative(y, inputs, s)

        held: dict[str, Any] = {"y": before, "past": [leaf.movedim(batch, 0) for leaf in memory["past"]]}
        first = memory["first"]
        if solver.takes_slopes:
            held["f"] = solver.evaluate(derivative, tree.leaves(before), t)  # under the inputs of this step
            first = [torch.where(number == 0, f, old) for f, old in zip(held["f"], first, strict=bool(first))]
            held["first"] = first
        after = solver.step(derivative, held, t, number)
        moved = after["y"]
        if room is not None:
            moved = tree.map(lambda leaf: torch.where(number < room, leaf, torch.nan), moved)
        final, out = self.flow.emit(before, moved)
        origin = tree.map(lambda y0, a, b: y0 if a is b else y0 + (a - b), origin, final, moved)
        past = [leaf.movedim(0, batch).contiguous() for leaf in after["past"]]
        return self.State(final, origin, {"past": past, "first": first}, counter + 1), out
