"""Segment reductions and gathers against masks over all pairs, with their derivatives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, func

from bdtorch import ops

N, SYNAPSES = 6, 19
OPS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    name: getattr(ops, f"segment_{name}") for name in ("sum", "mean", "max", "min", "softmax")
}


def members(index: Tensor, n: int) -> Tensor:
    """(n, synapses): whether the synapse belongs to the segment."""
    return index == torch.arange(n)[:, None]


def dense(name: str, values: Tensor, index: Tensor, n: int) -> Tensor:
    inside = members(index, n)
    spread = values.unsqueeze(-2).expand(*values.shape[:-1], n, len(index))
    if name == "softmax":
        return torch.where(inside, torch.where(inside, spread, -torch.inf).softmax(-1), 0.0).sum(-2)
    if name in ("max", "min"):
        worst = -torch.inf if name == "max" else torch.inf
        return getattr(torch.where(inside, spread, worst), f"a{name}")(-1)
    total = torch.where(inside, spread, 0.0).sum(-1)
    return total / inside.sum(-1).clamp(min=1) if name == "mean" else total


def problem(batch: tuple[int, ...] = (), dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(0, N - 1, (SYNAPSES,), generator=generator)  # the last segment is empty
    return torch.randn((*batch, SYNAPSES), generator=generator, dtype=torch.float64), index.to(dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("name", OPS)
def test_reductions_equal_those_over_masks(name: str, batch: tuple[int, ...], dtype: torch.dtype) -> None:
    values, index = problem(batch, dtype)
    torch.testing.assert_close(OPS[name](values, index, N), dense(name, values, index, N), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", OPS)
def test_no_synapses_and_no_segments(name: str) -> None:
    empty, none = torch.zeros(2, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    assert OPS[name](empty, none, 0).shape == (2, 0)
    if name != "softmax":
        assert OPS[name](empty, none, 3).tolist() == [[{"max": -torch.inf, "min": torch.inf}.get(name, 0.0)] * 3] * 2


@pytest.mark.parametrize("name", OPS)
def test_derivatives_in_both_modes_and_twice(name: str) -> None:
    values, index = problem()
    values.requires_grad_()

    def reduce(v: Tensor) -> Tensor:
        out = OPS[name](v, index, N)
        return out[: N - 1] if name in ("max", "min") else out  # the empty segment is infinite

    assert torch.autograd.gradcheck(reduce, values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda v: reduce(v) ** 2, values)
    assert torch.allclose(func.jacrev(reduce)(values), func.jacfwd(reduce)(values))
    batch = torch.stack([values.detach(), 2 * values.detach()])
    assert torch.equal(func.vmap(reduce)(batch), torch.stack([reduce(v) for v in batch]))
    compiled = torch.compile(reduce, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(values), reduce(values))


def test_equal_values_share_the_gradient_of_a_maximum() -> None:
    values = torch.tensor([2.0, 5.0, 5.0, torch.inf], requires_grad=True)
    highest = ops.segment_max(values, torch.tensor([0, 0, 0, 1]), 2)
    assert highest.tolist() == [5.0, torch.inf]
    highest[0].backward()
    assert values.grad is not None and values.grad.tolist() == [0.0, 0.5, 0.5, 0.0]


def test_softmax_of_large_values() -> None:
    p = ops.segment_softmax(torch.tensor([1000.0, 1000.0, -1000.0]), torch.tensor([0, 0, 1]), 2)
    assert p.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_gathers(reduce: str) -> None:
    _, post = problem()
    generator = torch.Generator().manual_seed(5)
    pre = torch.randint(0, 4, (SYNAPSES,), generator=generator, dtype=torch.int32)
    x = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    assert torch.equal(ops.pre2syn(x, pre), x[:, pre.long()])
    want = dense(reduce, x[:, pre.long()], post, N)
    torch.testing.assert_close(ops.pre2post(x, pre, post, N, reduce), want, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(ops.syn2post(x[:, pre.long()], post, N, reduce), want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda v, i: ops.segment_sum(v, i.double(), N), TypeError, r"segment_sum\(index=.*float64"),
        (lambda v, i: ops.segment_max(v, i[:3], N), ValueError, r"segment_max\(values=.*\(\*batch, 3\).*\(19,\)"),
        (lambda v, i: ops.segment_mean(v.long(), i, N), TypeError, r"segment_mean\(values=.*int64"),
        (lambda v, i: ops.segment_softmax(v, i, -1), ValueError, r"segment_softmax\(n=.*-1"),
        (lambda v, i: ops.segment_min(v, i.to("meta"), N), ValueError, r"segment_min\(index=.*cpu.*meta"),
        (lambda v, i: ops.syn2post(v, i, N, "prod"), ValueError, r"syn2post\(reduce=.*'prod'"),
        (lambda v, i: ops.pre2syn(v, i[None]), ValueError, r"pre2syn\(pre=.*\(1, 19\)"),
        (lambda v, i: ops.segment_sum(v, i + N, N), (IndexError, RuntimeError), "index"),
        (lambda v, i: ops.segment_max(v, i + N, N), (IndexError, RuntimeError), "index"),
    ],
)  # fmt: skip
def test_errors(call: Callable, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(*problem())
