"""Connectivity data: who connects to whom, apart from how strongly, and its product with weights."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bdtorch._types import Value
from bdtorch.ops.csr import check_csr, dtype_of_sums
from bdtorch.ops.csr_order import csr_sort, csr_transpose
from bdtorch.ops.event_csr import event_csr, event_csr_t
from bdtorch.ops.event_dense import event_dense, event_dense_t
from bdtorch.ops.plasticity import plasticity_csr, plasticity_dense


class Connectivity(nn.Module, abc.ABC):
    """Which of ``n_pre`` sources reach which of ``n_post`` targets.

    Weights are separate: a scalar shared by all synapses, or a tensor of `weight_shape`.
    """

    def __init__(self, n_pre: int, n_post: int) -> None:
        super().__init__()
        self.n_pre = _checked_count(n_pre, f"{type(self).__name__}(n_pre=...)")
        self.n_post = _checked_count(n_post, f"{type(self).__name__}(n_post=...)")

    @property
    @abc.abstractmethod
    def synapses(self) -> int:
        """Number of synapses."""

    @property
    @abc.abstractmethod
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of one weight per synapse."""

    @abc.abstractmethod
    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """The weighted sum over sources, ``y[..., j] = sum_i x[..., i] w_ij``.

        Args:
            x: Spikes (boolean, or floats whose nonzeros are events that scale) or rates, ``(*batch, n_pre)``.
            weight: 0-d tensor, or tensor of `weight_shape`; where weights are plastic, ``(*batch, *weight_shape)``.

        Returns:
            Tensor ``(*batch, n_post)`` of the weight's dtype.
        """

    def on_pre(
        self,
        weight: Tensor,
        spikes: Tensor,
        a: Tensor,
        b: Tensor | None = None,
        *,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Tensor:
        r"""Change the synapses of active sources,

        $$w_{ij} \leftarrow \mathrm{clip}\big(w_{ij} + s_i (a_j + b_j w_{ij}),\; low,\; high\big).$$

        Args:
            weight: ``(*batch, *weight_shape)``.
            spikes: ``(*batch, n_pre)``, boolean, or factors whose nonzeros are events.
            a: ``(*batch, n_post)``, in the unit of the weights.
            b: ``(*batch, n_post)``, without unit; None for 0.
            low: Lower bound, in the unit of the weights.
            high: Upper bound.

        Returns:
            The new weights.

        Raises:
            TypeError: Weights of this connectivity are not stored, and cannot change.
        """
        return self._changed(weight, spikes, a, b, low, high, by_target=False)

    def on_post(
        self,
        weight: Tensor,
        spikes: Tensor,
        a: Tensor,
        b: Tensor | None = None,
        *,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Tensor:
        """Change the synapses of active targets, as `on_pre` with the sides exchanged: ``spikes`` has a value for each
        target, ``a`` and ``b`` for each source.
        """
        return self._changed(weight, spikes, a, b, low, high, by_target=True)

    def _changed(
        self, weight: Tensor, spikes: Tensor, a: Tensor, b: Tensor | None, low: float, high: float, by_target: bool
    ) -> Tensor:
        raise TypeError(f"weights of {type(self).__name__} are not stored for each synapse, so they cannot be plastic")

    @abc.abstractmethod
    def transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        """The weighted sum over targets, ``y[..., i] = sum_j w_ij x[..., j]``: `forward` with the same matrix transposed.

        Args:
            x: Spikes or values, ``(*batch, n_post)``, as for `forward`.
            weight: As for `forward`.

        Returns:
            Tensor ``(*batch, n_pre)`` of the weight's dtype.
        """

    @abc.abstractmethod
    def to_dense(self, weight: Value = 1.0) -> Tensor:
        """The weight matrix, ``(n_pre, n_post)``; several synapses between one pair add."""


class CSR(Connectivity):
    """Sparse connectivity by rows: row i lists, in ascending order, the targets of source i.

    Args:
        indices: Targets of all rows one after the other, int32, ``(synapses,)``.
        indptr: Where each row starts, int32 or int64, ``(n_pre + 1,)``.
        n_post: Number of targets.

    Raises:
        TypeError, ValueError: The arrays are no CSR structure (wrong dtype, not monotone, out of range, unsorted).
    """

    indices: Tensor
    indptr: Tensor
    sources: Tensor | None
    target_indptr: Tensor | None
    synapses_of_targets: Tensor | None

    def __init__(self, indices: Tensor, indptr: Tensor, n_post: int) -> None:
        check_csr(indices, indptr, n_post)
        super().__init__(indptr.numel() - 1, n_post)
        self.register_buffer("indices", indices)
        self.register_buffer("indptr", indptr)
        # The transposed view, made by `index_targets`; a consequence of the above, so not saved.
        for name in ("sources", "target_indptr", "synapses_of_targets"):
            self.register_buffer(name, None, persistent=False)

    @classmethod
    def from_edges(cls, pre: Tensor, post: Tensor, n_pre: int, n_post: int) -> CSR:
        """Build from a list of synapses ``pre[k] -> post[k]`` in any order; duplicates stay separate synapses.

        Raises:
            ValueError: lengths differ, or an index is outside its population.
        """
        indices, indptr, _ = csr_sort(pre, post, n_pre, n_post, op="CSR.from_edges")
        return cls(indices, indptr, n_post)

    @classmethod
    def from_dense(cls, matrix: Tensor) -> tuple[CSR, Tensor]:
        """The structure of the nonzero entries of an ``(n_pre, n_post)`` matrix, and their values as weights."""
        if matrix.dim() != 2:
            raise ValueError(f"`CSR.from_dense(matrix=...)`: expected 2 axes, got shape {tuple(matrix.shape)}")
        pre, post = matrix.nonzero(as_tuple=True)
        return cls.from_edges(pre, post, *matrix.shape), matrix[pre, post]

    @property
    def synapses(self) -> int:
        return self.indices.numel()

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.synapses,)

    @property
    def rows(self) -> Tensor:
        """The source of every synapse, int64, ``(synapses,)``."""
        return torch.repeat_interleave(torch.arange(self.n_pre, device=self.indices.device), self.indptr.diff())

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._product(
            lambda x, w: event_csr(x, w, self.indices, self.indptr, self.n_post), x, weight, self.n_post
        )

    def _product(self, product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, n: int) -> Tensor:
        """A product, of every sample on its own where each has its weights."""
        if weight.dim() <= 1:
            return product(x, weight)
        if x.shape[:-1] != weight.shape[:-1]:
            raise ValueError(
                f"`CSR.forward(weight=...)`: expected one weight for each synapse, or for each and of each sample, "
                f"{(*x.shape[:-1], self.synapses)}, got {tuple(weight.shape)}"
            )
        samples = zip(x.flatten(0, -2), weight.flatten(0, -2), strict=True)
        sums = [product(x_b, w_b) for x_b, w_b in samples] or [weight.new_zeros(0, dtype=dtype_of_sums(weight))]
        return torch.stack(sums).reshape(*x.shape[:-1], n)

    def index_targets(self) -> None:
        """Prepare `on_post`: for every target, its sources and which weights are theirs. Weights stay shared."""
        if self.sources is None:
            by_target = csr_transpose(self.indices, self.indptr, self.n_post)
            self.sources, self.target_indptr, self.synapses_of_targets = by_target

    def _changed(
        self, weight: Tensor, spikes: Tensor, a: Tensor, b: Tensor | None, low: float, high: float, by_target: bool
    ) -> Tensor:
        if not by_target:
            return plasticity_csr(weight, spikes, a, b, self.indices, self.indptr, low=low, high=high)
        self.index_targets()
        assert self.sources is not None and self.target_indptr is not None, "just made"
        structure = (self.sources, self.target_indptr, self.synapses_of_targets)
        return plasticity_csr(weight, spikes, a, b, *structure, low=low, high=high)

    def transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._product(lambda x, w: event_csr_t(x, w, self.indices, self.indptr), x, weight, self.n_pre)

    def transpose(self) -> tuple[CSR, Tensor]:
        """The same synapses by target, for what happens where a target is active: its row lists its sources.

        Weights are not copied: ``weight[order]`` are those of the transposed view, and what changes there for synapse m
        belongs to ``weight[order[m]]``.

        Returns:
            The transposed connectivity, ``n_post`` rows; and ``order``, int64 ``(synapses,)``, this structure's number
            of each of its synapses.
        """
        rows, indptr, order = csr_transpose(self.indices, self.indptr, self.n_post)
        return CSR(rows, indptr, self.n_pre), order.long()

    def to_dense(self, weight: Value = 1.0) -> Tensor:
        values = torch.as_tensor(weight, device=self.indices.device)
        values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
        dense = values.new_zeros(self.n_pre, self.n_post)
        return dense.index_put((self.rows, self.indices.long()), values.expand(self.synapses), accumulate=True)


class Identity(Connectivity):
    """Source i reaches target i alone."""

    def __init__(self, n: int) -> None:
        super().__init__(n, n)

    @property
    def synapses(self) -> int:
        return self.n_pre

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.n_pre,)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return as_floats(x, weight) * weight

    def transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        return self(x, weight)

    def _changed(
        self, weight: Tensor, spikes: Tensor, a: Tensor, b: Tensor | None, low: float, high: float, by_target: bool
    ) -> Tensor:
        growth = a if b is None else a + b * weight
        changed = (weight + as_floats(spikes, weight) * growth).clamp(low, high)
        return torch.where(spikes != 0, changed.to(weight.dtype), weight)

    def to_dense(self, weight: Value = 1.0) -> Tensor:
        return torch.diag_embed(torch.as_tensor(weight).expand(self.n_pre).clone())


