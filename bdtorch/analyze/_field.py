"""`VectorField`: any flow or function as an autonomous vector field over named variables and parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bdtorch import _tree as tree
from bdtorch._flow import Flow
from bdtorch._system import DynamicalSystem, initial_state

Function = Callable[[Any, dict[str, Any]], Any]
"""``function(state, parameters)`` of 0-d tensors, which returns the derivative in the structure of the state."""


class VectorField:
    """An autonomous system ``dx/dt = f(x; parameters)`` as the analysers see it: double precision, everything by name.

    Args:
        system: A `bdtorch.Flow`, of which the analysis uses `derivative` (a reset, if it has one, takes no part), or a
            function ``f(state, parameters)``. The module is copied: it is neither changed nor converted.
        variables: For a function, the names of its variables: ``state`` is then a dict of 0-d tensors, and ``f`` returns
            a dict or a sequence in that order. Or their number: ``state`` is then a vector, and the names are ``x0, x1..``.
        parameters: For a function, its parameters and their values. For a flow, values that replace its attributes
            (dotted paths into its parts, such as ``"channels.Na.g_max"``).
        inputs: For a flow, its constant input: a number, or a sequence or dict of numbers. It is the parameter
            ``"inputs"``, or ``"inputs.0"``, ``"inputs.name"``.
        fixed: Variables held at a value. They cease to be variables and become parameters.

    Raises:
        TypeError: ``system`` is neither, or the state of a flow is not made of floating tensors.
        ValueError: a name is unknown, or a value is not a finite number.
    """

    def __init__(
        self,
        system: Flow | Function | VectorField,
        *,
        variables: Sequence[str] | int | None = None,
        parameters: Mapping[str, float] | None = None,
        inputs: Any = 0.0,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        if isinstance(system, Flow):
            if variables is not None:
                raise ValueError("`VectorField(variables=...)`: a Flow names its own variables")
            self._source: _FlowSource | _FunctionSource = _FlowSource(system, inputs)
        elif callable(system) and not isinstance(system, nn.Module):
            if variables is None:
                raise ValueError("`VectorField(variables=...)`: expected the names of the function's variables")
            self._source = _FunctionSource(system, variables, dict(parameters or {}))
        else:
            raise TypeError(_no_field(system))
        self.settings: dict[str, float] = {}
        self.fixed: dict[str, float] = {}
        for name, value in (parameters or {}).items():
            self._source.default(name)
            self.settings[name] = _number(f"parameters[{name!r}]", value)
        for name, value in (fixed or {}).items():
            if name not in self._source.names:
                raise ValueError(f"`VectorField(fixed={{{name!r}: ...}})`: variables are {list(self._source.names)}")
            self.fixed[name] = _number(f"fixed[{name!r}]", value)
        if len(self.fixed) == len(self._source.names):
            raise ValueError("`VectorField(fixed=...)`: expected at least one variable that is free, got none")

    @property
    def names(self) -> tuple[str, ...]:
        """The free variables."""
        return tuple(name for name in self._source.names if name not in self.fixed)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the vector field leaves out of the system."""
        return self._source.remarks

    def value(self, parameter: str) -> float:
        """The value of a parameter.

        Raises:
            ValueError: no parameter has that name.
        """
        if parameter in self.fixed:
            return self.fixed[parameter]
        return self.settings[parameter] if parameter in self.settings else self._source.default(parameter)

    def replaced(
        self, *, fixed: Mapping[str, float] | None = None, settings: Mapping[str, float] | None = None
    ) -> VectorField:
        """The same field with other values of parameters, and with further variables held."""
        other = copy.copy(self)
        other.settings, other.fixed = dict(self.settings), {**self.fixed, **(fixed or {})}
        for name, value in (settings or {}).items():
            self.value(name)
            (other.fixed if name in other.fixed else other.settings)[name] = _number(name, value)
        for name in fixed or {}:
            if name not in self._source.names:
                raise ValueError(f"`fixed={{{name!r}: ...}}`: variables are {list(self._source.names)}")
        return other

    def initial(self) -> np.ndarray | None:
        """The free variables at the flow's initial state; None for a function, which has none."""
        start = self._source.initial()
        if start is None:
            return None
        return np.array([x for name, x in zip(self._source.names, start, strict=True) if name not in self.fixed])

    def __call__(self, x: Tensor, active: Mapping[str, Tensor] | None = None, t: float = 0.0) -> Tensor:
        """``f(x)``: shape ``(n,)`` to ``(n,)``, with tensors in the place of the ``active`` parameters."""
        values: dict[str, Any] = {**self.settings, **(active or {})}
        state, place = [], 0
        for name in self._source.names:
            if name in self.fixed:
                held = values.pop(name, self.fixed[name])
                state.append(torch.as_tensor(held, dtype=torch.float64))
            else:
                state.append(x[place])
                place += 1
        slopes = self._source.call(state, values, torch.tensor(t, dtype=torch.float64))
        return torch.stack([s for n, s in zip(self._source.names, slopes, strict=True) if n not in self.fixed])

    def check(self, x: np.ndarray) -> None:
        """Evaluate at ``x`` and make sure that what comes is a pure, autonomous vector field.

        Raises:
            TypeError, ValueError: the derivative is of another structure, differs between two calls (hidden randomness or
                state), depends on time, or is not finite.
        """
        with torch.no_grad():
            point = torch.as_tensor(x, dtype=torch.float64)
            first, second = self(point), self(point)
            later = [self(point, t=t) for t in (1.2345, 678.9)]
        where = ", ".join(f"{n}={v:g}" for n, v in zip(self.names, x, strict=True))
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise ValueError(
                f"the derivative at ({where}) differs between two calls with the same arguments: it depends on hidden "
                "randomness or on a state of its own, and has no phase plane or equilibria"
            )
        if any(not torch.equal(first.nan_to_num(), value.nan_to_num()) for value in later):
            raise ValueError(f"the derivative at ({where}) depends on the time t: analysers take autonomous systems")
        if not bool(first.isfinite().all()):
            bad = [n for n, ok in zip(self.names, first.isfinite().tolist(), strict=True) if not ok]
            raise ValueError(f"the derivative of {', '.join(bad)} at ({where}) is not finite")


