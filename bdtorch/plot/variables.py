"""Variables through time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bdtorch._axes import colour, prepared
from bdtorch.simulate import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def traces(
    times: Tensor | Solution,
    values: Tensor | str,
    ax: Axes | None = None,
    *,
    unit: str | None = None,
    name: str | None = None,
    spread: float = 0.0,
) -> Axes:
    """Draw variables through time, one line for each.

    ``traces(sol, "v", unit="mV")`` draws the record ``"v"`` at the times at which it was taken.

    Args:
        times: ms, ``(time,)``; or a `bdtorch.Solution`.
        values: ``(time,)`` or ``(time, traces)``; or the name of a record.
        ax: Where to draw; default a new figure.
        unit: Unit of the values, for the label.
        name: What is drawn, for the label; default the name of the record.
        spread: Draw each line this much above the last one, in the unit of the values.

    Returns:
        The axes.

    Raises:
        TypeError: ``times`` and ``values`` are neither two tensors nor a solution and a name.
        ValueError: Shapes do not fit, or values have a batch.
        KeyError: The solution has no such record.
    """
    if isinstance(times, Solution) and isinstance(values, str):
        solution, record = times, values
        times, values = solution.time(record), _one_tensor(solution[record], record)
        name = record if name is None else name
    if not isinstance(times, Tensor) or not isinstance(values, Tensor):
        raise TypeError(
            "`traces(times, values)`: expected two tensors, or a Solution and the name of a record, "
            f"got {type(times).__name__} and {type(values).__name__}"
        )
    if times.dim() != 1 or values.dim() not in (1, 2) or len(values) != len(times):
        raise ValueError(
            "`traces(times, values)`: expected shapes (time,) and (time,) or (time, traces), "
            f"got {tuple(times.shape)} and {tuple(values.shape)}; pick one element of a batch by indexing"
        )
    ax = prepared(ax)
    columns = values.detach().to("cpu", torch.float64).reshape(len(times), -1)
    for number, column in enumerate(columns.unbind(1)):
        ax.plot(times.cpu().numpy(), (column + number * spread).numpy(), color=colour(number), linewidth=0.8)
    label = name or ""
    ax.set_ylabel(label if unit is None else f"{label} ({unit})".strip())
    ax.set_xlabel("time (ms)")
    ax.margins(x=0)
    return ax


def _one_tensor(record: Any, name: str) -> Tensor:
    if not isinstance(record, Tensor):
        raise TypeError(f"`traces(sol, {name!r})`: expected a record of one tensor, got {type(record).__name__}")
    return record
