"""Checks that models and states can be copied, cast, saved and loaded."""

from __future__ import annotations

import copy
import pickle
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch.simulate import load, save
from bdtorch.testing.case import Case, expect, expect_close


def check_dtype(case: Case) -> None:
    """After ``.to(dtype)`` the state and every floating output are of that dtype, there and back again."""
    system = case.make()
    for dtype in (torch.float64, torch.float32):
        system = system.to(dtype)
        expect(system.dtype == dtype, f"`.to({dtype})`: expected system.dtype to follow, got {system.dtype}")
        state = case.state(system)
        with torch.no_grad():
            after, out = system.step(state, case.input_at(system, 0), case.time(0), case.dt)
        for name, leaf in (*tree.named_leaves(state, "state"), *tree.named_leaves((after, out), "step")):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                expect(leaf.dtype == dtype, f"`.to({dtype})`: expected {name} in {dtype}, got {leaf.dtype}")


def check_state_dict(case: Case) -> None:
    """A fresh model that loads the ``state_dict`` of another, whose values were changed, runs as that one does."""
    trained, fresh = case.system(), case.system()
    with torch.no_grad():
        for value in trained.state_dict().values():
            if value.is_floating_point():
                value.mul_(1.01)
    fresh.load_state_dict(trained.state_dict())
    want = case.run(trained, case.state(trained))
    expect_close(case.run(fresh, case.state(fresh)), want, "a run after load_state_dict")


def check_copies(case: Case) -> None:
    """Deep copies and pickles of a model run as the original does, and share no memory with it."""
    system = case.system()
    want = case.run(system, case.state(system))
    for label, twin in (("deepcopy", copy.deepcopy(system)), ("pickle", pickle.loads(pickle.dumps(system)))):
        expect_close(case.run(twin, case.state(twin)), want, f"a run of the {label}")
        memory = {value.data_ptr() for value in system.state_dict().values() if value.numel()}
        shared = [name for name, value in twin.state_dict().items() if value.numel() and value.data_ptr() in memory]
        expect(not shared, f"{label}: expected memory of its own, but {shared} are shared")


def check_checkpoint(case: Case) -> None:
    """A state that was saved and loaded is equal to the bit."""
    system = case.system()
    state, _ = case.run(system, case.state(system))[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save(path, state, t=case.steps * case.dt)
        loaded, t = load(path, like=case.state(system))
    expect_close(loaded, state, "a state saved and loaded")
    expect(t == case.steps * case.dt, f"load: expected t = {case.steps * case.dt!r}, got {t!r}")
