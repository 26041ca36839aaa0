"""What `bdtorch.integrate.sdeint` asks of its arguments."""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._door import Walk, renamed
from bdtorch.integrate._equation import blind, moves, read_times, report_nonfinite, unwritten
from bdtorch.integrate._sde_adaptive import Tolerance
from bdtorch.integrate._stochastic import Calculus, StochasticEquation, StochasticIntegrator
from bdtorch.integrate.brownian import BrownianPath
from bdtorch.integrate.noise import Diagonal, General, Noise

_OFF_GRID = 1e-3  # of a step: how far from the grid an output time may lie, since float32 times are rounded


def check_choice(method: Any, noise: Any, calculus: Any) -> None:
    """The method is one, and solves this kind of equation."""
    if not isinstance(method, StochasticIntegrator):
        raise TypeError(
            f"`sdeint(method=...)`: expected an object such as EulerMaruyama(), got {method!r}{_hint(method)}"
        )
    if not isinstance(noise, Noise):
        raise TypeError(f"`sdeint(noise=...)`: expected Diagonal(), Additive(), Scalar() or General(), got {noise!r}")
    if not isinstance(calculus, Calculus):
        raise TypeError(f"`sdeint(calculus=...)`: expected Calculus.ITO or Calculus.STRATONOVICH, got {calculus!r}")
    name = type(method).__name__
    # Where the noise is additive the two calculi agree.
    if calculus not in method.calculi and not noise.additive:
        solved = " and ".join(one.value for one in method.calculi)
        raise ValueError(f"`sdeint(method=...)`: expected one for {calculus.value} equations, got {name}, for {solved}")
    if not isinstance(noise, method.noises) or (noise.vector and not method.takes_vectors):
        kinds = " or ".join(kind.__name__ for kind in method.noises)
        axis = " with an axis of processes" if noise.vector else ""
        raise ValueError(f"`sdeint(noise=...)`: expected {kinds} noise for {name}, got {type(noise).__name__}{axis}")
    if method.needs_structure and not noise.commutative:
        raise ValueError(
            f"`sdeint(noise=...)`: expected commutative noise for {name}, got General(commutative=False); "
            f"EulerMaruyama and EulerHeun solve any"
        )


def _hint(method: Any) -> str:
    """What may have been meant by a method that is not one."""
    from bdtorch.integrate.sde import METHODS  # the list belongs to the module that imports this one

    name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
    if isinstance(method, type) and issubclass(method, StochasticIntegrator):
        return f"; did you mean {name}()?"
    simple = {"".join(c for c in known.name.lower() if c.isalnum()): known.name for known in METHODS}
    simple |= {"euler": "EulerMaruyama", "heun": "StochasticHeun", "srk": "SRI1", "klpl": "DerivativeFreeMilstein"}
    wanted = "".join(c for c in str(name).lower() if c.isalnum())
    close = [simple[key] for key in difflib.get_close_matches(wanted, simple, n=3, cutoff=0.5)]
    names = ", ".join(f"{one}()" for one in dict.fromkeys(close))
    return f"; did you mean {names}?" if names else ""


def check_step(dt: Any) -> None:
    """The step is a positive number."""
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not 0 < dt < math.inf:
        raise ValueError(f"`sdeint(dt=...)`: expected a finite number above 0, got {dt!r}")


