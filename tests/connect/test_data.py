"""Connectivity data: products against the dense matrix, and structure that is checked at the door."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch.connect import CSR, Connectivity, Dense, FixedProbability, Identity


def _matrix() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(7, 9, generator=generator, dtype=torch.float64)
    return matrix * (torch.rand(7, 9, generator=generator) < 0.4)


KINDS = [
    pytest.param(lambda: CSR.from_dense(_matrix())[0], id="CSR"),
    pytest.param(lambda: Identity(7), id="Identity"),
    pytest.param(lambda: Dense(7, 9), id="Dense"),
    pytest.param(lambda: Dense(7, 9, self_offset=0), id="Dense-0"),
    pytest.param(lambda: Dense(7, 9, self_offset=2), id="Dense-2"),
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["spikes", "rates"])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_the_product_is_the_dense_one(make: Any, weighted: bool, kind: str, batch: tuple[int, ...]) -> None:
    connect: Connectivity = make()
    generator = torch.Generator().manual_seed(3)
    shape = connect.weight_shape if weighted else ()
    weight = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn((*batch, connect.n_pre), generator=generator, dtype=torch.float64)
    x = x > 0 if kind == "spikes" else x
    got = connect(x, weight)
    want = x.double() @ connect.to_dense(weight)
    assert got.shape == (*batch, connect.n_post) and got.dtype == torch.float64
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
    direction = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    (a,) = torch.autograd.grad(got, weight, direction, retain_graph=True)
    (b,) = torch.autograd.grad(want, weight, direction)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("make", KINDS)
def test_sizes(make: Any) -> None:
    connect: Connectivity = make()
    assert int((connect.to_dense() != 0).sum()) == connect.synapses
    assert connect.to_dense().shape == (connect.n_pre, connect.n_post)
    with torch.no_grad():
        total = connect(torch.ones(connect.n_pre), torch.ones(()))
    torch.testing.assert_close(total, connect.to_dense().sum(0))


def test_dense_and_edges_round_trip() -> None:
    matrix = _matrix()
    csr, weight = CSR.from_dense(matrix)
    assert torch.equal(csr.to_dense(weight), matrix)
    shuffle = torch.randperm(csr.synapses, generator=torch.Generator().manual_seed(0))
    again = CSR.from_edges(csr.rows[shuffle], csr.indices.long()[shuffle], 7, 9)
    assert torch.equal(again.indices, csr.indices) and torch.equal(again.indptr, csr.indptr)


def test_several_synapses_of_a_pair_add() -> None:
    csr = CSR.from_edges(torch.tensor([1, 1, 0]), torch.tensor([2, 2, 0]), 2, 3)
    assert csr.synapses == 3
    assert csr.to_dense().tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
    assert csr(torch.tensor([False, True]), torch.tensor(0.5)).tolist() == [0.0, 0.0, 1.0]


def test_empty_structures() -> None:
    none = torch.empty(0, dtype=torch.int64)
    csr = CSR.from_edges(none, none, 3, 4)
    assert csr.synapses == 0 and csr(torch.ones(3), torch.tensor(1.0)).tolist() == [0.0] * 4


@pytest.mark.parametrize("batch", [(3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("make", [kind for kind in KINDS if "0" not in str(kind.id) and "2" not in str(kind.id)])
def test_weights_of_every_sample(make: Any, batch: tuple[int, ...]) -> None:
    """As plastic ones are: both directions, spikes and values, and what a rule changes is seen by both."""
    connect: Connectivity = make()
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(*batch, *connect.weight_shape, generator=generator)
    pre, post = (torch.randn(*batch, n, generator=generator) for n in (connect.n_pre, connect.n_post))
    changed = connect.on_post(connect.on_pre(weight, pre > 0, post), post > 0, pre)
    for w in (weight, changed):
        for x, y in ((pre, post), (pre > 0, post > 0)):
            forward, transposed = connect(x, w), connect.transposed(y, w)
            assert forward.shape == post.shape and transposed.shape == pre.shape
            for index in itertools.product(*map(range, batch)):
                dense = connect.to_dense(w[index])
                torch.testing.assert_close(forward[index], x[index].float() @ dense, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(transposed[index], dense @ y[index].float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [*KINDS, pytest.param(lambda: Dense(211, 307, order="post"), id="Dense-post")])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("event", [False, True])
def test_a_batch_equals_its_samples_to_the_bit(make: Any, shared: bool, event: bool) -> None:
    connect: Connectivity = make()
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(() if shared else connect.weight_shape, generator=generator)
    pre, post = (torch.randn(33, n, generator=generator) for n in (connect.n_pre, connect.n_post))
    pre, post = (pre > 0, post > 0) if event else (pre.relu(), post)
    forward, transposed = connect(pre, weight), connect.transposed(post, weight)
    for b in range(33):
        assert torch.equal(forward[b], connect(pre[b], weight))
        assert torch.equal(transposed[b], connect.transposed(post[b], weight))


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_weights_in_bfloat16(make: Any, shared: bool) -> None:
    """Stored in two bytes, summed in float32; changes are rounded."""
    connect: Connectivity = make()
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(() if shared else connect.weight_shape, generator=generator).bfloat16()
    dense = connect.to_dense(weight.float())
    for batch in ((), (2, 3)):
        pre, post = (torch.randn(*batch, n, generator=generator) for n in (connect.n_pre, connect.n_post))
        for x, y in ((pre, post), (pre > 0, post > 0)):
            forward, transposed = connect(x, weight), connect.transposed(y, weight)
            assert forward.dtype == transposed.dtype == torch.float32
            torch.testing.assert_close(forward, x.float() @ dense, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(transposed, y.float() @ dense.T, rtol=1e-5, atol=1e-5)
    if shared:
        return
    spikes, a = torch.rand(connect.n_pre, generator=generator) < 0.5, torch.randn(connect.n_post, generator=generator)
    got, want = connect.on_pre(weight, spikes, a, low=-1.0), connect.on_pre(weight.float(), spikes, a, low=-1.0)
    assert got.dtype == torch.bfloat16 and torch.equal(got, want.bfloat16())


def test_bad_edges() -> None:
    with pytest.raises(ValueError, match=r"`CSR.from_edges\(post=...\)`: expected indices in \[0, 3\), got 0 to 3"):
        CSR.from_edges(torch.tensor([0, 1]), torch.tensor([0, 3]), 2, 3)
    with pytest.raises(ValueError, match=r"`CSR.from_edges\(pre=...\)`: expected indices in \[0, 2\), got -1 to 1"):
        CSR.from_edges(torch.tensor([-1, 1]), torch.tensor([0, 1]), 2, 3)
    with pytest.raises(ValueError, match=r"`CSR.from_edges.*`: expected two vectors of equal length, got shapes"):
        CSR.from_edges(torch.tensor([0]), torch.tensor([0, 1]), 2, 3)
    with pytest.raises(ValueError, match=r"`CSR.from_dense\(matrix=...\)`: expected 2 axes, got shape \(3,\)"):
        CSR.from_dense(torch.ones(3))


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_bad_sizes(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"`Dense\(n_post=...\)`: expected a positive integer"):
        Dense(3, bad)
    with pytest.raises(ValueError, match=r"`Identity\(n_pre=...\)`: expected a positive integer"):
        Identity(bad)


@pytest.mark.parametrize("pre", [(2, 3), "many"])
def test_a_size_has_one_axis(pre: Any) -> None:
    with pytest.raises(ValueError, match=r"`Dense\(n_pre=...\)`: expected a positive integer"):
        Dense(pre, 3)


def test_bad_csr() -> None:
    indptr = torch.tensor([0, 1, 3])
    CSR(torch.tensor([0, 1, 2], dtype=torch.int32), indptr, 3)
    for indices in ([0, 2, 1], [0, 1, 3], [-1, 1, 2]):
        with pytest.raises(ValueError, match=r"indices=...\)`: expected"):
            CSR(torch.tensor(indices, dtype=torch.int32), indptr, 3)
    with pytest.raises(TypeError, match=r"indices=...\)`: expected"):
        CSR(torch.tensor([0.0, 1.0, 2.0]), indptr, 3)
    for wrong in ([0, 3, 1], [0, 1, 4], [1, 1, 3]):
        with pytest.raises(ValueError, match=r"indptr=...\)`: expected"):
            CSR(torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor(wrong), 3)


def test_state_dict_holds_the_structure() -> None:
    one, other = (FixedProbability(0.5).build(6, 6, seed=seed) for seed in (1, 1))
    assert set(one.state_dict()) == {"indices", "indptr"}
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.to_dense(), other.to_dense())
