"""All to all between groups, against the dense matrix."""

from __future__ import annotations

import pytest
import torch

import bdtorch as bt
from bdtorch.connect import Groups


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
@pytest.mark.parametrize("kind", ["spikes", "values"])
def test_products_equal_those_of_the_matrix(batch: tuple[int, ...], kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    connect = Groups((2, 1, 4), (3, 5))
    weight = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    for method, n in ((connect.forward, 7), (connect.transposed, 8)):
        x = torch.randn(*batch, n, generator=generator, dtype=torch.float64)
        x = x > 0 if kind == "spikes" else x
        dense = connect.to_dense(weight)
        matrix = dense if method == connect.forward else dense.mT
        torch.testing.assert_close(method(x, weight), x.double() @ matrix)


def test_a_number_is_the_weight_of_all_pairs() -> None:
    connect = Groups((2, 1), (4,))
    assert (connect.n_pre, connect.n_post, connect.synapses, connect.weight_shape) == (3, 4, 12, (2, 1))
    x = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(connect(x, torch.tensor(0.5)), torch.full((4,), 3.0))


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(2)
    connect = Groups((2, 3), (1, 2))
    x = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(connect, (x, weight))


def test_cost_is_linear() -> None:
    """A matrix of these sizes would take 40 GB."""
    connect = Groups((50_000, 50_000), (100_000,))
    y = connect(torch.ones(100_000), torch.tensor([[1e-5], [3e-5]]))
    torch.testing.assert_close(y, torch.full((100_000,), 2.0))


@pytest.mark.parametrize(("sources", "targets", "name"), [((2, 0), (1,), "sources"), ((1,), (), "targets")])
def test_sizes_are_positive(sources: tuple[int, ...], targets: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=rf"`Groups\({name}=...\)`: expected positive integers"):
        Groups(sources, targets)


def test_weights_shared_by_groups_are_not_plastic_and_have_one_delay() -> None:
    cell = bt.neurons.LIF(3)
    for slots in ({"plasticity": bt.plasticity.PairSTDP(0.1, 0.1)}, {"delay": torch.full((3, 3), 1.0)}):
        projection = bt.Projection(Groups((1, 2), (1, 2)), **slots)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="expected connectivity that stores its synapses, got Groups"):
            bt.Network({"E": cell}, {("E", "E"): projection})
