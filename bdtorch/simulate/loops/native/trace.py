"""Tracing: run the step once on real tensors and write down every ATen operation.

The step runs under a dispatch mode, below autograd and `torch.func`, so what arrives is plain operations, whatever the
model used to ask for them. What depends on no state, input or time is computed on the spot and becomes a constant,
which hoists it out of the loop. Equal operations on equal operands are taken once.
"""

from __future__ import annotations

import functools
import traceback
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from bdtorch.ops import python_function
from bdtorch.simulate import _functorch as functorch
from bdtorch.simulate._body import Body
from bdtorch.simulate._site import site, site_in
from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native import backward, decompositions
from bdtorch.simulate.loops.native.autocast import casts_anew
from bdtorch.simulate.loops.native.escapes import Escapes
from bdtorch.simulate.loops.native.graph import Graph, Node, is_constant, pruned
from bdtorch.simulate.loops.native.keys import key_of
from bdtorch.simulate.loops.native.operations import DIVISIONS, DIVISOR, LoweringError, is_supported
from bdtorch.simulate.loops.native.overloads import facts_of, functional_twin, promoted, simplified


def trace(body: Body, state: list[Tensor], start: int = 0) -> Graph:
    """Trace one step of ``body``.

    Raises:
        LoopError: the step does something that no graph can hold, or that has no lowering; the message names it.
    """
    tracer = _Tracer()
    # Copies, since a state may be one of the model's own tensors, two leaves may be one tensor, and strides may be any.
    before = [_own(leaf) for leaf in state]
    slices = [_own(x) for x in body.inputs.example()]
    for number, leaf in enumerate(before):
        tracer.enter(leaf, "state", number)
    for number, leaf in enumerate(slices):
        tracer.enter(leaf, "sequence", number)
    t = torch.full((), start * body.dt, dtype=torch.float64)
    tracer.enter(t, "time", 0)
    try:
        with body.alone, torch.no_grad(), casts_anew(), tracer, Escapes(tracer):
            after, observed = body(before, slices, t)
    except LoopError:
        raise
    except Exception as error:  # the step has run outside the tracer, so what fails is the tracing of it
        place = site_in("".join(traceback.format_tb(error.__traceback__)))
        unknown = LoopError(f"the native loop cannot trace this model: {type(error).__name__}: {error} ({place})")
        raise tracer.refused or unknown from error
    if tracer.refused is not None:  # which the model, or C code, has caught
        raise tracer.refused
    new_state, shown = [tracer.node_of(x) for x in after], [tracer.node_of(x) for x in observed]
    graph = pruned(new_state, shown, tracer.captured)
    graph.results = [*after, *observed]
    return graph


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


