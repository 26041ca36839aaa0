r"""Products with a sparse matrix that is never stored: its rows are drawn anew whenever they are needed.

$$W_{ij} = M_{ij} \, (a + b \, x_{ij})$$

The structure $M_{ij} \in \{0, 1\}$ and the numbers $x_{ij}$ (none, uniform on [0, 1), or normal) are functions
of the key, the row and the place in the row, and of nothing else. So a billion synapses take no memory; and both
products, single and batch, any number of threads, CPU and GPU, float32 and float64 meet one and the same matrix.

The two products are the partial derivatives of $\sum_{bij} s_{bi} W_{ij} g_{bj}$, which is linear in a and b too, so
they are each other's derivatives, of any order. Results on the CPU are equal to the bit for any number of threads, and
those of a batch equal those of its samples. On a GPU `procedural_event` adds with atomics, in no fixed order, unless
`torch.use_deterministic_algorithms` is on: then its results are those of the CPU, to the bit, and take much longer.
`procedural_rows` lists any rows of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bdtorch.ops._autograd import DifferentiableOp
from bdtorch.ops._rules import flatten_batch, fold_into_batch, sum_of

_event_unordered = DifferentiableOp("procedural_event")
_event_ordered = DifferentiableOp("procedural_event_ordered")
_gather = DifferentiableOp("procedural_gather")
_counts = torch.ops.bdtorch.procedural_counts.default
_rows = torch.ops.bdtorch.procedural_rows.default

Product: TypeAlias = Callable[..., Tensor]
Arguments: TypeAlias = tuple[int, int, int, float | None, int | None, int, int]

_DRAWS = {"none": 0, "uniform": 1, "normal": 2}
_LIMIT = 2**31


@dataclass(frozen=True)
class ProceduralMatrix:
    r"""What names a procedural matrix. Give either `p` or `number`.

    With ``p`` every pair is a synapse independently of the others: the gaps between the synapses of a row are drawn,
    $\lfloor \ln u / \ln(1 - p) \rfloor$. With ``number`` every row has that many distinct targets: the first values
    of a keyed pseudo-random permutation of the targets, a Feistel network.

    Args:
        n_pre: Number of rows, presynaptic neurons; below 2**31.
        n_post: Number of columns, postsynaptic neurons; below 2**31.
        key: Names the matrix among those of its kind: any integer in [-2**63, 2**63), such as one of `bdtorch.ops.fold`.
        p: Probability of a synapse, in [0, 1].
        number: Synapses of each row, at most the number of targets that a row may have.
        draws: What x is: "none" (0), "uniform" on [0, 1) or "normal" with mean 0 and variance 1.
        self_offset: Row i has no synapse at column i + self_offset; None excludes nothing.

    Raises:
        ValueError: If a number is out of its range, or not exactly one of `p` and `number` is given.

    Sources: Batagelj & Brandes (2005), doi:10.1103/PhysRevE.71.036113, for ``p``; Black & Rogaway (2002),
    doi:10.1007/3-540-45760-7_9, for ``number``.
    """

    n_pre: int
    n_post: int
    key: int
    p: float | None = None
    number: int | None = None
    draws: str = "none"
    self_offset: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("n_pre", 0, _LIMIT), ("n_post", 0, _LIMIT), ("key", -(2**63), 2**63)):
            _expect_integer(name, getattr(self, name), low, high)
        if self.self_offset is not None:
            _expect_integer("self_offset", self.self_offset, 1 - _LIMIT, _LIMIT)
        if self.draws not in _DRAWS:
            raise ValueError(f"`ProceduralMatrix(draws=...)`: expected one of {', '.join(_DRAWS)}, got {self.draws!r}")
        if (self.p is None) == (self.number is None):
            raise ValueError(
                f"`ProceduralMatrix(p=..., number=...)`: expected one of them, got {self.p}, {self.number}"
            )
        if self.p is not None and not 0.0 <= self.p <= 1.0:
            raise ValueError(f"`ProceduralMatrix(p=...)`: expected a probability in [0, 1], got {self.p!r}")
        if self.number is not None:
            _expect_integer("number", self.number, 0, self.targets_per_row + 1 if self.n_pre else _LIMIT)

    @property
    def targets_per_row(self) -> int:
        """The number of targets that every row has to choose from."""
        barred = self.self_offset is not None and -self.n_pre < self.self_offset < self.n_post
        return self.n_post - barred

    @property
    def arguments(self) -> Arguments:
        """The trailing arguments of the ops."""
        self_offset = self.n_post if self.self_offset is None else self.self_offset
        return self.n_pre, self.n_post, self.key, self.p, self.number, _DRAWS[self.draws], self_offset


def procedural_event(spikes: Tensor, offset: Tensor, scale: Tensor | None, matrix: ProceduralMatrix) -> Tensor:
    r"""Sums the weights of the synapses of active neurons onto their targets.

    $$y_{bj} = \sum_i s_{bi} M_{ij} (a + b \, x_{ij})$$

    Only rows with $s_{bi} \ne 0$ are drawn, each once for the whole batch. Gradients flow to floating-point spikes
    (silent ones too), `offset` and `scale`. Weights uniform in [low, high) have the offset low and the scale high - low;
    normal ones have the mean and the standard deviation.

    Args:
        spikes: ``(*batch, n_pre)``, bool, or of the dtype of `offset` (a nonzero value is an event and a factor).
        offset: a, ``()``, float32 or float64.
        scale: b, ``()`` of the dtype of `offset`; None for a matrix without draws.
        matrix: The matrix.

    Returns:
        ``(*batch, n_post)`` in the dtype and units of `offset`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, or `scale` does not fit the draws of the matrix.
    """
    return _product("procedural_event", _event, spikes, matrix.n_pre, matrix.n_post, offset, scale, matrix)


def procedural_gather(spikes: Tensor, offset: Tensor, scale: Tensor | None, matrix: ProceduralMatrix) -> Tensor:
    r"""Applies the transposed matrix, the same as `procedural_event`'s: from postsynaptic values to presynaptic sums.

    $$x_{bi} = \sum_j M_{ij} (a + b \, x_{ij}) s_{bj}$$

    All rows are drawn, whatever the spikes: the time is that of as many synapses as the matrix has.

    Args:
        spikes: ``(*batch, n_post)``, bool or of the dtype of `offset`.
        offset: a, ``()``, float32 or float64.
        scale: b, ``()`` of the dtype of `offset`; None for a matrix without draws.
        matrix: The matrix.

    Returns:
        ``(*batch, n_pre)`` in the dtype and units of `offset`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, or `scale` does not fit the draws of the matrix.
    """
    return _product("procedural_gather", _gather, spikes, matrix.n_post, matrix.n_pre, offset, scale, matrix)


def procedural_counts(rows: Tensor, matrix: ProceduralMatrix) -> Tensor:
    """Counts the synapses of rows.

    Args:
        rows: ``(n_rows,)`` int64, on the CPU, in [0, n_pre).
        matrix: The matrix.

    Returns:
        ``(n_rows,)`` int64.

    Raises:
        TypeError: If the dtype is not int64.
        ValueError: If a row is not one of the matrix, or `rows` is not a vector on the CPU.
    """
    _expect_rows("procedural_counts", rows, matrix)
    counts: Tensor = _counts(rows, *matrix.arguments)
    return counts


def procedural_rows(rows: Tensor, matrix: ProceduralMatrix) -> tuple[Tensor, Tensor, Tensor]:
    """Lists the synapses of rows, in the order in which `procedural_gather` adds them.

    With a probability that is the order of the targets; with a number it is that of the permutation.

    Args:
        rows: ``(n_rows,)`` int64, on the CPU, in [0, n_pre).
        matrix: The matrix.

    Returns:
        ``(n_rows + 1,)`` int64, the first synapse of each row; ``(n_synapses,)`` int32, their targets; and
        ``(n_synapses,)`` float32, their x, zero without draws.

    Raises:
        TypeError: If the dtype is not int64.
        ValueError: If a row is not one of the matrix, or `rows` is not a vector on the CPU.
    """
    _expect_rows("procedural_rows", rows, matrix)
    indptr, targets, draws = _rows(rows, *matrix.arguments)
    return indptr, targets, draws


def _product(
    name: str, op: Product, spikes: Tensor, n_in: int, n_out: int, offset: Tensor, scale: Tensor | None,
    matrix: ProceduralMatrix,
) -> Tensor:  # fmt: skip
    if offset.dtype != torch.float32 and offset.dtype != torch.float64:
        raise TypeError(f"`{name}(offset=...)`: expected float32 or float64, got {offset.dtype}")
    if (scale is None) != (matrix.draws == "none"):
        expected = "None for a matrix without draws" if scale is not None else f"a tensor for {matrix.draws} draws"
        raise ValueError(f"`{name}(scale=...)`: expected {expected}, got {scale}")
    for argument, value in (("offset", offset), ("scale", scale)):
        if value is None:
            continue
        if value.dim() != 0:
            raise ValueError(f"`{name}({argument}=...)`: expected shape (), got {tuple(value.shape)}")
        if value.device != spikes.device:
            raise ValueError(
                f"`{name}({argument}=...)`: expected the device of spikes, {spikes.device}, got {value.device}"
            )
    if scale is not None and scale.dtype != offset.dtype:
        raise TypeError(f"`{name}(scale=...)`: expected the dtype of offset, {offset.dtype}, got {scale.dtype}")
    if spikes.dtype != torch.bool and spikes.dtype != offset.dtype:
        raise TypeError(f"`{name}(spikes=...)`: expected bool or {offset.dtype}, got {spikes.dtype}")
    if spikes.dim() == 0 or spikes.shape[-1] != n_in:
        raise ValueError(f"`{name}(spikes=...)`: expected shape (*batch, {n_in}), got {tuple(spikes.shape)}")
    out: Tensor = op(flatten_batch(spikes), offset, scale, *matrix.arguments)
    return out if spikes.dim() <= 2 else out.reshape(*spikes.shape[:-1], n_out)


def _expect_integer(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        raise ValueError(f"`ProceduralMatrix({name}=...)`: expected an integer in [{low}, {high}), got {value!r}")


def _expect_rows(op: str, rows: Tensor, matrix: ProceduralMatrix) -> None:
    if rows.dtype != torch.int64:
        raise TypeError(f"`{op}(rows=...)`: expected int64, got {rows.dtype}")
    if rows.dim() != 1 or rows.device.type != "cpu":
        raise ValueError(f"`{op}(rows=...)`: expected shape (n_rows,) on cpu, got {tuple(rows.shape)} on {rows.device}")
    outside = ((rows < 0) | (rows >= matrix.n_pre)).nonzero()
    if outside.numel():
        k = int(outside[0])
        raise ValueError(
            f"`{op}(rows=...)`: expected values in [0, {matrix.n_pre}), got {int(rows[k])} at position {k}"
        )


def _event(spikes: Tensor, *arguments: Any) -> Tensor:
    ordered = torch.are_deterministic_algorithms_enabled() and spikes.is_cuda
    y: Tensor = (_event_ordered if ordered else _event_unordered)(spikes, *arguments)
    return y


def _with_ones(op: Product, spikes: Tensor, like: Tensor, matrix: Arguments) -> Tensor:
    """The product with M: the derivative of the product with respect to the offset."""
    *structure, _draws, self_offset = matrix
    product: Tensor = op(spikes, like.new_ones(()), None, *structure, 0, self_offset)
    return product


def _with_draws(op: Product, spikes: Tensor, scale: Tensor, matrix: Arguments) -> Tensor:
    """The product with M times scale x; without the scale it is the product's derivative with respect to it."""
    product: Tensor = op(spikes, scale.new_zeros(()), scale, *matrix)
    return product


