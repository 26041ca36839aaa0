"""Which time loop runs a body."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

from torch import Tensor

from bdtorch._system import DynamicalSystem
from bdtorch.simulate._body import Body
from bdtorch.simulate._ensemble import Ensemble
from bdtorch.simulate._functorch import active_vmaps, transformed
from bdtorch.simulate.loops import Inductor, Loop, LoopError, Native, Reference
from bdtorch.simulate.loops._loop import Runner

LOOPS = {"reference": Reference, "inductor": Inductor, "native": Native}


def ensemble(loop: str | Loop, body: Body, state: list[Tensor]) -> Ensemble | None:
    """The body of all members where only vmaps are active, or None where the loop is to run as things are."""
    vmaps = active_vmaps()
    if not vmaps or loop == "reference" or isinstance(loop, Reference):
        return None
    try:
        return Ensemble(body, state, vmaps)
    except LoopError as error:
        if loop != "auto":
            raise
        warnings.warn(f"{error}; falling back to the reference loop", stacklevel=4)
        return None


def chosen(loop: str | Loop, system: DynamicalSystem, body: Body, state: list[Tensor]) -> tuple[Loop, Runner]:
    """The loop that was asked for, made ready; "auto" falls back by name, never in silence."""
    if isinstance(loop, Loop) or loop != "auto":
        named = loop if isinstance(loop, Loop) else LOOPS[loop]()
        if isinstance(named, Native) and transformed():
            raise LoopError(
                "the native loop runs outside torch.func transforms other than vmap; use loop='reference' within"
            )
        if body.tangents and not transformed() and not isinstance(named, Reference):
            raise LoopError(f"the {named.name} loop carries no forward derivatives; use loop='reference'")
        return named, named.start(body, state)
    order: list[Loop] = [Native(), Inductor(), Reference()]
    if transformed() or body.tangents:
        order = [Reference()]
    elif system.device.type != "cpu":
        order = [Inductor(), Reference()]
    elif body.differentiable:
        order = [Native(), Reference()]  # what inductor compiles for a gradient takes minutes
    for candidate, following in zip(order, [*order[1:], None], strict=True):
        try:
            return candidate, _ready(candidate, body, state)
        except LoopError as error:
            if following is None:
                raise
            warnings.warn(f"{error}; falling back to the {following.name} loop", stacklevel=3)
    raise AssertionError("the reference loop takes everything")


def _ready(loop: Loop, body: Body, state: list[Tensor]) -> Runner:
    """Start a loop, and let inductor, which compiles at its first step, say at once whether it can."""
    runner = loop.start(body, state)
    if isinstance(loop, Inductor):
        runner.advance(state, [x.unsqueeze(0) for x in body.inputs.example()], 0, 1, lambda: False)
    return runner


def check_loop(loop: Any) -> None:
    """Reject what names no loop, and ensembles of nobody."""
    if any(vmap.size == 0 for vmap in active_vmaps() or []):
        raise ValueError("`simulate(...)`: expected at least one member under torch.func.vmap, got none")
    if not isinstance(loop, Loop) and loop != "auto" and loop not in LOOPS:
        close = difflib.get_close_matches(str(loop), ["auto", *LOOPS], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`simulate(loop=...)`: expected 'auto', {', '.join(map(repr, LOOPS))}, got {loop!r}{hint}")
