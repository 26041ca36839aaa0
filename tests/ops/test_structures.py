"""Structures that are none never reach a kernel: every door reads their values once, and again after a change."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops import csr

N_PRE, N_POST = 12, 30


def sound(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    connected = torch.rand(N_PRE, N_POST, generator=generator) < 0.4
    connected[5, :3] = True  # a row that is unsorted when reversed
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), connected.sum(1).cumsum(0)])
    return {"indices": connected.nonzero()[:, 1].to(torch.int32), "indptr": indptr}


def doors(n: int) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Every op on a CSR structure of n synapses, as a function of the structure."""
    pre, post, weights = torch.ones(N_PRE), torch.ones(N_POST), torch.ones(n)
    ring, delays = torch.zeros(3, N_POST), torch.zeros(n, dtype=torch.int32)
    order = torch.arange(n, dtype=torch.int32)
    return {
        "event_csr": lambda i, p: ops.event_csr(pre, weights, i, p, N_POST),
        "event_csr_t": lambda i, p: ops.event_csr_t(post, weights, i, p),
        "csr_outer": lambda i, p: ops.csr_outer(pre, post, i, p),
        "csr_outer, sampled": lambda i, p: ops.csr_sampled(pre[:, None], post[None], i, p),
        "event_csr_delayed": lambda i, p: ops.event_csr_delayed(ring, torch.tensor(1), pre, weights, i, p, delays),
        "eligibility_csr": lambda i, p: ops.eligibility_csr(weights, weights, pre, post, i, p),
        "plasticity_csr": lambda i, p: ops.plasticity_csr(weights, pre, post, None, i, p),
        "plasticity_csr, view": lambda i, p: ops.plasticity_csr(weights, pre, post, post, i, p, order),
    }


def malform(rng: random.Random, indices: Tensor, indptr: Tensor) -> tuple[Tensor, Tensor]:
    """One thing wrong, in values, length, dtype, shape or device."""
    k, row = torch.tensor([rng.randrange(len(indices))]), torch.tensor([rng.randrange(1, len(indptr) - 1)])
    return rng.choice([
        lambda: (indices.index_fill(0, k, -rng.randrange(1, 2**31)), indptr),
        lambda: (indices.index_fill(0, k, rng.randrange(N_POST, 2**31)), indptr),
        lambda: (indices.flip(0), indptr),
        lambda: (indices.long(), indptr),
        lambda: (indices.float(), indptr),
        lambda: (indices[None], indptr),
        lambda: (indices.to("meta"), indptr),
        lambda: (indices, indptr.index_fill(0, row, rng.randrange(2**40, 2**62))),
        lambda: (indices, indptr.index_fill(0, row, -rng.randrange(1, 2**62))),
        lambda: (indices, indptr.int().index_fill(0, row, rng.randrange(2**20, 2**31))),
        lambda: (indices, indptr + rng.randrange(1, 9)),
        lambda: (indices, indptr.flip(0)),
        lambda: (indices, indptr[: -rng.randrange(1, 3)]),
        lambda: (indices, torch.cat([indptr, indptr[-1:] + 1])),
        lambda: (indices, indptr[:0]),
        lambda: (indices, indptr.double()),
        lambda: (indices, indptr.to("meta")),
        lambda: (indices[: -rng.randrange(1, 9)], indptr),
    ])()  # fmt: skip


@pytest.mark.parametrize("name", doors(0))
def test_500_malformed_structures_are_refused_by_every_door(name: str) -> None:
    rng = random.Random(len(name))
    for seed in range(500):
        right = sound(seed)
        door = doors(len(right["indices"]))[name]
        door(right["indices"], right["indptr"])
        indices, indptr = malform(rng, **right)
        # What is as long as a structure that has become shorter names the error too.
        names = "indices|indptr|weights|spikes|x|e|decay|delays|synapses"
        with pytest.raises((ValueError, TypeError), match=rf"`{name.partition(',')[0]}\(({names})=\.\.\.\)`: expected"):
            door(indices, indptr)


@pytest.mark.parametrize("name", doors(0))
@pytest.mark.parametrize("inference", [False, True])
def test_a_change_in_place_is_noticed(name: str, inference: bool) -> None:
    with torch.inference_mode(inference):
        right = sound(0)
        indices, indptr = right["indices"].clone(), right["indptr"].clone()
        door = doors(len(indices))[name]
        before = door(indices, indptr)
        torch.testing.assert_close(door(indices, indptr), before)
        if inference:
            return  # changes of such tensors are not counted
        indices[3] = N_POST
        with pytest.raises(ValueError, match=rf"indices=...\)`: expected values in \[0, {N_POST}\), got {N_POST}"):
            door(indices, indptr)
        indices.copy_(right["indices"])
        door(indices, indptr)
        indptr[2] = -1
        with pytest.raises(ValueError, match=r"indptr=...\)`: expected ascending values"):
            door(indices, indptr)


def test_fewer_targets_than_before_are_noticed() -> None:
    right = sound(0)
    weights, spikes = torch.tensor(1.0), torch.ones(N_PRE)
    ops.event_csr(spikes, weights, **right, n_post=N_POST + 5)
    needed = int(right["indices"].max()) + 1
    ops.event_csr(spikes, weights, **right, n_post=needed)
    with pytest.raises(ValueError, match=rf"`event_csr\(indices=.*\[0, {needed - 1}\), got {needed - 1}"):
        ops.event_csr(spikes, weights, **right, n_post=needed - 1)


def test_values_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    right = sound(0)
    ops.check_csr(**right, n_post=N_POST)

    def read(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(csr, "_expect_rows", read)
    for door in doors(len(right["indices"])).values():
        door(right["indices"], right["indptr"])
    with pytest.raises(AssertionError, match="read again"):
        ops.event_csr(torch.ones(N_PRE), torch.ones(()), right["indices"].clone(), right["indptr"], N_POST)


def test_structures_that_are_gone_are_forgotten() -> None:
    before = len(csr._known)
    for seed in range(20):
        ops.check_csr(**sound(seed), n_post=N_POST)
    assert len(csr._known) <= before + 1