def _derivatives(op: Product, transposed: Product) -> dict[str, Any]:
    def backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
        spikes, offset, scale, *matrix = inputs
        gradients: list[Tensor | None] = [None] * len(inputs)
        if grad is None:
            return gradients
        if needs[0]:
            gradients[0] = transposed(grad, offset, scale, *matrix)
        if needs[1]:
            gradients[1] = (_with_ones(op, spikes, offset, tuple(matrix)) * grad).sum()
        if needs[2]:
            gradients[2] = (_with_draws(op, spikes, scale.new_ones(()), tuple(matrix)) * grad).sum()
        return gradients

    def jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
        spikes, offset, scale, *matrix = inputs
        to_spikes, to_offset, to_scale = tangents[:3]
        return sum_of([
            None if to_spikes is None else op(to_spikes, offset, scale, *matrix),
            None if to_offset is None else _with_ones(op, spikes, offset, tuple(matrix)) * to_offset,
            None if to_scale is None else _with_draws(op, spikes, to_scale, tuple(matrix)),
        ])  # fmt: skip

    return {"backward": backward, "jvp": jvp}


def _event_fake(spikes: Tensor, offset: Tensor, scale: Tensor | None, n_pre: int, n_post: int, *matrix: Any) -> Tensor:
    return offset.new_empty((*spikes.shape[:-1], n_post))


@_gather.register_fake
def _(spikes: Tensor, offset: Tensor, scale: Tensor | None, n_pre: int, n_post: int, *matrix: Any) -> Tensor:
    return offset.new_empty((*spikes.shape[:-1], n_pre))


@torch.library.register_fake(_counts)
def _(rows: Tensor, *matrix: Any) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


@torch.library.register_fake(_rows)
def _(rows: Tensor, *matrix: Any) -> tuple[Tensor, Tensor, Tensor]:
    n = torch.library.get_ctx().new_dynamic_size()
    indptr = rows.new_empty((rows.shape[0] + 1,))
    return indptr, rows.new_empty((n,), dtype=torch.int32), rows.new_empty((n,), dtype=torch.float32)


for _scatter in (_event_unordered, _event_ordered):
    _scatter.register_fake(_event_fake)
    _scatter.register_vmap(fold_into_batch)
    _scatter.register_autograd(**_derivatives(_event, _gather))
_gather.register_vmap(fold_into_batch)
_gather.register_autograd(**_derivatives(_gather, _event))
