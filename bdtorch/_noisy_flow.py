"""`NoisyFlow`: a flow that Wiener processes push."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._flow import Flow
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State, Value
from bdtorch.integrate import (
    Additive,
    BrownianPath,
    Calculus,
    Diagonal,
    EulerMaruyama,
    Integrator,
    StochasticEquation,
    StochasticHeun,
    StochasticIntegrator,
)
from bdtorch.integrate._door import renamed
from bdtorch.integrate._sde_checks import check_choice
from bdtorch.integrate._stochastic import Kick
from bdtorch.integrate.noise import Noise
from bdtorch.ops.random import fold, make_key

Diffusion = Callable[[State, Any, Tensor], State]
"""``diffusion(state, inputs, t)``, of the structure of the flow's state."""


class NoisyFlow(DynamicalSystem):
    r"""A flow with noise: $dy = \text{derivative}(y)\,dt + \text{diffusion}(y)\,dW$.

    What happens beside the integration (spikes, resets, the output) stays as the flow has it. The noise is a function of
    key and counter, which are part of the state: any loop, batch and resumed run sees the same paths.

    Args:
        flow: The flow, such as a neuron or a rate model. Its own integrator is not used.
        diffusion: ``diffusion(state, inputs, t)``, of the structure of the state; or for additive noise a mapping from
            names of variables to strengths (unit of the variable per square root of ms): numbers, tensors, or an
            `nn.Parameter`, which is trained; other variables get none. Default the flow's own method ``diffusion``.
        integrator: Method object for stochastic equations; default `bdtorch.integrate.EulerMaruyama` for Ito and
            `bdtorch.integrate.StochasticHeun` for Stratonovich equations.
        noise: Structure of the diffusion; default `bdtorch.integrate.Additive` for a mapping, else
            `bdtorch.integrate.Diagonal`.
        calculus: Meaning of ``g dW``.

    Raises:
        TypeError, ValueError: An argument is not as described, or the integrator does not solve equations of this kind.
    """

    class State(NamedTuple):
        flow: Any
        """The flow's state."""
        key: Tensor
        """The random stream, int64, shape ``(*batch,)``."""
        counter: Tensor
        """Steps taken, int64, shape ``(*batch,)``."""

    def __init__(
        self,
        flow: Flow,
        diffusion: Diffusion | Mapping[str, Value] | None = None,
        *,
        integrator: StochasticIntegrator | None = None,
        noise: Noise | None = None,
        calculus: Calculus = Calculus.ITO,
    ) -> None:
        if not isinstance(flow, Flow):
            raise TypeError(f"`NoisyFlow(flow=...)`: expected a Flow, got {flow!r}")
        super().__init__(flow.size, dtype=flow.dtype, device=flow.device)
        self.flow, self.takes_input, self.calculus = flow, flow.takes_input, calculus
        constant = isinstance(diffusion, Mapping)
        self.noise: Noise = (Additive() if constant else Diagonal()) if noise is None else noise
        if integrator is None:
            integrator = StochasticHeun() if calculus is Calculus.STRATONOVICH else EulerMaruyama()
        with renamed("NoisyFlow", method="integrator"):
            check_choice(integrator, self.noise, calculus)
        self.integrator = integrator
        self._strengths: dict[str, str] = {}
        self._given = None if isinstance(diffusion, Mapping) else diffusion
        if isinstance(diffusion, Mapping):
            self._declare_strengths(diffusion)
        elif not callable(getattr(flow, "diffusion", None) if diffusion is None else diffusion):
            raise TypeError(
                "`NoisyFlow(diffusion=...)`: expected a function of (state, inputs, t), a mapping of variables to "
                f"strengths, or a flow with a method `diffusion`, got {diffusion!r}"
            )

    def _declare_strengths(self, strengths: Mapping[str, Value]) -> None:
        if self.noise.vector or not self.noise.additive:
            raise ValueError(
                f"`NoisyFlow(noise=...)`: expected Additive() for a mapping of strengths, got {self.noise!r}"
            )
        known = [name for name, _ in tree.named_leaves(initial_state(self.flow))]
        if not strengths:
            raise ValueError(f"`NoisyFlow(diffusion=...)`: expected at least one of {known}, got none")
        for name, value in strengths.items():
            if name not in known:
                raise ValueError(f"`NoisyFlow(diffusion=...)`: expected names among {known}, got {name!r}")
            self._strengths[name] = f"sigma_{name.replace('.', '_')}"
            self.declare(self._strengths[name], value)

    def diffusion(self, state: State, inputs: Any, t: Tensor) -> State:
        """``g`` at a state of the flow."""
        if not self._strengths:
            given: Diffusion = self.flow.diffusion if self._given is None else self._given
            return given(state, inputs, t)
        rows = [self._strength(name).expand(leaf.shape).to(leaf) for name, leaf in tree.named_leaves(state)]
        return tree.unflatten(rows, tree.flatten(state)[1])

    def _strength(self, name: str) -> Tensor:
        value = getattr(self, self._strengths[name]) if name in self._strengths else 0.0
        return torch.as_tensor(value, dtype=self.dtype, device=self.device)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        key = make_key(fold(seed, "noise"), batch_shape, device=self.device)
        return self.State(initial_state(self.flow, batch_shape, seed=seed), key, torch.zeros_like(key))

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return self.flow.init_out(batch_shape)

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Any]:
        before, key, counter = state
        pushed = _Pushed(self, inputs, self._kick(before, key, counter, dt))
        after, out = self.flow.emit(before, self.flow.advance(before, inputs, t, dt, pushed))
        return self.State(after, key, counter + 1), out

    def _kick(self, y: State, key: Tensor, counter: Tensor, dt: float) -> Kick:
        batch, dtype = key.dim(), tree.leaves(y)[0].dtype
        increment = BrownianPath(dt, key).increment(
            counter, self.noise.width(y, batch), dtype=dtype, area=self.integrator.needs_area
        )
        area = None if increment.area is None else self.noise.spread(increment.area, y, batch)
        return Kick(self.noise.spread(increment.w, y, batch), area)


@dataclass(frozen=True, eq=False)
class _Pushed(Integrator):
    """One step of a stochastic method in the place of an ordinary one: what pushes it is known already."""

    system: NoisyFlow
    inputs: Any
    kick: Kick

    def step(self, derivative: Any, linear: Any, y: State, t: Tensor, dt: float) -> State:
        system = self.system

        def diffusion(z: State, s: Tensor) -> State:
            g = system.diffusion(z, self.inputs, s)
            self._check(g, z)
            return g

        equation = StochasticEquation(derivative, diffusion, linear, system.noise, system.calculus)
        return system.integrator.step(equation, y, t, dt, self.kick)

    def _check(self, g: State, y: State) -> None:
        label, noise = "`NoisyFlow(diffusion=...)`", self.system.noise
        if tree.flatten(g)[1] != tree.flatten(y)[1]:
            want, got = ([name for name, _ in tree.named_leaves(value)] for value in (y, g))
            raise ValueError(f"{label}: expected the structure of the state, {want}, got {got}")
        processes = (noise.width(y, 0),) if noise.vector else ()  # which the state does not change
        for (name, leaf), value in zip(tree.named_leaves(y), tree.leaves(g), strict=True):
            shape = (*leaf.shape, *processes)
            if tuple(value.shape) != shape or value.dtype != leaf.dtype:
                came = f"{value.dtype} of shape {tuple(value.shape)}"
                raise ValueError(f"{label}: expected {leaf.dtype} of shape {shape}, got {came} for {name!r}")
