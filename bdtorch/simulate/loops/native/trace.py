"""Tracing: run the step once on real tensors and write down every ATen operation.

The step runs under a dispatch mode, below autograd and `torch.func`, so what arrives is plain operations, whatever the
model used to ask for them. What depends on no state, input or time is computed on the spot and becomes a constant,
which hoists it out of the loop. Equal operations on equal operands are taken once.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from bdtorch.simulate._body import Body
from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native.graph import Graph, Node, is_constant, pruned
from bdtorch.simulate.loops.native.operations import is_supported

_PACKAGE = Path(__file__).resolve().parents[3]
_TORCH = Path(torch.__file__).resolve().parent


def trace(body: Body, state: list[Tensor], start: int = 0) -> Graph:
    """Trace one step of ``body``.

    Raises:
        LoopError: the step does something that no graph can hold, or that has no lowering; the message names it.
    """
    tracer = _Tracer()
    for number, leaf in enumerate(state):
        tracer.enter(leaf, "state", number)
    slices = [sequence[0] for sequence in body.inputs.sequences]
    for number, leaf in enumerate(slices):
        tracer.enter(leaf, "sequence", number)
    t = torch.full((), start * body.dt, dtype=torch.float64)
    tracer.enter(t, "time", 0)
    with torch.no_grad(), tracer:
        after, observed = body(list(state), slices, t)
    return pruned([tracer.node_of(x) for x in after], [tracer.node_of(x) for x in observed])


class _Tracer(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[int, Node] = {}  # by id of the tensor, which `alive` keeps from being reused
        self.alive: list[Tensor] = []
        self.fresh: set[int] = set()  # tensors that the step itself made
        self.known: dict[Any, list[Node]] = {}
        self.count = 0

    def enter(self, tensor: Tensor, kind: str, source: Any) -> Node:
        node = Node(self._next(), kind, tuple(tensor.shape), tensor.dtype, source=source)
        self._bind(tensor, node)
        return node

    def node_of(self, tensor: Tensor) -> Node:
        node = self.nodes.get(id(tensor))
        return self.enter(tensor, "constant", tensor) if node is None else node

    def _next(self) -> int:
        self.count += 1
        return self.count

    def _bind(self, tensor: Tensor, node: Node) -> None:
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise self._error(func, "draws from torch's global generator; use bdtorch.ops.random, whose numbers are a function")
        if func._schema.is_mutable:
            return self._mutate(func, args, kwargs)
        nodes = _pytree.tree_map(lambda x: self.node_of(x) if isinstance(x, Tensor) else x, (args, kwargs))
        if is_constant(_pytree.tree_leaves(nodes)):
            return self._constant(func(*args, **kwargs))
        if not any("Tensor" in str(result.type) for result in func._schema.returns) and name not in _READS:
            return func(*args, **kwargs)  # asks about metadata, which stay as they are
        if name in _READS:
            raise self._error(func, "needs the value of a tensor while tracing: write the choice with torch.where")
        if not is_supported(name):
            return self._decomposed(func, args, kwargs)
        result = func(*args, **kwargs)
        self._record(name, nodes, args, result)
        return result

    def _constant(self, result: Any) -> Any:
        for leaf in _pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.fresh.add(id(leaf))
                self.enter(leaf, "constant", leaf)
        return result

    def _record(self, name: str, nodes: Any, args: tuple[Any, ...], result: Any) -> None:
        arguments, keywords = nodes
        outputs = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        key = (name, _key(arguments), _key(tuple(sorted(keywords.items(), key=lambda item: item[0]))))
        if key not in self.known:
            several = isinstance(result, (list, tuple))
            compute, site = _promoted(args), self._site()
            self.known[key] = [
                Node(
                    self._next(), "op", tuple(x.shape), x.dtype, name, tuple(arguments), keywords, compute,
                    site=site, output=k if several else None,
                )
                for k, x in enumerate(outputs)
            ]  # fmt: skip
        for tensor, node in zip(outputs, self.known[key], strict=True):
            self.fresh.add(id(tensor))
            self._bind(tensor, node)

    def _mutate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An in-place operation on a tensor that the step made is its functional twin, bound to the same tensor."""
        target = args[0] if args and isinstance(args[0], Tensor) else None
        functional = _functional(func)
        if target is None or functional is None:
            raise self._error(func, "writes to tensors in a way that the native loop does not follow")
        if id(target) not in self.fresh:
            raise self._error(func, "writes to the state, an input, a parameter or a buffer; step must be pure")
        if target._is_view():
            raise self._error(func, "writes through a view; use torch.where, torch.cat or torch.scatter")
        with self:
            result = functional(*args, **kwargs)
        node = self.node_of(result)
        func(*args, **kwargs)
        self._bind(target, node)
        return target

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from torch._decomp import decomposition_table  # slow to import, and seldom needed

        decomposition = decomposition_table.get(func)
        if decomposition is None and func._can_decompose():
            decomposition = func.decompose
        if decomposition is None:
            raise self._error(func, "has no lowering to C++")
        with self:
            return decomposition(*args, **kwargs)

    def _error(self, func: Any, problem: str) -> LoopError:
        return LoopError(f"the native loop cannot run this model: {func} {problem} ({self._site()})")

    def _site(self) -> str:
        """The innermost line outside this package's loops and torch, as "file:line: code"."""
        for frame in reversed(traceback.extract_stack(limit=40)):
            path = Path(frame.filename)
            if not (path.is_relative_to(_PACKAGE / "simulate") or path.is_relative_to(_TORCH)):
                return f"{path.name}:{frame.lineno}: {frame.line}"
        return "unknown line"


_READS = {
    "aten._local_scalar_dense.default",
    "aten.is_nonzero.default",
    "aten.equal.default",
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten.item.default",
    "aten._assert_async.default",
}


def _key(value: Any) -> Any:
    if isinstance(value, Node):
        return ("node", value.number)
    if isinstance(value, (list, tuple)):
        return tuple(_key(item) for item in value)
    return (type(value).__name__, repr(value))


def _promoted(args: tuple[Any, ...]) -> torch.dtype | None:
    operands = [x for x in args if isinstance(x, (Tensor, int, float, bool))]
    if len(operands) == 2 and any(isinstance(x, Tensor) for x in operands):
        return torch.result_type(*operands)
    tensors = [x for x in operands if isinstance(x, Tensor)]
    return tensors[0].dtype if tensors else None


def _functional(func: Any) -> Any:
    """The functional twin of an in-place ATen overload, or None."""
    namespace, _, packet = func._schema.name.partition("::")
    if namespace != "aten" or not packet.endswith("_") or packet.endswith("__"):
        return None
    twin = getattr(torch.ops.aten, packet[:-1], None)
    return getattr(twin, func._overloadname, None) if twin is not None else None
