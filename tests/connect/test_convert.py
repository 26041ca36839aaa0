"""Conversions among connectivity data, lists of synapses, torch.sparse and scipy.sparse."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from bdtorch import connect
from bdtorch.connect import CSR, Connectivity
from bdtorch.init import Normal


def make(name: str) -> tuple[Connectivity, Tensor]:
    generator = torch.Generator().manual_seed(4)
    kinds: dict[str, Callable[[], Connectivity]] = {
        "csr": lambda: connect.FixedProbability(0.3).build(9, 7, seed=1),
        "parallel": lambda: CSR.from_edges(torch.tensor([2, 0, 2, 2]), torch.tensor([1, 3, 1, 0]), 3, 4),
        "empty": lambda: connect.FixedProbability(0.0).build(9, 7),
        "identity": lambda: connect.OneToOne().build(6, 6),
        "dense": lambda: connect.AllToAll().build(5, 4),
        "no autapses": lambda: connect.AllToAll(autapses=False).build(4, 6, self_offset=1),
        "procedural p": lambda: connect.ProceduralProbability(0.3).build(9, 7, seed=2),
        "procedural n": lambda: connect.ProceduralNumberPre(3, weight=Normal(1.0, 0.5)).build(9, 7, seed=2),
        "fixed number pre": lambda: connect.FixedNumberPre(3).build(9, 7, seed=2),
        "fixed number post": lambda: connect.FixedNumberPost(3).build(9, 7, seed=2),
    }
    built = kinds[name]()
    return built, torch.randn(built.weight_shape, generator=generator, dtype=torch.float64)


NAMES = ["csr", "parallel", "empty", "identity", "dense", "no autapses", "procedural p", "procedural n",
         "fixed number pre", "fixed number post"]  # fmt: skip
every_kind = pytest.mark.parametrize("name", NAMES)
ROUNDS: dict[str, Callable[[Connectivity, Tensor], tuple[CSR, Tensor]]] = {
    "edges": lambda c, w: connect.from_edges(*(x.flip(0) for x in connect.to_edges(c, w)), c.n_pre, c.n_post),
    "torch csr": lambda c, w: connect.from_torch(connect.to_torch(c, w)),
    "torch csc": lambda c, w: connect.from_torch(connect.to_torch(c, w, layout=torch.sparse_csc)),
    "torch coo": lambda c, w: connect.from_torch(connect.to_torch(c, w, layout=torch.sparse_coo)),
    "torch strided": lambda c, w: connect.from_torch(c.to_dense(w)),
    "scipy csr": lambda c, w: connect.from_scipy(connect.to_scipy(c, w)),
    "scipy coo": lambda c, w: connect.from_scipy(connect.to_scipy(c, w).tocoo()),
    "scipy matrix": lambda c, w: connect.from_scipy(sparse.csc_matrix(connect.to_scipy(c, w))),
}  # fmt: skip


@every_kind
@pytest.mark.parametrize("way", ROUNDS)
def test_every_round_trip_keeps_the_matrix(name: str, way: str) -> None:
    c, w = make(name)
    csr, weights = ROUNDS[way](c, w)
    torch.testing.assert_close(csr.to_dense(weights), c.to_dense(w), rtol=1e-14, atol=1e-14)
    if name != "parallel":
        assert csr.synapses == c.synapses
        assert torch.equal(csr.indices, connect.as_csr(c, w)[0].indices)


@every_kind
def test_products_in_both_directions_are_those_of_one_matrix(name: str) -> None:
    c, w = make(name)
    matrix, generator = c.to_dense(w), torch.Generator().manual_seed(0)
    for batch in ((), (3,), (2, 2)):
        x = torch.randn(*batch, c.n_pre, generator=generator, dtype=torch.float64)
        y = torch.randn(*batch, c.n_post, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(c(x, w), x @ matrix, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(c(x > 0, w), (x > 0).double() @ matrix, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(c.transposed(y, w), y @ matrix.T, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(c.transposed(y > 0, w), (y > 0).double() @ matrix.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["csr", "parallel", "empty", "fixed number post"])
def test_the_transposed_view_shares_the_weights(name: str) -> None:
    c, w = make(name)
    assert isinstance(c, CSR)
    view, order = c.transpose()
    assert (view.n_pre, view.n_post) == (c.n_post, c.n_pre)
    torch.testing.assert_close(view.to_dense(w[order]), c.to_dense(w).T, rtol=0, atol=0)
    assert torch.equal(order.sort().values, torch.arange(c.synapses))
    again, back = view.transpose()
    assert torch.equal(again.indices, c.indices) and torch.equal(again.indptr, c.indptr)
    assert torch.equal(order[back], torch.arange(c.synapses))


def test_tables_of_a_fixed_number() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.stack([torch.randperm(8, generator=generator)[:3] for _ in range(5)])
    weight = torch.randn(5, 3, generator=generator)
    csr, weights = connect.from_targets(table, weight, 8)
    assert torch.equal(csr.to_dense(weights), torch.zeros(5, 8).scatter(1, table, weight))
    csr, weights = connect.from_sources(table, weight, 8)
    assert torch.equal(csr.to_dense(weights), torch.zeros(5, 8).scatter(1, table, weight).T)
    assert torch.equal(connect.from_targets(table, torch.tensor(2.0), 8)[1], torch.full((15,), 2.0))


def test_gradients_pass_through_the_weights() -> None:
    c, w = make("csr")
    w.requires_grad_()
    pre, post, weights = connect.to_edges(c, w)
    csr, ordered = connect.from_edges(pre.flip(0), post.flip(0), weights.flip(0), c.n_pre, c.n_post)
    factor = torch.arange(c.synapses, dtype=torch.float64)
    (csr.to_dense(ordered) * c.to_dense(factor)).sum().backward()
    assert torch.equal(w.grad, factor)


def test_scipy_products_agree() -> None:
    c, w = make("csr")
    x = np.random.default_rng(0).normal(size=9)
    np.testing.assert_allclose(c(torch.from_numpy(x), w).numpy(), x @ connect.to_scipy(c, w), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: connect.from_edges(i, i, torch.ones(2), 4, 4), r"from_edges\(weight=.*\(3,\).*\(2,\)"),
        (lambda i: connect.from_edges(i, i + 2, torch.ones(3), 4, 4), r"from_edges\(post=.*\[0, 4\)"),
        (lambda i: connect.from_edges(i, i, i / i * i, 4, 4), r"from_edges\(weight=.*nan at position 0"),
        (lambda i: connect.from_torch(torch.ones(3)), r"from_torch\(matrix=.*\(3,\)"),
        (lambda i: connect.to_torch(make("csr")[0], layout=torch.strided), r"to_torch\(layout=.*strided"),
        (lambda i: connect.from_targets(i, torch.ones(3), 4), r"from_targets\(targets=.*\(3,\)"),
        (lambda i: connect.from_sources(i[None].double(), torch.ones(3), 4), r"from_sources\(sources=.*float64"),
    ],
)
def test_errors_name_the_argument(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.tensor([0, 1, 2]))
