"""Checks of recursive least squares for `bdtorch.ops.selftest`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops._checks import Check

_PENDING = 3


def _taken(samples: Tensor, initial: Tensor) -> Tensor:
    """P after all samples, by the operator."""
    n = samples.shape[-1]
    memory = ops.rls_memory(n, _PENDING, float(initial), dtype=samples.dtype, device=samples.device)
    for k, x in enumerate(samples):
        count = torch.full((), k % _PENDING, dtype=torch.int64, device=samples.device)
        memory = ops.rls_update(memory, count, x, block=_PENDING)
    pending = torch.full((), len(samples) % _PENDING, dtype=torch.int64, device=samples.device)
    return ops.rls_inverse(memory, pending, block=_PENDING)


def _inverse(samples: Tensor, initial: Tensor) -> Tensor:
    """P after all samples, as the inverse that it is."""
    x = samples.double()
    seen = torch.eye(x.shape[1], dtype=torch.float64) / initial.double() + x.mT @ x
    return torch.linalg.inv(seen).to(samples.dtype)


def learning_checks() -> Iterator[Check]:
    """Recursive least squares of few and of many features, against the inverse of the correlation matrix."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        for n in (7, 300):
            samples = torch.randn(8, n, generator=torch.Generator().manual_seed(n)).to(dtype)
            yield Check(f"rls_update, {str(dtype)[6:]}", _taken, (samples, torch.tensor(0.5)), _inverse, tolerance)
