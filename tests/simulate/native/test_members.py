"""Members of an ensemble take their steps apart where they see nothing of one another, and no bit changes by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate.loops.native import members
from tests.simulate.native.stepping import Step, flat, run

MEMBERS = 7
SMALL, HUGE = 3 << 10, 1 << 40  # bytes of a block: one or two members, all of them


def network() -> bt.Network:
    """Two groups with delays, noise, and sums over groups, of which no two members have the same."""
    cell = bt.neurons.Refractory(bt.neurons.LIF(90, tau=20.0, v_th=1.0, v_reset=0.0), 1.0)
    excite = bt.Projection(
        bt.connect.Groups((30, 60), (30, 60)),
        torch.tensor([[0.3, 0.1], [0.2, 0.1]]),
        bt.synapses.Exponential(5.0),
        delay=0.5,
    )
    noise = bt.Projection(bt.connect.OneToOne(), 4.0, bt.synapses.Exponential(2.0))
    return bt.Network({"E": cell, "P": bt.stimuli.Poisson(90)}, {("P", "E"): noise, ("E", "E"): excite})


def ensemble(threads: int, every: int) -> list[Tensor]:
    net = network()
    record: dict[str, Any] = {"v": bt.trace("E.v", every=every), "n": lambda state, out: out["E"].sum()}

    def member(rate: Tensor, seed: Tensor) -> dict[str, Tensor]:
        inputs = {"P": rate.expand(150, 90)}
        sol = bt.simulate(
            net, inputs, dt=0.1, seed=seed, record=record, loop=bt.Native(threads=threads), progress=False
        )
        return {"v": sol["v"], "n": sol["n"]}

    rates = torch.linspace(100.0, 2000.0, MEMBERS)
    found = torch.func.vmap(member)(rates, torch.arange(MEMBERS))
    return [found["v"], found["n"]]


@pytest.mark.parametrize("every", [1, 7])
def test_an_ensemble(every: int, sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_CACHE", HUGE)
    together = ensemble(1, every)
    monkeypatch.setattr(members, "_CACHE", SMALL)
    assert together[1].sum() > 50
    for threads in (1, 2, 3, 5):  # of five, two have one member and the others none: they take steps together
        for apart, expected in zip(ensemble(threads, every), together, strict=True):
            assert torch.equal(apart, expected)
    assert ["take_steps_apart" in source for source in sources] == [False, True, True, True, True]


X = torch.linspace(-1.0, 2.0, 5 * 400).reshape(5, 400)
SEEN: dict[str, Step] = {
    "a mean over all": lambda x, t: ([x[0] - x[1].mean(0), x[1] * 0.5], x[0]),
    "another member": lambda x, t: ([x[0].flip(0) + x[1], x[1] * 0.5], x[0]),
    "one of them": lambda x, t: ([x[0] + x[1][2:3], x[1] * 0.5], x[0]),
    "a number for all": lambda x, t: ([x[0] * torch.sin(t).float(), x[1]], x[0]),
}
APART: dict[str, Step] = {
    "rows of rows": lambda x, t: (
        [x[0] + x[1].reshape(5, 4, 100).sum(1, keepdim=True).expand(5, 4, 100).reshape(5, 400), x[1] * 0.9],
        x[0][:, ::3],
    ),
    "parts": lambda x, t: ([torch.cat([x[0][:, 50:], x[1][:, :50] * 2.0], 1), x[0] - x[1]], x[1].amax(1)),
    "places exchanged": lambda x, t: ([x[1], x[0]], x[0]),
    "indices": lambda x, t: ([x[0].gather(1, (x[1] > 0).long() * 9), x[1] * -0.5], x[0].scatter(1, (x[1] > 1).long(), 3.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SEEN, *APART])
def test_what_members_see_of_one_another(name: str, sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    step = (SEEN | APART)[name]
    monkeypatch.setattr(members, "_CACHE", HUGE)
    expected = flat(run(step, X.clone(), X.flip(1), loop=bt.Native(threads=1), steps=9))
    monkeypatch.setattr(members, "_CACHE", 1 << 10)
    for threads in (1, 2):
        found = flat(run(step, X.clone(), X.flip(1), loop=bt.Native(threads=threads), steps=9))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    if name in SEEN:
        assert not any("take_steps_apart" in source for source in sources)
    elif name != "indices":  # a `scatter` into a copy
        assert "take_steps_apart" in sources[-1]


def wanders(first: dict[int, int]) -> Callable[..., Any]:
    """Looks up a place that leaves the row in the given steps of the given members."""
    ends = torch.full((5, 1), 1000)
    for member, step in first.items():
        ends[member] = step

    def step(x: list[Tensor], t: Tensor) -> Any:
        at = torch.where(x[1] >= ends, 400, x[1] % 7)
        return [x[0] + x[0].gather(1, at), x[1] + 1], x[0]

    return step


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("first", [{3: 4}, {4: 6, 1: 8}, {0: 9, 2: 5}])
def test_the_first_error_of_all_is_told(
    threads: int, first: dict[int, int], sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = []
    for size in (HUGE, 1 << 10):
        monkeypatch.setattr(members, "_CACHE", size)
        with pytest.raises(IndexError) as caught:
            run(
                wanders(first),
                X.clone(),
                torch.zeros(5, 1, dtype=torch.int64),
                loop=bt.Native(threads=threads),
                steps=12,
            )
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "take_steps_apart" in sources[-1]


def test_no_members() -> None:
    def step(x: list[Tensor], t: Tensor) -> Any:
        z = bt.ops.random.uniform(x[1], x[2], 3, dtype=torch.float32)
        return [x[0] * 0.5 + z, x[1], x[2] + 1], x[0].sum(1)

    key = torch.zeros(0, dtype=torch.int64)
    out = run(step, torch.zeros(0, 3), key, key.clone(), loop=bt.Native(threads=1), steps=3).out
    assert out.shape == (3, 0)
