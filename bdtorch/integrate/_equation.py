"""An ordinary differential equation as solvers call it, and the checks at their door."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative, Integrator
from bdtorch.integrate._coupling import Dense
from bdtorch.integrate._derivatives import row_diagonal


@dataclass(frozen=True)
class Equation:
    """``dy/dt = function(t, y, *args)``.

    Attributes:
        function: What the user gave.
        linear: The slope of each variable's own equation, ``linear(t, y, *args)``; None for automatic differentiation.
        args_spec: Structure of the further arguments.
        constants: Leaves of the further arguments, None for those that are tensors and come with each call.
        batch_dims: Leading axes of the state that count independent trajectories.
    """

    function: Callable[..., State]
    linear: Callable[..., State] | None
    args_spec: Any
    constants: tuple[Any, ...]
    batch_dims: int

    def arguments(self, tensors: list[Tensor]) -> tuple[Any, ...]:
        """The further arguments with these tensors among them."""
        left = iter(tensors)
        flat = [next(left) if constant is None else constant for constant in self.constants]
        return tuple(tree.unflatten(flat, self.args_spec))

    def derivative(self, tensors: list[Tensor]) -> Derivative:
        """``f(y, t)`` of the state's structure."""
        arguments = self.arguments(tensors)
        return lambda y, t: tree.aligned(self.function(self._time(t, y), y, *arguments), y)

    def slopes(self, tensors: list[Tensor]) -> Derivative:
        """The slope of each variable's own equation."""
        arguments = self.arguments(tensors)
        if self.linear is not None:
            given = self.linear
            return lambda y, t: tree.aligned(given(self._time(t, y), y, *arguments), y)
        derivative, layout = self.derivative(tensors), Dense(self.batch_dims)

        def own(y: State, t: Tensor) -> State:
            rows, unpack = layout.pack(y)
            return unpack(row_diagonal(lambda z: layout.pack(derivative(unpack(z), t))[0], rows))

        return own

    def _time(self, t: Tensor, y: State) -> Tensor:
        """The time in a shape that broadcasts against the variables, and where it has axes of its own in their dtype."""
        if t.dim() == 0:
            return shared_time(t, y)
        flat = (y,) if isinstance(y, Tensor) else tree.leaves(y)
        rank = max(leaf.dim() for leaf in flat)
        if t.dim() < rank:
            t = t.reshape((*t.shape, *(1,) * (rank - t.dim())))
        return t.to(flat[0].dtype)


def shared_time(t: Tensor, y: State) -> Tensor:
    """A 0-d time, in the dtype of the state where some of it is a single number, whose dtype another would change."""
    flat = (y,) if isinstance(y, Tensor) else tree.leaves(y)
    return t if all(leaf.dim() for leaf in flat) else t.to(flat[0].dtype)


def equation(f: Any, linear: Any, args: Any, batch_dims: int) -> tuple[Equation, list[Tensor]]:
    """An equation, and the tensors among its further arguments."""
    for name, function in (("f", f), ("linear", linear)):
        if not callable(function) and not (name == "linear" and function is None):
            raise TypeError(f"`odeint({name}=...)`: expected a function of (t, y, *args), got {function!r}")
    if not isinstance(args, tuple):
        raise TypeError(f"`odeint(args=...)`: expected a tuple of further arguments, got {type(args).__name__}")
    flat, spec = tree.flatten(args)
    if any(leaf is None for leaf in flat):
        raise TypeError("`odeint(args=...)`: expected no None among the further arguments")
    constants = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in flat)
    return Equation(f, linear, spec, constants, batch_dims), tree.tensors(args)


_ELSEWHERE = {
    "adaptive_heun": "HeunEuler", "bdf": "Rodas4", "bosh3": "BogackiShampine", "dopri5": "DormandPrince5", "dopri8": "DOP853",
    "exp_auto": "ExponentialEuler", "exp_euler": "ExponentialEuler", "fehlberg2": "RKF12", "lsoda": "Rodas4",
    "ode15s": "Rodas4", "ode23": "BogackiShampine", "ode45": "DormandPrince5", "radau": "Kvaerno5", "rk23": "BogackiShampine",
    "rk45": "DormandPrince5", "rkdp": "DormandPrince5", "rkf45": "RKF45",
}  # fmt: skip
"""What methods, or those that do their work, are called in other libraries."""


def check_method(method: Any, kinds: Sequence[str]) -> None:
    """Reject what is no method object, and suggest what may have been meant."""
    if isinstance(method, Integrator):
        return
    if isinstance(method, str):
        close = difflib.get_close_matches(method.lower(), [kind.lower() for kind in kinds], n=3, cutoff=0.4)
        names = [kind for kind in kinds if kind.lower() in close]
        names = [_ELSEWHERE[method.lower()]] if _ELSEWHERE.get(method.lower()) in kinds else names
        hint = "; did you mean " + " or ".join(f"bdtorch.integrate.{name}()" for name in names) + "?" if names else ""
        raise TypeError(f"`odeint(method=...)`: expected a method object, got the string {method!r}{hint}")
    hint = "; call it: add ()" if callable(method) and getattr(method, "__name__", "") in kinds else ""
    if hasattr(method, "strong_order"):
        hint = "; stochastic equations have bdtorch.integrate.sdeint"
    elif callable(getattr(method, "order", None)):  # it depends on that of the equation
        hint = "; fractional equations have bdtorch.integrate.fdeint"
    raise TypeError(
        f"`odeint(method=...)`: expected a method object such as bdtorch.integrate.Tsit5(), got {method!r}{hint}"
    )


