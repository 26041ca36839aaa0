"""What bdtorch has drawn for a benchmark network, written down for the other simulators."""

from __future__ import annotations

import importlib
from typing import Any

import torch

import bdtorch as bt
from benchmarks.balanced import EXCITATION, INHIBITION
from benchmarks.simulators import DT, NETWORKS
from benchmarks.wiring import PlasticWiring, Wiring


def drawn(network: str, neurons: int, duration: float) -> Wiring | PlasticWiring:
    """Synapses and initial values of a network; of network D also its input spikes of ``duration`` ms."""
    module = importlib.import_module(f"benchmarks.{NETWORKS[network][0]}")
    net = module.build(neurons)
    state = module.initial_state(net)
    if network == "D":
        return plastic(net, state, duration)
    return recurrent(net, torch.stack(module.variables(state)))


def recurrent(net: bt.Network, variables: torch.Tensor) -> Wiring:
    """The connectivity of a network of excitatory and inhibitory cells, with ``variables`` at the start."""
    pathways: list[Any] = [net.projections[name] for name in (EXCITATION, INHIBITION)]
    excites, inhibits = (pathway.connect for pathway in pathways)
    indptr = torch.cat([excites.indptr, excites.indptr[-1] + inhibits.indptr[1:]])
    indices = torch.cat([excites.indices, inhibits.indices])
    return Wiring(excites.n_pre, indptr.numpy(), indices.numpy(), variables.numpy())


def plastic(net: Any, state: dict, duration: float) -> PlasticWiring:
    """Weights and input spikes of network D. Its noise is a function: the source alone draws what it draws within."""
    name = "input->cell"
    sol = bt.simulate(
        net.populations["input"], dt=DT, duration=duration, state=state["input"], record={"spikes": bt.spikes()}
    )
    step, index = sol["spikes"].pairs.unbind(-1)
    weight = state[name]["weight"]
    by_input = weight.T if net.projections[name].connect.order == "post" else weight
    variables = torch.stack([state["cell"].v, state[name]["synapse"].g])
    # A spike in step k bears the number k + 1, of the state that it leads to.
    return PlasticWiring(
        by_input.contiguous().numpy(), variables.numpy(), (step - 1).int().numpy(), index.int().numpy()
    )
