r"""Event-driven products with a dense matrix: only the rows, or the columns, of active neurons are read.

`event_dense` and `event_dense_t` multiply with a matrix $M$ and with its transpose. For weights that are stored
by source (a row for each presynaptic neuron), the first takes spikes forward; for weights stored by target, the second
does. Results are equal to the bit for any number of threads, and those of a batch equal those of its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from bdtorch.ops._autograd import DifferentiableOp
from bdtorch.ops._rules import flatten_batch, loop_over_samples, sum_of
from bdtorch.ops.csr import dtype_of_sums, expect_spikes, expect_stored

_event_dense = DifferentiableOp("event_dense")
_event_dense_t = DifferentiableOp("event_dense_t")


def event_dense(spikes: Tensor, matrix: Tensor) -> Tensor:
    r"""Sums the rows of active neurons.

    $$y_{bj} = \sum_i s_{bi} M_{ij}$$

    The gradient with respect to floating-point spikes is that of the product, so silent neurons receive one too; bool
    spikes receive none.

    Args:
        spikes: ``(*batch, n_rows)``, bool, or of the dtype of the sums (a nonzero value is an event and a factor).
        matrix: ``(n_rows, n_columns)``, or ``(*batch, n_rows, n_columns)`` with one for each sample; float32, float64,
            or bfloat16 or float16 with sums in float32.

    Returns:
        ``(*batch, n_columns)`` in the dtype of the sums and the units of `matrix`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit.
    """
    return _product("event_dense", _event_dense, spikes, matrix, -2)


def event_dense_t(spikes: Tensor, matrix: Tensor) -> Tensor:
    r"""Sums the columns of active neurons: the product with the transposed matrix.

    $$y_{bi} = \sum_j M_{ij} s_{bj}$$

    Args:
        spikes: ``(*batch, n_columns)``, bool, or of the dtype of the sums.
        matrix: ``(n_rows, n_columns)``, or ``(*batch, n_rows, n_columns)`` with one for each sample; float32, float64,
            or bfloat16 or float16 with sums in float32.

    Returns:
        ``(*batch, n_rows)`` in the dtype of the sums and the units of `matrix`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit.
    """
    return _product("event_dense_t", _event_dense_t, spikes, matrix, -1)


def _product(name: str, op: DifferentiableOp, spikes: Tensor, matrix: Tensor, axis: int) -> Tensor:
    expect_stored(name, "matrix", matrix)
    if matrix.dim() < 2:
        raise ValueError(f"`{name}(matrix=...)`: expected shape (*batch, n_rows, n_columns), got {tuple(matrix.shape)}")
    expect_spikes(name, spikes, matrix, "matrix", matrix.shape[axis])
    if matrix.dim() > 2 and matrix.shape[:-2] != spikes.shape[:-1]:
        raise ValueError(
            f"`{name}(matrix=...)`: expected one matrix, or the batch shape of spikes, {tuple(spikes.shape[:-1])}, "
            f"got {tuple(matrix.shape[:-2])}"
        )
    y: Tensor = op(flatten_batch(spikes), matrix if matrix.dim() <= 3 else matrix.flatten(0, -3))
    return y if spikes.dim() <= 2 else y.reshape(*spikes.shape[:-1], y.shape[-1])


def _backward(transposed: bool) -> Callable[..., list[Tensor | None]]:
    """Gradients by dense products, since gradients are dense."""

    def rule(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
        spikes, matrix = inputs
        if grad is None:
            return [None, None]
        to_spikes = to_matrix = None
        if needs[0]:
            wide = matrix.to(grad.dtype)
            to_spikes = (grad.unsqueeze(-2) @ (wide if transposed else wide.mT)).squeeze(-2)
        if needs[1]:
            pre, post = (grad, spikes.to(grad.dtype)) if transposed else (spikes.to(grad.dtype), grad)
            summed = matrix.dim() == 2 and spikes.dim() == 2
            to_matrix = (pre.mT @ post if summed else pre.unsqueeze(-1) * post.unsqueeze(-2)).to(matrix.dtype)
        return [to_spikes, to_matrix]

    return rule


def _jvp(op: DifferentiableOp) -> Callable[..., Tensor | None]:
    def rule(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
        spikes, matrix = inputs
        return sum_of([
            None if tangents[0] is None else op(tangents[0], matrix),
            None if tangents[1] is None else op(spikes, tangents[1]),
        ])  # fmt: skip

    return rule


def _vmap(
    op: Any, batch_size: int, in_dims: Sequence[int | None], spikes: Tensor, matrix: Tensor
) -> tuple[Tensor, int]:
    """One call where the samples can be further rows of the batch, or have a matrix each."""
    spikes_dim, matrix_dim = in_dims
    if spikes_dim is not None and matrix_dim is None and matrix.dim() == 2:
        spikes = spikes.movedim(spikes_dim, 0)
        out = op(spikes.flatten(0, -2), matrix)
        return out.reshape(*spikes.shape[:-1], out.shape[-1]), 0
    if matrix_dim is not None and spikes.dim() - (spikes_dim is not None) == 1:
        rows = spikes.expand(batch_size, -1) if spikes_dim is None else spikes.movedim(spikes_dim, 0)
        return op(rows, matrix.movedim(matrix_dim, 0)), 0
    return loop_over_samples(op, batch_size, in_dims, spikes, matrix)


@_event_dense.register_fake
def _(spikes: Tensor, matrix: Tensor) -> Tensor:
    return matrix.new_empty((*spikes.shape[:-1], matrix.shape[-1]), dtype=dtype_of_sums(matrix))


@_event_dense_t.register_fake
def _(spikes: Tensor, matrix: Tensor) -> Tensor:
    return matrix.new_empty((*spikes.shape[:-1], matrix.shape[-2]), dtype=dtype_of_sums(matrix))


for _op, _transposed in ((_event_dense, False), (_event_dense_t, True)):
    _op.register_vmap(_vmap)
    _op.register_autograd(backward=_backward(_transposed), jvp=_jvp(_op))
