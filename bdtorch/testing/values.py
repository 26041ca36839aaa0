"""Checks that state is a value: `step` is pure, stable in structure, and named by its seed."""

from __future__ import annotations

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch.testing.case import Case, clone, expect, expect_close


def check_purity(case: Case) -> None:
    """`step` and `init_state` write neither to their arguments nor to the module, and repeat to the bit."""
    system = case.system()
    weights = clone(system.state_dict())
    attributes = {name: set(vars(module)) for name, module in system.named_modules()}
    state = case.state(system)
    for k in range(case.steps):
        inputs = case.input_at(system, k)
        kept = clone((state, inputs))
        t = case.time(k)
        first = system.step(state, inputs, t, case.dt)
        expect_close((state, inputs), kept, f"arguments after step {k}")
        expect_close(t, case.time(k), f"t after step {k}")
        expect_close(system.step(state, inputs, t, case.dt), first, f"step {k} taken twice")
        state = first[0]
    expect_close(system.state_dict(), weights, f"state_dict after {case.steps} steps")
    for name, module in system.named_modules():
        new = set(vars(module)) - attributes[name]
        expect(not new, f"purity: expected no new attributes, but stepping set {sorted(new)} on {name or 'the system'}")


def check_stability(case: Case) -> None:
    """State and output keep structure, shapes and dtypes from the first on, and stay finite."""
    system = case.system()
    state = case.state(system)
    for name, leaf in tree.named_leaves(state):
        expect(isinstance(leaf, Tensor), f"init_state: expected tensors only, got {type(leaf).__name__} for {name!r}")
        expect(
            not leaf.is_floating_point() or leaf.dtype == system.dtype,
            f"init_state: expected dtype {system.dtype} for {name!r}, got {leaf.dtype}",
        )
    after, first = state, None
    for k in range(case.steps):
        with torch.no_grad():
            after, out = system.step(after, case.input_at(system, k), case.time(k), case.dt)
        first = out if k == 0 else first
        expect_close(_meta(after), _meta(state), f"state after step {k}")
        expect_close(_meta(out), _meta(first), f"output of step {k}")
        for name, leaf in tree.named_leaves(after):
            expect(bool(torch.isfinite(leaf).all()), f"state after step {k}: expected finite values of {name!r}")
    if isinstance(first, Tensor) and system.size:
        expect_close(_meta(system.init_out(case.batch_shape)), _meta(first), "init_out")


def _meta(value: object) -> object:
    """Structure, shapes and dtypes without values."""
    return tree.map(lambda leaf: torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf, value)


def check_determinism(case: Case) -> None:
    """Two fresh models run alike from one seed; where the state is random, another seed gives another run."""
    one, other = case.system(), case.system()
    state = case.state(one)
    history = case.run(one, state)
    expect_close(case.run(other, case.state(other)), history, f"two runs of seed {case.seed}")
    random = any("key" in name.split(".") for name, _ in tree.named_leaves(state))
    if random:
        elsewhere = Case(case.make, case.inputs, case.dt, case.steps, case.batch_shape, case.seed + 1, case.dtype)
        differing = elsewhere.state(one)
        same = all(torch.equal(a, b) for a, b in zip(tree.leaves(differing), tree.leaves(state), strict=True))
        expect(not same, f"determinism: expected seeds {case.seed} and {case.seed + 1} to give different states")
