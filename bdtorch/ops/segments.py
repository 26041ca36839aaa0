r"""Sums over groups of synapses, and the gathers that go with them, over plain lists of synapses.

Synapse $k$ runs from ``pre[k]`` to ``post[k]``. Values per neuron and per synapse have any leading batch axes:

$$y_j = \mathop{\mathrm{reduce}}_{k : \mathrm{post}_k = j} v_k$$

These are compositions of torch's own gathers and scatters, which are good at it; so they run wherever torch does, and
have derivatives of any order, in both modes, under every transform. For products that touch active neurons only, use
`event_csr`. On a GPU torch adds in no fixed order unless `torch.use_deterministic_algorithms` is on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def segment_sum(values: Tensor, index: Tensor, n: int) -> Tensor:
    r"""Sums the values of each segment; of an empty one, 0.

    Args:
        values: ``(*batch, n_synapses)``, floating-point.
        index: ``(n_synapses,)`` int32 or int64, the segment of each value, in [0, n), in any order.
        n: Number of segments.

    Returns:
        ``(*batch, n)``.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit.
        IndexError, RuntimeError: From torch, if an index is out of range (on a GPU, an assertion of the device).
    """
    _expect_segments("segment_sum", values, index, n)
    return _sum(values, index, n)


def segment_mean(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Averages the values of each segment; of an empty one, 0. Arguments and errors are those of `segment_sum`."""
    _expect_segments("segment_mean", values, index, n)
    return _sum(values, index, n) / _sum(values.new_ones(index.shape), index, n).clamp(min=1)


def segment_max(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Takes the largest value of each segment; of an empty one, -inf. Its gradient is shared by equal values.

    Arguments and errors are those of `segment_sum`.
    """
    _expect_segments("segment_max", values, index, n)
    return _extreme(values, index, n, "amax", -torch.inf)


def segment_min(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Takes the smallest value of each segment; of an empty one, inf. Its gradient is shared by equal values.

    Arguments and errors are those of `segment_sum`.
    """
    _expect_segments("segment_min", values, index, n)
    return _extreme(values, index, n, "amin", torch.inf)


def segment_softmax(values: Tensor, index: Tensor, n: int) -> Tensor:
    r"""Normalises within each segment.

    $$p_k = \mathrm{e}^{v_k} \Big/ \sum_{l : \mathrm{index}_l = \mathrm{index}_k} \mathrm{e}^{v_l}$$

    Arguments and errors are those of `segment_sum`.

    Returns:
        ``(*batch, n_synapses)``, each segment with the sum 1.
    """
    _expect_segments("segment_softmax", values, index, n)
    highest = _reduced(values.detach(), index, n, "amax", -torch.inf)
    weight = torch.exp(values - highest.index_select(-1, index))
    return weight / _sum(weight, index, n).index_select(-1, index)


def pre2syn(x: Tensor, pre: Tensor) -> Tensor:
    """Gives each synapse the value of its presynaptic neuron: ``x[..., pre]``.

    Args:
        x: ``(*batch, n_pre)``, any dtype.
        pre: ``(n_synapses,)`` int32 or int64, in [0, n_pre).

    Returns:
        ``(*batch, n_synapses)``.
    """
    _expect_index("pre2syn(pre=...)", pre)
    return x.index_select(-1, pre)


def syn2post(values: Tensor, post: Tensor, n_post: int, reduce: str = "sum") -> Tensor:
    """Reduces values per synapse to values per postsynaptic neuron.

    Args:
        values: ``(*batch, n_synapses)``, floating-point.
        post: ``(n_synapses,)`` int32 or int64, in [0, n_post).
        n_post: Number of postsynaptic neurons.
        reduce: "sum", "mean", "max" or "min", as `segment_sum` and its siblings.

    Returns:
        ``(*batch, n_post)``.

    Raises:
        ValueError: If `reduce` is none of these; else as `segment_sum`.
    """
    if reduce not in _REDUCTIONS:
        raise ValueError(f"`syn2post(reduce=...)`: expected one of {', '.join(_REDUCTIONS)}, got {reduce!r}")
    return _REDUCTIONS[reduce](values, post, n_post)


def pre2post(x: Tensor, pre: Tensor, post: Tensor, n_post: int, reduce: str = "sum") -> Tensor:
    """Reduces, for each postsynaptic neuron, the values of the neurons that reach it: `pre2syn`, then `syn2post`."""
    return syn2post(pre2syn(x, pre), post, n_post, reduce)


def _sum(values: Tensor, index: Tensor, n: int) -> Tensor:
    return values.new_zeros((*values.shape[:-1], n)).index_add(-1, index, values)


def _reduced(values: Tensor, index: Tensor, n: int, reduction: str, empty: float) -> Tensor:
    start = values.new_full((*values.shape[:-1], n), empty)
    return start.scatter_reduce(-1, index.long().expand(values.shape), values, reduction)


def _extreme(values: Tensor, index: Tensor, n: int, reduction: str, empty: float) -> Tensor:
    extreme = _reduced(values.detach(), index, n, reduction, empty)
    reached = (values.detach() == extreme.index_select(-1, index)) & values.detach().isfinite()
    # 0 in value, so that the extreme is returned as it is; its derivative is that of the mean over equal values.
    change = _sum(torch.where(reached, values - values.detach(), 0.0), index, n)
    return extreme + change / _sum(reached.to(values.dtype), index, n).clamp(min=1)


def _expect_index(argument: str, index: Tensor) -> None:
    if index.dtype != torch.int32 and index.dtype != torch.int64:
        raise TypeError(f"`{argument}`: expected int32 or int64, got {index.dtype}")
    if index.dim() != 1:
        raise ValueError(f"`{argument}`: expected shape (n_synapses,), got {tuple(index.shape)}")


def _expect_segments(op: str, values: Tensor, index: Tensor, n: int) -> None:
    _expect_index(f"{op}(index=...)", index)
    if not values.is_floating_point():
        raise TypeError(f"`{op}(values=...)`: expected a floating-point dtype, got {values.dtype}")
    if values.dim() == 0 or values.shape[-1] != index.shape[0]:
        raise ValueError(
            f"`{op}(values=...)`: expected shape (*batch, {index.shape[0]}), as index has it, got {tuple(values.shape)}"
        )
    if values.device != index.device:
        raise ValueError(f"`{op}(index=...)`: expected the device of values, {values.device}, got {index.device}")
    if n < 0:
        raise ValueError(f"`{op}(n=...)`: expected a nonnegative number, got {n}")


_REDUCTIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "sum": segment_sum,
    "mean": segment_mean,
    "max": segment_max,
    "min": segment_min,
}