def as_field(system: Any, variables: Sequence[str] | int | None, **options: Any) -> VectorField:
    """``system`` itself where it is a field already, with settings replaced, else a new `VectorField`."""
    if not isinstance(system, VectorField):
        return VectorField(system, variables=None if isinstance(system, Flow) else variables, **options)
    if options.get("inputs", 0.0) != 0.0:
        raise ValueError("`inputs=...`: give the inputs to the VectorField itself")
    return system.replaced(fixed=options.get("fixed"), settings=options.get("parameters"))


def _no_field(system: Any) -> str:
    """What to say of something that has no derivative."""
    said = f"expected a Flow or a function, got {type(system).__name__}"
    if isinstance(system, DynamicalSystem):
        said += ", which has a step and no derivative: `scan`, `linearise`, `fixed_points` and `lyapunov_spectrum` take steps"
        if isinstance(getattr(system, "flow", None), Flow):
            said += "; its `.flow` has a derivative"
    return f"`VectorField(system=...)`: {said}"


class _FunctionSource:
    def __init__(self, function: Function, variables: Sequence[str] | int, parameters: dict[str, float]) -> None:
        self.vector = isinstance(variables, int)
        self.names = tuple(f"x{i}" for i in range(variables)) if isinstance(variables, int) else tuple(variables)
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"`VectorField(variables=...)`: expected names, all different, got {variables!r}")
        self._function, self._parameters = function, parameters

    remarks: tuple[str, ...] = ()

    def initial(self) -> None:
        return None

    def default(self, name: str) -> float:
        if name not in self._parameters:
            raise ValueError(f"{name!r} is no parameter of the function, which has {sorted(self._parameters)}")
        return float(self._parameters[name])

    def call(self, state: list[Tensor], values: dict[str, Any], t: Tensor) -> list[Tensor]:
        given: Any = torch.stack(state) if self.vector else dict(zip(self.names, state, strict=True))
        numbers = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}
        try:
            slopes = self._function(given, numbers)
        except KeyError as error:
            if error.args[:1] and error.args[0] not in {*numbers, *self.names}:
                raise ValueError(
                    f"the function asks for {error.args[0]!r}; its variables are {list(self.names)}, its parameters "
                    f"{sorted(numbers)}"
                ) from error
            raise
        if isinstance(slopes, Mapping):
            if set(slopes) != set(self.names):
                raise ValueError(f"the derivative has {sorted(slopes)}, expected the variables {sorted(self.names)}")
            slopes = [slopes[name] for name in self.names]
        if isinstance(slopes, Tensor) and slopes.dim() == 0:
            slopes = [slopes]
        if not isinstance(slopes, (Sequence, Tensor)) or len(slopes) != len(self.names):
            raise ValueError(f"expected a derivative of {len(self.names)} variables {self.names}, got {slopes!r}")
        return [_scalar(s, name) for s, name in zip(slopes, self.names, strict=True)]


