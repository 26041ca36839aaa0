"""Derivatives, transforms and compilation of the products with procedural matrices, against the dense product."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, func
from torch._dynamo.backends.common import aot_autograd

from bdtorch import ops

Product = Callable[[Tensor, Tensor, Tensor], Tensor]


class Case(NamedTuple):
    """A product as a function of spikes, offset and scale, the same by dense matrices, and arguments for both."""

    op: Product
    dense: Product
    arguments: tuple[Tensor, Tensor, Tensor]
    overload: torch._ops.OpOverload
    matrix: ops.ProceduralMatrix


CASES = [
    ("event", "p", "normal"),
    ("event", "number", "uniform"),
    ("gather", "p", "uniform"),
    ("gather", "number", "none"),
]


def make_case(name: str, law: str, draws: str, batch: tuple[int, ...] = ()) -> Case:
    matrix = ops.ProceduralMatrix(
        12, 9, 5, **({"p": 0.4} if law == "p" else {"number": 4}), draws=draws, self_offset=-2
    )
    indptr, targets, numbers = ops.procedural_rows(torch.arange(12), matrix)
    at = torch.repeat_interleave(torch.arange(12), indptr.diff()), targets.long()
    connected = torch.zeros(12, 9, dtype=torch.float64).index_put(at, torch.ones(len(targets), dtype=torch.float64))
    x = torch.zeros(12, 9, dtype=torch.float64).index_put(at, numbers.double())
    door = ops.procedural_event if name == "event" else ops.procedural_gather

    def op(spikes: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
        product = door(spikes, offset, None if draws == "none" else scale, matrix)
        return product + 0 * scale if draws == "none" else product

    def dense(spikes: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
        weights = offset * connected + scale * x
        return spikes @ (weights if name == "event" else weights.T)

    generator = torch.Generator().manual_seed(0)
    shapes = ((*batch, 12 if name == "event" else 9), (), ())
    arguments = tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return Case(op, dense, arguments, getattr(torch.ops.bdtorch, f"procedural_{name}").default, matrix)


@pytest.mark.parametrize("batch", [(), (2,), (2, 1)], ids=str)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_gradcheck(case: tuple[str, str, str], batch: tuple[int, ...]) -> None:
    c = make_case(*case, batch=batch)
    inputs = tuple(argument.requires_grad_() for argument in c.arguments)
    assert torch.autograd.gradcheck(c.op, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(c.op, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_silent_neurons_receive_a_gradient_and_events_none(case: tuple[str, str, str]) -> None:
    c = make_case(*case, batch=(2,))
    spikes, *parameters = c.arguments
    inputs = (spikes.relu().requires_grad_(), *(parameter.requires_grad_() for parameter in parameters))
    gradients = [torch.autograd.grad(f(*inputs).sin().sum(), inputs) for f in (c.op, c.dense)]
    torch.testing.assert_close(*gradients)
    events = spikes > 0
    of_events = [
        torch.autograd.grad(f(s, *parameters).sin().sum(), parameters)
        for f, s in ((c.op, events), (c.dense, events.double()))
    ]
    torch.testing.assert_close(*of_events)


def loss(f: Product) -> Product:
    return lambda *a: f(*a).pow(3).sum()


def samples(a: Tensor) -> Tensor:
    return torch.stack([a, 2 * a, -a])


TRANSFORMS: dict[str, Callable[[Product], Callable]] = {
    "grad": lambda f: func.grad(loss(f), (0, 1, 2)),
    "vmap spikes": lambda f: lambda s, a, b: func.vmap(f, (0, None, None))(samples(s), a, b),
    "vmap last": lambda f: lambda s, a, b: func.vmap(f, (-1, None, None))(samples(s).movedim(0, -1), a, b),
    "vmap weights": lambda f: lambda s, a, b: func.vmap(f, (None, 0, 0))(s, samples(a), samples(b)),
    "vmap grad": lambda f: lambda s, a, b: func.vmap(func.grad(loss(f), (0, 1, 2)), (0, None, None))(samples(s), a, b),
    "grad vmap": lambda f: func.grad(lambda s, a, b: func.vmap(f, (0, None, None))(samples(s), a, b).pow(3).sum()),
    "grad grad": lambda f: func.grad(lambda *x: func.grad(loss(f), 1)(*x).pow(2)),
    "jacrev": lambda f: func.jacrev(f, (0, 1, 2)),
    "jacfwd": lambda f: func.jacfwd(f, (0, 1, 2)),
    "hessian": lambda f: func.hessian(loss(f), (0, 1, 2)),
    "jvp": lambda f: lambda s, a, b: func.jvp(f, (s, a, b), (s.cos(), a.sin(), b.exp())),
}
FORWARD_MODE = ("jacfwd", "hessian", "jvp")  # torch.compile of forward mode raises in torch 2.13


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_transforms(case: tuple[str, str, str], transform: str) -> None:
    c = make_case(*case)
    apply = TRANSFORMS[transform]
    torch.testing.assert_close(apply(c.op)(*c.arguments), apply(c.dense)(*c.arguments))


@pytest.mark.parametrize("transform", ["grad", "vmap spikes", "grad vmap"])
@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids="-".join)
def test_compiled_transforms(case: tuple[str, str, str], transform: str) -> None:
    torch._dynamo.reset()
    c = make_case(*case)
    apply = TRANSFORMS[transform]
    compiled = torch.compile(apply(c.op), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*c.arguments), apply(c.dense)(*c.arguments))


@pytest.mark.parametrize("event", [True, False])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_opcheck(case: tuple[str, str, str], event: bool) -> None:
    c = make_case(*case, batch=(2,))
    spikes, offset, scale = c.arguments
    spikes = spikes > 0 if event else spikes.requires_grad_()
    weights = (offset.requires_grad_(), None if case[2] == "none" else scale.requires_grad_())
    overloads = [c.overload]
    if case[0] == "event":
        overloads.append(torch.ops.bdtorch.procedural_event_ordered.default)
    for overload in overloads:
        torch.library.opcheck(overload, (spikes, *weights, *c.matrix.arguments))


@pytest.mark.parametrize("law", [{"p": 0.4}, {"number": 3}], ids=str)
def test_opcheck_of_counts_and_rows(law: dict) -> None:
    arguments = (torch.tensor([0, 3, 3]), *ops.ProceduralMatrix(4, 9, 5, draws="uniform", **law).arguments)
    torch.library.opcheck(torch.ops.bdtorch.procedural_counts.default, arguments)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")  # sizes that depend on data do not trace
    torch.library.opcheck(torch.ops.bdtorch.procedural_rows.default, arguments, test_utils=tests)


@pytest.mark.parametrize("name", ["event", "gather"])
def test_compiled_graphs_hold_the_raw_op(name: str) -> None:
    torch._dynamo.reset()
    c = make_case(name, "p", "normal")
    called: list[str] = []

    def record(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        called.extend(node.target._opname for node in graph.graph.nodes if hasattr(node.target, "_opname"))
        return make_boxed_func(graph.forward)

    compiled = torch.compile(c.op, fullgraph=True, backend=aot_autograd(fw_compiler=record))
    torch.testing.assert_close(compiled(*c.arguments), c.dense(*c.arguments))
    assert called == [f"_procedural_{name}_raw"]


def test_inductor_trains_through_a_step() -> None:
    torch._dynamo.reset()
    c = make_case("event", "number", "uniform")
    inputs = tuple(argument.requires_grad_() for argument in c.arguments)

    def step(v: Tensor, *inputs: Tensor) -> Tensor:
        return 0.9 * v + c.op(*inputs)

    v = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)
    compiled = torch.compile(step, fullgraph=True)
    gradients = [torch.autograd.grad(f(v, *inputs).pow(2).sum(), inputs) for f in (compiled, step)]
    torch.testing.assert_close(*gradients)
