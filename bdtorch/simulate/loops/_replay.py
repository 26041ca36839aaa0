"""Steps recorded once as a graph over buffers of their own, and replayed: CUDA graphs.

Recording and replaying hide behind `Recorder`, so the handling of buffers knows nothing of devices; tests run it on the
CPU with a recorder that re-executes. One compiled step is recorded as often as a chunk has steps: that compiles nothing.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate.loops._chunks import Steps

_WARM_UP = 2  # runs of what is recorded: the first compiles, and makes handles of libraries


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
    """`torch.cuda.CUDAGraph`.

    What draws from torch's own generator goes on drawing: `torch.cuda.graph` lets each replay move its offset.

    Args:
        device: The device whose kernels are recorded, which need not be the current one.
        pool: Memory pool that graphs share which never run at once, `torch.cuda.graph_pool_handle`.
    """

    def __init__(self, device: torch.device, pool: Any) -> None:
        self.device, self.pool = device, pool
        with torch.cuda.device(device):
            self.graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        with torch.cuda.device(self.device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # where nothing of the warm-up meets work that is still going on
                for _ in range(_WARM_UP):
                    function()
            here.wait_stream(aside)
            # What other threads do with the device, such as pinning memory, is no part of the graph and must not break it.
            with torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local"):
                return function()

    def replay(self) -> None:
        with torch.cuda.device(self.device):
            self.graph.replay()


class Replays:
    """Recorded chunks of several lengths over the same buffers: the state, and for each length the windows and numbers.

    The state stays in its buffers from chunk to chunk, where each begins with what the last one left; `load` puts another
    there, and `state` hands out copies.

    Args:
        step: A compiled chunk of one step.
        state: A state, for its shapes.
        recorder: Makes recorders.
    """

    def __init__(self, step: Steps, state: list[Tensor], recorder: Callable[[], Recorder]) -> None:
        self._step, self._recorder = step, recorder
        self._state = [leaf.clone(memory_format=torch.contiguous_format) for leaf in state]
        self.chunks: dict[int, Replayed] = {}

    def record(self, size: int, windows: list[Tensor], device: torch.device) -> None:
        """Record a chunk of so many steps; the state is undefined afterwards."""
        self.chunks[size] = Replayed(self._step, self._state, size, windows, device, self._recorder())

    def load(self, state: list[Tensor]) -> None:
        """Begin the next chunk from ``state``."""
        for mine, leaf in zip(self._state, state, strict=True):
            mine.copy_(leaf)

    def state(self) -> list[Tensor]:
        """A copy of the state."""
        return [leaf.clone() for leaf in self._state]


class Replayed:
    """A recorded chunk; see `Replays`."""

    def __init__(
        self,
        step: Steps,
        state: list[Tensor],
        size: int,
        windows: list[Tensor],
        device: torch.device,
        recorder: Recorder,
    ) -> None:
        self._windows = [window.clone(memory_format=torch.contiguous_format) for window in windows]
        self._offsets = torch.arange(size, device=device)
        self._numbers = self._offsets.clone()
        self._recorder = recorder

        def chunk() -> list[Tensor]:
            now, columns = state, []
            for k in range(size):
                now, observed = step(now, [window[k : k + 1] for window in self._windows], self._numbers[k])
                columns.append(observed)
            # All before any is overwritten, since what is new or observed may be a view of an old state.
            stacked = [torch.stack(column) for column in zip(*columns, strict=True)]
            now = [leaf.clone() if leaf.untyped_storage().data_ptr() in owned else leaf for leaf in now]
            for mine, new in zip(state, now, strict=True):
                mine.copy_(new)
            return stacked

        owned = {leaf.untyped_storage().data_ptr() for leaf in state}
        self._observed = recorder.capture(chunk)

    def __call__(self, windows: list[Tensor], first: int, kept: list[slice]) -> list[Tensor]:
        """Take the steps from number ``first``, and return copies of what was observed in some of them."""
        for mine, window in zip(self._windows, windows, strict=True):
            mine.copy_(window)
        torch.add(self._offsets, first, out=self._numbers)
        self._recorder.replay()
        return [observed[some].clone() for observed, some in zip(self._observed, kept, strict=True)]
