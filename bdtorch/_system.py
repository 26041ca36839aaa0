"""`DynamicalSystem`: a module whose state is a value that `step` takes and returns."""

from __future__ import annotations

import abc
import functools
import inspect
import math
import numbers
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.ops.csr import dtype_of_sums
from bdtorch.ops.random import fold


class Parametrised(nn.Module):
    """A module whose constants are floats, buffers or parameters of one floating dtype on one device.

    Args:
        size: Shape that parameter tensors must broadcast to; ``()`` leaves it open.
        dtype: Floating dtype; default `torch.get_default_dtype`.
        device: Device of drawn parameters.
    """

    positive_parameters: tuple[str, ...] = ()
    """Trained parameters that make no sense but above zero."""

    def __init__(
        self, size: Size = (), *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.size = checked_size(size, f"{type(self).__name__}(size=...)")
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"`{type(self).__name__}(dtype=...)`: expected a floating dtype, got {dtype}")
        # Carries dtype and device through `.to()`, also where every parameter is a Python float.
        self.register_buffer("_anchor", torch.empty(0, dtype=dtype, device=device), persistent=False)

    if TYPE_CHECKING:
        # What `declare` sets is a float or a tensor; torch's stubs would have it be a module.
        def __getattr__(self, name: str) -> Any: ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the state."""
        dtype: torch.dtype = self._anchor.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Device of the state."""
        device: torch.device = self._anchor.device
        return device

    def declare(
        self,
        name: str,
        value: Value | Initialiser,
        *,
        positive: bool = False,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set parameter ``name``: a float stays a float, a tensor becomes a buffer, an `nn.Parameter` is trained.

        Args:
            name: Attribute to set.
            value: Float, tensor that broadcasts to ``size``, `nn.Parameter`, or initialiser (drawn here, once).
            positive: Demand finite values above zero, as for time constants.
            seed: Seed of an initialiser; the parameter's name is mixed into it.
            dtype: Dtype that a tensor must have; default the module's.

        Raises:
            TypeError: ``value`` is of another kind or dtype.
            ValueError: ``value`` is NaN, is not positive where it must be, or does not broadcast to ``size``.
        """
        label = f"`{type(self).__name__}({name}=...)`"
        if callable(value) and not isinstance(value, Tensor):
            value = value(self.size, seed=fold(seed, name), dtype=self.dtype, device=self.device)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            check_number(label, float(value), positive=positive)
            setattr(self, name, float(value))
            return
        if not isinstance(value, Tensor):
            raise TypeError(f"{label}: expected a number, a tensor, an nn.Parameter or an initialiser, got {value!r}")
        self._check_tensor(label, value, positive, dtype or self.dtype)
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
            if positive:
                self.positive_parameters = (*self.positive_parameters, name)
        else:
            self.register_buffer(name, value)

    def declare_initial(self, name: str, value: Value | Initialiser | None) -> None:
        """Set an initial value for `DynamicalSystem.fill`: like `declare`, but an initialiser is kept, to be drawn anew
        for every initial state, and None stands for the model's own default.
        """
        if value is None or (callable(value) and not isinstance(value, Tensor)):
            setattr(self, name, value)
        else:
            self.declare(name, value)

    def _check_tensor(self, label: str, value: Tensor, positive: bool, dtype: torch.dtype) -> None:
        if value.dtype != dtype:
            raise TypeError(f"{label}: expected dtype {dtype}, got {value.dtype}")
        if value.device != self.device:
            raise ValueError(f"{label}: expected device {self.device}, got {value.device}")
        if self.size and not broadcasts(tuple(value.shape), self.size):
            raise ValueError(f"{label}: expected a shape that broadcasts to {self.size}, got {tuple(value.shape)}")
        if value.isnan().any():
            raise ValueError(f"{label}: expected numbers, got NaN")
        if positive and not bool(((value > 0) & value.isfinite()).all()):
            raise ValueError(f"{label}: expected finite values above 0, got a minimum of {value.min().item():g}")


class DynamicalSystem(Parametrised, abc.ABC):
    """A system in discrete time: parameters live in the module, everything that evolves lives in a separate state.

    A subclass implements `init_state` and `step`, both pure. The state is a ``NamedTuple`` of tensors (a container's is a
    dict of its parts' states), of shape ``(*batch, *size)`` and final dtype from `init_state` on.

    Args:
        size: Shape of the population. ``()`` makes an element-wise system that takes the shape of its surroundings.
        dtype: Floating dtype of the state and of drawn parameters; default `torch.get_default_dtype`.
        device: Device of the state and of drawn parameters.
    """

    takes_input = True
    """Whether a `bdtorch.Network` hands drives and plain inputs to this part (stimuli say False)."""

    @abc.abstractmethod
    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """The state at t = 0, of shape ``(*batch_shape, *size)``.

        An implementation that needs the step (ms) or a seed adds the keywords ``dt`` or ``seed``; `initial_state` passes
        to each part those that it names.
        """

    @abc.abstractmethod
    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Any]:
        """Advance from ``t`` to ``t + dt`` (ms) without writing to the arguments.

        Args:
            state: What `init_state` or the last `step` returned.
            inputs: The input during this step.
            t: 0-d float64 tensor, the time at the start of the step.
            dt: The step, a Python float.

        Returns:
            The new state, of equal structure, shapes and dtypes, and the output of the step.
        """

    def forward(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Any]:
        """`step`, so that a system can be called, hooked and compiled like any module."""
        return self.step(state, inputs, t, dt)

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        """The output before the first step, which projections read at t = 0: silence, of the output's shape and dtype.

        Systems whose output is neither a float tensor of the population's shape nor spikes override this.
        """
        return torch.zeros((*batch_shape, *self.size), dtype=self.dtype, device=self.device)

    @property
    def count(self) -> int:
        """Number of elements of the population."""
        return math.prod(self.size)

    def fill(self, batch_shape: tuple[int, ...], value: Value | Initialiser, *, seed: int = 0) -> Tensor:
        """A state variable of shape ``(*batch_shape, *size)`` that starts at a number, a tensor or an initialiser's draw."""
        shape = (*batch_shape, *self.size)
        if isinstance(value, Tensor):
            return value.to(self.dtype).expand(shape).clone()
        if callable(value):
            return value(shape, seed=seed, dtype=self.dtype, device=self.device)
        return torch.full(shape, value, dtype=self.dtype, device=self.device)


def float_dtypes(system: DynamicalSystem) -> list[torch.dtype]:
    """The dtypes that floating numbers of a step may have, its own first: those of its parts, and of sums of weights."""
    parts = [part.dtype for part in system.modules() if isinstance(part, Parametrised)]
    sums = [dtype_of_sums(x) for x in (*system.parameters(), *system.buffers()) if x.is_floating_point()]
    return list(dict.fromkeys([system.dtype, *parts, *sums]))


def initial_state(
    system: DynamicalSystem, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0
) -> State:
    """Call ``system.init_state``, passing ``dt`` and ``seed`` where its signature names them."""
    context = {"dt": dt, "seed": seed}
    return system.init_state(batch_shape, **{name: context[name] for name in _context_names(type(system).init_state)})


@functools.cache
def _context_names(function: Any) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters
    return tuple(name for name in ("dt", "seed") if name in parameters)


def checked_size(size: Size, label: str) -> tuple[int, ...]:
    """``size`` as a tuple of positive integers, or an error that names ``label``."""
    shape = tuple(size) if isinstance(size, (tuple, list, torch.Size)) else (size,)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise ValueError(f"`{label}`: expected a positive integer or a tuple of them, got {size!r}")
    return shape


def check_number(label: str, value: float, *, positive: bool = False) -> None:
    """Reject NaN and, where ``positive``, anything that is not finite and above zero."""
    if math.isnan(value):
        raise ValueError(f"{label}: expected a number, got NaN")
    if positive and not 0 < value < math.inf:
        raise ValueError(f"{label}: expected a finite number above 0, got {value!r}")


def is_finite_number(value: Any) -> bool:
    """Whether ``value`` is a real number, neither NaN nor infinite."""
    return type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)


def broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a tensor of ``shape`` can be expanded to ``target``."""
    if len(shape) > len(target):
        return False
    return all(have in (1, want) for have, want in zip(shape[::-1], target[::-1], strict=False))


def whole_steps(duration: float, dt: float, label: str) -> int:
    """How many steps of ``dt`` make ``duration``; an error that names ``label`` where it is no whole number."""
    if not is_finite_number(duration):
        raise ValueError(f"`{label}`: expected a finite number of ms, got {duration!r}")
    steps = round(duration / dt)
    if abs(steps * dt - duration) > min(1e-6 * max(dt, duration), 0.1 * dt):
        raise ValueError(f"`{label}`: expected a multiple of dt={dt:.12g} ms, got {duration:.12g} ms")
    return steps


def decay(tau: Value, dt: float) -> Value:
    """``exp(-dt / tau)``."""
    return torch.exp(-dt / tau) if isinstance(tau, Tensor) else math.exp(-dt / tau)
