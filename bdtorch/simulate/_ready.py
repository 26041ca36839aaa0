"""What a simulation starts from: the arguments of the front door, checked and in one place."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem, float_dtypes, initial_state, whole_steps
from bdtorch._types import State
from bdtorch.simulate._body import Body
from bdtorch.simulate._ensemble import ensemble_state
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.records import Record


@dataclass(frozen=True, eq=False)
class Ready:
    """A simulation before its first step.

    Attributes:
        body: The body of its time loop; not yet tried out.
        state: Flat initial state.
        start: Number of steps between t = 0 and it.
    """

    body: Body
    state: list[Tensor]
    start: int


def made_ready(
    system: DynamicalSystem,
    inputs: Any,
    *,
    dt: float,
    state: State | None,
    t0: float,
    batch_shape: tuple[int, ...] | None,
    seed: int | Tensor,
    record: Mapping[str, Record | Callable[[State, Any], Any]] | None,
    parameters: Mapping[str, Tensor] | None = None,
    further: Mapping[str, Record] | None = None,
) -> Ready:
    """Check the arguments of `simulate` that describe what is to run.

    Args:
        system: See `bdtorch.simulate`, as for all but the last.
        inputs: See there.
        dt: See there.
        state: See there.
        t0: See there.
        batch_shape: See there.
        seed: See there.
        record: See there.
        parameters: See there.
        further: Records beyond those that were asked for.
    """
    _check_arguments(system, dt, record)
    resolved = resolve(inputs, system)
    start = whole_steps(t0, dt, "simulate(t0=...)")
    if start < 0:
        raise ValueError(f"`simulate(t0=...)`: expected at least 0 ms, got {t0:g}")
    if state is None:
        _check_fresh(batch_shape, seed)
        batch = resolved.batch_shape(max(1, len(system.size))) if batch_shape is None else tuple(map(int, batch_shape))
        if isinstance(seed, Tensor):
            state = ensemble_state(system, batch, dt=dt, seed=seed)
        else:
            state = initial_state(system, batch, dt=dt, seed=int(seed))
    elif batch_shape is not None:
        raise ValueError(
            "`simulate(batch_shape=...)`: expected None where a state is given, since the state has its own"
        )
    flat = _checked_state(system, state)
    records = {name: item if isinstance(item, Record) else Record(item) for name, item in (record or {}).items()}
    records.update(further or {})
    body = Body(system, resolved, records, state, float(dt), _checked_parameters(system, parameters))
    return Ready(body, flat, start)


def _check_arguments(system: Any, dt: Any, record: Any) -> None:
    if not isinstance(system, DynamicalSystem):
        raise TypeError(f"`simulate(system=...)`: expected a DynamicalSystem, got {type(system).__name__}")
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not 0 < dt < math.inf:
        raise ValueError(f"`simulate(dt=...)`: expected a finite number of ms above 0, got {dt!r}")
    if record is not None and not isinstance(record, Mapping):
        raise TypeError(f"`simulate(record=...)`: expected a dict of records by name, got {type(record).__name__}")


def _check_fresh(batch_shape: Any, seed: Any) -> None:
    if batch_shape is not None and not (
        isinstance(batch_shape, (tuple, list)) and all(_is_whole(n) and n >= 0 for n in batch_shape)
    ):
        raise ValueError(
            f"`simulate(batch_shape=...)`: expected a tuple of whole numbers of at least 0, got {batch_shape!r}"
        )
    if not isinstance(seed, Tensor) and not _is_whole(seed):
        raise TypeError(f"`simulate(seed=...)`: expected a whole number, got {seed!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _checked_state(system: DynamicalSystem, state: State) -> list[Tensor]:
    flat: list[Tensor] = []
    dtypes = float_dtypes(system)
    for name, leaf in tree.named_leaves(state):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"`simulate(state=...)`: expected tensors only, got {type(leaf).__name__} for {name!r}")
        if leaf.device != system.device:
            raise ValueError(f"`simulate(state=...)`: expected device {system.device}, got {leaf.device} for {name!r}")
        if leaf.is_floating_point() and leaf.dtype not in dtypes:
            expected = " or ".join(map(str, dtypes))
            raise TypeError(f"`simulate(state=...)`: expected dtype {expected}, got {leaf.dtype} for {name!r}")
        flat.append(leaf)
    return flat


def _checked_parameters(system: DynamicalSystem, parameters: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    if not parameters:
        return None
    tensors = [*system.named_parameters(remove_duplicate=False), *system.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    known = {name: first.setdefault(id(tensor), name) for name, tensor in tensors}
    given: dict[str, Tensor] = {}
    for name, value in parameters.items():
        if name not in known:
            names = ", ".join(repr(key) for key in known if not key.endswith("_anchor"))
            raise ValueError(f"`simulate(parameters=...)`: expected names among {names or 'none'}, got {name!r}")
        if not isinstance(value, Tensor):
            raise TypeError(f"`simulate(parameters=...)`: expected tensors, got {type(value).__name__} for {name!r}")
        if given.setdefault(known[name], value) is not value:
            raise ValueError(
                f"`simulate(parameters=...)`: expected one tensor for {known[name]!r} and {name!r}, which are the same in "
                f"the system, got two"
            )
    return given
