r"""Recursive least squares with postponed updates of the inverse correlation matrix.

$$k = \frac{P x}{\lambda + x^\top P x}, \qquad P \leftarrow \frac{P - k\,(P x)^\top}{\lambda}, \qquad
P = \lambda^{-c} \Bigl(P_0 - \sum_{i<c} h_i h_i^\top\Bigr)$$

A sample reads $P_0$ once and adds a row $h$; when `block` rows are in wait, one product of matrices brings them into
$P_0$. So a sample costs half a reading of the matrix where the formula as it stands costs several, and a writing.

Sources: Haykin, Adaptive Filter Theory; Sussillo & Abbott (2009), doi:10.1016/j.neuron.2009.07.018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from bdtorch.ops._autograd import DifferentiableOp
from bdtorch.ops._rules import loop_over_samples

_LINE = 64  # bytes that rows are filled up to
MOST_PENDING = 32
"""Largest `block`."""

_rls_update = DifferentiableOp("rls_update")


def rls_memory(n: int, block: int, initial: float, batch_shape: tuple[int, ...] = (), **options: Any) -> Tensor:
    """The memory of `rls_update` before the first sample, where P is `initial` times the identity.

    Args:
        n: Number of features.
        block: How many updates may be in wait, 1 to 32.
        initial: The diagonal of P.
        batch_shape: Shape of the batch.
        **options: ``dtype`` (float32 or float64) and ``device``.

    Returns:
        ``(*batch_shape, n + block + 2, width)``, ``width`` being n filled up to a multiple of 64 bytes. In rows:
        $P_0$, of which the lower triangle counts; rows in wait; the last gain; the last sample.

    Raises:
        TypeError: If the dtype is not one of those above.
        ValueError: If a number is out of range.
    """
    if n < 1 or not 1 <= block <= MOST_PENDING:
        raise ValueError(f"`rls_memory(n=..., block=...)`: expected n >= 1 and 1 to {MOST_PENDING}, got {n}, {block}")
    memory = torch.zeros((*batch_shape, n + block + 2, 1), **options)
    if memory.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`rls_memory(dtype=...)`: expected float32 or float64, got {memory.dtype}")
    memory = memory.repeat((*(1 for _ in batch_shape), 1, _width(n, memory.dtype)))
    memory.diagonal(dim1=-2, dim2=-1)[..., :n] = initial
    return memory


def rls_update(
    memory: Tensor, count: Tensor, x: Tensor, *, block: int, learn: Tensor | None = None, forgetting: float = 1.0
) -> Tensor:
    r"""Takes in a sample; for formula and source see the module. Functional; in place in native loops.

    The caller counts: `count` is 0 at first, and after each sample that was learnt one more, modulo `block`.
    Values are inspected on the CPU only; on a GPU, a memory whose count is out of range stays as it is.

    Args:
        memory: ``(*batch, n + block + 2, width)`` from `rls_memory`.
        count: How many updates are in wait, ``()`` or ``(*batch,)`` int64, in [0, block).
        x: Features, ``(*batch, n)``, of the dtype of `memory`.
        block: As given to `rls_memory`.
        learn: ``()`` or ``(*batch,)`` bool: where False, P stays and the gain is 0.
        forgetting: $\lambda$, in (0, 1].

    Returns:
        The new memory; its gain $k$ is `rls_gain`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape, a device or a number does not fit.
        NotImplementedError: In a backward pass that needs its derivative, for it has none.
    """
    _check(memory, count, x, block, learn, forgetting)
    batch = memory.shape[:-2]
    if len(batch) > 1:
        flat = [y if y is None or not y.dim() else y.reshape(-1) for y in (count, learn)]
        after = _rls_update(memory.flatten(0, -3), flat[0], x.flatten(0, -2), flat[1], block, forgetting)
        return after.reshape(memory.shape)
    result: Tensor = _rls_update(memory, count, x, learn, block, forgetting)
    return result


def rls_gain(memory: Tensor, n: int, block: int) -> Tensor:
    """The gain of the last sample, ``(*batch, n)``: weights change by minus its outer product with the error."""
    return memory[..., n + block, :n]


def rls_inverse(memory: Tensor, count: Tensor, *, block: int, forgetting: float = 1.0) -> Tensor:
    """P, ``(*batch, n, n)``, with the updates that are in wait.

    Args:
        memory: As `rls_update` returned it.
        count: How many updates are in wait.
        block: As given to `rls_memory`.
        forgetting: As given to `rls_update`.
    """
    n = memory.shape[-2] - block - 2
    lower = memory[..., :n, :n].tril()
    rows = memory[..., n : n + block, :n]
    rows = rows * (torch.arange(block, device=memory.device) < count.unsqueeze(-1)).unsqueeze(-1)
    whole = lower + lower.tril(-1).mT - rows.mT @ rows
    return whole * forgetting ** -count.to(memory.dtype).unsqueeze(-1).unsqueeze(-1)


def _width(n: int, dtype: torch.dtype) -> int:
    lanes = _LINE // dtype.itemsize
    return -(-n // lanes) * lanes


def _check(memory: Tensor, count: Tensor, x: Tensor, block: int, learn: Tensor | None, forgetting: float) -> None:
    if memory.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`rls_update(memory=...)`: expected float32 or float64, got {memory.dtype}")
    if x.dtype != memory.dtype:
        raise TypeError(f"`rls_update(x=...)`: expected {memory.dtype}, got {x.dtype}")
    if isinstance(block, bool) or not isinstance(block, int) or not 1 <= block <= MOST_PENDING:
        raise ValueError(f"`rls_update(block=...)`: expected 1 to {MOST_PENDING}, got {block!r}")
    if not 0.0 < forgetting <= 1.0:
        raise ValueError(f"`rls_update(forgetting=...)`: expected a number in (0, 1], got {forgetting!r}")
    batch = tuple(memory.shape[:-2])
    if memory.dim() < 2 or x.dim() != memory.dim() - 1 or tuple(x.shape[:-1]) != batch:
        raise ValueError(f"`rls_update(x=...)`: expected one sample for each memory, got {tuple(x.shape)}")
    expected = (*batch, x.shape[-1] + block + 2, _width(x.shape[-1], memory.dtype))
    if tuple(memory.shape) != expected:
        raise ValueError(f"`rls_update(memory=...)`: expected shape {expected}, got {tuple(memory.shape)}")
    for name, value, dtype in (("count", count, torch.int64), ("learn", learn, torch.bool)):
        if value is None:
            continue
        if value.dtype != dtype:
            raise TypeError(f"`rls_update({name}=...)`: expected {dtype}, got {value.dtype}")
        if tuple(value.shape) not in ((), batch):
            raise ValueError(f"`rls_update({name}=...)`: expected shape () or {batch}, got {tuple(value.shape)}")
    for name, value in (("count", count), ("x", x), ("learn", learn)):
        if value is not None and value.device != memory.device:
            raise ValueError(f"`rls_update({name}=...)`: expected the device {memory.device}, got {value.device}")


def _no_derivative(*_: Any) -> NoReturn:
    raise NotImplementedError(
        "`rls_update`: recursive least squares has no derivative. Run it under torch.no_grad(), or detach what it learns from"
    )


def _vmap(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    memory, count, x, learn, block, forgetting = args
    if memory.dim() - (in_dims[0] is not None) != 2:
        return loop_over_samples(op, batch_size, in_dims, *args)
    first = [
        value if value is None or dim is None else value.movedim(dim, 0)
        for value, dim in zip((memory, count, x, learn), in_dims, strict=False)
    ]
    for k in (0, 2):
        if in_dims[k] is None:
            first[k] = first[k].expand(batch_size, *first[k].shape)
    return op(*first, block, forgetting), 0


_rls_update.register_fake(lambda memory, *_: torch.empty_like(memory, memory_format=torch.contiguous_format))
_rls_update.register_vmap(_vmap)
_rls_update.register_autograd(backward=_no_derivative, jvp=_no_derivative)
