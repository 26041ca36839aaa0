"""Derivatives, transforms and compilation of dense event products and of changes of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from bdtorch import ops
from bdtorch.connect import CSR
from tests.ops.test_event_csr_derivatives import FORWARD_MODE, TRANSFORMS

LOW, HIGH = -0.8, 0.9


class Case(NamedTuple):
    """An op as a function of floating tensors, the same function in plain torch, and the overload's arguments."""

    op: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    overload: torch._ops.OpOverload
    further: tuple[object, ...]


def changed(w: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(s != 0, (w + s * (a + b * w)).clamp(LOW, HIGH), w)


def make_case(name: str, batch: tuple[int, ...] = (), *, silent: bool = False) -> Case:
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64) * 0.5

    rows, columns, matrix = values(4), values(3), values(4, 3)
    if silent:
        rows, columns = rows.relu(), columns.relu()
    if name == "event_dense":
        inputs = (rows, matrix)
        return Case(ops.event_dense, lambda s, m: (s.unsqueeze(-2) @ m).squeeze(-2), inputs, _overload(name), ())
    if name == "event_dense_t":
        inputs = (columns, matrix)
        return Case(ops.event_dense_t, lambda s, m: (m @ s.unsqueeze(-1)).squeeze(-1), inputs, _overload(name), ())
    by_columns = name.endswith("columns")
    spikes, a, b = (columns, values(4), values(4)) if by_columns else (rows, values(3), values(3))
    of_spikes, of_terms = (-2, -1) if by_columns else (-1, -2)
    if name.startswith("dense"):
        return Case(
            lambda w, s, a, b: ops.plasticity_dense(w, s, a, b, low=LOW, high=HIGH, columns=by_columns),
            lambda w, s, a, b: changed(w, s.unsqueeze(of_spikes), a.unsqueeze(of_terms), b.unsqueeze(of_terms)),
            (matrix, spikes, a, b), _overload("plasticity_dense"), (LOW, HIGH, by_columns),
        )  # fmt: skip
    csr = CSR.from_dense((torch.rand(4, 3, generator=generator) < 0.6).double())[0]
    order = None
    row_of, column_of = csr.rows, csr.indices.long()
    structure = csr
    if by_columns:
        structure, order = csr.transpose()
        row_of, column_of, order = column_of, row_of, order.to(torch.int32)
    arguments = (structure.indices, structure.indptr, order)
    return Case(
        lambda w, s, a, b: ops.plasticity_csr(w, s, a, b, *arguments, low=LOW, high=HIGH),
        lambda w, s, a, b: changed(w, s[..., row_of], a[..., column_of], b[..., column_of]),
        (values(csr.synapses), spikes, a, b), _overload("plasticity_csr"), (*arguments, LOW, HIGH),
    )  # fmt: skip


def _overload(name: str) -> torch._ops.OpOverload:
    return getattr(torch.ops.bdtorch, name).default


PRODUCTS = ["event_dense", "event_dense_t"]
CHANGES = ["dense rows", "dense columns", "csr rows", "csr columns"]


