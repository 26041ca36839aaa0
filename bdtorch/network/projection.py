"""Projections: from the output of one population to the drive of others."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from bdtorch._system import Parametrised, check_number
from bdtorch._types import Initialiser, State, Value
from bdtorch.connect import CSR, Connectivity, Dense, Groups, Identity, Procedural, Rule
from bdtorch.network.delay import Delay
from bdtorch.network.synaptic_delay import SynapticDelay
from bdtorch.ops.csr import TWO_BYTES, dtype_of_sums
from bdtorch.ops.random import fold
from bdtorch.plasticity import Events, Plasticity
from bdtorch.synapses import Current, Presynaptic, Receptor, ShortTerm, Synapse

Slot = TypeVar("Slot", bound=Parametrised)


class Targets(NamedTuple):
    """What plasticity reads of the populations that a projection reaches, at the start of a step."""

    spikes: Tensor
    v: Tensor | None
    third: Tensor | float | None


@dataclass(frozen=True, eq=False)
class Projection:
    """What joins populations, as a pipeline of slots:
    delay -> short-term plasticity -> presynaptic dynamics -> connectivity with weights -> synapse -> receptor.

    With ``plasticity`` the weights are part of the state, ``(*batch, *weight_shape)``, and ``weight`` is their start.

    A projection is a description; `bdtorch.Network` draws its connectivity for the populations that it joins. Used in
    two places it is drawn twice, and shares its parameters (a trained ``weight`` or ``tau``).

    Args:
        connect: A rule of `bdtorch.connect`, or connectivity that is already drawn.
        weight: Strength of a synapse, in the unit of the receptor's variable (nS, pA, mV, ...): float, tensor or
            `nn.Parameter` (0-d, or one per synapse), or initialiser. A tensor may be in bfloat16 or float16.
        synapse: Time course; None passes the weighted events on as they are.
        receptor: How the synaptic variable drives the membrane; default `bdtorch.synapses.Current`.
        delay: None for none; a float, ms, at least one step and a multiple of it; a tensor of one for each source,
            likewise; one for each synapse (a tensor, or an initialiser), at least 0 ms, which is rounded to whole steps;
            or a `Delay`, for delays between steps and for trained ones. Where a tensor could be either, it is by synapse.
            A spike at the end of step k acts in step k+1 without a delay, and in step k+1+m with a delay of m steps.
        short_term: How a source's own spikes modulate what it releases.
        presynaptic: A time course that is not linear in the events, such as `bdtorch.synapses.NMDA`: one gate for each
            source, whose weighted sum is the synaptic variable.
        plasticity: How spikes of both sides change the weights. For the order of events see
            `bdtorch.plasticity.Plasticity`.
        weight_dtype: Dtype in which weights are stored: float32, float64, or bfloat16 or float16, whose sums are made in
            float32; default the tensor's, and of what is drawn the projection's. Plastic weights take no two bytes, where
            small changes would be lost.

    Raises:
        TypeError: a slot holds an object of another kind, or weights a dtype that they cannot have.
        ValueError: ``weight`` is NaN or ``delay`` is not positive.
    """

    connect: Rule | Connectivity
    weight: Value | Initialiser = 1.0
    synapse: Synapse | None = None
    receptor: Receptor | None = None
    delay: float | Tensor | Initialiser | Delay | None = None
    short_term: ShortTerm | None = None
    presynaptic: Presynaptic | None = None
    plasticity: Plasticity | None = None
    weight_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        kinds = {
            "connect": (Rule, Connectivity), "synapse": (Synapse,), "receptor": (Receptor,),
            "short_term": (ShortTerm,), "presynaptic": (Presynaptic,), "plasticity": (Plasticity,),
        }  # fmt: skip
        for slot, kind in kinds.items():
            value = getattr(self, slot)
            if not isinstance(value, kind) and not (value is None and slot != "connect"):
                expected = " or ".join(cls.__name__ for cls in kind)
                raise TypeError(f"`Projection({slot}=...)`: expected a {expected} object, got {value!r}")
        if isinstance(self.weight, (int, float)):
            check_number("`Projection(weight=...)`", float(self.weight))
        if self.weight_dtype not in (None, torch.float32, torch.float64, *TWO_BYTES):
            raise TypeError(
                f"`Projection(weight_dtype=...)`: expected float32, float64, bfloat16 or float16, got {self.weight_dtype}"
            )
        if isinstance(self.delay, (int, float)):
            check_number("`Projection(delay=...)`", float(self.delay), positive=True)
        elif self.delay is not None and not callable(self.delay) and not isinstance(self.delay, Tensor):
            raise TypeError(
                f"`Projection(delay=...)`: expected ms, a tensor, an initialiser or a Delay, got {self.delay!r}"
            )

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
        by_synapse = _is_by_synapse(projection.delay, connect)
        self.connect = connect if self.plasticity is None and not by_synapse else _stored(connect, sparse=by_synapse)
        self._declare_weight(projection, fold(seed, "weight"))
        self.delay: Delay | None = None
        self.synaptic_delay: SynapticDelay | None = None
        if by_synapse:
            self.synaptic_delay = self._synaptic(projection, seed)
        elif projection.delay is not None:
            self.delay = self._line(projection.delay)
        self.short_term = None if projection.short_term is None else self._own(projection.short_term)
        self.presynaptic = None if projection.presynaptic is None else self._own(projection.presynaptic)
        self.synapse = None if projection.synapse is None else self._own(projection.synapse)
        receptor = projection.receptor
        self.receptor = Current(dtype=dtype, device=device) if receptor is None else self._own(receptor)

    def _declare_weight(self, projection: Projection, seed: int) -> None:
        weight, dtype = self._drawn(projection.weight, seed, "weight"), projection.weight_dtype
        if isinstance(weight, Tensor):
            if dtype is None:
                dtype = weight.dtype if weight.dtype in TWO_BYTES else None
            elif not isinstance(weight, nn.Parameter):
                weight = weight.to(dtype)
        self.declare("weight", weight, dtype=dtype)
        self._check_plastic()

    def _check_plastic(self) -> None:
        """Plastic weights grow by steps that two bytes would lose without a word."""
        if self.plasticity is not None and isinstance(self.weight, Tensor) and self.weight.dtype in TWO_BYTES:
            raise TypeError(
                "`Projection(weight=..., plasticity=...)`: expected plastic weights in float32 or float64, since changes "
                f"below half a unit in the last of a few places are lost, got {self.weight.dtype}"
            )

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

    def _line(self, delay: Any) -> Delay:
        if isinstance(delay, Delay):
            return self._own(delay)
        if isinstance(delay, Tensor):
            delay = delay.to(dtype=self.dtype, device=self.device)
        return Delay(delay, dtype=self.dtype, device=self.device)

    def _synaptic(self, projection: Projection, seed: int) -> SynapticDelay:
        if self.plasticity is not None:
            raise ValueError(
                "`Projection(delay=..., plasticity=...)`: expected one delay, or one per source, since a rule sees the "
                "spikes of a source arrive at all of its synapses at once"
            )
        assert isinstance(self.connect, CSR), "made so by `_stored`"
        duration = self._drawn(projection.delay, fold(seed, "delay"), "delay")
        duration = duration.to(dtype=self.dtype, device=self.device)
        return SynapticDelay(duration, self.connect, dtype=self.dtype, device=self.device)

    def _drawn(self, value: Any, seed: int, slot: str) -> Any:
        """The value of a weight or delay: drawn, where it is an initialiser; of a shape that fits."""
        shape = self.connect.weight_shape
        if callable(value) and not isinstance(value, Tensor):
            return value(shape, seed=seed, dtype=self.dtype, device=self.device)
        if isinstance(value, Tensor) and value.dim() and tuple(value.shape) != shape:
            full = (self.connect.n_pre, self.connect.n_post)
            if tuple(value.shape) == full and isinstance(self.connect, CSR) and not isinstance(value, nn.Parameter):
                return value[self.connect.rows, self.connect.indices.long()]  # a matrix, of a projection made sparse
            raise ValueError(
                f"`Projection({slot}=...)`: expected a 0-d tensor or one {slot} per synapse, {shape}, "
                f"got shape {tuple(value.shape)}"
            )
        return value

    def init_state(self, source: Tensor, *, dt: float | None) -> State:
        """The state at t = 0 for sources whose output looks like ``source``, ``(*batch, n_pre)``."""
        state: dict[str, Any] = {}
        self._check_plastic()
        source = _as(source, self.dtype)
        batch_shape = tuple(source.shape[:-1])
        if self.delay is not None:
            state["delay"] = self.delay.init_state(source, dt=dt)
        if self.short_term is not None:
            state["short_term"] = self.short_term.init_state(tuple(source.shape))
        if self.presynaptic is not None:
            state["presynaptic"] = self.presynaptic.init_state(tuple(source.shape))
        if self.plasticity is not None:
            state["weight"] = self._weight(source.device).expand(*batch_shape, *self.connect.weight_shape).clone()
            state["plasticity"] = self.plasticity.init_state(self.connect, batch_shape)
        if self.synaptic_delay is not None:
            sums = dtype_of_sums(self._weight(source.device))
            state["delay"] = self.synaptic_delay.init_state(batch_shape, dt=dt, dtype=sums)
        if self.synapse is not None:
            state["synapse"] = self.synapse.init_state((*batch_shape, self.connect.n_post))
        return state

    def step(
        self, state: State, source: Tensor, t: Tensor, dt: float, targets: Targets | None = None
    ) -> tuple[State, Tensor]:
        """Deliver ``source``, ``(*batch, n_pre)``; returns state and synaptic variable, ``(*batch, n_post)``.

        Numbers of another dtype are converted where they come in, to the pathway's; products are made in the dtype of
        sums of the weights, and converted to the pathway's again. A plastic pathway also wants ``targets``.
        """
        after: dict[str, Any] = {}
        source = _as(source, self.dtype)
        if self.delay is not None:
            after["delay"], source = self.delay(state["delay"], source, dt)
        released = source
        if self.short_term is not None:
            after["short_term"], released = self.short_term.step(state["short_term"], source, t, dt)
        if self.presynaptic is not None:
            after["presynaptic"], released = self.presynaptic.step(state["presynaptic"], released, t, dt)
        weight = state["weight"] if self.plasticity is not None else self._weight(source.device)
        released = _as(released, dtype_of_sums(weight))
        if self.synaptic_delay is not None:
            after["delay"], g = self.synaptic_delay(state["delay"], released, weight, dt)
        else:
            g = self.connect(released, weight)
        g = g.to(self.dtype)
        if self.plasticity is not None:
            assert targets is not None, "a network hands them to every plastic pathway"
            events = Events(source, *(_as(x, self.dtype) for x in targets))
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


def _as(x: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in ``dtype``; anything else as it is."""
    return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