def read_times(t: Any) -> tuple[Tensor, list[float]]:
    """Times as float64, and as finite numbers."""
    if not isinstance(t, Tensor):
        try:
            numbers = [float(time) for time in t]
        except (TypeError, ValueError):
            raise TypeError(f"`odeint(t=...)`: expected a 1-D tensor or a sequence of times, got {t!r}") from None
        times = torch.tensor(numbers, dtype=torch.float64)
    elif t.dim() != 1:
        raise ValueError(f"`odeint(t=...)`: expected a 1-D tensor of times, got shape {tuple(t.shape)}")
    elif t.is_complex() or t.dtype == torch.bool:
        raise TypeError(f"`odeint(t=...)`: expected real times, got {t.dtype}")
    else:
        times = t.to(torch.float64)
        numbers = _listed(times)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            f"`odeint(t=...)`: expected finite times, got {next(x for x in numbers if not math.isfinite(x))}"
        )
    return times, numbers


def checked_times(t: Any) -> tuple[Tensor, list[float]]:
    """The output times as float64, and as numbers."""
    times, numbers = read_times(t)
    if len(numbers) < 2:
        raise ValueError(
            f"`odeint(t=...)`: expected at least 2 times, the first of them the initial one, got {len(numbers)}"
        )
    sign = 1.0 if numbers[1] > numbers[0] else -1.0
    for k in range(1, len(numbers)):
        if sign * (numbers[k] - numbers[k - 1]) <= 0.0:
            raise ValueError(
                f"`odeint(t=...)`: expected strictly rising or strictly falling times, "
                f"got {numbers[k - 1]:g} followed by {numbers[k]:g} at position {k}"
            )
    return times, numbers


def _known(times: Tensor) -> tuple[float, ...]:
    """What a compiler, which lays the steps out, takes the times to be."""
    return tuple(times.tolist())


# All that `torch.compiler.assume_constant_result` does; it loads the compiler, for a second or more, to do so.
_known._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _listed(times: Tensor) -> list[float]:
    if torch.compiler.is_compiling():
        known = list(_known(times))
        same = (times.detach() == torch.tensor(known, dtype=torch.float64, device=times.device)).all()
        torch._assert_async(same, _OTHER_TIMES)
        return known
    plain = times.detach()
    while torch._C._functorch.is_functorch_wrapped_tensor(plain):
        if torch._C._functorch.is_batchedtensor(plain):
            raise ValueError(
                "`odeint(t=...)`: expected the same times for all samples under torch.func.vmap, got times of each "
                "its own; to vary the span, scale the time within the equation"
            )
        plain = torch._C._functorch.get_unwrapped(plain)
    numbers: list[float] = plain.detach().tolist()
    return numbers


_OTHER_TIMES = (
    "`odeint(t=...)`: expected the times that the graph was compiled for, got other ones; as a list of numbers they are "
    "compiled anew"
)


def moves(times: Tensor) -> bool:
    """Whether derivatives by the times are asked for, backwards or forwards."""
    return times.requires_grad or forward_ad.unpack_dual(times).tangent is not None


def check_state(y0: State, batch_dims: Any) -> None:
    """Reject states that are not floating tensors of one dtype, with common leading axes."""
    if not isinstance(batch_dims, int) or isinstance(batch_dims, bool) or batch_dims < 0:
        raise ValueError(f"`odeint(batch_dims=...)`: expected a whole number of at least 0, got {batch_dims!r}")
    named = list(tree.named_leaves(y0))
    if not named:
        raise ValueError("`odeint(y0=...)`: expected at least one tensor, got none")
    for name, leaf in named:
        of = f" for {name!r}" if name else ""
        if not isinstance(leaf, Tensor):
            raise TypeError(f"`odeint(y0=...)`: expected tensors, got {type(leaf).__name__}{of}")
        if not leaf.is_floating_point():
            raise TypeError(f"`odeint(y0=...)`: expected a floating dtype, got {leaf.dtype}{of}")
        first = named[0][1]
        if leaf.dtype != first.dtype or leaf.device != first.device:
            raise TypeError(
                f"`odeint(y0=...)`: expected {first.dtype} on {first.device} throughout, got {leaf.dtype}{of}"
            )
        if leaf.dim() < batch_dims or leaf.shape[:batch_dims] != first.shape[:batch_dims]:
            raise ValueError(
                f"`odeint(batch_dims={batch_dims})`: expected leading axes {tuple(first.shape[:batch_dims])}, "
                f"got shape {tuple(leaf.shape)}{of}"
            )


