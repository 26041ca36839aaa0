"""A chunk of steps recorded once as a graph over buffers of its own, and replayed: CUDA graphs.

Recording and replaying hide behind `Recorder`, so the handling of buffers knows nothing of devices; tests run it on the
CPU with a recorder that re-executes.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

import torch
from torch import Tensor

from bdtorch.simulate.loops._chunks import Steps


class Recorder(abc.ABC):
    """Records the kernels of a function once, and runs them again on the same memory."""

    @abc.abstractmethod
    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Record ``function``, which reads and writes tensors that stay where they are.

        What it writes is undefined afterwards: a recorder may run it, to warm up, or not.

        Returns:
            Its results, whose memory every `replay` fills.
        """

    @abc.abstractmethod
    def replay(self) -> None:
        """Run what was recorded."""


class CudaRecorder(Recorder):
    """`torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):  # what is made at the first call, such as handles of libraries, is no part of it
            for _ in range(2):
                function()
        here.wait_stream(aside)
        with torch.cuda.graph(self.graph):
            return function()

    def replay(self) -> None:
        self.graph.replay()


class Replayed:
    """A chunk over buffers of its own: the state, the windows of the inputs, and the number of the first step.

    The state stays in its buffers from chunk to chunk, where each begins with what the last one left; `load` puts
    another there, and `state` hands out copies.

    Args:
        steps: The compiled chunk.
        state: A state, for its shapes.
        windows: Windows of the inputs, for theirs.
        recorder: What records it.
    """

    def __init__(self, steps: Steps, state: list[Tensor], windows: list[Tensor], recorder: Recorder) -> None:
        self._state = [leaf.clone(memory_format=torch.contiguous_format) for leaf in state]
        self._windows = [window.clone(memory_format=torch.contiguous_format) for window in windows]
        self._first = torch.zeros((), dtype=torch.int64, device=state[0].device)
        self._recorder = recorder

        def chunk() -> list[Tensor]:
            after, observed = steps(self._state, self._windows, self._first)
            # All before any is overwritten, since a new state may be a view of an old one.
            after = [leaf.clone() if leaf.untyped_storage().data_ptr() in owned else leaf for leaf in after]
            for mine, new in zip(self._state, after, strict=True):
                mine.copy_(new)
            return observed

        owned = {leaf.untyped_storage().data_ptr() for leaf in self._state}
        self._observed = recorder.capture(chunk)

    def load(self, state: list[Tensor]) -> None:
        """Begin the next chunk from ``state``."""
        for mine, leaf in zip(self._state, state, strict=True):
            mine.copy_(leaf)

    def __call__(self, windows: list[Tensor], first: int) -> list[Tensor]:
        """Take the steps from number ``first``, and return copies of what was observed."""
        for mine, window in zip(self._windows, windows, strict=True):
            mine.copy_(window)
        self._first.fill_(first)
        self._recorder.replay()
        return [observed.clone() for observed in self._observed]

    def state(self) -> list[Tensor]:
        """A copy of the state."""
        return [leaf.clone() for leaf in self._state]
