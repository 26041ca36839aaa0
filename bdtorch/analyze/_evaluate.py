"""`Evaluator`: a vector field and its derivatives by automatic differentiation, over many points at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch.func import jvp
from torch.fx.experimental.proxy_tensor import make_fx

from bdtorch.analyze._field import VectorField
from bdtorch.analyze._lower import Array, Lowered

Pointwise = Callable[..., Tensor]


class Evaluator:
    """A field over points ``z``: its ``n`` free variables, then its ``k`` active parameters, in double precision.

    Derivatives are forward derivatives of `torch.func`. The functions are traced once and run in NumPy, which for systems
    of a few variables is tens of times faster than PyTorch's own dispatch; each trace is compared with the original, and
    what cannot be traced (control flow that depends on values, operations without a counterpart) runs as it is.

    Args:
        field: The vector field.
        active: Names of the parameters that follow the variables.
        probe: A point ``(n + k,)`` at which the field is defined.
    """

    def __init__(self, field: VectorField, active: tuple[str, ...], probe: Array) -> None:
        self.field, self.active = field, active
        self.n, self.k = len(field.names), len(active)
        self._probe = np.asarray(probe, dtype=np.float64)
        self._graphs: list[Pointwise] = [self._at]
        self._runs: dict[int, Callable[..., Array]] = {}

    def _at(self, z: Tensor) -> Tensor:
        parameters = {name: z[self.n + i] for i, name in enumerate(self.active)}
        return self.field(z[: self.n], parameters)

    def _derivative(self, order: int) -> Callable[..., Array]:
        """The ``order``-th derivative along as many directions, as a function of arrays ``(n + k, points, directions)``."""
        if order not in self._runs:
            while len(self._graphs) <= order:
                self._graphs.append(functools.partial(_along, self._graphs[-1]))
            run, graph = _compiled(self._graphs[order], self._probe, order)
            self._runs[order] = run
            self._graphs[order] = graph
        return self._runs[order]

    def f(self, z: Array) -> Array:
        """The field: ``(points, n + k)`` to ``(points, n)``."""
        out = self._derivative(0)(z.T[..., None])[..., 0]
        return np.broadcast_to(out, (self.n, len(z))).T

    def jacobian(self, z: Array) -> Array:
        """Derivatives by variables and active parameters: ``(points, n + k)`` to ``(points, n, n + k)``."""
        self._derivative(0)
        directions = np.eye(self.n + self.k)[:, None, :]
        out = self._derivative(1)(z.T[..., None], directions)
        return np.broadcast_to(out, (self.n, len(z), self.n + self.k)).transpose(1, 0, 2)

    def at(self, z: Array) -> Array:
        """The field at one point ``(n + k,)``."""
        return self._derivative(0)(z[:, None, None])[:, 0, 0]

    def slopes(self, z: Array) -> Array:
        """The Jacobian at one point, ``(n, n + k)``."""
        return self.jacobian(z[None])[0]

    def check(self) -> None:
        """Make sure that the derivatives are those of the field, by differences about the probe.

        Raises:
            ValueError: they are not: the field leaves PyTorch on the way, as by ``item()``, ``detach()`` or NumPy.
        """
        rng = np.random.default_rng(0)
        size = np.where(self._probe == 0.0, 1.0, np.abs(self._probe))
        offs = []
        # A kink may lie on a probe, but hardly on three.
        for shift in (0.0, 1e-3, -1e-3):
            z = self._probe + shift * size * (1.0 + 0.1 * rng.standard_normal(len(size)))
            for direction in np.diag(size):
                slope = self.along(z, direction)
                pair = [self.at(z + sign * 1e-6 * direction) for sign in (1.0, -1.0)]
                if not np.isfinite(pair).all():
                    offs.append(np.zeros(self.n, dtype=bool))
                    continue
                difference = 0.5e6 * (pair[0] - pair[1])
                noise = 1e-9 * 1e6 * np.maximum(np.abs(pair[0]), np.abs(pair[1]))
                offs.append(np.abs(slope - difference) > 1e-2 * np.maximum(np.abs(slope), np.abs(difference)) + noise)
        wrong = np.stack(offs).reshape(3, -1, self.n).all(0)
        if wrong.any():
            names = [*self.field.names, *self.active]
            i, j = np.argwhere(wrong)[0]
            raise ValueError(
                f"the derivative of {self.field.names[j]} changes with {names[i]} by other than automatic differentiation "
                "says: compute it in torch operations all the way, without item(), detach() or NumPy"
            )

    def along(self, z: Array, *directions: Array) -> Array:
        """The multilinear derivative at one point ``z`` along ``directions``, each ``(n + k,)`` or ``(n + k, many)``.

        Directions may be complex: the derivative is linear in each.
        """
        for order in range(len(directions)):
            self._derivative(order)
        for i, u in enumerate(directions):
            if np.iscomplexobj(u):
                real, imaginary = ([*directions[:i], part, *directions[i + 1 :]] for part in (u.real, u.imag))
                return self.along(z, *real) + 1j * self.along(z, *imaginary)
        columns = [np.atleast_2d(u.T).T if u.ndim == 2 else u[:, None] for u in directions]
        many = max(c.shape[1] for c in columns)
        out = self._derivative(len(directions))(z[:, None, None], *(c[:, None, :] for c in columns))
        out = np.broadcast_to(out[:, 0, :], (self.n, many))
        return out if any(u.ndim == 2 for u in directions) else out[:, 0]


def _along(function: Pointwise, *arguments: Tensor) -> Tensor:
    *before, direction = arguments
    z, inner = before[0], before[1:]
    out: Tensor = jvp(lambda y: function(y, *inner), (z,), (direction,))[1]
    return out


def _compiled(function: Pointwise, probe: Array, order: int) -> tuple[Callable[..., Array], Pointwise]:
    """``function`` over arrays, and as it is to be differentiated further."""
    point = torch.from_numpy(probe)
    rng = np.random.default_rng(0)
    directions = [torch.from_numpy(rng.standard_normal(len(probe))) for _ in range(order)]
    plain = functools.partial(_pointwise, function)
    try:
        graph = make_fx(lambda *z: function(*z), decomposition_table=dict(core_aten_decompositions()))(
            point, *directions
        )
        _strip(graph)
        lowered = Lowered(graph)
        scale = 1e-3 * (1.0 + np.abs(probe))
        for shift in (0.0, 1.0, -1.0):
            args = [probe + shift * scale * rng.standard_normal(len(probe)), *(d.numpy() for d in directions)]
            want = function(*(torch.from_numpy(a) for a in args)).numpy()
            have = lowered(*(a[:, None, None] for a in args))[:, 0, 0]
            size = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
            if not np.allclose(have, want, rtol=1e-9, atol=1e-12 * size, equal_nan=True):
                return plain, function
    except Exception:
        # Whatever tracing cannot do, the function itself can; where that fails too, it says so when it is called.
        return plain, function
    return lowered, graph


def _strip(graph: fx.GraphModule) -> None:
    """Drop what is not used, and calls that return their argument as it is."""
    kept = ("alias", "clone", "detach", "expand", "_to_copy", "view", "lift_fresh_copy")
    for node in graph.graph.nodes:
        if node.op != "call_function" or str(node.target).split(".")[1:2] not in [[name] for name in kept]:
            continue
        old, new = (n.meta.get("val") for n in (node.args[0], node))
        if old is not None and new is not None and (old.shape, old.dtype) == (new.shape, new.dtype):
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _pointwise(function: Pointwise, *arguments: Any) -> Array:
    """The same on the same layout, point by point."""
    arrays = np.broadcast_arrays(*arguments)
    columns = [torch.from_numpy(np.ascontiguousarray(a.reshape(len(a), -1).T)) for a in arrays]
    out = torch.stack([function(*row) for row in zip(*columns, strict=True)])
    return out.numpy().T.reshape(-1, *arrays[0].shape[1:])
