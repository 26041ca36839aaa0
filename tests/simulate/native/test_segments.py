"""Long element-wise passes are cut into loops over blocks, and no bit changes by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch
from bdtorch.integrate import RK4, ODESolver
from bdtorch.simulate.loops.native import compiler, made, passes, segments
from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import Kernel
from bdtorch.simulate.loops.native.memory import Buffer, Ref
from bdtorch.simulate.loops.native.stages import staged
from tests.simulate.native.stepping import both

N = 1000  # not a multiple of a block


def _chain(steps: int, op: str = "aten.tanh.default") -> list[Node]:
    nodes: list[Node] = []
    start = Node(0, "state", (N,), torch.float64)
    for number in range(steps):
        nodes.append(Node(number + 1, "op", (N,), torch.float64, op, (nodes[-1] if nodes else start,)))
    return nodes


def test_a_chain_is_cut_and_independent_work_is_not() -> None:
    assert [len(part) for part in segments.segments(_chain(3))] == [1, 1, 1]
    assert len(segments.segments(_chain(2), interleaved=4)) == 1  # there is other work while one vector waits
    assert len(segments.segments(_chain(3), interleaved=4)) == 3  # but not room for the values of all
    assert len(segments.segments(_chain(5, "aten.neg.default"))) == 1
    short = _chain(24, "aten.neg.default")  # as long as a step of integrate-and-fire cells
    assert len(segments.segments(short)) > 1
    short.append(Node(25, "op", (N,), torch.bool, "aten.gt.Scalar", (short[-2], 0.0)))
    assert len(segments.segments(short)) == 1  # as such cells choose
    assert len(segments.segments(_chain(80, "aten.neg.default"))) > 1
    start = Node(0, "state", (N,), torch.float64)
    beside = [Node(k, "op", (N,), torch.float64, "aten.tanh.default", (start,)) for k in range(1, 9)]
    assert segments.segments(beside) == [beside]


def test_what_is_quickly_made_is_made_where_it_is_needed() -> None:
    nodes = _chain(3)
    start = nodes[0].args[0]
    quick = Node(10, "op", (N,), torch.float64, "aten.neg.default", (start,))
    beside = Node(11, "op", (N,), torch.float64, "aten.abs.default", (quick,))  # a result that nothing needs
    joined = Node(12, "op", (N,), torch.float64, "aten.add.Tensor", (nodes[-1], quick))
    *_, last = segments.segments([quick, beside, *nodes, joined])
    assert {quick, beside, joined} <= set(last)


@pytest.mark.parametrize(
    ("extent", "most", "block"), [(400, 1024, 400), (1600, 1024, 320), (4096, 1024, 1024), (1601, 768, 0)]
)
def test_blocks_are_of_one_length_where_the_axis_allows_it(extent: int, most: int, block: int) -> None:
    assert passes._even(extent, most) == block


def test_a_number_may_stand_in_a_pass() -> None:
    nodes = _chain(3)
    nodes.append(Node(9, "op", (), torch.float64, "full", (2.0,)))
    assert sorted(node.number for part in segments.segments(nodes) for node in part) == [1, 2, 3, 9]


def test_every_operation_stands_behind_its_operands() -> None:
    nodes = _chain(40, "aten.exp.default")
    for number, node in enumerate(nodes[2:], 2):  # a web rather than a chain
        node.op, node.args = "aten.add.Tensor", (nodes[number - 1], nodes[number // 2])
    nodes[20].op, nodes[20].args = "aten.tanh.default", nodes[20].args[:1]
    order = [node for part in segments.segments(nodes) for node in part]
    assert sorted(order, key=nodes.index) == nodes
    assert all(order.index(x) < order.index(node) for node in nodes for x in node.operands() if x in order)


def _coupled(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    v, w = y["v"], y["w"]
    fast = torch.where(v > w, torch.tanh(v), torch.exp(-v * v))
    return {
        "v": fast - w / (1.0 + v * v),
        "w": torch.where(fast > 0.3, torch.sigmoid(v), -w).flip(-1),
        "n": y["n"] * 0.1,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(N,), (3, 150), (7,)], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_no_bit_depends_on_the_cuts(
    dtype: torch.dtype, shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    y0 = {name: torch.randn(shape, dtype=dtype, generator=generator) for name in "vwn"}
    sources: list[str] = []
    make = compiler.compiled
    monkeypatch.setattr(made, "compiled", lambda source: (sources.append(source), make(source))[1])

    def solve() -> dict[str, Tensor]:
        solver = ODESolver(_coupled, method=RK4(), dt=0.1, loop=bdtorch.Native(threads=threads), progress=False)
        y: dict[str, Tensor] = solver(y0, [0.0, 2.0]).y
        return y

    cut = solve()
    monkeypatch.setattr(segments, "_AHEAD", 10**9)
    whole = solve()
    for name, value in cut.items():
        assert torch.equal(value, whole[name]), name
    plain: Any = ODESolver(_coupled, method=RK4(), dt=0.1, progress=False)(y0, [0.0, 2.0]).y
    for name, value in cut.items():
        torch.testing.assert_close(value, plain[name])
    assert ("_block" in sources[0]) == (shape != (7,)) and "_block" not in sources[1]


@pytest.mark.parametrize(
    ("n", "dtype", "cut"),
    [
        (1600, torch.float32, False),
        (400, torch.float32, True),
        (2064, torch.float32, False),
        (31, torch.float32, False),
        (1600, torch.float64, True),  # eight vectors for each of spikes
    ],
)
def test_a_pass_with_spikes_is_cut_where_many_elements_would_be_taken_one_by_one(
    n: int, dtype: torch.dtype, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []
    make = compiler.compiled
    monkeypatch.setattr(made, "compiled", lambda source: (sources.append(source), make(source))[1])
    x = torch.linspace(-2.0, 2.0, n, dtype=dtype)

    def step(state: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        x, spikes = state
        moved = torch.exp(-x * x) / (1.0 + torch.exp(x))
        return [torch.where(spikes, -moved, x * 0.5 + moved / (2.0 + moved)), moved > 0.4], moved

    native_run, reference = both(step, x, x > 1.0, steps=5)
    assert ("_block" in sources[0]) == cut
    if cut:  # spikes have loops of their own, before and after all others
        loops = sources[0].split("for (int64_t k = 0;")[1:]
        assert len(loops) > 3 and "float" not in loops[0] and "double" not in loops[0]
        assert "uint8_t x" not in sources[0]
    assert bool(native_run[-1].any()) and not bool(native_run[-1].all())
    for ours, theirs in zip(native_run, reference, strict=True):
        torch.testing.assert_close(ours, theirs)
    monkeypatch.setattr(segments, "_AHEAD", 10**9)
    whole, _ = both(step, x, x > 1.0, steps=5)
    assert "_block" not in sources[1]
    assert all(torch.equal(ours, other) for ours, other in zip(native_run, whole, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_in_stages_are_the_functions(dtype: torch.dtype) -> None:
    """Short rows take a function as one, and long ones in stages: the bits are the same."""
    special = torch.tensor(
        [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e30, -1e30, torch.finfo(dtype).tiny], dtype=dtype
    )
    x = torch.cat([special, torch.linspace(-25.0, 25.0, 80, dtype=dtype), torch.linspace(-1.0, 1.0, N, dtype=dtype)])

    def step(state: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        y = torch.tanh(state[0]) + 1.0 / torch.cosh(torch.sigmoid(state[0]))
        return state, (torch.tanh(state[0]), torch.sigmoid(state[0]), torch.tanh(torch.sigmoid(y)))

    (*long, _), _ = both(step, x, steps=1)
    (*short, _), _ = both(step, x[:88], steps=1)
    for rows, row in zip(long, short, strict=True):
        staged_values, values = (y.reshape(-1)[:88].nan_to_num(7.0) for y in (rows, row))
        assert torch.equal(staged_values, values) and torch.equal(staged_values.signbit(), values.signbit())


def test_stages_are_cut_apart() -> None:
    start = Node(0, "state", (N,), torch.float64)
    tanh = Node(1, "op", (N,), torch.float64, "aten.tanh.default", (start,))
    twice = Node(2, "op", (N,), torch.float64, "aten.mul.Tensor", (tanh, tanh))
    buffer = Buffer(torch.float64, N, "temporary")
    ref = Ref(buffer, (N,), (1,))
    kernel, writes = staged(Kernel((N,), [tanh, twice], True, {twice: ref}), {twice: ref})
    assert [node.op for node in kernel.nodes] == [
        "bdtorch.tanh_near", "bdtorch.tanh_whole", "bdtorch.tanh_joined", "aten.mul.Tensor",
    ]  # fmt: skip
    assert list(writes) == list(kernel.stores) == [kernel.nodes[-1]]
    assert kernel.nodes[-1].args == (kernel.nodes[-2], kernel.nodes[-2])
    assert [len(part) for part in segments.segments(kernel.nodes)] == [2, 2]
