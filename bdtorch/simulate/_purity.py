"""What a step leaves behind in Python, or takes from it, other than through its arguments and its results.

A compiled loop runs the Python of a step once, when it traces it. A count that the step keeps, a list that it appends to or
a line that it prints would stop there, in silence. So the step of the trial run is watched: what it may reach (modules,
their attributes and plain containers, variables of closures, globals that its functions name) is noted before and after.
"""

from __future__ import annotations

import array
import builtins
import collections
import dis
import functools
import io
import os
import pickle
import random
import sys
import time
import types
import warnings
import zlib
from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate._collector import collector_paused

_PACKAGES = (Path(torch.__file__).resolve().parent, Path(__file__).resolve().parents[1])
_STANDARD, _INSTALLED = Path(os.__file__).resolve().parent, {"site-packages", "dist-packages"}
_INTERNAL = set(vars(torch.nn.Module())) - {"training"} | {"_compiled_loops"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_DEEPEST, _MOST = 6, 20_000  # levels of nesting, and values, that are looked at
_LARGEST, _FIRST = 1 << 22, 512  # bytes of an array whose content is looked at; elements of a tensor
_CLOCKS = (
    time.time, time.time_ns, time.perf_counter, time.perf_counter_ns, time.monotonic, time.monotonic_ns, time.process_time,
    time.process_time_ns, time.thread_time, time.thread_time_ns, time.clock_gettime, time.clock_gettime_ns, time.localtime,
    time.gmtime, datetime.now, datetime.utcnow, datetime.today, date.today,
)  # fmt: skip
_CALLS: dict[Any, str] = {
    builtins.print: "prints", builtins.input: "asks for input", os.urandom: "draws from the system's entropy",
} | dict.fromkeys(_CLOCKS, "reads the clock")  # fmt: skip
"""Built-in functions that have an effect, or a result, which no state shows."""
_WRITES = {"write", "writelines", "writestr"}
"""Methods of files that do."""


class Watch:
    """Watches a step within ``with`` blocks.

    Args:
        system: The modules that it may reach.
        functions: Other functions that it calls.
    """

    def __init__(self, system: torch.nn.Module, functions: Iterable[Any]) -> None:
        self.system, self.functions = system, list(functions)
        self.before = self._snapshot()
        self.calls = _Calls()

    def __enter__(self) -> None:
        self.paused = collector_paused()  # what it calls, such as others' `gc.callbacks`, is not the step's doing
        self.paused.__enter__()
        self.calls.start()

    def __exit__(self, *error: object) -> None:
        self.calls.stop()
        self.paused.__exit__(None, None, None)

    def _snapshot(self) -> _Snapshot:
        return _Snapshot(self.system, self.functions)

    def effects(self, again: Callable[[], Any]) -> list[str]:
        """What the step has changed outside of its result, and where, as far as that can be found.

        What only a first call changes, as one that keeps a value for later calls does, is no effect.

        Args:
            again: Takes the step once more, where that is to be told.
        """
        changed = self.before.differences(self._snapshot())
        if changed:
            before = self._snapshot()
            again()
            changed = before.differences(self._snapshot())
        return [*changed, *dict.fromkeys(self.calls.found)]


class _Calls:
    """Notes calls of `_CALLS` within the model's code, by the interpreter's hook for profilers."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def start(self) -> None:
        self.free = sys.getprofile() is None  # else somebody measures where time goes, and a print is overlooked
        if self.free:
            sys.setprofile(self._note)

    def stop(self) -> None:
        if self.free:
            sys.setprofile(None)

    def _note(self, frame: types.FrameType, event: str, called: Any) -> None:
        if event != "c_call" or not isinstance(called, types.BuiltinFunctionType):
            return
        if called.__name__ in _WRITES and isinstance(called.__self__, io.IOBase):
            what = "writes to a file"
        elif called in _CALLS:
            what = _CALLS[called]
        else:
            return
        caller: types.FrameType | None = frame
        while caller is not None and _is_of_the_library(caller.f_code.co_filename):
            if caller.f_code.co_filename == warnings.__file__:
                return  # which are shown once anyway
            caller = caller.f_back
        if caller is None or _is_in_a_package(caller.f_code.co_filename) or _is_importing(caller):
            return
        self.found.append(f"{what} ({Path(caller.f_code.co_filename).name}:{caller.f_lineno})")


def _is_importing(frame: types.FrameType | None) -> bool:
    """Whether a frame belongs to the import of a module, which no later step will do again, within the step."""
    while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(_PACKAGES[1]):
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class _Snapshot:
    """What a step may reach, by its name."""

    def __init__(self, system: torch.nn.Module, functions: list[Any]) -> None:
        self.values: dict[str, Any] = {}
        self.owners: dict[
            str, tuple[tuple[type, ...], str]
        ] = {}  # of attributes: the classes that may touch it, and its name
        self.kept: list[Any] = []  # so that no address becomes another object's
        self.seen: set[int] = set()
        self.classes: dict[type, tuple[type, ...]] = {}  # of a module's own, from outside of this package
        self.left = _MOST
        for path, module in system.named_modules():
            self._module(module, f"of {type(module).__name__}" + (f" ({path!r})" if path else ""))
        for function in functions:
            self._function(function, 0)
        self.values["the state of Python's `random`"] = hash(random.getstate())
        if (legacy := sys.modules.get("numpy.random.mtrand")) is not None:
            self.values["the state of NumPy's global random generator"] = _random_state(legacy._rand)

    def differences(self, after: _Snapshot) -> list[str]:
        """What changed, appeared or vanished, in words."""
        names = dict.fromkeys([*self.values, *after.values])
        changed = [name for name in names if self.values.get(name) != after.values.get(name)]
        return [f"changes {name}{_line(*(self.owners | after.owners).get(name, ((), '')))}" for name in changed]

    def _module(self, module: torch.nn.Module, owner: str) -> None:
        own = {name: value for name, value in vars(module).items() if name not in _INTERNAL}
        held = (("the parameter", module._parameters), ("the buffer", module._buffers), ("the attribute", own))
        kind_of_module = type(module)
        if (classes := self.classes.get(kind_of_module)) is None:
            classes = tuple([base for base in kind_of_module.__mro__ if not _is_of_a_package(base.__module__)])
            self.classes[kind_of_module] = classes
        for kind, values in held:
            for name, value in values.items():
                label = f"{kind} {name!r} {owner}"
                self.values[label], self.owners[label] = self._value(value, 0), (classes, name)
        for base in classes:
            self._class(base)
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for hook in hooks.values():
                self._function(hook, 0)

    def _class(self, base: type) -> None:
        if id(base) in self.seen:
            return
        self.seen.add(id(base))
        for name, value in list(vars(base).items()):
            value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if isinstance(value, types.FunctionType):
                self._function(value, 0)
            elif not name.startswith("__") and not callable(value) and not hasattr(type(value), "__get__"):
                self.values[f"the class attribute {name!r} of {base.__name__}"] = self._value(value, 0)

    def _function(self, function: Any, depth: int) -> None:
        """The variables of a function outside of it: closure, defaults and globals."""
        while isinstance(function, functools.partial):
            function = function.func
        function = getattr(function, "__func__", function)
        if not isinstance(function, types.FunctionType) or id(function) in self.seen or depth > _DEEPEST:
            return
        self.seen.add(id(function))
        where = f"of {function.__qualname__} ({Path(function.__code__.co_filename).name}:{function.__code__.co_firstlineno})"
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not yet assigned
                continue
            self._variable(f"the variable {name!r} {where}", content, depth)
        for k, value in enumerate((*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())):
            self._variable(f"default {k} {where}", value, depth)
        for name, value in vars(function).items():
            self._variable(f"the attribute {name!r} {where}", value, depth)
        if not _is_in_a_package(function.__code__.co_filename):
            names = _names(function.__code__)
            for name in names:
                if name in function.__globals__:
                    value = function.__globals__[name]
                    self._variable(f"the global {name!r} of {function.__module__}", value, depth)
                    if isinstance(value, types.ModuleType) and _is_of_users(value.__name__):
                        for part in names & vars(value).keys():
                            self._variable(f"the global {part!r} of {name}", vars(value)[part], depth)

    def _variable(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, (types.FunctionType, types.MethodType)):
            self._function(value, depth + 1)
        elif isinstance(value, type):
            if _is_of_users(value.__module__):
                self._class(value)
        elif not isinstance(value, (types.ModuleType, torch.nn.Module)):
            self.values[name] = self._value(value, 0)

    def _value(self, value: Any, depth: int) -> Any:
        """Something that is equal as long as nothing has changed, and the same object is in each place."""
        if isinstance(value, _PLAIN):
            return type(value), value if value == value else "nan"
        self.left -= 1
        self.kept.append(value)
        if isinstance(value, Tensor):
            return id(value), 0 if value.is_inference() else value._version, _beginning(value)
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self._function(value, depth)
        if depth > _DEEPEST or self.left < 0 or isinstance(value, (type, types.ModuleType, torch.nn.Module)):
            return id(value)
        if isinstance(value, (list, tuple, set, frozenset, dict, collections.deque)):
            self.left -= len(value)
            if self.left < 0:
                return type(value), len(value)
        if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            # Sets are compared in the order in which they lie, which only a change may change.
            return type(value), tuple(self._value(item, depth + 1) for item in value)
        if isinstance(value, dict):
            return type(value), tuple((self._value(k, depth + 1), self._value(v, depth + 1)) for k, v in value.items())
        return id(value), self._content(value, depth)

    def _content(self, value: Any, depth: int) -> Any:
        if (state := _random_state(value)) is not None:
            return state
        if type(value).__module__ == "numpy" and hasattr(value, "nbytes"):
            return zlib.crc32(value.tobytes()) if value.nbytes <= _LARGEST and not value.dtype.hasobject else None
        if isinstance(value, (bytearray, array.array)):
            return zlib.crc32(value) if len(value) <= _LARGEST else len(value)
        attributes = getattr(value, "__dict__", None) or _slots(value)
        if not isinstance(attributes, dict) or id(value) in self.seen or _is_of_a_package(type(value).__module__):
            return None
        self.seen.add(id(value))
        return tuple((name, self._value(item, depth + 1)) for name, item in attributes.items())


def _beginning(tensor: Tensor) -> int | None:
    """A checksum of the first elements: what writes through ``.data`` leaves the version as it was."""
    if torch._C._are_functorch_transforms_active() or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None  # which have no memory of their own
    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.is_contiguous()
    if not plain or tensor.is_quantized or tensor.is_complex():
        return None
    return zlib.crc32(tensor.detach().view(-1)[:_FIRST].view(torch.uint8).numpy().tobytes())


def _slots(value: Any) -> dict[str, Any]:
    """The attributes of an object that keeps them in slots."""
    names = [name for base in type(value).__mro__ for name in vars(base).get("__slots__", ())]
    if not names or not _is_of_users(type(value).__module__):
        return {}
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _random_state(value: Any) -> Any:
    """The state of a random generator of Python, NumPy or PyTorch; None for anything else."""
    if isinstance(value, random.Random):
        return hash(value.getstate())
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().numpy()) if value.device.type == "cpu" else value.initial_seed()
    if type(value).__module__.startswith("numpy.random"):
        bits = getattr(value, "bit_generator", None) or getattr(value, "_bit_generator", value)
        return pickle.dumps(bits.state) if hasattr(bits, "state") else None
    return None


def _line(classes: tuple[type, ...], name: str) -> str:
    """Where the methods of some classes assign an attribute, or read it where none does: " (file.py:12)"."""
    found: dict[str, str] = {}
    for base in classes:
        for method in vars(base).values():
            if isinstance(method, types.FunctionType) and method.__name__ not in ("__init__", "init_state"):
                line = method.__code__.co_firstlineno
                for instruction in dis.get_instructions(method):
                    line = instruction.starts_line or line
                    if instruction.argval == name and instruction.opname in ("STORE_ATTR", "LOAD_ATTR", "LOAD_METHOD"):
                        found.setdefault(instruction.opname, f" ({Path(method.__code__.co_filename).name}:{line})")
    return found.get("STORE_ATTR") or next(iter(found.values()), "")


@functools.cache
def _names(code: types.CodeType) -> set[str]:
    """The globals that a function and those within it may name."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


@functools.cache
def _is_of_the_library(filename: str) -> bool:
    """Whether a file is of Python's own library, apart from what is installed with it."""
    path = Path(filename).resolve()
    return path.is_relative_to(_STANDARD) and not _INSTALLED.intersection(path.parts)


@functools.cache
def _is_in_a_package(filename: str) -> bool:
    path = Path(filename).resolve()  # environments may lie behind links
    return any(path.is_relative_to(package) for package in _PACKAGES)


@functools.cache
def _is_of_users(module: str) -> bool:
    """Whether a module is neither of Python's library nor installed nor a part of this package."""
    if module.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return not file or not (_is_in_a_package(file) or _INSTALLED.intersection(Path(file).parts))


@functools.cache
def _is_of_a_package(module: str) -> bool:
    return module.partition(".")[0] in ("torch", "bdtorch", "builtins", "typing")