class Dense(Connectivity):
    """Every source reaches every target, or every other target.

    Args:
        n_pre: Number of sources.
        n_post: Number of targets.
        self_offset: Where the populations are the same, the target that source 0 is; no neuron then reaches itself.
        order: Whose weights lie side by side: ``"pre"`` stores the matrix of weights as ``(n_pre, n_post)``, ``"post"``
            as ``(n_post, n_pre)``. What is read along the other side takes about five times longer, so plastic weights
            are best stored by the side that spikes more often.

    Raises:
        ValueError: ``order`` is neither of the two.
    """

    mask: Tensor | None

    def __init__(self, n_pre: int, n_post: int, *, self_offset: int | None = None, order: str = "pre") -> None:
        super().__init__(n_pre, n_post)
        if order not in ("pre", "post"):
            raise ValueError(f"`Dense(order=...)`: expected 'pre' or 'post', got {order!r}")
        self.order = order
        mask = None
        if self_offset is not None:
            mask = torch.ones(n_pre, n_post, dtype=torch.bool)
            sources = torch.arange(n_pre)
            mask[sources, sources + self_offset] = False
            mask = self._stored(mask).contiguous()
        self.register_buffer("mask", mask)
        self.self_offset = self_offset

    @property
    def synapses(self) -> int:
        return self.n_pre * self.n_post - (0 if self.self_offset is None else self.n_pre)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.n_pre, self.n_post) if self.order == "pre" else (self.n_post, self.n_pre)

    def _stored(self, matrix: Tensor) -> Tensor:
        """From ``(..., n_pre, n_post)`` to the order of storage, or back."""
        return matrix if self.order == "pre" else matrix.mT

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        if weight.dim():
            return self._product(x, weight, by_target=False)
        values = as_floats(x, weight)
        total = values.sum(-1, keepdim=True).expand(*values.shape[:-1], self.n_post)
        if self.self_offset is not None:
            own = (self.self_offset, self.n_post - self.n_pre - self.self_offset)
            total = total - nn.functional.pad(values, own)
        return total * weight

    def _product(self, x: Tensor, weight: Tensor, by_target: bool) -> Tensor:
        weight = weight if self.mask is None else weight * self.mask
        along_rows = by_target != (self.order == "pre")
        if x.dtype == torch.bool or x.dtype != weight.dtype or _is_eager_on_cpu(x):
            return event_dense(x, weight) if along_rows else event_dense_t(x, weight)
        matrix = weight if along_rows else weight.mT
        return x @ matrix if matrix.dim() == 2 else (x.unsqueeze(-2) @ matrix).squeeze(-2)

    def _changed(
        self, weight: Tensor, spikes: Tensor, a: Tensor, b: Tensor | None, low: float, high: float, by_target: bool
    ) -> Tensor:
        columns = by_target == (self.order == "pre")
        return plasticity_dense(weight, spikes, a, b, low=low, high=high, columns=columns)

    def transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        if weight.dim():
            return self._product(x, weight, by_target=True)
        values = as_floats(x, weight)
        total = values.sum(-1, keepdim=True).expand(*values.shape[:-1], self.n_pre)
        if self.self_offset is not None:
            total = total - values[..., self.self_offset : self.self_offset + self.n_pre]
        return total * weight

    def to_dense(self, weight: Value = 1.0) -> Tensor:
        values = torch.as_tensor(weight).expand(self.weight_shape)
        return self._stored(values.clone() if self.mask is None else values * self.mask)


def _is_eager_on_cpu(x: Tensor) -> bool:
    """Whether a product is made here and now, where that of the operator has the same bits in a batch and by itself.

    Graphs get torch's product: inductor and the native loop have ways of their own for it, as a GPU has.
    """
    traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    return not traced and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _checked_count(n: int, label: str) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"`{label}`: expected a positive integer, got {n!r}")
    return n


def as_floats(x: Tensor, weight: Tensor) -> Tensor:
    """Boolean spikes as 0 and 1 of the dtype of sums with the weight; floats as they are."""
    return x if x.is_floating_point() else x.to(dtype_of_sums(weight))