@pytest.mark.parametrize("batch", [(), (2,), (2, 1)], ids=str)
@pytest.mark.parametrize("name", PRODUCTS + CHANGES)
def test_gradcheck(name: str, batch: tuple[int, ...]) -> None:
    case = make_case(name, batch)
    inputs = tuple(x.requires_grad_() for x in case.inputs)
    assert torch.autograd.gradcheck(case.op, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(case.op, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", PRODUCTS)
def test_one_matrix_for_a_batch(name: str) -> None:
    case = make_case(name, (3,))
    inputs = (case.inputs[0].requires_grad_(), case.inputs[1][0].clone().requires_grad_())
    assert torch.autograd.gradcheck(case.op, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(case.op, inputs)


@pytest.mark.parametrize("name", PRODUCTS + CHANGES)
def test_events_and_silence(name: str) -> None:
    """Silent neurons receive the gradient of the product, and of the change; events give none to spikes."""
    case = make_case(name, (2,), silent=True)
    inputs = [x.requires_grad_() for x in case.inputs]
    number = 0 if name in PRODUCTS else 1
    if name in PRODUCTS:
        gradients = torch.autograd.grad(case.op(*inputs).sin().sum(), inputs)
        torch.testing.assert_close(gradients, torch.autograd.grad(case.plain(*inputs).sin().sum(), inputs))
    else:
        inside = case.inputs[0].clamp(LOW + 0.05, HIGH - 0.05).detach().requires_grad_()
        small = torch.where(inputs[1] == 0, 1e-12, inputs[1]).detach().requires_grad_()  # an event of next to no size
        silent, tiny = ([inside, s, *inputs[2:]] for s in (inputs[1], small))
        gradients, wanted = (torch.autograd.grad(case.op(*x).sin().sum(), x) for x in (silent, tiny))
        torch.testing.assert_close(gradients, wanted, rtol=1e-8, atol=1e-8)
    event = [x > 0 if k == number else x for k, x in enumerate(inputs)]
    rest = [x for k, x in enumerate(event) if k != number]
    plain = [x.double() if k == number else x for k, x in enumerate(event)]
    got = torch.autograd.grad(case.op(*event).sin().sum(), rest)
    torch.testing.assert_close(got, torch.autograd.grad(case.plain(*plain).sin().sum(), rest))


def pairs(name: str) -> list[tuple[Callable[..., Tensor], Callable[..., Tensor], Tensor, Tensor]]:
    """The op as functions of two of its tensors."""
    case = make_case(name)
    if name in PRODUCTS:
        return [(case.op, case.plain, *case.inputs)]
    w, s, a, b = case.inputs
    return [
        (lambda w, s: case.op(w, s, a, b), lambda w, s: case.plain(w, s, a, b), w, s),
        (lambda a, b: case.op(w, s, a, b), lambda a, b: case.plain(w, s, a, b), a, b),
    ]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", PRODUCTS + CHANGES)
def test_transforms(name: str, transform: str) -> None:
    for op, plain, a, b in pairs(name):
        apply = TRANSFORMS[transform]
        torch.testing.assert_close(apply(op)(a, b), apply(plain)(a, b))


@pytest.mark.parametrize("transform", [name for name in TRANSFORMS if name not in FORWARD_MODE])
@pytest.mark.parametrize("name", ["event_dense", "dense columns", "csr columns"])
def test_compiled_transforms(name: str, transform: str) -> None:
    torch._dynamo.reset()
    op, plain, a, b = pairs(name)[0]
    apply = TRANSFORMS[transform]
    compiled = torch.compile(apply(op), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, b), apply(plain)(a, b))


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize("event", [True, False])
@pytest.mark.parametrize("name", PRODUCTS + CHANGES)
def test_opcheck(name: str, event: bool, batch: tuple[int, ...]) -> None:
    case = make_case(name, batch)
    number = 0 if name in PRODUCTS else 1
    arguments = [x > 0 if event and k == number else x.requires_grad_() for k, x in enumerate(case.inputs)]
    torch.library.opcheck(case.overload, (*arguments, *case.further))


@pytest.mark.parametrize("name", PRODUCTS + CHANGES)
def test_compiled_graphs_hold_the_raw_op(name: str) -> None:
    torch._dynamo.reset()
    case = make_case(name)
    called: list[str] = []

    def record(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        called.extend(node.target._opname for node in graph.graph.nodes if hasattr(node.target, "_opname"))
        return make_boxed_func(graph.forward)

    compiled = torch.compile(case.op, fullgraph=True, backend=aot_autograd(fw_compiler=record))
    torch.testing.assert_close(compiled(*case.inputs), case.plain(*case.inputs))
    assert called == [f"_{case.overload._opname}_raw"]


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize("name", PRODUCTS + CHANGES)
def test_gradients_of_weights_in_bfloat16(name: str, batch: tuple[int, ...]) -> None:
    """Those of the same weights in float32, and rounded for the weights; tangents likewise."""
    case = make_case(name, batch)
    number = 1 if name in PRODUCTS else 0
    inputs = [x.float().requires_grad_() for x in case.inputs]
    stored = inputs[number].detach().bfloat16().requires_grad_()
    inputs[number] = stored.detach().float().requires_grad_()
    low = [stored if k == number else x for k, x in enumerate(inputs)]
    out, wide = case.op(*low), case.op(*inputs)
    assert out.dtype == (torch.float32 if name in PRODUCTS else torch.bfloat16)
    torch.testing.assert_close(out, wide.to(out.dtype), rtol=0, atol=0)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    got, want = torch.autograd.grad(out, low, direction), torch.autograd.grad(wide, inputs, direction.float())
    for x, y in zip(got, want, strict=True):
        assert x.dtype in (torch.float32, torch.bfloat16)
        torch.testing.assert_close(x, y.to(x.dtype), rtol=1e-5, atol=1e-6)
    tangents = tuple(x.detach().cos() for x in low)
    _, got_tangent = torch.func.jvp(case.op, tuple(x.detach() for x in low), tangents)
    wide_tangents = tuple(x.float() for x in tangents)
    _, want_tangent = torch.func.jvp(case.op, tuple(x.detach() for x in inputs), wide_tangents)
    torch.testing.assert_close(got_tangent, want_tangent.to(out.dtype), rtol=1e-2, atol=1e-2)
    mapped = torch.func.vmap(case.op)(*(torch.stack([x.detach(), -x.detach()]) for x in low))
    assert torch.equal(mapped[0], out.detach()) and mapped.dtype == out.dtype
    arguments = [x.detach().requires_grad_() for x in low]
    torch.library.opcheck(case.overload, (*arguments, *case.further))
