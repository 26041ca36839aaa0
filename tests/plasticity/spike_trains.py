"""Spike trains on a grid of steps, a bare run of a rule over them, and connectivity to run it on."""

from __future__ import annotations

import torch
from torch import Tensor

from bdtorch.connect import CSR, Connectivity, Dense, Identity
from bdtorch.plasticity import Events, Plasticity

DT = 0.5


def trains(n: int, steps: int, probability: float, seed: int) -> Tensor:
    """Random spikes, boolean, ``(steps, n)``."""
    return torch.rand(steps, n, generator=torch.Generator().manual_seed(seed)) < probability


def run(
    rule: Plasticity,
    connect: Connectivity,
    weight: Tensor,
    pre: Tensor,
    post: Tensor,
    *,
    dt: float = DT,
    **further: Tensor,
) -> Tensor:
    """The weights after events ``pre`` and ``post``, ``(steps, *batch, n)``."""
    state = rule.init_state(connect, tuple(pre.shape[1:-1]))
    for k in range(len(pre)):
        events = Events(pre[k], post[k], **{name: x[k] for name, x in further.items()})
        state, weight = rule.step(state, weight, connect, events, torch.tensor(k * dt), dt)
    return weight


def connectivity(layout: str, n_pre: int, n_post: int) -> Connectivity:
    """Random pairs, all pairs stored by either side, or one-to-one."""
    if layout == "sparse":
        matrix = torch.rand(n_pre, n_post, generator=torch.Generator().manual_seed(5)) < 0.4
        return CSR.from_dense(matrix.double())[0]
    return Identity(n_pre) if layout == "identity" else Dense(n_pre, n_post, order=layout)


def on_matrix(connect: Connectivity, weight: Tensor) -> Tensor:
    """The weights as a matrix ``(n_pre, n_post)``, NaN where there is no synapse."""
    exists = connect.to_dense(1.0) != 0
    return torch.where(exists, connect.to_dense(weight), torch.nan)
