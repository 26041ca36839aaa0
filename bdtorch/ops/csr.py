"""CSR structures and the arguments that go with them: what every call checks, and what is checked once.

The forms of arguments (dtype, shape, device) are cheap to read and are checked on every call. The values of a structure
are not: they are read when it is first met, and again after a change in place; a kernel thus never leaves its arrays.
Where values cannot be read, under the compiler, in transforms that map over them, while a CUDA graph is captured, the
structure must have been checked before, as `bdtorch.connect.CSR` does.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from . import _library as _library  # the ops exist once the library is loaded

_csr_columns = torch.ops.bdtorch.csr_columns.default

TWO_BYTES = (torch.bfloat16, torch.float16)
"""Dtypes in which weights may be stored, whose sums are made in float32."""

_Known = tuple[Any, Any, int | None, int | None, int]
_known: dict[int, _Known] = {}
"""By the identity of `indices`: both tensors, their versions, and the number of columns that the structure needs."""


def check_csr(
    indices: Tensor, indptr: Tensor, n_post: int, *, weights: Tensor | None = None, distinct: bool = False
) -> None:
    """Verifies the values of a CSR structure.

    Args:
        indices: ``(n_synapses,)`` int32, in [0, n_post), ascending within each row; equal ones are parallel synapses.
        indptr: ``(n_pre + 1,)`` int32 or int64, ascending from 0 to n_synapses.
        n_post: Number of postsynaptic neurons.
        weights: ``()`` or ``(n_synapses,)``, to be verified too: no NaN.
        distinct: Whether parallel synapses are forbidden.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a value is not as above; the message names the first such position.
    """
    expect_structure("check_csr", indices, indptr)
    if weights is not None:
        expect_weights("check_csr", weights, indices)
        missing = weights.detach().isnan().reshape(-1).nonzero()
        if missing.numel():
            raise ValueError(f"`check_csr(weights=...)`: expected numbers, got nan at position {int(missing[0])}")
    if not 0 <= n_post <= torch.iinfo(torch.int32).max:
        raise ValueError(f"`check_csr(n_post=...)`: expected a number in [0, 2**31), got {n_post}")
    _remember(indices, indptr, _expect_rows("check_csr", indices, indptr, n_post, distinct))


def expect_structure(op: str, indices: Tensor, indptr: Tensor) -> None:
    """Raise where the form of a structure is wrong."""
    if indices.dtype != torch.int32:
        raise TypeError(f"`{op}(indices=...)`: expected int32, got {indices.dtype}")
    if indptr.dtype != torch.int32 and indptr.dtype != torch.int64:
        raise TypeError(f"`{op}(indptr=...)`: expected int32 or int64, got {indptr.dtype}")
    if indices.dim() != 1:
        raise ValueError(f"`{op}(indices=...)`: expected shape (n_synapses,), got {tuple(indices.shape)}")
    if indptr.dim() != 1 or indptr.shape[0] == 0:
        raise ValueError(f"`{op}(indptr=...)`: expected shape (n_pre + 1,), got {tuple(indptr.shape)}")
    if indptr.device != indices.device:
        raise ValueError(f"`{op}(indptr=...)`: expected the device of indices, {indices.device}, got {indptr.device}")


def is_known(indices: Tensor, indptr: Tensor, n_columns: int) -> bool:
    """Whether form and values of a structure were found right before, and have not changed since."""
    known = _known.get(id(indices))
    if known is None or known[0]() is not indices or known[1]() is not indptr or known[4] > n_columns:
        return False
    try:
        return bool(known[2] == indices._version and known[3] == indptr._version)
    except RuntimeError:  # made in inference mode
        return known[2] == _version(indices) and known[3] == _version(indptr)


def expect_values(op: str, indices: Tensor, indptr: Tensor, n_columns: int) -> None:
    """Raise where the values of a structure of the right form are wrong, if they can be read and are not known."""
    if torch.compiler.is_compiling() or is_known(indices, indptr, n_columns):
        return
    if not (_is_readable(indices) and _is_readable(indptr)):
        return
    _remember(indices, indptr, _expect_rows(op, indices, indptr, n_columns, distinct=False))


def expect_permutation(op: str, name: str, numbers: Tensor) -> None:
    """Raise where numbers, ``(n,)`` int32, are no permutation of the integers below n, if they can be read."""
    if torch.compiler.is_compiling() or is_known(numbers, numbers, 0) or not _is_readable(numbers):
        return
    if not torch.equal(numbers.sort().values, torch.arange(len(numbers), dtype=numbers.dtype, device=numbers.device)):
        raise ValueError(f"`{op}({name}=...)`: expected every number in [0, {len(numbers)}) once")
    _remember(numbers, numbers, 0)


def expect_floating(op: str, name: str, tensor: Tensor) -> None:
    """Raise where a tensor is neither float32 nor float64."""
    if tensor.dtype != torch.float32 and tensor.dtype != torch.float64:
        raise TypeError(f"`{op}({name}=...)`: expected float32 or float64, got {tensor.dtype}")


def expect_stored(op: str, name: str, tensor: Tensor) -> None:
    """Raise where a tensor does not have one of the dtypes in which weights may be stored."""
    if tensor.dtype not in (torch.float32, torch.float64, *TWO_BYTES):
        raise TypeError(f"`{op}({name}=...)`: expected float32, float64, bfloat16 or float16, got {tensor.dtype}")


def expect_weights(op: str, weights: Tensor, indices: Tensor) -> None:
    """Raise where weights are not one number, or one for each synapse, of a dtype in which they may be stored."""
    expect_stored(op, "weights", weights)
    if weights.dim() != 0 and weights.shape != indices.shape:
        raise ValueError(f"`{op}(weights=...)`: expected shape () or ({indices.shape[0]},), got {tuple(weights.shape)}")
    if weights.device != indices.device:
        raise ValueError(f"`{op}(weights=...)`: expected the device of indices, {indices.device}, got {weights.device}")


def expect_per_neuron(op: str, name: str, tensor: Tensor, n: int | None, dtype: torch.dtype, indices: Tensor) -> None:
    """Raise where a tensor is not ``(*batch, n)`` bool or of the dtype, on the device of the structure."""
    if tensor.dtype != torch.bool and tensor.dtype != dtype:
        raise TypeError(f"`{op}({name}=...)`: expected bool or {dtype}, got {tensor.dtype}")
    if tensor.dim() == 0 or (n is not None and tensor.shape[-1] != n):
        size = "n_post" if n is None else n
        raise ValueError(f"`{op}({name}=...)`: expected shape (*batch, {size}), got {tuple(tensor.shape)}")
    if tensor.device != indices.device:
        raise ValueError(f"`{op}({name}=...)`: expected the device of indices, {indices.device}, got {tensor.device}")


def expect_spikes(op: str, spikes: Tensor, weights: Tensor, name: str, n: int) -> None:
    """Raise where spikes do not have ``n`` values, the device of the weights, and the dtype of their sums or bool."""
    dtype = dtype_of_sums(weights)
    if spikes.dtype != torch.bool and spikes.dtype != dtype:
        raise TypeError(f"`{op}(spikes=...)`: expected bool or {dtype}, got {spikes.dtype}")
    if spikes.dim() == 0 or spikes.shape[-1] != n:
        raise ValueError(f"`{op}(spikes=...)`: expected shape (*batch, {n}), got {tuple(spikes.shape)}")
    if spikes.device != weights.device:
        raise ValueError(f"`{op}(spikes=...)`: expected the device of {name}, {weights.device}, got {spikes.device}")


def dtype_of_sums(weights: Tensor) -> torch.dtype:
    """The dtype of products with stored weights: theirs, and float32 for weights in two bytes."""
    return torch.float32 if weights.dtype in TWO_BYTES else weights.dtype


def _expect_rows(op: str, indices: Tensor, indptr: Tensor, n_columns: int, distinct: bool) -> int:
    """The number of columns that a structure needs, where nothing is wrong with it."""
    if indices.device.type == "cpu" and not distinct:
        needed = int(_csr_columns(indices, indptr))  # in one pass; what is wrong, if anything, is found out below
        if 0 <= needed <= n_columns:
            return needed
    _expect_pointers(op, indices, indptr)
    needed = _expect_columns(op, indices, n_columns)
    _expect_ascending(op, indices, indptr, distinct)
    return needed


def _expect_pointers(op: str, indices: Tensor, indptr: Tensor) -> None:
    n_synapses = indices.shape[0]
    if indptr[0] != 0 or indptr[-1] != n_synapses:
        raise ValueError(
            f"`{op}(indptr=...)`: expected values from 0 to n_synapses={n_synapses}, "
            f"got {int(indptr[0])} to {int(indptr[-1])}"
        )
    descents = (indptr[1:] < indptr[:-1]).nonzero()
    if descents.numel():
        row = int(descents[0])
        raise ValueError(
            f"`{op}(indptr=...)`: expected ascending values, "
            f"got {int(indptr[row])} before {int(indptr[row + 1])} at position {row}"
        )


def _expect_columns(op: str, indices: Tensor, n_columns: int) -> int:
    """The number of columns that a structure needs."""
    if not indices.numel():
        return 0
    lowest, highest = (int(end) for end in torch.aminmax(indices))
    if lowest < 0 or highest >= n_columns:
        k = int(((indices < 0) | (indices >= n_columns)).nonzero()[0])
        raise ValueError(
            f"`{op}(indices=...)`: expected values in [0, {n_columns}), got {int(indices[k])} at position {k}"
        )
    return highest + 1


def _expect_ascending(op: str, indices: Tensor, indptr: Tensor, distinct: bool) -> None:
    n_synapses = indices.shape[0]
    follows = indices[1:] > indices[:-1] if distinct else indices[1:] >= indices[:-1]
    first_of_row = indptr[1:-1].to(torch.int64)
    first_of_row = first_of_row[(first_of_row > 0) & (first_of_row < n_synapses)]
    follows[first_of_row - 1] = True  # from the end of one row to the start of the next
    unsorted = (~follows).nonzero()
    if unsorted.numel():
        k, order = int(unsorted[0]), "ascending, distinct" if distinct else "ascending"
        raise ValueError(
            f"`{op}(indices=...)`: expected {order} values within each row, "
            f"got {int(indices[k])} before {int(indices[k + 1])} at position {k}"
        )


def _is_readable(tensor: Tensor) -> bool:
    """Whether the values of a tensor are there to be read."""
    if type(tensor) is not Tensor or tensor.device.type == "meta" or torch._C._len_torch_dispatch_stack():
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _version(tensor: Tensor) -> int | None:
    """Counts changes in place; None for a tensor made in inference mode, which does not."""
    return None if tensor.is_inference() else tensor._version


def _remember(indices: Tensor, indptr: Tensor, n_columns: int) -> None:
    if not (_is_readable(indices) and _is_readable(indptr)):
        return
    number = id(indices)
    forget = weakref.ref(indices, lambda _: _known.pop(number, None))
    _known[number] = (forget, weakref.ref(indptr), _version(indices), _version(indptr), n_columns)
