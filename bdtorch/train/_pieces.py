"""Batches of sequences, cut and joined along time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from bdtorch import _tree as tree
from bdtorch.network import Readout, Recurrent, Sequential
from bdtorch.simulate import Solution


def swapped(x: Any) -> Any:
    """The first two axes of every leaf exchanged: batch and time."""
    return tree.map(lambda leaf: leaf.transpose(0, 1), x)


def expected_width(system: nn.Module) -> int | None:
    """The size of the last axis of a system's inputs, where it is known."""
    if isinstance(system, Sequential):
        return expected_width(system.layers[0])
    if isinstance(system, Recurrent):
        return system.input.connect.n_pre
    if isinstance(system, Readout):
        return system.output.connect.n_pre
    return system.in_features if isinstance(system, nn.Linear) else None


def checked_inputs(x: Any, system: nn.Module, label: str) -> Any:
    """Inputs with time first, or an error that names ``label``."""
    width = expected_width(system)
    if not tree.tensors(x):
        raise ValueError(f"`BPTT.{label}(x=...)`: expected tensors (batch, time, ...), got {type(x).__name__}")
    for leaf in tree.leaves(x):
        if not isinstance(leaf, Tensor) or leaf.dim() < 2:
            got = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(f"`BPTT.{label}(x=...)`: expected tensors (batch, time, ...), got {got}")
        if not leaf.shape[0] or not leaf.shape[1]:
            missing = "step" if leaf.shape[0] else "sample"
            raise ValueError(f"`BPTT.{label}(x=...)`: expected at least one {missing}, got {tuple(leaf.shape)}")
        if width is not None and leaf.shape[-1] != width:
            raise ValueError(
                f"`BPTT.{label}(x=...)`: expected {width} inputs on the last axis, got {tuple(leaf.shape)}"
            )
    return swapped(x)


def check_batch(x: Any, y: Any, label: str) -> None:
    """Reject a batch whose inputs and targets have different numbers of samples."""
    samples = extent(x)
    for leaf in tree.leaves(y):
        if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) != samples:
            raise ValueError(
                f"`BPTT.{label}(y=...)`: expected batch={samples} on the first axis, as of x, got {tuple(leaf.shape)}"
            )


def pairs(data: Iterable[Any], label: str) -> Iterator[tuple[Any, Any]]:
    """The batches, or an error that names ``label`` where one is no pair."""
    if not isinstance(data, Iterable):
        raise TypeError(f"`BPTT.{label}(data=...)`: expected batches (x, y), got {type(data).__name__}")
    for batch in data:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            got = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise ValueError(f"`BPTT.{label}(data=...)`: expected batches (x, y), got {got}")
        yield batch[0], batch[1]


def check_targets(y: Any, steps: int) -> None:
    """Reject targets without the inputs' axis time."""
    for leaf in tree.leaves(y):
        if not isinstance(leaf, Tensor) or leaf.dim() < 2 or leaf.shape[1] != steps:
            got = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(f"`BPTT.step(y=...)`: expected targets (batch, time={steps}, ...) to truncate, got {got}")


def extent(x: Any) -> int:
    """Length of the first axis."""
    return int(tree.leaves(x)[0].shape[0])


@dataclass
class Batch:
    """A batch on its way through time.

    Attributes:
        inputs: ``(time, batch, ...)``.
        y: Its targets, with the batch first.
        state: Where it has come to.
        samples: Their number.
        steps: Their number.
        loss: Of the pieces so far, each by its part of the steps.
        outs: Outputs of the pieces so far, with the batch first.
    """

    inputs: Any
    y: Any
    state: Any
    samples: int
    steps: int
    loss: float = 0.0
    outs: list[Any] = field(default_factory=list)

    def advance(self, state: Any, out: Any, loss: Tensor, steps: int) -> None:
        """Take in what a piece of so many steps gave, detached."""
        self.state = state
        self.outs.append(out)
        self.loss += float(loss) * steps / self.steps

    def out(self) -> Any:
        """The output of all pieces."""
        return tree.map(lambda *parts: torch.cat(parts, 1), *self.outs) if len(self.outs) > 1 else self.outs[0]


def cut(x: Any, start: int, stop: int, axis: int = 0) -> Any:
    """The same window of every leaf along ``axis``."""
    return tree.map(lambda leaf: leaf.narrow(axis, start, stop - start), x)


def joined(solutions: list[Solution]) -> Solution:
    """Solutions that follow one another, as one."""
    first, last = solutions[0], solutions[-1]
    if len(solutions) == 1:
        return first
    outputs = tree.map(lambda *parts: torch.cat(parts), *(sol.outputs for sol in solutions))
    records = tree.map(lambda *parts: torch.cat(parts), *(sol.records for sol in solutions))
    steps = sum(sol.steps for sol in solutions)
    return Solution(last.state, records, first.dt, first.start, steps, first.loop, outputs=outputs, every=first.every)


def recomputed(run: Callable[[Any], Solution], state: Any) -> Solution:
    """What ``run`` simulates from a state, in a way that keeps only that state for the backward pass, which runs it again."""
    kept: list[Solution] = []
    flat, spec = tree.flatten(state)

    def values(_: Tensor, *leaves: Tensor) -> tuple[Any, ...]:
        sol = run(tree.unflatten(list(leaves), spec))
        if not kept:
            kept.append(sol)
        return tuple(tree.leaves((sol.state, sol.outputs, sol.records)))

    # The reentrant kind runs the piece without gradients first, which compiled loops do with less memory, and uses
    # no hooks, which `torch.func` within a step refuses; it wants an argument that requires a gradient. The random
    # state is left alone: noise is a function of the state's own key.
    wants = torch.zeros((), requires_grad=True)
    results = checkpoint(values, wants, *flat, use_reentrant=True, preserve_rng_state=False)
    sol = kept[0]
    _, structure = tree.flatten((sol.state, sol.outputs, sol.records))
    sol.state, sol.outputs, sol.records = tree.unflatten(list(results), structure)
    return sol


_DIFFERENCES = {
    "sub", "rsub", "subtract", "__sub__", "__rsub__", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
    "binary_cross_entropy", "binary_cross_entropy_with_logits",
}  # fmt: skip


class Unspread(TorchFunctionMode):
    """Where a loss compares a target with something of another size, broadcasting must not make them fit.

    Args:
        y: The targets, a pytree.
    """

    def __init__(self, y: Any) -> None:
        super().__init__()
        self.targets = [leaf for leaf in tree.leaves(y) if isinstance(leaf, Tensor) and leaf.dim()]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _DIFFERENCES:
            given = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, Tensor)]
            for target in self.targets:
                if any(a is target for a in given) and any(a.dim() and a.shape != target.shape for a in given):
                    others = [tuple(a.shape) for a in given if a is not target]
                    raise ValueError(
                        f"a target of shape {tuple(target.shape)} is compared with {others[0]}; expand it where that is meant"
                    )
        return func(*args, **(kwargs or {}))


def checked_loss(function: Callable[[Any, Any], Any], out: Any, y: Any, label: str, name: str) -> Tensor:
    """The loss of outputs beside targets, a scalar, or an error that names ``label`` and shows the shapes."""
    try:
        with Unspread(y):
            loss = function(out, y)
    except (RuntimeError, ValueError, IndexError) as error:
        shapes = [tree.map(lambda leaf: tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf, v) for v in (out, y)]
        raise ValueError(f"`{label}`: failed for outputs {shapes[0]} and {name} {shapes[1]}: {error}") from error
    if not isinstance(loss, Tensor) or loss.dim():
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"`{label}`: expected a scalar, got {got}")
    return loss
