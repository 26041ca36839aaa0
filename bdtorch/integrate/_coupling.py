"""Which variables are coupled: how implicit methods lay out a state, and solve their linear equations."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative
from bdtorch.integrate._derivatives import row_jacobian, small_jacobian

_FEW = 6  # variables: unrolled, their elimination is some hundred operations

Solve = Callable[[Tensor], Tensor]
"""``x = solve(r)``, both ``(*rows, n)``."""


class Coupling(abc.ABC):
    """Lays a state out as rows of coupled variables, and solves the linear equations of an implicit step in each.

    A sparse structure, such as the tree of a dendrite, is a subclass whose `factor` knows how to eliminate it.
    """

    @abc.abstractmethod
    def pack(self, y: State) -> tuple[Tensor, Callable[[Tensor], State]]:
        """The state as ``(*rows, n)``, and the function that undoes it."""

    @abc.abstractmethod
    def factor(self, jacobian: Tensor, scale: float | Tensor) -> Solve:
        """Prepare to solve ``(I - scale J) x = r`` in each row.

        Args:
            jacobian: ``(*rows, n, n)``.
            scale: Number, or ``(*rows,)``.
        """

    def differentiate(self, derivative: Derivative, y: Tensor, t: Tensor) -> Tensor:
        """``J``, ``(*rows, n, n)``, of a derivative in which rows do not see one another."""
        return row_jacobian(lambda row: derivative(row, t), y)


@dataclass(frozen=True)
class Dense(Coupling):
    """Every variable is coupled with every other of its trajectory; solved by LU factors, or where a loop traces the step
    and there are few variables, in element-wise operations, which it can fuse.

    Args:
        batch_dims: Number of leading axes, common to all variables, that count independent trajectories.
    """

    batch_dims: int = 0

    def pack(self, y: State) -> tuple[Tensor, Callable[[Tensor], State]]:
        if isinstance(y, Tensor):
            return self._row(y)
        flat, spec = tree.flatten(y)
        if len(flat) == 1:
            row, undo = self._row(flat[0])
            return row, lambda packed: tree.unflatten([undo(packed)], spec)
        shapes = [leaf.shape[self.batch_dims :] for leaf in flat]
        sizes = [shape.numel() for shape in shapes]
        rows = [leaf.reshape((*leaf.shape[: self.batch_dims], size)) for leaf, size in zip(flat, sizes, strict=True)]

        def unpack(packed: Tensor) -> State:
            parts = packed.split(sizes, -1)
            leaves = [part.reshape((*part.shape[:-1], *shape)) for part, shape in zip(parts, shapes, strict=True)]
            return tree.unflatten(leaves, spec)

        return torch.cat(rows, -1), unpack

    def _row(self, leaf: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """`pack` of a single variable, as which most states of few numbers come: what it costs is paid in every stage."""
        shape = leaf.shape[self.batch_dims :]
        if len(shape) == 1:
            return leaf, _itself
        row = leaf.reshape((*leaf.shape[: self.batch_dims], shape.numel()))
        return row, lambda packed: packed.reshape((*packed.shape[:-1], *shape))

    def factor(self, jacobian: Tensor, scale: float | Tensor) -> Solve:
        matrix = _system(jacobian, scale)
        if matrix.shape[-1] <= _FEW and _traced():
            return lambda right: eliminate(matrix, right)
        factors, pivots, _ = torch.linalg.lu_factor_ex(widened(matrix))  # singular: infinite, found out later

        def solve(right: Tensor) -> Tensor:
            return torch.linalg.lu_solve(factors, pivots, widened(right).unsqueeze(-1)).squeeze(-1).to(right.dtype)

        return solve


@dataclass(frozen=True)
class Pointwise(Coupling):
    """Each element's variables are coupled with one another and with no other element's, as in a population of point
    neurons. All variables have one shape; their small blocks are eliminated in element-wise operations, which
    compiled loops fuse.
    """

    def pack(self, y: State) -> tuple[Tensor, Callable[[Tensor], State]]:
        flat, spec = tree.flatten(y)
        if any(leaf.shape != flat[0].shape for leaf in flat):
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in flat)
            raise ValueError(f"`Pointwise()`: expected variables of one shape, got {shapes}")
        return torch.stack(flat, -1), lambda packed: tree.unflatten(list(packed.unbind(-1)), spec)

    def differentiate(self, derivative: Derivative, y: Tensor, t: Tensor) -> Tensor:
        return small_jacobian(lambda row: derivative(row, t), y)

    def factor(self, jacobian: Tensor, scale: float | Tensor) -> Solve:
        matrix = _system(jacobian, scale)
        return lambda right: eliminate(matrix, right)


def widened(matrix: Tensor) -> Tensor:
    """In single precision at least, which is what there is linear algebra for."""
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32))


def _itself(packed: Tensor) -> Tensor:
    return packed


def _traced() -> bool:
    """Whether a loop writes down the operations of the step."""
    return not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0


def _system(jacobian: Tensor, scale: float | Tensor) -> Tensor:
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    if isinstance(scale, Tensor):
        scale = scale[..., None, None] if scale.dim() else scale
    return identity - scale * jacobian


def eliminate(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve small systems by Gauss elimination with partial pivoting, in element-wise operations only.

    Args:
        matrix: ``(*rows, n, n)``.
        right: ``(*rows, n)``.
    """
    n = right.shape[-1]
    rows = [[*matrix[..., i, :].unbind(-1), right[..., i]] for i in range(n)]
    for k in range(n):
        for i in range(k + 1, n):
            larger = rows[i][k].abs() > rows[k][k].abs()
            upper = [torch.where(larger, b, a) for a, b in zip(rows[k], rows[i], strict=True)]
            rows[i] = [torch.where(larger, a, b) for a, b in zip(rows[k], rows[i], strict=True)]
            rows[k] = upper
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [b if j < k else b - factor * a for j, (a, b) in enumerate(zip(rows[k], rows[i], strict=True))]
    solution: list[Tensor] = []
    for k in reversed(range(n)):
        rest = rows[k][n]
        for j, x in zip(range(n - 1, k, -1), solution, strict=True):
            rest = rest - rows[k][j] * x
        solution.append(rest / rows[k][k])
    return torch.stack(solution[::-1], -1)