def check_slope(slope: State, y0: State, t0: float) -> None:
    """Reject a derivative of another structure, shape or dtype, or one that is NaN or infinite from the start."""
    expect_like(slope, y0, "odeint(f=...)", "a derivative", "y0")
    report_nonfinite(slope, t0, "the derivative is {value}")


def expect_like(value: State, like: State, argument: str, what: str, name: str) -> None:
    """Reject a state of another structure, shape or dtype than that of ``name``; messages call it ``what``."""
    if tree.flatten(value)[1] != tree.flatten(like)[1]:
        want, got = [path for path, _ in tree.named_leaves(like)], [path for path, _ in tree.named_leaves(value)]
        raise ValueError(f"`{argument}`: expected {what} of the structure of {name}, {want}, got {got}")
    for (path, expected), leaf in zip(tree.named_leaves(like), tree.leaves(value), strict=True):
        of = f" for {path!r}" if path else ""
        if not isinstance(leaf, Tensor):
            raise TypeError(f"`{argument}`: expected {what} of tensors, got {type(leaf).__name__}{of}")
        if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
            raise ValueError(
                f"`{argument}`: expected {what} of shape {tuple(expected.shape)} and {expected.dtype}, "
                f"got {tuple(leaf.shape)} and {leaf.dtype}{of}"
            )


def check_linear(slopes: State, y: State) -> None:
    """Reject slopes of the variables' own equations of another structure than the state, or that do not broadcast to it."""
    if tree.flatten(slopes)[1] != tree.flatten(y)[1]:
        want, got = [name for name, _ in tree.named_leaves(y)], [name for name, _ in tree.named_leaves(slopes)]
        raise ValueError(f"`odeint(linear=...)`: expected slopes of the structure of y0, {want}, got {got}")
    for (name, leaf), value in zip(tree.named_leaves(y), tree.leaves(slopes), strict=True):
        of = f" for {name!r}" if name else ""
        if not isinstance(value, (int, float, Tensor)) or isinstance(value, bool):
            raise TypeError(f"`odeint(linear=...)`: expected tensors or numbers, got {type(value).__name__}{of}")
        if isinstance(value, Tensor):
            fits = len(value.shape) <= leaf.dim() and all(
                have in (1, want) for have, want in zip(value.shape[::-1], leaf.shape[::-1], strict=False)
            )
            if not fits or value.dtype != leaf.dtype:
                raise ValueError(
                    f"`odeint(linear=...)`: expected a shape that broadcasts to {tuple(leaf.shape)} and {leaf.dtype}, "
                    f"got {tuple(value.shape)} and {value.dtype}{of}"
                )


def report_nonfinite(y: State, t: float, problem: str) -> None:
    """Raise where a leaf holds NaN or infinity, and name component and time; says nothing under transforms."""
    if blind():
        return
    for name, leaf in tree.named_leaves(y):
        if surely_finite(leaf):
            continue
        bad = (~leaf.detach().isfinite()).nonzero()
        if len(bad):
            where = bad[0].tolist()
            element = where[0] if len(where) == 1 else tuple(where)
            what = problem.format(value=float(leaf.detach()[tuple(where)]))
            of = f" of {name!r}" if name else ""
            at = f" in component {element}{of}" if where else of
            raise FloatingPointError(f"`odeint(f=...)`: {what} at t = {t:g}{at}")


def surely_finite(leaf: Tensor) -> bool:
    """Whether a single sum, a tenth of the time of a look at each, shows that no element is NaN or infinite.

    Large but finite elements may fail to show it, since they may overflow.
    """
    return math.isfinite(leaf.detach().sum().item())


def component_names(y0: State, batch_dims: int) -> Callable[[int], str]:
    """What errors call the components of a trajectory, given their numbers in the packed state."""
    named = [(name, leaf.shape[batch_dims:]) for name, leaf in tree.named_leaves(y0)]

    def name_of(number: int) -> str:
        first = 0
        for name, shape in named:
            if number - first < shape.numel():
                place = tuple(int(k) for k in torch.unravel_index(torch.tensor(number - first), shape)) if shape else ()
                of = f" of {name!r}" if name else ""
                return (
                    f"component {place[0] if len(place) == 1 else place}{of}"
                    if place
                    else (repr(name) if name else "y")
                )
            first += shape.numel()
        raise IndexError(number)

    return name_of


@contextmanager
def unwritten(door: str, argument: str, y: State) -> Iterator[None]:
    """Reject a function of the user's, called within, that writes to the state that it is given."""
    if blind():
        yield
        return
    marks = tree.marks(tree.leaves(y))
    yield
    if any(tree.written(tree.leaves(y), marks)):
        raise ValueError(
            f"`{door}({argument}=...)`: expected a function that leaves its arguments as they are, got one that writes to y"
        )


def blind() -> bool:
    """Whether values cannot be looked at: under `torch.func` transforms and in graphs that are being compiled."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def coupled(method: Integrator, batch_dims: int) -> Integrator:
    """The method with the coupling that ``batch_dims`` implies, where it has none of its own."""
    if getattr(method, "coupling", 0) is None:
        return replace(method, coupling=Dense(batch_dims))  # type: ignore[type-var]
    return method
