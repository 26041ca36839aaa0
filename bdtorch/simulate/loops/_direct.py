"""Calls of a compiled chunk past Dynamo.

Before each call Dynamo checks everything that the compiled code depends on, and finds its tensors again: that takes longer
than a step of a small network. Within one advance nothing of it changes but the state, the windows and the number of the
step. So the first call of an advance goes through Dynamo, where a `Tap` sees what the graph is given and gives; the
others hand the graph its arguments themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Graph = Callable[..., Any]


@dataclass(frozen=True)
class Seen:
    """One call of a graph: the graph, what it was given and what it gave."""

    graph: Graph
    arguments: tuple[Any, ...]
    results: tuple[Any, ...]


class Tap:
    """A backend of `torch.compile`: inductor, whose graph says with what it was called last."""

    compiler = "inductor"

    def __init__(self) -> None:
        self._seen: Seen | None = None

    def __call__(self, module: torch.fx.GraphModule, examples: list[Tensor], **options: Any) -> Graph:
        graph = torch._dynamo.lookup_backend(self.compiler)(module, examples, **options)

        def tapped(*arguments: Any) -> Any:
            results = graph(*arguments)
            self._seen = Seen(graph, arguments, tuple(results))
            return results

        return tapped

    def take(self) -> Seen | None:
        """The last call since this was asked, or None: a step without operations has no graph."""
        seen, self._seen = self._seen, None
        return seen


class Direct:
    """A graph called with other states, windows and numbers than those of a call that was seen.

    Args:
        seen: That call.
        places: For each argument of the graph, the place among state, windows and number that it comes from, or None
            where it is the same in every call.
        origins: For each of the new state and of what is observed, its place among the graph's results and, after
            these, its arguments.
        layouts: Of the state, and of the windows.
    """

    def __init__(
        self,
        seen: Seen,
        places: list[int | None],
        origins: tuple[list[int], list[int]],
        layouts: tuple[list[Hashable], list[Hashable]],
    ) -> None:
        self._graph = seen.graph
        self._fixed = [value if place is None else None for value, place in zip(seen.arguments, places, strict=True)]
        self._filled = [(k, place) for k, place in enumerate(places) if place is not None]
        self._after, self._observed = origins
        self._state, self._windows = layouts

    @classmethod
    def of(
        cls,
        seen: Seen | None,
        state: list[Tensor],
        windows: list[Tensor],
        number: Tensor,
        after: list[Tensor],
        observed: list[Tensor],
    ) -> Direct | None:
        """What a call with these arguments and results, which was seen, tells; None where it does not tell enough.

        That is where tensors cannot be told apart, where the results come from elsewhere than the graph, or where the new
        state is laid out otherwise than the old one, for then the next call may take another graph.
        """
        given = [*state, *windows, number]
        known = {id(x): place for place, x in enumerate(given)}
        if seen is None or len(known) < len(given):
            return None
        laid_out = _layouts(state)
        if laid_out != _layouts(after):
            return None
        source = {id(x): place for place, x in reversed(list(enumerate([*seen.results, *seen.arguments])))}
        if not all(id(x) in source for x in (*after, *observed)):
            return None
        places = [known.get(id(x)) for x in seen.arguments]
        origins = [source[id(x)] for x in after], [source[id(x)] for x in observed]
        return cls(seen, places, origins, (laid_out, _layouts(windows)))

    def takes(self, windows: list[Tensor]) -> bool:
        """Whether windows are laid out as those of the call that was seen."""
        return self._windows == _layouts(windows)

    def fits(self, state: list[Tensor]) -> bool:
        """Whether a state is laid out as that of the call that was seen; what this returns always is."""
        return self._state == _layouts(state)

    def __call__(self, state: list[Tensor], windows: list[Tensor], number: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """As the compiled chunk."""
        given = [*state, *windows, number]
        arguments = self._fixed.copy()
        for k, place in self._filled:
            arguments[k] = given[place]
        found = [*self._graph(*arguments), *arguments]
        return [found[k] for k in self._after], [found[k] for k in self._observed]


def _layouts(tensors: list[Tensor]) -> list[Hashable]:
    """What of tensors, other than their values, a compiled graph may depend on."""
    return [
        (x.stride(), x.shape, x.dtype, x.device, x.requires_grad, x.is_inference(), x.is_conj(), x.is_neg())
        for x in tensors
    ]
