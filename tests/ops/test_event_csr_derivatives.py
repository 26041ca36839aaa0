"""Derivatives, transforms and compilation of the event-driven CSR ops, against the dense product."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, func
from torch._dynamo.backends.common import aot_autograd
from torch.fx.experimental.proxy_tensor import make_fx

from bdtorch import ops

Bilinear = Callable[[Tensor, Tensor], Tensor]


class Pair(NamedTuple):
    """One of the ops as a bilinear function of two tensors, and the same function by dense products."""

    op: Bilinear
    dense: Bilinear
    a: Tensor
    b: Tensor
    overload: torch._ops.OpOverload
    structure: tuple[Tensor | int, ...]  # the further arguments of op and overload


def make_pair(
    name: str, *, shared: bool = False, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float64
) -> Pair:
    n_pre, n_post = 12, 9
    generator = torch.Generator().manual_seed(0)
    connected = torch.rand(n_pre, n_post, generator=generator) < 0.4
    rows, columns = connected.nonzero(as_tuple=True)
    indices = columns.to(torch.int32)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), connected.sum(1).cumsum(0)])

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    def dense(weights: Tensor) -> Tensor:
        return torch.zeros(n_pre, n_post, dtype=dtype).index_put((rows, columns), weights.expand(len(rows)))

    weights = values() if shared else values(len(rows))
    pre, post = values(*batch, n_pre), values(*batch, n_post)

    def outer(x: Tensor, g: Tensor) -> Tensor:
        return (x[..., rows] * g[..., columns]).reshape(-1, len(rows)).sum(0)

    door, overload = getattr(ops, name), getattr(torch.ops.bdtorch, name).default
    structure = (indices, indptr, n_post) if name == "event_csr" else (indices, indptr)
    dense_form, a, b = {
        "event_csr": (lambda s, w: s @ dense(w), pre, weights),
        "event_csr_t": (lambda s, w: s @ dense(w).T, post, weights),
        "csr_outer": (outer, pre, post),
    }[name]
    return Pair(lambda a, b: door(a, b, *structure), dense_form, a, b, overload, structure)


CASES = [("event_csr", False), ("event_csr", True), ("event_csr_t", False), ("event_csr_t", True), ("csr_outer", False)]


@pytest.mark.parametrize("batch", [(), (2,), (2, 1)], ids=str)
@pytest.mark.parametrize(("name", "shared"), CASES)
def test_gradcheck(name: str, shared: bool, batch: tuple[int, ...]) -> None:
    pair = make_pair(name, shared=shared, batch=batch)
    inputs = (pair.a.requires_grad_(), pair.b.requires_grad_())
    assert torch.autograd.gradcheck(pair.op, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(pair.op, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize(("name", "shared"), CASES)
def test_silent_neurons_receive_the_gradient_of_the_product(name: str, shared: bool) -> None:
    pair = make_pair(name, shared=shared, batch=(2,))
    inputs = (pair.a.relu().requires_grad_(), pair.b.requires_grad_())
    gradients = [torch.autograd.grad(f(*inputs).sin().sum(), inputs) for f in (pair.op, pair.dense)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("name", "shared"), CASES)
def test_events_carry_a_gradient_to_the_other_argument_only(name: str, shared: bool) -> None:
    pair = make_pair(name, shared=shared, batch=(2,))
    events, other = pair.a > 0, pair.b.requires_grad_()
    (actual,) = torch.autograd.grad(pair.op(events, other).sin().sum(), other)
    (expected,) = torch.autograd.grad(pair.dense(events.double(), other).sin().sum(), other)
    torch.testing.assert_close(actual, expected)
    at, along = (other.detach(),), (other.detach().cos(),)
    expected_tangent = func.jvp(lambda b: pair.dense(events.double(), b), at, along)
    torch.testing.assert_close(func.jvp(lambda b: pair.op(events, b), at, along), expected_tangent)


def loss(f: Bilinear) -> Bilinear:
    return lambda a, b: f(a, b).pow(3).sum()


def samples(a: Tensor) -> Tensor:
    return torch.stack([a, 2 * a, -a])


TRANSFORMS: dict[str, Callable[[Bilinear], Callable]] = {
    "grad a": lambda f: func.grad(loss(f)),
    "grad b": lambda f: func.grad(loss(f), 1),
    "vmap a": lambda f: lambda a, b: func.vmap(f, (0, None))(samples(a), b),
    "vmap b": lambda f: lambda a, b: func.vmap(f, (None, 0))(a, samples(b)),
    "vmap both": lambda f: lambda a, b: func.vmap(f)(samples(a), samples(b)),
    "vmap last": lambda f: lambda a, b: func.vmap(f, (-1, None))(samples(a).movedim(0, -1), b),
    "vmap vmap": lambda f: lambda a, b: func.vmap(lambda x: func.vmap(f, (0, None))(samples(x), b))(samples(a)),
    "vmap grad a": lambda f: lambda a, b: func.vmap(func.grad(loss(f)), (0, None))(samples(a), b),
    "vmap grad b": lambda f: lambda a, b: func.vmap(func.grad(loss(f), 1), (0, None))(samples(a), b),
    "grad vmap": lambda f: func.grad(lambda a, b: func.vmap(f, (0, None))(samples(a), b).pow(3).sum()),
    "grad grad": lambda f: func.grad(lambda a, b: func.grad(loss(f), 1)(a, b).pow(2).sum()),
    "jacrev": lambda f: func.jacrev(f, (0, 1)),
    "jacfwd": lambda f: func.jacfwd(f, (0, 1)),
    "hessian": lambda f: func.hessian(loss(f), (0, 1)),
    "jvp": lambda f: lambda a, b: func.jvp(f, (a, b), (a.cos(), b.sin())),
    "vjp": lambda f: lambda a, b: func.vjp(f, a, b)[1](f(a, b).cos()),
}
FORWARD_MODE = ("jacfwd", "hessian", "jvp")  # torch.compile of forward mode raises in torch 2.13


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("name", "shared"), CASES)
def test_transforms(name: str, shared: bool, transform: str) -> None:
    pair = make_pair(name, shared=shared)
    apply = TRANSFORMS[transform]
    torch.testing.assert_close(apply(pair.op)(pair.a, pair.b), apply(pair.dense)(pair.a, pair.b))


@pytest.mark.parametrize("transform", [name for name in TRANSFORMS if name not in FORWARD_MODE])
@pytest.mark.parametrize("name", ["event_csr", "event_csr_t", "csr_outer"])
def test_compiled_transforms(name: str, transform: str) -> None:
    torch._dynamo.reset()
    pair = make_pair(name)
    apply = TRANSFORMS[transform]
    compiled = torch.compile(apply(pair.op), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pair.a, pair.b), apply(pair.dense)(pair.a, pair.b))


def test_vmap_over_the_structure() -> None:
    n_post = 4
    connected = torch.tensor([[[1, 0, 1, 0], [0, 1, 1, 0]], [[0, 0, 0, 1], [1, 1, 1, 0]]], dtype=torch.bool)
    indices = torch.stack([c.nonzero()[:, 1].to(torch.int32) for c in connected])
    indptr = torch.stack([torch.cat([torch.zeros(1, dtype=torch.int64), c.sum(1).cumsum(0)]) for c in connected])
    spikes = torch.tensor([True, True])
    y = func.vmap(lambda i, p: ops.event_csr(spikes, torch.tensor(2.0), i, p, n_post))(indices, indptr)
    assert torch.equal(y, 2.0 * connected.sum(1))


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize("event", [True, False])
@pytest.mark.parametrize(("name", "shared"), CASES)
def test_opcheck(name: str, shared: bool, event: bool, batch: tuple[int, ...]) -> None:
    pair = make_pair(name, shared=shared, batch=batch)
    a = pair.a > 0 if event else pair.a.requires_grad_()
    overloads = [pair.overload, *([torch.ops.bdtorch.event_csr_ordered.default] if name == "event_csr" else [])]
    for overload in overloads:
        torch.library.opcheck(overload, (a, pair.b.requires_grad_(), *pair.structure))


@pytest.mark.parametrize("name", ["event_csr", "event_csr_t", "csr_outer"])
def test_compiled_graphs_hold_the_raw_op(name: str) -> None:
    torch._dynamo.reset()
    pair = make_pair(name)
    called: list[str] = []

    def record(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        called.extend(node.target._opname for node in graph.graph.nodes if hasattr(node.target, "_opname"))
        return make_boxed_func(graph.forward)

    compiled = torch.compile(pair.op, fullgraph=True, backend=aot_autograd(fw_compiler=record))
    torch.testing.assert_close(compiled(pair.a, pair.b), pair.dense(pair.a, pair.b))
    assert called == [f"_{name}_raw"]


def test_traced_graphs_hold_the_raw_op() -> None:
    pair = make_pair("event_csr")
    graph = make_fx(pair.op)(pair.a, pair.b).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [
        torch.ops.bdtorch._event_csr_raw.default
    ]


@pytest.mark.parametrize("dynamic", [False, True])
def test_inductor_trains_through_a_step(dynamic: bool) -> None:
    torch._dynamo.reset()
    pair = make_pair("event_csr", dtype=torch.float32)

    def step(v: Tensor, spikes: Tensor, weights: Tensor) -> Tensor:
        return 0.9 * v + pair.op(spikes, weights)

    v = torch.linspace(-1.0, 1.0, 9)
    spikes, weights = pair.a.requires_grad_(), pair.b.requires_grad_()
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    gradients = [torch.autograd.grad(f(v, spikes, weights).pow(2).sum(), (spikes, weights)) for f in (compiled, step)]
    torch.testing.assert_close(*gradients)


def test_export() -> None:
    pair = make_pair("event_csr")

    class Model(torch.nn.Module):
        def forward(self, spikes: Tensor, weights: Tensor) -> Tensor:
            return pair.op(spikes, weights)

    program = torch.export.export(Model(), (pair.a, pair.b))
    torch.testing.assert_close(program.module()(pair.a, pair.b), pair.dense(pair.a, pair.b))
