"""`Network`: populations and the projections between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bdtorch import _tree as tree
from bdtorch._drive import Drive
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.network.projection import Pathway, Projection, Targets
from bdtorch.ops.random import fold

Route = tuple[str, str | tuple[str, ...]]


class Network(DynamicalSystem):
    """Populations by name, and projections by ``(source, target)`` or ``(source, (target, ...))``.

    A step has two phases and no order: every projection reads only the state at its start, where the last outputs are
    kept; every population consumes the sum of its drives. The state is a dict with an entry for each population, for
    each projection (named ``"source->target+target"``) and ``"out"``, the outputs that projections read. The output of
    a step is a dict of the populations' outputs.

    Parts may differ in dtype, as ``net.populations.double()`` makes them: a projection is drawn in the dtype of its first
    target, converts what it reads to its own dtype, and what it delivers is converted to the target's.

    Inputs of a step are None; a number or tensor, which goes as a current into every population that takes input; or a
    dict by population (a stimulus is reached only so, for example with the rates of a `bdtorch.stimuli.Poisson`), where
    plastic projections may stand too, by their names: the third factor of their rule, such as a reward.

    Args:
        populations: Systems by name.
        projections: One `Projection`, or several, for each route.
        seed: Names the wiring: connectivity and drawn weights.

    Raises:
        TypeError: a part is of another kind.
        ValueError: a name is reserved or unknown, or devices differ.
    """

    def __init__(
        self,
        populations: Mapping[str, DynamicalSystem],
        projections: Mapping[Route, Projection | Sequence[Projection]] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        _check_populations(populations)
        first = next(iter(populations.values()))
        super().__init__((), dtype=first.dtype, device=first.device)
        self.seed = seed
        self.populations = nn.ModuleDict(dict(populations))
        self.projections = nn.ModuleDict()
        self.routes: dict[str, tuple[str, tuple[str, ...]]] = {}
        for route, several in (projections or {}).items():
            group = several if isinstance(several, Sequence) else [several]
            for projection in group:
                self._join(route, projection)

    def _join(self, route: Route, projection: Projection) -> None:
        source, targets = self._checked_route(route, projection)
        label = f"{source}->{'+'.join(targets)}"
        name, twin = label, 1
        while name in self.projections:
            twin += 1
            name = f"{label}#{twin}"
        sizes = [self._part(target).count for target in targets]
        offset = sum(sizes[: targets.index(source)]) if source in targets else None
        self.projections[name] = projection.build(
            self._part(source).count,
            sum(sizes),
            seed=fold(self.seed, name),
            self_offset=offset,
            dtype=self._part(targets[0]).dtype,
            device=self.device,
        )
        self.routes[name] = (source, targets)

    def _checked_route(self, route: Route, projection: Projection) -> tuple[str, tuple[str, ...]]:
        if not (isinstance(route, tuple) and len(route) == 2):
            raise TypeError(f"`Network(projections=...)`: expected keys (source, target), got {route!r}")
        if not isinstance(projection, Projection):
            raise TypeError(f"`Network(projections[{route!r}])`: expected a Projection or several, got {projection!r}")
        source, targets = route
        targets = (targets,) if isinstance(targets, str) else tuple(targets)
        for name in (source, *targets):
            if name not in self.populations:
                known = ", ".join(repr(key) for key in self.populations)
                raise ValueError(f"`Network(projections[{route!r}])`: expected populations among {known}, got {name!r}")
        for name in targets:
            if not self._part(name).takes_input:
                raise ValueError(f"`Network(projections[{route!r}])`: {name!r} is a stimulus and takes no drive")
        if len(set(targets)) != len(targets) or not targets:
            raise ValueError(f"`Network(projections[{route!r}])`: expected distinct targets, got {targets!r}")
        return source, targets

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        state: dict[str, Any] = {
            name: initial_state(self._part(name), batch_shape, dt=dt, seed=fold(seed, name))
            for name in self.populations
        }
        silence = {name: self._part(name).init_out(batch_shape) for name in self._heard()}
        for name, (source, _) in self.routes.items():
            state[name] = self._pathway(name).init_state(_flat(silence[source], self._part(source)), dt=dt)
        return {**state, "out": silence}

    def _heard(self) -> dict[str, None]:
        """Populations whose outputs projections read: sources, and targets of plastic weights."""
        heard = {source: None for source, _ in self.routes.values()}
        for name, (_, targets) in self.routes.items():
            if self._pathway(name).plasticity is not None:
                heard.update(dict.fromkeys(targets))
        return heard

    def _part(self, name: str) -> DynamicalSystem:
        return self.populations[name]  # type: ignore[return-value]

    def _pathway(self, name: str) -> Pathway:
        return self.projections[name]  # type: ignore[return-value]

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, dict[str, Any]]:
        after: dict[str, Any] = {}
        drives = self._external(inputs)
        third = inputs if isinstance(inputs, Mapping) else {}
        for name, (source, targets) in self.routes.items():
            signal = _flat(state["out"][source], self._part(source))
            seen = self._seen(state, name, targets, third.get(name))
            after[name], g = self._pathway(name).step(state[name], signal, t, dt, seen)
            start = 0
            for target in targets:
                part = self._part(target)
                own = g[..., start : start + part.count].reshape(*g.shape[:-1], *part.size)
                start += part.count
                drive = self._received(name, own, state[target], part.dtype)
                drives[target] = Drive.of(drives.get(target)).plus(drive)
        out = {}
        for name in self.populations:
            after[name], out[name] = self._part(name).step(state[name], drives.get(name), t, dt)
        kept = {source: out[source] for source in state["out"]}
        return {**{name: after[name] for name in state if name != "out"}, "out": kept}, out

    def _seen(self, state: State, name: str, targets: tuple[str, ...], third: Any) -> Targets | None:
        """What a plastic pathway reads of its targets."""
        rule = self._pathway(name).plasticity
        if rule is None:
            return None
        spikes = [_flat(state["out"][target], self._part(target)) for target in targets]
        v = (
            [_flat(tree.find(state[target], "v"), self._part(target)) for target in targets]
            if rule.needs_voltage
            else []
        )
        return Targets(_joined(spikes), _joined(v) if v else None, third)

    def _received(self, name: str, g: Tensor, target: State, dtype: torch.dtype) -> Drive:
        """What a projection does to a target, in the target's dtype."""
        receptor = self._pathway(name).receptor
        drive: Drive = receptor(g.to(dtype), tree.find(target, "v") if receptor.needs_voltage else None)
        return drive

    def _external(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            plastic = [name for name in self.routes if self._pathway(name).plasticity is not None]
            for name in inputs:
                if name not in self.populations and name not in plastic:
                    known = ", ".join(repr(key) for key in [*self.populations, *plastic])
                    kind = "populations or plastic projections" if plastic else "populations"
                    raise ValueError(f"`inputs`: expected {kind} among {known}, got {name!r}")
            return {
                name: Drive.of(value) if self.populations[name].takes_input else value
                for name, value in inputs.items()
                if name in self.populations
            }
        if inputs is None:
            return {}
        return {name: Drive.of(inputs) for name, part in self.populations.items() if part.takes_input}


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _flat(out: Any, part: DynamicalSystem) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError(
            f"a projection reads spikes or rates as one tensor, but {type(part).__name__} puts out {type(out)}"
        )
    return out if len(part.size) == 1 else out.reshape(*out.shape[: out.dim() - len(part.size)], part.count)


def _check_populations(populations: Mapping[str, DynamicalSystem]) -> None:
    if not isinstance(populations, Mapping) or not populations:
        raise ValueError(f"`Network(populations=...)`: expected at least one system by name, got {populations!r}")
    first = None
    for name, part in populations.items():
        if not isinstance(part, DynamicalSystem):
            raise TypeError(f"`Network(populations[{name!r}])`: expected a DynamicalSystem, got {part!r}")
        if name == "out" or not name.isidentifier():
            raise ValueError(f"`Network(populations=...)`: expected an identifier other than 'out', got {name!r}")
        first = first or part
        if part.device != first.device:
            raise ValueError(f"`Network(populations[{name!r}])`: expected device {first.device}, got {part.device}")
