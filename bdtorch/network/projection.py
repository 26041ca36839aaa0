"""Projections: from the output of one population to the drive of others."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from bdtorch._system import Parametrised, check_number
from bdtorch._types import Initialiser, State, Value
from bdtorch.connect import CSR, Connectivity, Dense, Procedural, Rule
from bdtorch.network.delay import Delay
from bdtorch.ops.random import fold
from bdtorch.plasticity import Events, Plasticity
from bdtorch.synapses import Current, Receptor, ShortTerm, Synapse

Slot = TypeVar("Slot", bound=Parametrised)


class Targets(NamedTuple):
    """What plasticity reads of the populations that a projection reaches, at the start of a step."""

    spikes: Tensor
    v: Tensor | None
    third: Tensor | float | None


@dataclass(frozen=True, eq=False)
class Projection:
    """What joins populations, as a pipeline of slots:
    delay -> short-term plasticity -> connectivity with weights -> synapse -> receptor.

    With ``plasticity`` the weights are part of the state, ``(*batch, *weight_shape)``, and ``weight`` is their start.

    A projection is a description; `bdtorch.Network` draws its connectivity for the populations that it joins. Used in
    two places it is drawn twice, and shares its parameters (a trained ``weight`` or ``tau``).

    Args:
        connect: A rule of `bdtorch.connect`, or connectivity that is already drawn.
        weight: Strength of a synapse, in the unit of the receptor's variable (nS, pA, mV, ...): float, tensor or
            `nn.Parameter` (0-d, or one per synapse), or initialiser.
        synapse: Time course; None passes the weighted events on as they are.
        receptor: How the synaptic variable drives the membrane; default `bdtorch.synapses.Current`.
        delay: ms, at least one step and a multiple of it; None for none. A spike at the end of step k acts in step
            k+1 without a delay, and in step k+1+m with a delay of m steps.
        short_term: How a source's own spikes modulate what it releases.
        plasticity: How spikes of both sides change the weights. For the order of events see
            `bdtorch.plasticity.Plasticity`.

    Raises:
        TypeError: a slot holds an object of another kind.
        ValueError: ``weight`` is NaN or ``delay`` is not positive.
    """

    connect: Rule | Connectivity
    weight: Value | Initialiser = 1.0
    synapse: Synapse | None = None
    receptor: Receptor | None = None
    delay: float | None = None
    short_term: ShortTerm | None = None
    plasticity: Plasticity | None = None

    def __post_init__(self) -> None:
        kinds = {
            "connect": (Rule, Connectivity), "synapse": (Synapse,), "receptor": (Receptor,),
            "short_term": (ShortTerm,), "plasticity": (Plasticity,),
        }  # fmt: skip
        for slot, kind in kinds.items():
            value = getattr(self, slot)
            if not isinstance(value, kind) and not (value is None and slot != "connect"):
                expected = " or ".join(cls.__name__ for cls in kind)
                raise TypeError(f"`Projection({slot}=...)`: expected a {expected} object, got {value!r}")
        if isinstance(self.weight, (int, float)):
            check_number("`Projection(weight=...)`", float(self.weight))
        if self.delay is not None:
            check_number("`Projection(delay=...)`", float(self.delay), positive=True)

    def build(
        self,
        n_pre: int,
        n_post: int,
        *,
        seed: int = 0,
        self_offset: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Pathway:
        """Draw the connectivity and the weights for ``n_pre`` sources and ``n_post`` targets."""
        connect = self.connect
        if isinstance(connect, Rule):
            connect = connect.build(n_pre, n_post, seed=seed, self_offset=self_offset).to(device)
        elif (connect.n_pre, connect.n_post) != (n_pre, n_post):
            raise ValueError(
                f"`Projection(connect=...)`: expected connectivity of {n_pre} sources and {n_post} targets, "
                f"got {connect.n_pre} and {connect.n_post}"
            )
        return Pathway(self, connect, seed=seed, dtype=dtype, device=device)


class Pathway(Parametrised):
    """A projection with its connectivity drawn. Its state is a dict of its slots' states."""

    def __init__(
        self,
        projection: Projection,
        connect: Connectivity,
        *,
        seed: int,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        super().__init__((), dtype=dtype, device=device)
        self.plasticity = None if projection.plasticity is None else self._own(projection.plasticity)
        self.connect = connect if self.plasticity is None else _stored(connect)
        self.declare("weight", self._drawn(projection.weight, fold(seed, "weight")))
        self.delay = None if projection.delay is None else Delay(projection.delay, dtype=dtype, device=device)
        self.short_term = None if projection.short_term is None else self._own(projection.short_term)
        self.synapse = None if projection.synapse is None else self._own(projection.synapse)
        receptor = projection.receptor
        self.receptor = Current(dtype=dtype, device=device) if receptor is None else self._own(receptor)

    def _own(self, slot: Slot) -> Slot:
        """The slot itself, whose parameters are shared; or where dtype or device differ, a copy moved there."""
        if slot.dtype == self.dtype and slot.device == self.device:
            return slot
        if any(True for _ in slot.parameters()):
            raise TypeError(
                f"`Projection({type(slot).__name__})`: expected trained parameters in {self.dtype} on {self.device}, "
                f"got {slot.dtype} on {slot.device}"
            )
        return copy.deepcopy(slot).to(dtype=self.dtype, device=self.device)

    def _drawn(self, weight: Any, seed: int) -> Value:
        shape = self.connect.weight_shape
        if callable(weight) and not isinstance(weight, Tensor):
            return weight(shape, seed=seed, dtype=self.dtype, device=self.device)
        if isinstance(weight, Tensor) and weight.dim() and tuple(weight.shape) != shape:
            raise ValueError(
                f"`Projection(weight=...)`: expected a 0-d tensor or one weight per synapse, {shape}, "
                f"got shape {tuple(weight.shape)}"
            )
        return weight

    def init_state(self, source: Tensor, *, dt: float | None) -> State:
        """The state at t = 0 for sources whose output looks like ``source``, ``(*batch, n_pre)``."""
        state: dict[str, Any] = {}
        batch_shape = tuple(source.shape[:-1])
        if self.delay is not None:
            state["delay"] = self.delay.init_state(source, dt=dt)
        if self.short_term is not None:
            state["short_term"] = self.short_term.init_state(tuple(source.shape))
        if self.plasticity is not None:
            state["weight"] = self._weight(source.device).expand(*batch_shape, *self.connect.weight_shape).clone()
            state["plasticity"] = self.plasticity.init_state(self.connect, batch_shape)
        if self.synapse is not None:
            state["synapse"] = self.synapse.init_state((*batch_shape, self.connect.n_post))
        return state

    def step(
        self, state: State, source: Tensor, t: Tensor, dt: float, targets: Targets | None = None
    ) -> tuple[State, Tensor]:
        """Deliver ``source``, ``(*batch, n_pre)``; returns state and synaptic variable, ``(*batch, n_post)``.

        A plastic pathway also wants ``targets``.
        """
        after: dict[str, Any] = {}
        if self.delay is not None:
            after["delay"], source = self.delay(state["delay"], source, dt)
        released = source
        if self.short_term is not None:
            after["short_term"], released = self.short_term.step(state["short_term"], source, t, dt)
        weight = state["weight"] if self.plasticity is not None else self._weight(source.device)
        g = self.connect(released, weight)
        if self.plasticity is not None:
            assert targets is not None, "a network hands them to every plastic pathway"
            events = Events(source, *targets)
            step = self.plasticity.step(state["plasticity"], weight, self.connect, events, t, dt)
            after["plasticity"], after["weight"] = step
        if self.synapse is not None:
            after["synapse"], g = self.synapse.step(state["synapse"], g, t, dt)
        return {name: after[name] for name in state}, g

    def _weight(self, device: torch.device) -> Tensor:
        if isinstance(self.weight, Tensor):
            return self.weight
        return torch.full((), self.weight, dtype=self.dtype, device=device)

    def extra_repr(self) -> str:
        return f"{self.connect.n_pre} -> {self.connect.n_post}, {self.connect.synapses} synapses"


def _stored(connect: Connectivity) -> Connectivity:
    """The connectivity in a form that has a weight for each synapse and finds those of a target."""
    if isinstance(connect, Procedural):
        raise TypeError(
            "`Projection(plasticity=...)`: expected connectivity that stores its weights, got Procedural; "
            "its `materialise` makes one"
        )
    if isinstance(connect, Dense) and connect.mask is not None:
        connect, _ = CSR.from_dense(connect.to_dense())
    if isinstance(connect, CSR):
        connect.index_targets()
    return connect