class _FlowSource:
    def __init__(self, system: Flow, inputs: Any) -> None:
        self._module = copy.deepcopy(system).double().requires_grad_(False).cpu()
        state = initial_state(self._module)
        self._leaves, self._spec = tree.flatten(state)
        self.names: tuple[str, ...] = ()
        for name, leaf in tree.named_leaves(state):
            if not leaf.is_floating_point():
                raise TypeError(f"variable {name} of {type(system).__name__} is {leaf.dtype}: analysis needs floats")
            one = leaf.numel() == 1
            self.names += (name,) if one else tuple(f"{name}[{i}]" for i in range(leaf.numel()))
        resets = callable(getattr(system, "reset", None))
        self.remarks = (f"the reset of {type(system).__name__} takes no part in its derivative",) if resets else ()
        self._inputs = inputs
        self._input_names: dict[str, float] = {}
        for name, leaf in tree.named_leaves({"inputs": inputs}):
            if leaf is not None:
                self._input_names[name] = _number(name, leaf)

    def initial(self) -> list[float]:
        return [float(x) for leaf in self._leaves for x in leaf.reshape(-1)]

    def _owner(self, path: str) -> tuple[Any, str]:
        return owner_of(self._module, path)

    def default(self, name: str) -> float:
        if name in self._input_names:
            return self._input_names[name]
        owner, last = self._owner(name)
        value = getattr(owner, last, None) if owner is not None else None
        if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
            return float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        known = [k for k, v in vars(self._module).items() if isinstance(v, float)] + list(self._module.state_dict())
        raise ValueError(
            f"{name!r} is no number among the attributes and inputs of {type(self._module).__name__}; there are "
            f"{sorted(known) + sorted(self._input_names)}"
        )

    def call(self, state: list[Tensor], values: dict[str, Any], t: Tensor) -> list[Tensor]:
        leaves, place = [], 0
        for leaf in self._leaves:
            own = state[place : place + leaf.numel()]
            leaves.append((own[0] if len(own) == 1 else torch.stack(own)).reshape(leaf.shape))
            place += leaf.numel()
        replaced = []
        try:
            for name, value in values.items():
                if name not in self._input_names:
                    owner, last = self._owner(name)
                    replaced.append((owner, last, _swap(owner, last, value)))
            inputs = tree.unflatten(
                [
                    values.get(name, leaf) if leaf is not None else None
                    for name, leaf in tree.named_leaves({"inputs": self._inputs})
                ],
                tree.flatten({"inputs": self._inputs})[1],
            )["inputs"]
            slopes = self._module.derivative(tree.unflatten(leaves, self._spec), inputs, t)
        finally:
            for owner, last, old in reversed(replaced):
                _swap(owner, last, old)
        return self._flat(slopes)

    def _flat(self, slopes: Any) -> list[Tensor]:
        flat, spec = tree.flatten(slopes)
        if spec != self._spec:
            raise ValueError(f"the derivative has the structure {spec}, expected that of the state, {self._spec}")
        found: list[Tensor] = []
        for slope, leaf in zip(flat, self._leaves, strict=True):
            value = torch.as_tensor(slope, dtype=torch.float64)
            column = value.expand(leaf.shape).reshape(-1)
            found.extend(column[i] for i in range(leaf.numel()))
        return found


def owner_of(module: nn.Module, path: str) -> tuple[Any, str]:
    """The part of a module that a dotted path leads to (None where there is none), and the path's last name."""
    *parts, last = path.split(".")
    node: Any = module
    for part in parts:
        inside = isinstance(node, nn.ModuleDict) and part in node
        node = node[part] if inside else getattr(node, part, None)
    return node, last


def _swap(owner: nn.Module, name: str, value: Any) -> Any:
    """Put ``value`` where parameter or attribute ``name`` was, whatever its kind, and return what was there."""
    old = getattr(owner, name)
    if isinstance(old, Tensor) and isinstance(value, Tensor):
        value = value.reshape(old.shape)
    for store in (owner._parameters, owner._buffers):
        store.pop(name, None)
    object.__setattr__(owner, name, value)
    return old


def _scalar(value: Any, name: str) -> Tensor:
    if (torch.is_tensor(value) and value.is_complex()) or isinstance(value, complex):
        raise TypeError(f"the derivative of {name} is complex: take real and imaginary parts as two variables")
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if tensor.numel() != 1:
        raise ValueError(f"the derivative of {name} has the shape {tuple(tensor.shape)}, expected a single number")
    return tensor.reshape(())


def _number(label: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{label}`: expected a number, got {value!r}") from error
    if not math.isfinite(number):
        raise ValueError(f"`{label}`: expected a finite number, got {value!r}")
    return number
