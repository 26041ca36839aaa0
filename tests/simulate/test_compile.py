"""`torch.compile` of a system by its user, without `simulate`."""

import pytest
import torch

import bdtorch as bt
from bdtorch.testing import case as testing
from benchmarks.coba import build
from tests.test_contract import CASES


def test_a_network_compiles_as_one_graph_and_once():
    torch._dynamo.reset()
    net = build(200)
    state, t = bt.initial_state(net, dt=0.1), torch.zeros((), dtype=torch.float64)
    compiled = torch.compile(net, fullgraph=True, dynamic=False)
    eager = state
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(20):
            now = t + 0.1 * step
            state, out = compiled(state, 20.0, now, 0.1)
            eager, expected = net(eager, 20.0, now, 0.1)
            assert all(torch.equal(out[name], expected[name]) for name in ("E", "I"))
    assert torch.allclose(state["E"].neuron.v, eager["E"].neuron.v, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of Dynamo's own making
def test_training_through_a_compiled_step():
    torch._dynamo.reset()
    weight = torch.nn.Parameter(torch.tensor(0.5))
    cell = bt.neurons.LIF(20, v_th=1.0, v_reset=0.0, surrogate=bt.surrogate.SuperSpike(10.0))
    projection = bt.Projection(bt.connect.FixedProbability(0.3), weight, bt.synapses.Exponential(5.0))
    net = bt.Network({"E": cell}, {("E", "E"): projection})

    def loss(step):
        state, total = bt.initial_state(net, dt=1.0), torch.zeros(())
        for k in range(6):
            state, out = step(state, 3.0, torch.full((), float(k), dtype=torch.float64), 1.0)
            total = total + out["E"].sum()
        return total

    gradients = []
    for step in (net, torch.compile(net, fullgraph=True)):
        weight.grad = None
        loss(step).backward()
        gradients.append(weight.grad.clone())
    assert gradients[0].abs() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


QUICK = {"LIF", "HodgkinHuxley", "Network", "Network-pair", "Poisson-rates"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES])
def test_every_model_is_one_graph(name):
    """Compiled by its user, a step of every model of the library gives the eager step's values, and compiles once."""
    torch._dynamo.reset()
    case = CASES[name]
    system = case.system()
    compiled = torch.compile(system, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        state = eager = case.state(system)
        for step in range(3):
            arguments = case.input_at(system, step), case.time(step), case.dt
            state, out = compiled(state, *arguments)
            eager, expected = system(eager, *arguments)
            testing.expect_close((state, out), (eager, expected), name, **testing.tolerance(case.dtype))
