"""`Weights`: connectivity together with one weight per synapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bdtorch._system import Parametrised
from bdtorch._types import Initialiser
from bdtorch.connect.data import Connectivity
from bdtorch.connect.rules import AllToAll, Rule
from bdtorch.init import Normal
from bdtorch.ops.csr import dtype_of_sums
from bdtorch.ops.random import fold


class Weights(Parametrised):
    """A layer's weights, ``y_j = sum_i x_i w_ij``.

    Args:
        n_pre: Number of sources.
        n_post: Number of targets.
        connect: A rule, or connectivity that is already drawn; default all to all.
        weight: One weight per synapse, of the connectivity's ``weight_shape``: tensor, `nn.Parameter` (which is shared)
            or initialiser; default Gaussian with variance 1 / (mean in-degree).
        trained: Whether weights that are no parameter become one.
        label: What error messages call the layer.
        seed: Names the draws.
        dtype: Floating dtype.
        device: Device.

    Raises:
        TypeError, ValueError: The connectivity is of other populations, or a weight of another shape or dtype.
    """

    weight: Tensor

    def __init__(
        self,
        n_pre: int,
        n_post: int,
        *,
        connect: Rule | Connectivity | None = None,
        weight: Tensor | Initialiser | None = None,
        trained: bool = True,
        label: str = "Weights",
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__((), dtype=dtype, device=device)
        connect = connect if connect is not None else AllToAll()
        if isinstance(connect, Rule):
            connect = connect.build(n_pre, n_post, seed=seed).to(self.device)
        if not isinstance(connect, Connectivity):
            raise TypeError(f"`{label}(connect=...)`: expected a rule or connectivity, got {connect!r}")
        if (connect.n_pre, connect.n_post) != (n_pre, n_post):
            raise ValueError(
                f"`{label}(connect=...)`: expected connectivity of {n_pre} sources and {n_post} targets, "
                f"got {connect.n_pre} and {connect.n_post}"
            )
        self.connect, self.label = connect, label
        if weight is None:
            weight = Normal(0.0, math.sqrt(n_post / max(1, connect.synapses)))
        if not isinstance(weight, Tensor):
            weight = weight(connect.weight_shape, seed=fold(seed, "weight"), dtype=self.dtype, device=self.device)
        if tuple(weight.shape) != connect.weight_shape:
            raise ValueError(
                f"`{label}(weight=...)`: expected one weight per synapse, {connect.weight_shape}, "
                f"got shape {tuple(weight.shape)}"
            )
        as_it_is = isinstance(weight, nn.Parameter) or not trained
        self.declare("weight", weight if as_it_is else nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        """The sums over sources, ``(*batch, n_post)``, for ``x`` of shape ``(*batch, n_pre)``, in the dtype of the sums."""
        if not x.dim() or x.shape[-1] != self.connect.n_pre:
            raise ValueError(f"`{self.label}(x)`: expected (*batch, {self.connect.n_pre}), got {tuple(x.shape)}")
        x = x.to(dtype_of_sums(self.weight)) if x.is_floating_point() else x
        sums: Tensor = self.connect(x, self.weight)
        return sums

    def extra_repr(self) -> str:
        return f"{self.connect.n_pre} -> {self.connect.n_post}, {self.connect.synapses} synapses"
