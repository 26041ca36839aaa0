"""Gradients with less memory: by solving the adjoint equation backwards, or by recomputing the forward steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bdtorch import _tree as tree
from bdtorch._replaced import call_with, places_of
from bdtorch._types import State
from bdtorch.integrate._base import Integrator
from bdtorch.integrate._equation import shared_time
from bdtorch.integrate._loop import Prepared, PythonLoop, Step

if TYPE_CHECKING:
    from bdtorch.integrate.odeint import ODESolution, ODESolver


@dataclass(frozen=True)
class Adjoint:
    r"""Gradients from the adjoint equation, solved backwards from output to output; memory does not grow with steps.

    $$\dot y = f(t, y, \theta), \qquad \dot a = -a^\top \partial_y f, \qquad \dot g = -a^\top \partial_\theta f$$

    What it returns is the gradient of the exact solution, to the tolerance, where direct gradients are those of the
    computed one. It reaches the initial state, tensors among ``args``, and the parameters of an ``f`` that is a module.

    Args:
        method: Method of the backward solve; default that of the forward one.
        dt: Its fixed step (above 0); default that of the forward solve.
        rtol: Its relative tolerance; default that of the forward solve.
        atol: Its absolute tolerance, a number; default that of the forward solve where that is a number, else 1e-9.

    Source: Chen, Rubanova, Bettencourt & Duvenaud (2018), arXiv:1806.07366; Pontryagin et al. (1962).
    """

    method: Integrator | None = None
    dt: float | None = None
    rtol: float | None = None
    atol: float | None = None


@dataclass(frozen=True)
class Recompute:
    """A loop that keeps the state of every ``chunk``-th step and computes the rest again on the way back.

    Gradients are those of the plain loop up to the order of summation; memory falls from ``n`` steps to
    ``n / chunk + chunk``. Runs outside `torch.func` transforms.

    Args:
        chunk: Steps between kept states; the square root of their number keeps the least.
    """

    chunk: int = 32
    reuse = False

    def __post_init__(self) -> None:
        if not isinstance(self.chunk, int) or isinstance(self.chunk, bool) or self.chunk < 1:
            raise ValueError(f"`Recompute(chunk=...)`: expected a positive whole number, got {self.chunk!r}")

    def prepare(
        self, step: Step, state: State, sequences: Any = (), *, every: int = 1, lends: bool = False
    ) -> Prepared:
        """Make ready; see `TimeLoop`."""
        plain = PythonLoop().prepare(step, state, sequences, every=every)

        def advance(state: State, slices: Any, first: int, count: int) -> tuple[State, Any]:
            if torch._C._are_functorch_transforms_active():
                raise RuntimeError("the Recompute loop runs outside torch.func transforms; leave `loop` out")
            parts, done = [], 0
            while done < count:
                more = min(self.chunk, count - done)
                window = tree.map(lambda leaf, low=done, high=done + more: leaf[low:high], slices)
                state, out = checkpoint(
                    plain, state, window, first + done, more, use_reentrant=False, preserve_rng_state=False
                )
                parts.append(out)
                done += more
            return state, parts[0] if len(parts) == 1 else tree.map(lambda *x: torch.cat(x), parts[0], *parts[1:])

        return advance


def solve_with_adjoint(
    solver: ODESolver, adjoint: Adjoint, y0: State, times: Tensor, args: tuple[Any, ...]
) -> ODESolution:
    """Solve without a graph, and attach the backward solve."""
    if torch._C._are_functorch_transforms_active():
        raise ValueError("`odeint(gradient=Adjoint())`: expected no torch.func transform; leave `gradient` out there")
    flat_args, args_spec = tree.flatten(args)
    wanted = [k for k, leaf in enumerate(flat_args) if isinstance(leaf, Tensor) and leaf.requires_grad]
    module = solver.f if isinstance(solver.f, nn.Module) else None
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad] if module is not None else []
    names = [name for name, _ in named]
    parameters: list[Tensor] = [p for _, p in named]
    _check_closure(solver, y0, times, flat_args, args_spec, names)
    y_flat, y_spec = tree.flatten(y0)
    places = places_of(module) if module is not None else {}
    context = _Context(
        solver, adjoint, times, flat_args, args_spec, wanted, names, parameters, y_spec, len(y_flat), places
    )
    outputs = _Adjoint.apply(context, *y_flat, *(flat_args[k] for k in wanted), *parameters)
    solution = context.solution
    assert solution is not None
    y = tree.unflatten(list(outputs), y_spec)
    return type(solution)(solution.t, y, solution.steps, solution.rejections, solution.evaluations, solution.events)


def _check_closure(
    solver: ODESolver, y0: State, times: Tensor, flat_args: list[Any], args_spec: Any, names: list[str]
) -> None:
    """Reject a derivative that closes over tensors which require gradients, for they would get none."""

    def detached(leaf: Any) -> Any:
        return leaf.detach() if isinstance(leaf, Tensor) else leaf

    arguments = (
        shared_time(times[0], y0),
        tree.map(detached, y0),
        *tree.unflatten([detached(leaf) for leaf in flat_args], args_spec),
    )
    with torch.enable_grad():
        if isinstance(solver.f, nn.Module):
            own = dict(solver.f.named_parameters())
            slope = call_with(solver.f, {name: own[name].detach() for name in names}, arguments, places_of(solver.f))
        else:
            slope = solver.f(*arguments)
    if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree.leaves(slope)):
        raise ValueError(
            "`odeint(gradient=Adjoint())`: expected f to take tensors that require gradients from args, or to be a module "
            "with them as its parameters, got one that closes over such a tensor, which the adjoint equation does not see"
        )


@dataclass
class _Context:
    """What the backward solve needs besides tensors."""

    solver: ODESolver
    adjoint: Adjoint
    times: Tensor
    flat_args: list[Any]
    args_spec: Any
    wanted: list[int]
    names: list[str]
    parameters: list[Tensor]
    y_spec: Any
    leaves: int
    places: dict[str, list[str]]
    solution: ODESolution | None = None

    def arguments(self, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
        flat = list(self.flat_args)
        for k, tensor in zip(self.wanted, tensors, strict=True):
            flat[k] = tensor
        return tuple(tree.unflatten(flat, self.args_spec))

    def pull(self, t: Tensor, y: list[Tensor], a: list[Tensor], tensors: tuple[Tensor, ...]) -> tuple[Any, Any, Any]:
        """The derivative, and its products with the adjoint: by the state, and by each parameter."""

        def slope(state: list[Tensor], inputs: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
            y = tree.unflatten(state, self.y_spec)
            arguments = (t, y, *self.arguments(tuple(inputs)))
            if not parameters:
                return tree.leaves(tree.aligned(self.solver.f(*arguments), y))
            named = dict(zip(self.names, parameters, strict=True))
            value = call_with(self.solver.f, named, arguments, self.places)  # type: ignore[arg-type]
            return tree.leaves(tree.aligned(value, y))

        # By `torch.func`, so that it also runs within the transforms by which implicit methods find Jacobians.
        value, pulled = torch.func.vjp(slope, y, list(tensors), self.parameters)[:2]
        by_state, by_input, by_parameter = pulled(a)
        return value, by_state, [*by_input, *by_parameter]


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, context: _Context, *tensors: Tensor) -> tuple[Tensor, ...]:
        y0 = tree.unflatten(list(tensors[: context.leaves]), context.y_spec)
        end = context.leaves + len(context.wanted)
        with torch.no_grad():
            context.solution = context.solver(y0, context.times, args=context.arguments(tensors[context.leaves : end]))
        outputs = tuple(tree.leaves(context.solution.y))
        ctx.context = context
        ctx.save_for_backward(*outputs, *tensors[context.leaves : end])
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        context: _Context = ctx.context
        outputs = ctx.saved_tensors[: context.leaves]
        tensors = ctx.saved_tensors[context.leaves :]
        solver = _backward_solver(context, tensors)
        cotangents = [torch.zeros_like(y) if g is None else g for y, g in zip(outputs, gradients, strict=True)]
        a = [g[-1] for g in cotangents]
        sums = [torch.zeros_like(x) for x in (*tensors, *context.parameters)]
        for k in range(len(context.times) - 1, 0, -1):
            state = {"y": [y[k] for y in outputs], "a": a, "g": sums}
            solution = solver(state, context.times[[k, k - 1]])
            a = [leaf[-1] + g[k - 1] for leaf, g in zip(solution.y["a"], cotangents, strict=True)]
            sums = [leaf[-1] for leaf in solution.y["g"]]
        return (None, *a, *sums)


def _backward_solver(context: _Context, tensors: tuple[Tensor, ...]) -> ODESolver:
    from bdtorch.integrate.odeint import ODESolver  # which imports this module

    def augmented(t: Tensor, state: dict[str, Any]) -> dict[str, Any]:
        slope, by_state, by_parameter = context.pull(t, state["y"], state["a"], tensors)
        return {"y": slope, "a": [-x for x in by_state], "g": [-x for x in by_parameter]}

    forward, adjoint = context.solver, context.adjoint
    dt = adjoint.dt or forward.dt
    atol = adjoint.atol or (forward.atol if isinstance(forward.atol, (int, float)) else 1e-9)
    options = forward._options(
        method=adjoint.method or forward.method, dt=None if dt is None else -dt, rtol=adjoint.rtol or forward.tolerance.rtol,
        atol=atol, batch_dims=0, linear=None, loop=None, gradient=None, progress=False,
    )  # fmt: skip
    return ODESolver(augmented, **options)
