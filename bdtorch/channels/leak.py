"""The leak: a conductance without gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from bdtorch._types import Value
from bdtorch.channels._channel import Channel


class Leak(Channel):
    """A constant conductance ``g`` (nS, or mS/cm2) with reversal potential ``e`` (mV)."""

    class State(NamedTuple):
        pass

    def rates(self, v: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        return {}

    def conductance(self, state: State) -> Value:
        return self.g