def _is_by_synapse(delay: Any, connect: Connectivity) -> bool:
    """Whether every synapse has a delay of its own; with one synapse per source there is no difference."""
    if isinstance(delay, Tensor):
        matrix = (connect.n_pre, connect.n_post)
        return (
            not isinstance(connect, Identity)
            and delay.dim() > 0
            and tuple(delay.shape) in (connect.weight_shape, matrix)
        )
    return callable(delay) and not isinstance(delay, Delay)


def _stored(connect: Connectivity, *, sparse: bool) -> Connectivity:
    """The connectivity in a form that has a weight for each synapse and finds those of a target.

    Args:
        connect: As drawn.
        sparse: Whether it must be a `CSR`.
    """
    if isinstance(connect, Procedural):
        raise TypeError(
            "`Projection(plasticity=..., delay=...)`: expected connectivity that stores its synapses, got Procedural; "
            "its `materialise` makes one"
        )
    if isinstance(connect, Groups):
        raise TypeError(
            "`Projection(plasticity=..., delay=...)`: expected connectivity that stores its synapses, got Groups, whose "
            "synapses share weights"
        )
    if isinstance(connect, Identity) and sparse:
        connect, _ = CSR.from_dense(connect.to_dense())
    if isinstance(connect, Dense) and (sparse or connect.mask is not None):
        connect, _ = CSR.from_dense(connect.to_dense())
    if isinstance(connect, CSR):
        connect.index_targets()
    return connect
