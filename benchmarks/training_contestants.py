"""The networks of `benchmarks/training.py`: one architecture, in bdtorch, in plain PyTorch, and in its peers.

100 inputs, 256 recurrent leaky integrate-and-fire neurons that a spike resets to 0, 2 leaky readouts. The "graded"
networks put out a smooth function of the potential in place of spikes, so that no product can leave zeros out.
All make the same weights from the same seed. Norse and SpikingJelly take the leak as 1 - dt / tau, snnTorch drops the
input in the step of a reset; so their spikes differ a little, and the table shows how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

INPUTS, NEURONS, READOUTS, BATCH = 100, 256, 2, 64
RATE_HZ, TAU, SLOPE = 20.0, 20.0, 25.0  # tau in ms, of membranes and readouts; the step is 1 ms
KEEP = math.exp(-1.0 / TAU)

Run = Callable[[Tensor, "Watch | None"], Tensor]
"""From inputs (time, batch, inputs) to readouts (time, batch, readouts)."""


class Watch:
    """The mean activity of a step, noted in runs that are not timed."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    @property
    def mean(self) -> float:
        """Over the steps and whatever else was seen."""
        return sum(self.seen) / len(self.seen)


class Weights(nn.Module):
    """Input, recurrent and readout weights."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def matrix(rows: int, columns: int, gain: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * gain / math.sqrt(rows))

        self.w_in = matrix(INPUTS, NEURONS, 2.2)
        self.w_rec = matrix(NEURONS, NEURONS, 1.0)
        self.w_out = matrix(NEURONS, READOUTS, 1.0)


class State(NamedTuple):
    """Potentials, outputs of the neurons, and readouts."""

    v: Tensor
    z: Tensor
    y: Tensor


def step(weights: Any, state: State, x: Tensor, fire: Callable[[Tensor], Tensor], graded: bool) -> State:
    """One step of the network."""
    drive = x @ weights.w_in + state.z @ weights.w_rec
    v = KEEP * (state.v if graded else state.v * (1.0 - state.z.detach())) + drive
    z = torch.sigmoid(v - 1.0) if graded else fire(v - 1.0)
    return State(v, z, KEEP * state.y + z @ weights.w_out)


class SuperSpike(torch.autograd.Function):
    """A step whose slope is 1 / (1 + alpha |x|)^2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] / (1.0 + SLOPE * x.abs()) ** 2


def pytorch(graded: bool = False) -> tuple[nn.Module, Run]:
    """A plain loop."""
    weights = Weights()

    def run(x: Tensor, watch: Watch | None = None) -> Tensor:
        zeros = x.new_zeros(x.shape[1], NEURONS)
        state, outs = State(zeros, zeros, x.new_zeros(x.shape[1], READOUTS)), []
        for now in x.unbind(0):
            state = step(weights, state, now, SuperSpike.apply, graded)
            outs.append(state.y)
            if watch:
                watch.seen.append(float(state.z.detach().mean()))
        return torch.stack(outs)

    return weights, run


def bdtorch(graded: bool = False) -> tuple[nn.Module, Run]:
    """The native loop."""
    import bdtorch as bt

    class Network(bt.DynamicalSystem):
        def __init__(self) -> None:
            super().__init__(NEURONS)
            self.weights = Weights()
            self.fire = bt.surrogate.SuperSpike(SLOPE)

        def init_state(self, batch_shape: tuple[int, ...] = ()) -> Any:
            zeros = self.fill(batch_shape, 0.0)
            return State(zeros, zeros.clone(), zeros.new_zeros(*batch_shape, READOUTS))

        def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> tuple[Any, Any]:
            after = step(self.weights, state, inputs, self.fire, graded)
            return after, after.y

    network = Network()

    def run(x: Tensor, watch: Watch | None = None) -> Tensor:
        record = {"z": lambda state, out: state.z.detach()} if watch else None
        sol = bt.simulate(network, x, dt=1.0, record=record, keep_out=True, check_finite=False, loop="native")
        if watch:
            watch.seen.append(float(sol["z"].mean()))
        return sol.out

    return network, run


def norse() -> tuple[nn.Module, Run]:
    """Norse's functional neuron; its synaptic current lasts one step, and its weights are in units of the leak."""
    from norse.torch.functional.lif import LIFParameters, LIFState, lif_step

    weights = Weights()
    parameters = LIFParameters(
        tau_syn_inv=torch.tensor(1.0), tau_mem_inv=torch.tensor(1.0 / TAU), v_leak=torch.tensor(0.0),
        v_th=torch.tensor(1.0), v_reset=torch.tensor(0.0), method="super", alpha=torch.tensor(SLOPE),
    )  # fmt: skip

    def run(x: Tensor, watch: Watch | None = None) -> Tensor:
        zeros = x.new_zeros(x.shape[1], NEURONS)
        state, outs = LIFState(zeros, zeros, zeros), []
        y = x.new_zeros(x.shape[1], READOUTS)
        w_in, w_rec = TAU * weights.w_in.T, TAU * weights.w_rec.T
        for now in x.unbind(0):
            z, state = lif_step(now, state, w_in, w_rec, parameters, 1.0)
            y = KEEP * y + z @ weights.w_out
            outs.append(y)
            if watch:
                watch.seen.append(float(z.detach().mean()))
        return torch.stack(outs)

    return weights, run


def spikingjelly() -> tuple[nn.Module, Run]:
    """SpikingJelly's stateful neuron."""
    from spikingjelly.activation_based import neuron, surrogate

    weights = Weights()
    cells = neuron.LIFNode(
        tau=TAU, decay_input=False, v_threshold=1.0, v_reset=0.0, surrogate_function=surrogate.ATan(), detach_reset=True
    )
    return weights, _stateful(weights, cells, cells.reset)


def snntorch() -> tuple[nn.Module, Run]:
    """The neuron of snnTorch, with its state kept outside."""
    from snntorch import Leaky, surrogate

    weights = Weights()
    cells = Leaky(beta=KEEP, reset_mechanism="zero", spike_grad=surrogate.fast_sigmoid(slope=SLOPE))
    potential: list[Tensor] = []

    def reset() -> None:
        potential[:] = [torch.zeros(BATCH, NEURONS)]

    def fire(drive: Tensor) -> Tensor:
        z, potential[0] = cells(drive, potential[0])
        return z

    return weights, _stateful(weights, fire, reset)


def _stateful(weights: Weights, cells: Callable[[Tensor], Tensor], reset: Callable[[], Any]) -> Run:
    """The loop around neurons that keep their potentials to themselves."""

    def run(x: Tensor, watch: Watch | None = None) -> Tensor:
        reset()
        z, y = x.new_zeros(x.shape[1], NEURONS), x.new_zeros(x.shape[1], READOUTS)
        outs: list[Tensor] = []
        for now in x.unbind(0):
            z = cells(now @ weights.w_in + z @ weights.w_rec)
            y = KEEP * y + z @ weights.w_out
            outs.append(y)
            if watch:
                watch.seen.append(float(z.detach().mean()))
        return torch.stack(outs)

    return run


CONTESTANTS: dict[str, Callable[[], tuple[nn.Module, Run]]] = {
    "bdtorch": bdtorch,
    "pytorch": pytorch,
    "bdtorch-graded": lambda: bdtorch(graded=True),
    "pytorch-graded": lambda: pytorch(graded=True),
    "norse": norse,
    "spikingjelly": spikingjelly,
    "snntorch": snntorch,
}
"""By name; "graded" ones are to be compared with one another."""
