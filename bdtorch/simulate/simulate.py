"""`simulate`: the one front door to the time loop."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from bdtorch._fractional_flow import FractionalFlow
from bdtorch._system import DynamicalSystem
from bdtorch._types import State
from bdtorch.simulate._body import OUT, Body
from bdtorch.simulate._choose import check_loop, chosen, ensemble
from bdtorch.simulate._ensemble import Ensemble
from bdtorch.simulate._functorch import outside
from bdtorch.simulate._ready import made_ready
from bdtorch.simulate._run import Run
from bdtorch.simulate._serial import warn_where_forked
from bdtorch.simulate.inputs import count_steps
from bdtorch.simulate.loops import Loop
from bdtorch.simulate.records import Record
from bdtorch.simulate.solution import Solution
from bdtorch.simulate.stream import Stream, check_stream


def simulate(
    system: DynamicalSystem,
    inputs: Any = None,
    *,
    dt: float,
    duration: float | None = None,
    state: State | None = None,
    t0: float = 0.0,
    batch_shape: tuple[int, ...] | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    seed: int | Tensor = 0,
    record: Mapping[str, Record | Callable[[State, Any], Any]] | None = None,
    keep_out: bool | None = None,
    loop: str | Loop = "auto",
    progress: bool | None = None,
    check_finite: bool = True,
    stream: str | os.PathLike[str] | None = None,
) -> Solution:
    """Run a system through time.

    Args:
        system: What to run.
        inputs: Input of each step, in any pytree that the system takes. A number or 0-d tensor is constant, as is a
            tensor in `Constant`; any other tensor has a leading axis time; a function maps the time (0-d float64
            tensor, ms) to the input, in torch operations.
        dt: Step, ms.
        duration: ms, a multiple of ``dt``; may be left out where an input has a leading axis time.
        state: State to start from; default a fresh one from ``batch_shape`` and ``seed``.
        t0: Time of ``state``, ms, a multiple of ``dt``.
        batch_shape: Batch of the fresh state; default what the inputs imply.
        parameters: Tensors that stand in for parameters and buffers of ``system`` in every step, by their names in its
            ``state_dict``: for `torch.func.grad` and `torch.func.vmap` over parameters.
        seed: Names the fresh state's random initial values and noise; the same seed gives the same run. Under
            `torch.func.vmap` it may be a tensor of one seed for each member.
        record: What to keep, by name: `trace`, `spikes`, `Record`, or a function of state and output.
        keep_out: Whether to stack the outputs into ``sol.out``; default where nothing is recorded.
        loop: ``"auto"``, ``"reference"``, ``"inductor"``, ``"native"``, or a loop object. ``"auto"`` takes native on the
            CPU and inductor elsewhere, under `torch.func.vmap` too, and reference under other `torch.func` transforms and for
            forward derivatives (`torch.autograd.forward_ad`).
            Where a loop cannot run the system, a warning says why and which comes next. A second derivative needs
            reference.
        progress: Show a bar; default in terminals and notebooks where the run takes longer than a few seconds.
        check_finite: Stop with an error that names variable, element and time where a state variable becomes NaN or
            infinite.
        stream: HDF5 file for the records, so that memory does not grow with the duration; needs h5py. They are then read
            from it where they are asked for (`StoredRecords`, `load_records`). It is written under another name and
            moved into place at the end, also after Ctrl-C or an error, with what was recorded until then.

    Returns:
        The `Solution`. After Ctrl-C it holds what was done until then, with ``interrupted`` set. Where a gradient is
        needed, and where Ctrl-C comes twice within a second or at the end of a short run, KeyboardInterrupt is raised as
        usual, so that programs of many runs can be stopped.

    Raises:
        TypeError, ValueError, KeyError: An argument is not as described; the message names it.
        FloatingPointError: A state variable became NaN or infinite; its ``solution`` attribute holds the run so far.
        LoopError: The loop that was asked for cannot run this system.
    """
    check_loop(loop)
    warn_where_forked()
    if stream is not None:
        check_stream(stream, record, keep_out)
    kept = keep_out if keep_out is not None else not record
    ready = made_ready(
        system, inputs, dt=dt, state=state, t0=t0, batch_shape=batch_shape, seed=seed, record=record,
        parameters=parameters, further={OUT: Record(_of_outputs)} if kept else {},
    )  # fmt: skip
    body, flat, start = ready.body, ready.state, ready.start
    steps = count_steps(body.inputs, dt, duration)
    if state is None:
        _check_memory(system, steps, dt)
    body.try_out(flat, start)
    if (members := ensemble(loop, body, flat)) is not None:
        return _run_of_all(members, start, steps, check_finite, loop, progress)
    if stream is not None:
        with Stream(stream, body, start) as target:
            run = Run(body, flat, start, steps, check_finite, target)
            return run.to_the_end(chosen(loop, system, body, flat), progress)
    _expect_room(body, steps)
    return Run(body, flat, start, steps, check_finite).to_the_end(chosen(loop, system, body, flat), progress)


def _check_memory(system: DynamicalSystem, steps: int, dt: float) -> None:
    """A run that begins anew fits into the memory of every fractional flow in the system."""
    for name, part in system.named_modules():
        room = part.room(dt) if isinstance(part, FractionalFlow) else None
        if room is not None and steps > room:
            of = f" of {name!r}" if name else ""
            raise ValueError(
                f"`simulate(duration=...)`: expected at most {room * dt:g} ms, for which the FractionalFlow{of} has memory, got "
                f"{steps * dt:g} ms; construct it with a longer duration"
            )


def _expect_room(body: Body, steps: int) -> None:
    """Warn of records that cannot fit, before the system ends the process for them, perhaps after hours."""
    needed = steps * body.bytes_kept_per_step()
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if body.system.device.type == "cpu" and needed > room:
        warnings.warn(
            f"`simulate(record=...)`: the records of {steps} steps take {needed / 1e9:.3g} GB, and this machine has "
            f"{room / 1e9:.3g}; keep fewer, by `every` or `index`, or send them to a file with `stream`",
            stacklevel=3,
        )


def _of_outputs(state: State, out: Any) -> Any:
    return out


def _run_of_all(
    members: Ensemble, start: int, steps: int, check_finite: bool, loop: str | Loop, progress: bool | None
) -> Solution:
    """Run an ensemble outside of the vmap that asks for it."""
    try:
        with outside():
            run = Run(members, members.state, start, steps, check_finite)
            solution = run.to_the_end(chosen(loop, members.system, members, members.state), progress)
    except FloatingPointError as error:
        error.solution = members.of_member(error.solution)  # type: ignore[attr-defined]
        raise
    return members.of_member(solution)
