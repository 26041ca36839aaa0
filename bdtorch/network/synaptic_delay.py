"""A delay for every synapse."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bdtorch._system import Parametrised
from bdtorch._types import State
from bdtorch.connect import CSR
from bdtorch.ops.delay import event_csr_delayed


class SynapticDelay(Parametrised):
    """Delivers the weighted events of every synapse after its own delay, rounded to whole steps.

    An event is written at once into the slot from which it is read when it arrives, so a step costs as much as without
    delays, and the state is one sum for each target and step of the longest delay.

    Args:
        duration: Delay of every synapse, ms, at least 0, ``(synapses,)``.
        connect: The synapses.
        dtype: Dtype of the delays.
        device: Device of the ring.

    Raises:
        ValueError: a delay is negative or not finite, or their number is not that of the synapses.
    """

    duration: Tensor

    class State(NamedTuple):
        ring: Tensor
        """What is on its way, ``(*batch, slots, n_post)``."""
        cursor: Tensor
        """The slot that is read next, int64, ``(*batch,)``."""

    def __init__(
        self,
        duration: Tensor,
        connect: CSR,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__((), dtype=dtype, device=device)
        if tuple(duration.shape) != connect.weight_shape:
            raise ValueError(
                f"`Projection(delay=...)`: expected one delay per synapse, {connect.weight_shape}, "
                f"got shape {tuple(duration.shape)}"
            )
        if duration.requires_grad:
            raise ValueError(
                "`Projection(delay=...)`: expected delays per synapse without a gradient, since they are whole steps; "
                "`Delay(..., interpolate=True)` trains one per source"
            )
        bad = ~((duration >= 0) & duration.isfinite())
        if bool(bad.any()):
            raise ValueError(
                f"`Projection(delay=...)`: expected finite delays of at least 0 ms, got {float(duration[bad][0]):g} ms"
            )
        self.connect = connect
        self.declare("duration", duration)

    def _steps(self, dt: float) -> Tensor:
        return torch.round(self.duration / dt).to(torch.int32)

    def init_state(self, batch_shape: tuple[int, ...], *, dt: float | None, dtype: torch.dtype) -> State:
        """Nothing on its way, in steps of ``dt`` ms, in the dtype of the sums."""
        if dt is None:
            raise ValueError(
                "`init_state(dt=...)`: expected the step in ms, since a delay's state depends on it, got None"
            )
        ring = torch.zeros((*batch_shape, self._slots(dt), self.connect.n_post), dtype=dtype, device=self.device)
        return self.State(ring=ring, cursor=torch.zeros(batch_shape, dtype=torch.int64, device=self.device))

    def _slots(self, dt: float) -> int:
        longest = float(self.duration.max()) if self.duration.numel() else 0.0
        return round(longest / dt) + 1

    def forward(self, state: State, spikes: Tensor, weight: Tensor, dt: float) -> tuple[State, Tensor]:
        """Send ``spikes``, ``(*batch, n_pre)``; returns the new state and what arrives now, ``(*batch, n_post)``."""
        slots = state.ring.shape[-2]
        structure = (self.connect.indices, self.connect.indptr, self._steps(dt))
        ring = event_csr_delayed(state.ring, state.cursor, spikes, weight, *structure)
        row = state.cursor[..., None, None].expand(*spikes.shape[:-1], 1, self.connect.n_post)
        arrived = ring.gather(-2, row).squeeze(-2)
        after = self.State(ring=ring.scatter(-2, row, 0.0), cursor=torch.remainder(state.cursor + 1, slots))
        return after, arrived