class _Tracer(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps `__torch_dispatch__` and imports its compiler at the first call: two seconds

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[int, Node] = {}  # by id of the tensor, which `alive` keeps from being reused
        self.alive: dict[int, Tensor] = {}
        self.fresh: set[int] = set()  # tensors that the step itself made
        self.sharing: dict[int, set[int]] = {}  # tensors by the memory that they look into
        self.known: dict[Any, list[Node]] = {}
        self.captured: list[Tensor] = []
        self.count = 0
        self.refused: LoopError | None = None

    def enter(self, tensor: Tensor, kind: str, source: Any) -> Node:
        node = Node(self._next(), kind, tuple(tensor.shape), tensor.dtype, source=source)
        self._bind(tensor, node)
        return node

    def node_of(self, tensor: Tensor) -> Node:
        node = self.nodes.get(id(tensor))
        if node is None:
            if any(not is_constant(self.nodes[twin]) for twin in self._twins(tensor)):
                raise LoopError(
                    "the native loop cannot run this model: the memory of a tensor that changes has become another tensor, "
                    f"as `torch.nn.Parameter(x)` and DLPack make it ({site()})"
                )
            if tensor.requires_grad:
                self.captured.append(tensor)
            node = self.enter(tensor, "constant", tensor)
        return node

    def _twins(self, tensor: Tensor) -> set[int]:
        """The tensors that look into the same memory."""
        return self.sharing.get(_memory(tensor), set())

    def _next(self) -> int:
        self.count += 1
        return self.count

    def _bind(self, tensor: Tensor, node: Node) -> None:
        self.nodes[id(tensor)] = node
        self.alive[id(tensor)] = tensor
        self.sharing.setdefault(_memory(tensor), set()).add(id(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if torch._C._is_torch_function_mode_enabled():  # called by no function that `Escapes` has seen
            with torch._C.DisableTorchFunction():
                return self._taken(func, args, kwargs or {})
        return self._taken(func, args, kwargs or {})

    def _taken(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        facts = facts_of(func)
        name = facts.name
        if facts.draws and not decompositions.is_without_dropout(name, args, kwargs):
            raise self.error(
                func, "draws from torch's global generator; use bdtorch.ops.random, whose numbers are a function"
            )
        if facts.writes:
            return self._mutate(func, args, kwargs)
        operands: list[Node] = []
        nodes = self._with_nodes(args, operands), self._with_nodes(kwargs, operands) if kwargs else kwargs
        if all(node.kind == "constant" or node.op == "full" for node in operands):
            result = func(*args, **kwargs)
            single = isinstance(result, Tensor) and result.numel() == 1 and result.dtype in _REAL
            if single and not operands and not _is_lazy_zero(result):
                # A number, which the model may well have written in several places.
                self._record("full", ((result.item(),), {}), (), result)
                return result
            return self._constant(result)
        if name in _READS and not _by_constant_mask(name, nodes[0]):
            raise self.error(func, "needs the value of a tensor while tracing: write the choice with torch.where")
        if not facts.makes:
            return func(*args, **kwargs)  # asks about metadata, which stay as they are
        if name in _COMPLEX or _has_complex(args):
            raise self.error(
                func, "works with complex numbers, which the loop has not; take real and imaginary parts apart"
            )
        if not is_supported(name, kwargs) or decompositions.is_apart(name, args, kwargs):
            return self._decomposed(func, args, kwargs)
        result = func(*args, **kwargs)
        if name in _UNFILLED or _is_lazy_zero(result):
            return self._constant(result)
        if name in DIVISIONS and not result.is_floating_point():
            self._record(name, self._with_divisor(func, nodes, args), args, result)
        else:
            self._record(name, nodes, args, result, operands)
        return result

    def _with_nodes(self, value: Any, found: list[Node]) -> Any:
        """Arguments with the node of each tensor in its place, and a list of these."""
        if isinstance(value, Tensor):
            node = self.nodes.get(id(value)) or self.node_of(value)
            found.append(node)
            return node
        if isinstance(value, (list, tuple)):
            return type(value)([self._with_nodes(item, found) for item in value])
        if isinstance(value, dict):
            return {key: self._with_nodes(item, found) for key, item in value.items()}
        return value

    def _with_divisor(self, func: Any, nodes: Any, args: tuple[Any, ...]) -> Any:
        """The operands of an integer division, which by zero is an error in PyTorch, with a divisor that the loop checks."""
        (dividend, divisor, *rest), keywords = nodes
        if isinstance(divisor, Node) and not is_constant(divisor):
            safe = torch.where(args[1] == 0, 1, args[1])
            self._record(DIVISOR, ((divisor,), {}), (args[1],), safe)
            return (dividend, self.node_of(safe), *rest), keywords
        if isinstance(divisor, Node):
            divisor = divisor.args[0] if divisor.op == "full" else bool((divisor.source != 0).all())
        if not divisor:
            raise self.error(func, "divides integers by 0")
        return nodes

    def _constant(self, result: Any) -> Any:
        for leaf in _pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.fresh.add(id(leaf))
                lazy = _is_lazy_zero(leaf)
                self.enter(leaf, "constant", torch.zeros(leaf.shape, dtype=leaf.dtype) if lazy else leaf)
        return result

    def _record(
        self, name: str, nodes: Any, args: tuple[Any, ...], result: Any, operands: list[Node] | None = None
    ) -> None:
        given = nodes[0]
        name, arguments, keywords = simplified(name, *nodes)
        outputs = [result] if isinstance(result, Tensor) else [x for x in _pytree.tree_leaves(result) if _is_tensor(x)]
        if name in _RELABELS and outputs[0].shape == arguments[0].shape:
            self.fresh.add(id(outputs[0]))
            self._bind(outputs[0], arguments[0])
            return
        key = name, key_of(arguments), key_of(keywords), tuple([(x.shape, x.dtype) for x in outputs])
        if key not in self.known:
            several = isinstance(result, (list, tuple))
            compute, line = promoted(args), site()
            found = (arguments, operands) if operands is not None and arguments is given else None
            self.known[key] = [
                Node(
                    self._next(), "op", tuple(x.shape), x.dtype, name, arguments, keywords, compute,
                    site=line, output=k if several else None, _operands=found,
                )
                for k, x in enumerate(outputs)
            ]  # fmt: skip
        for tensor, node in zip(outputs, self.known[key], strict=True):
            self.fresh.add(id(tensor))
            self._bind(tensor, node)

    def _mutate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An in-place operation on a tensor that the step made is its functional twin, bound to the same tensor."""
        target = args[0] if args and isinstance(args[0], Tensor) else None
        functional = functional_twin(func)
        if target is not None and target.is_complex():
            raise self.error(func, f"works in {target.dtype}, which the loop has not")
        if target is None or functional is None:
            raise self.error(func, "writes to tensors in a way that the native loop does not follow")
        sharing = self._twins(target)
        if functional.is_view and id(target) in self.fresh:
            return self._reshape(func, functional, args, kwargs)
        if id(target) not in self.fresh or not sharing <= self.fresh:
            raise self.error(func, "writes to the state, an input, a parameter or a buffer; step must be pure")
        twins = [self.alive[number] for number in sharing]
        for twin in twins:
            if (before := self.nodes[id(twin)]).source is twin:
                before.source = twin.clone()  # earlier operations took the constant as it was
        with self:
            result = functional(*args, **kwargs).to(target.dtype)
            if all(_geometry(twin) == _geometry(target) for twin in twins):
                nodes = [self.node_of(result)] * len(twins)
            else:
                nodes = self._seen_through(func, target, result, twins)
        func(*args, **kwargs)
        for twin, node in zip(twins, nodes, strict=True):
            self.nodes[id(twin)] = node
        return target

    def _reshape(self, func: Any, functional: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What turns a tensor into a view of itself, as ``x.squeeze_()``, leaves all memory as it is."""
        target: Tensor = args[0]
        with self:
            seen = functional(*args, **kwargs)
        node = self.node_of(seen)
        self.sharing[_memory(seen)].discard(id(seen))  # nobody else sees it
        func(*args, **kwargs)
        self.nodes[id(target)] = node
        return target

    def _seen_through(self, func: Any, target: Tensor, result: Tensor, twins: list[Tensor]) -> list[Node]:
        """What each of several views into one memory holds once one of them, ``target``, has become ``result``."""
        storage = target.untyped_storage()
        whole = [x for x in twins if x.is_contiguous() and x.numel() * x.element_size() == storage.nbytes()]
        apart = not any(stride == 0 < extent - 1 for stride, extent in zip(target.stride(), target.shape, strict=True))
        if not whole or not apart or any(id(x) not in self.fresh or x.dtype != target.dtype for x in twins):
            raise self.error(
                func, "writes to memory of which there are other views; use torch.where, torch.cat or torch.scatter"
            )
        seen = set(self.sharing[_memory(target)])  # without the views that are made here, which nobody sees
        before = whole[0].reshape(-1)
        if (node := self.node_of(before)).source is before:
            node.source = before.clone()  # a constant, whose memory is about to change
        after = before.scatter(0, _places(target, before).reshape(-1), result.reshape(-1))
        self.sharing[_memory(target)] = seen
        return [self.node_of(after.index_select(0, _places(x, before).reshape(-1)).view(x.shape)) for x in twins]

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from torch._decomp import decomposition_table  # slow to import, and seldom needed

        written_by_user = python_function(str(func))
        if written_by_user is not None:
            with self:
                result = written_by_user(*args, **kwargs)
            if is_constant(self.node_of(result)):
                raise self.error(func, 'is followed with native="python", but torch operations did not make its result')
            return result
        decomposition = decompositions.TABLE.get(str(func)) or decomposition_table.get(func)
        if str(func) == "aten.linalg_lu_solve.default" and (found := self._factored(args[0])) is not None:
            decomposition = functools.partial(backward.solve_for_gradient, *found)
        if decomposition is None and func._can_decompose():
            decomposition = func.decompose
        if decomposition is None:
            raise self.error(func, "has no lowering to C++")
        try:
            with self:
                result = decomposition(*args, **kwargs)
        except (LoweringError, NotImplementedError) as error:  # the second by those of PyTorch
            raise self.error(func, f"has no lowering to C++: {error}") from error
        if result is NotImplemented:
            raise self.error(func, "has no lowering to C++")
        if not (func.is_view and isinstance(result, Tensor)):
            return result
        seen = func(
            *args, **kwargs
        )  # what is made of others may be a copy, and is to be a view, for what is written to it
        self.fresh.add(id(seen))
        self._bind(seen, self.node_of(result))
        return seen

    def _factored(self, factors: Tensor) -> tuple[Tensor, bool] | None:
        """The matrix whose factors these are, where they were left for a gradient, and whether a determinant left them."""
        node = self.node_of(factors)
        if of_determinant := node.op == "aten.add.Tensor":  # which keeps them away from zero
            node = node.args[0]
        if node.op not in _FACTORS or _FACTORS[node.op] != node.output:
            return None
        matrix = next((x for x in self.alive.values() if self.nodes[id(x)] is node.args[0]), None)
        return None if matrix is None else (matrix, of_determinant)

    def take_whole(self, name: str, operand: Tensor, result: Tensor) -> None:
        """Let ``result``, whose operations have been recorded, be one elementary function of ``operand``.

        A slope is made of those operations, so where one is wanted they stay. Under `torch.func.vmap` it is the function of
        all members at once.
        """
        operand, result = functorch.beneath(operand, result)
        known = id(operand) in self.nodes and id(result) in self.nodes
        if known and not is_constant(self.nodes[id(operand)]) and not result.requires_grad:
            self._record(name, ((self.nodes[id(operand)],), {}), (operand,), result)

    def error(self, func: Any, problem: str) -> LoopError:
        self.refused = LoopError(f"the native loop cannot run this model: {func} {problem} ({site()})")
        return self.refused


def _memory(x: Tensor) -> int:
    """Where the memory lies that a tensor looks into: one storage may have been made of another, as DLPack does it."""
    storage = x.untyped_storage()
    return (0 if _is_lazy_zero(x) else storage.data_ptr()) or -storage._cdata


def _is_lazy_zero(x: Any) -> bool:
    """Whether it is a tensor of zeros without memory, as forward differentiation takes for the tangent of a number."""
    return isinstance(x, Tensor) and x._is_zerotensor()


def _by_constant_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether elements are chosen by a mask that is the same in every step."""
    return name == "aten.masked_select.default" and is_constant(args[1])


_FACTORS = {
    "aten._linalg_det.default": 1,
    "aten._linalg_slogdet.default": 2,
    "aten._linalg_solve_ex.default": 1,
}
"""Which output of an operation are the factors of its first operand, for the gradient."""
_COMPLEX = {"aten.complex.default", "aten.polar.default", "aten.view_as_complex.default"}


def _has_complex(values: tuple[Any, ...]) -> bool:
    return any(x.is_complex() if isinstance(x, Tensor) else isinstance(x, complex) for x in values)


_REAL = {torch.float32, torch.float64, torch.int64, torch.int32, torch.bool}
_RELABELS = {
    "aten.alias.default", "aten.detach.default", "aten.expand.default", "aten.view.default", "aten._unsafe_view.default",
}  # fmt: skip
"""Views that change nothing where they keep the shape."""
_UNFILLED = {"aten.empty_like.default", "aten.new_empty.default"}
_READS = {
    "aten._local_scalar_dense.default",
    "aten.is_nonzero.default",
    "aten.allclose.default",
    "aten.equal.default",
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten.item.default",
    "aten._assert_async.default",
}


def _places(x: Tensor, flat: Tensor) -> Tensor:
    """The index in its flat memory of each element of a view."""
    with torch.utils._python_dispatch._disable_current_modes():
        return torch.arange(flat.numel()).as_strided(x.shape, x.stride(), x.storage_offset()).clone()


def _geometry(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.storage_offset(), x.dtype


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)
