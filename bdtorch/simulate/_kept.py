"""What loops have made for a system, kept with it for its next run."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch

ATTRIBUTE = "_compiled_loops"


class Key:
    """A large key, of which the hash is taken once."""

    def __init__(self, value: Hashable) -> None:
        self.value = value
        self.hash = hash(value)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.value == other.value


class Kept:
    """Things by their keys, of which those that were used last are kept.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.things: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """The thing of a key, or None."""
        thing = self.things.pop(key, None)
        if thing is not None:
            self.things[key] = thing
        return thing

    def put(self, key: Hashable, thing: Any) -> None:
        """Keep a thing, in place of the one that was used longest ago."""
        self.things[key] = thing
        while len(self.things) > self.most:
            self.things.popitem(last=False)


class _Store:
    """The things of all loops for one module, and its lock. They live as long as it; a copy of it begins with none."""

    def __init__(self) -> None:
        self.of_loops: dict[str, Kept] = {}
        self.lock = threading.RLock()
        self.process = os.getpid()

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()  # so that a file with a module of torch's can be read without this package


def kept_with(system: torch.nn.Module, loop: str, most: int) -> Kept:
    """What the loop of that name has made for a system; a shallow copy of the system shares it."""
    return _store_of(system).of_loops.setdefault(loop, Kept(most))


class Alone:
    """Lets one thread at a time run the Python of a system: some put other tensors in the place of its parameters.

    Nor does another run that of a system with a module in common. May be entered again and again.

    Args:
        system: The system.
    """

    def __init__(self, system: torch.nn.Module) -> None:
        stores = sorted(map(_store_of, system.modules()), key=id)  # in one order for all, so that none wait in a circle
        self.locks = [store.lock for store in stores]

    def __enter__(self) -> None:
        held = 0
        try:
            for lock in self.locks:
                lock.acquire()
                held += 1
        except BaseException:  # Ctrl-C while it waits
            for lock in self.locks[:held]:
                lock.release()
            raise

    def __exit__(self, *error: object) -> None:
        for lock in self.locks:
            lock.release()


def _store_of(module: torch.nn.Module) -> _Store:
    attributes = vars(module)
    if attributes.get(ATTRIBUTE) is None:  # as copies and files have it
        attributes.pop(ATTRIBUTE, None)
    store: _Store = attributes.setdefault(ATTRIBUTE, _Store())
    if store.process != os.getpid():  # forked, perhaps while another thread held the lock, which is not here to free it
        store.lock, store.process = threading.RLock(), os.getpid()
    return store
