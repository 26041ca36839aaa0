"""Checks that every time loop gives the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bdtorch import _tree as tree
from bdtorch.simulate import Inductor, Loop, Native, Reference, Solution, simulate
from bdtorch.testing.case import Case, expect_close, tolerance


def check_chunks(case: Case, loop: Loop | None = None) -> None:
    """A run in pieces is equal, to the bit, to one that goes through."""
    loop = loop or Reference()
    whole = _run(case, loop, 0, case.steps)
    state, pieces, first = None, [], 0
    for length in (1, case.steps // 2, case.steps - 1 - case.steps // 2):
        if not length:
            continue
        piece = _run(case, loop, first, length, state)
        pieces.append(piece.records)
        state, first = piece.state, first + length
    expect_close(state, whole.state, f"the final state of a run in pieces ({loop.name} loop)")
    expect_close(_joined(pieces), whole.records, f"a run in pieces ({loop.name} loop)")


def check_native(case: Case) -> None:
    """The native loop agrees with the reference: floats to rounding, spikes and counters exactly."""
    _check_loop(case, Native())


def check_inductor(case: Case) -> None:
    """The inductor loop agrees with the reference, and compiles each of its graphs once."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        _check_loop(case, Inductor(chunk=2))


def _check_loop(case: Case, loop: Loop) -> None:
    want = _run(case, Reference(), 0, case.steps)
    got = _run(case, loop, 0, case.steps)
    expect_close(got.records, want.records, f"{loop.name} loop against reference", **tolerance(case.dtype))
    expect_close(got.state, want.state, f"{loop.name} loop against reference", **tolerance(case.dtype))


def _run(case: Case, loop: Loop, first: int, steps: int, state: Any = None) -> Solution:
    system = case.system()
    inputs = case.cast_inputs()
    resolved = case.resolved(system)
    if resolved.sequences:
        sequences = [sequence[first : first + steps] for sequence in resolved.sequences]
        inputs = _with_sequences(inputs, sequences)
    record = {"state": lambda after, out: after, "out": lambda after, out: out}
    with torch.no_grad():
        return simulate(
            system,
            inputs,
            dt=case.dt,
            duration=steps * case.dt,
            t0=first * case.dt,
            state=case.state(system) if state is None else state,
            record=record,
            loop=loop,
        )


def _with_sequences(inputs: Any, sequences: list[torch.Tensor]) -> Any:
    remaining = iter(sequences)
    return tree.map(lambda leaf: next(remaining) if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf, inputs)


def _joined(pieces: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return tree.map(lambda *parts: torch.cat(parts), *pieces)
