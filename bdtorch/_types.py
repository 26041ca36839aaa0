"""Names for the arrays that pass between the parts, and the glossary of their axes.

Axes, always in this order: ``time`` (only outside a step), ``batch`` (any number of leading axes), ``size``
(the population). Units throughout: ms, mV, nS, pA, pF, MOhm, Hz for rates, and uM, unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

State: TypeAlias = Any
"""A pytree of tensors, each of full shape ``(*batch, *size)``."""

Value: TypeAlias = float | Tensor
"""A model constant: a Python float, which compiled loops see as a literal, or a tensor that broadcasts to ``size``."""

Initialiser: TypeAlias = Callable[..., Tensor]
"""``initialiser(shape, *, seed, dtype, device) -> Tensor``: see `bdtorch.init`."""

Size: TypeAlias = int | tuple[int, ...]