def check_tolerance(method: StochasticIntegrator, noise: Noise, rtol: Any, atol: Any) -> Tolerance:
    """Tolerances are positive, and the method allows for step-size control."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"`sdeint({name}=...)`: expected a finite number above 0, got {value!r}")
    if method.strong_order(noise) < 1.0:
        raise ValueError(
            f"`sdeint(rtol=...)`: expected None for {type(method).__name__} with {type(noise).__name__} noise, whose "
            f"strong order is below 1, got {rtol!r}"
        )
    return Tolerance(float(rtol), float(atol))


def checked_times(t: Any) -> tuple[Tensor, list[float]]:
    """Output times as float64 on the CPU, and as numbers."""
    with renamed("sdeint"):
        times, numbers = read_times(t)
    if not numbers:
        raise ValueError("`sdeint(t=...)`: expected a 1-D tensor of times, got shape (0,)")
    if moves(times):
        raise ValueError(
            "`sdeint(t=...)`: expected times without requires_grad, since paths have no derivative by time"
        )
    return times.cpu(), numbers


def check_path(path: Any, seed: Any, batch_shape: Any) -> None:
    """Either paths, or what makes them."""
    if not isinstance(batch_shape, (tuple, list)):
        raise TypeError(f"`sdeint(batch_shape=...)`: expected a tuple of whole numbers, got {batch_shape!r}")
    if path is None:
        return
    if not isinstance(path, BrownianPath):
        raise TypeError(f"`sdeint(path=...)`: expected a BrownianPath or None, got {path!r}")
    if tuple(batch_shape) != () or not (isinstance(seed, int) and seed == 0):
        raise ValueError("`sdeint(path=...)`: expected None beside seed and batch_shape, since paths have theirs")


def count_steps(times: list[float], dt: float) -> tuple[float, list[int]]:
    """The first time, and the number of steps from there to each time."""
    counts: list[int] = []
    for k, time in enumerate(times):
        steps = (time - times[0]) / dt
        if abs(steps - round(steps)) > _OFF_GRID:
            raise ValueError(
                f"`sdeint(t=...)`: expected whole multiples of dt={dt:g} after t[0]={times[0]:g}, got {time:g} at "
                f"position {k}"
            )
        if counts and round(steps) <= counts[-1]:
            raise ValueError(f"`sdeint(t=...)`: expected increasing times, got {times[k - 1]:g} before {time:g}")
        counts.append(round(steps))
    return times[0], counts


def common_divisor(counts: list[int]) -> int:
    """The longest stride that meets all counts."""
    return math.gcd(*counts) or 1


def first_number(path: BrownianPath, start: float, dt: float) -> int:
    """The number of the first step, counted from where the paths begin."""
    ratio = path.step / dt
    halvings = round(math.log2(ratio)) if ratio > 0 else -1
    if halvings < 0 or not math.isclose(ratio, 2.0**halvings, rel_tol=1e-9):
        raise ValueError(
            f"`sdeint(dt=...)`: expected the step of the path, {path.step:g}, divided by a power of 2, got {dt:g}"
        )
    first = (start - path.start) / dt
    if round(first) < 0 or abs(first - round(first)) > _OFF_GRID:
        raise ValueError(
            f"`sdeint(t=...)`: expected t[0] a multiple of dt={dt:g} after the start of the path, {path.start:g}, got "
            f"{start:g}"
        )
    return round(first)


def check_state(y0: State, batch_shape: tuple[int, ...]) -> None:
    """The state is made of tensors of one dtype, with the batch in front."""
    named = list(tree.named_leaves(y0, ""))
    if not named:
        raise ValueError("`sdeint(y0=...)`: expected at least one tensor, got none")
    for name, leaf in named:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"`sdeint(y0=...)`: expected tensors, got {type(leaf).__name__}{_of(name)}")
        if leaf.dtype not in (torch.float32, torch.float64) or leaf.dtype != named[0][1].dtype:
            raise TypeError(f"`sdeint(y0=...)`: expected float32 or float64 throughout, got {leaf.dtype}{_of(name)}")
        if tuple(leaf.shape[: len(batch_shape)]) != batch_shape:
            raise ValueError(
                f"`sdeint(y0=...)`: expected leading axes batch_shape={batch_shape}, got shape "
                f"{tuple(leaf.shape)}{_of(name)}"
            )


def _of(name: str) -> str:
    return f" for {name!r}" if name else ""


@torch.no_grad()
def check_equation(
    equation: StochasticEquation, method: StochasticIntegrator, y0: State, start: float, batch: int
) -> None:
    """Drift and diffusion have the right structure, shapes and dtypes, are finite, and keep what the noise promises."""
    t = torch.full((), start, dtype=torch.float64, device=tree.leaves(y0)[0].device)
    noise = equation.noise
    width = noise.width(y0, batch)
    if noise.correlation is not None and noise.correlation.shape[0] != width:
        raise ValueError(
            f"`sdeint(noise=...)`: expected a correlation matrix of shape ({width}, {width}) for this y0, got "
            f"{tuple(noise.correlation.shape)}"
        )
    processes = (width,) if noise.vector else ()
    with unwritten("sdeint", "g", y0):
        g = equation.diffusion(y0, t)
    with unwritten("sdeint", "f", y0):
        _check_value("f", equation.drift(y0, t), y0, (), start)
    _check_value("g", g, y0, processes, start)
    if blind():
        return
    if noise.additive:
        _check_additive(equation, y0, g, t)
    elif method.needs_structure and isinstance(noise, Diagonal):
        _check_diagonal(equation, y0, t)
    elif method.needs_structure and isinstance(noise, General):
        _check_commutative(equation, y0, t)


def _check_value(name: str, value: State, y0: State, processes: tuple[int, ...], start: float) -> None:
    label = f"`sdeint({name}=...)`"
    if tree.flatten(value)[1] != tree.flatten(y0)[1]:
        want, got = [n for n, _ in tree.named_leaves(y0)], [n for n, _ in tree.named_leaves(value)]
        raise ValueError(f"{label}: expected the structure of y0, {want}, got {got}")
    for (leaf_name, y), leaf in zip(tree.named_leaves(y0), tree.leaves(value), strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"{label}: expected tensors, got {type(leaf).__name__}{_of(leaf_name)}")
        shape = (*y.shape, *processes)
        if tuple(leaf.shape) != shape:
            raise ValueError(f"{label}: expected shape {shape}, got {tuple(leaf.shape)}{_of(leaf_name)}")
        if leaf.dtype != y.dtype:
            raise TypeError(f"{label}: expected {y.dtype}, got {leaf.dtype}{_of(leaf_name)}")
        if not blind() and not bool(leaf.isfinite().all()):
            where = tuple((~leaf.isfinite()).nonzero()[0].tolist())
            raise FloatingPointError(
                f"{label}: expected finite values, got {leaf[where].item()} at t = {start:g}, element {where}"
                f"{_of(leaf_name)}"
            )


def _nudge(leaf: Tensor) -> Tensor:
    return 1e-3 * (1.0 + leaf.abs())


def _check_additive(equation: StochasticEquation, y0: State, g: State, t: Tensor) -> None:
    moved = equation.diffusion(tree.map(lambda leaf: leaf + _nudge(leaf), y0), t)
    for before, after in zip(tree.leaves(g), tree.leaves(moved), strict=True):
        if not torch.equal(before, after):
            raise ValueError("`sdeint(g=...)`: expected a function of time alone for Additive noise, got one of y")


def _check_diagonal(equation: StochasticEquation, y0: State, t: Tensor) -> None:
    """Nudge half of the elements: the diffusion of the others must stay. Halves by each bit of a number meet all."""
    flat, spec = tree.flatten(
        tree.map(lambda leaf: leaf + 0.7 * _nudge(leaf), y0)
    )  # away from special points such as 0
    g = equation.diffusion(tree.unflatten(flat, spec), t)
    offsets = [sum(leaf.numel() for leaf in flat[:k]) for k in range(len(flat))]
    numbers = [
        torch.arange(o, o + leaf.numel(), device=leaf.device).reshape(leaf.shape)
        for o, leaf in zip(offsets, flat, strict=True)
    ]
    total = sum(leaf.numel() for leaf in flat)
    for bit in range((total - 1).bit_length()):
        for value in (0, 1):
            nudged = [(number >> bit) % 2 == value for number in numbers]
            moved = [torch.where(n, leaf + _nudge(leaf), leaf) for n, leaf in zip(nudged, flat, strict=True)]
            there = tree.leaves(equation.diffusion(tree.unflatten(moved, spec), t))
            for n, before, after in zip(nudged, tree.leaves(g), there, strict=True):
                differs = (before != after) & ~(before.isnan() & after.isnan())
                if bool((differs & ~n).any()):
                    raise ValueError(
                        "`sdeint(g=...)`: expected each element of g to depend on its own element of y for Diagonal "
                        "noise, got one that depends on another; declare it as General(processes=...)"
                    )


def _check_commutative(equation: StochasticEquation, y0: State, t: Tensor) -> None:
    """Compare the derivatives of each process's diffusion along each other's, by central differences."""
    exponent = 1.0 / 3.0
    h = torch.finfo(tree.leaves(y0)[0].dtype).eps ** exponent
    y = tree.map(lambda leaf: leaf + _nudge(leaf), y0)  # away from special points such as 0
    g = equation.diffusion(y, t)
    processes = tree.leaves(g)[0].shape[-1]
    columns = []
    for j in range(processes):
        direction = tree.map(lambda rows, j=j: rows[..., j], g)
        ahead = equation.diffusion(tree.axpy(h, direction, y), t)
        behind = equation.diffusion(tree.axpy(-h, direction, y), t)
        columns.append(tree.leaves(tree.map(lambda a, b: (a - b) / (2.0 * h), ahead, behind)))
    for leaf in range(len(columns[0])):
        brackets = torch.stack([column[leaf] for column in columns], -2)
        gap = (brackets - brackets.mT).abs().amax()
        if float(gap) > 100.0 * h * float(brackets.abs().amax()) + 1e-12:
            raise ValueError(
                f"`sdeint(noise=...)`: expected General(commutative=True) only where the processes commute, got a "
                f"bracket of size {float(gap):.3g} at y0"
            )


def check_solution(y: State, t: Tensor, walk: Walk | None, counts: list[int]) -> None:
    """The solution is finite; ``walk`` tells where it was not, ``counts`` how many of its steps lead to each time."""
    if blind():
        return
    for name, leaf in tree.named_leaves(y):
        values = leaf.detach()
        # A finite sum has finite terms, and takes no memory to find; an infinite one may have overflowed.
        if bool(values.sum().isfinite()) or bool(values.isfinite().all()):
            continue
        where = (~values.isfinite()).nonzero()[0].tolist()
        found = walk.broken(counts[where[0]]) if walk else None
        if found is not None:
            with renamed("sdeint"):
                report_nonfinite(found[1], found[0], "the solution became {value}; the step may be too long,")
        raise FloatingPointError(
            f"`sdeint`: element {tuple(where[1:])}{_of(name)} of the solution became {values[tuple(where)].item()} "
            f"between t = {float(t[max(where[0] - 1, 0)]):g} and t = {float(t[where[0]]):g}; the step may be too long"
        )
