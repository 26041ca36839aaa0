"""Backpropagation through time in the native loop gives the reference loop's gradients."""

import gc
import math
import weakref

import pytest
import torch
import torch.utils.checkpoint
from torch.autograd import forward_ad

import bdtorch as bt

DOUBLE = {"dtype": torch.float64}
EVERY_SPIKE = bt.surrogate.SuperSpike(1.0)


def leaf(value) -> torch.Tensor:
    return torch.as_tensor(value, **DOUBLE).requires_grad_()


def parameter(value) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.as_tensor(value, **DOUBLE))


def lif():
    tau, sequence = parameter([5.0, 10.0, 20.0]), leaf(60 * torch.rand(90, 2, 3, **DOUBLE))
    return bt.neurons.LIF(3, tau=tau, v_reset=0.0, surrogate=EVERY_SPIKE, **DOUBLE), sequence, [tau, sequence]


def refractory():
    tau, current = parameter(10.0), leaf(35.0)
    neuron = bt.neurons.LIF(3, tau=tau, v_reset=0.0, surrogate=bt.surrogate.Sigmoid(1.0), **DOUBLE)
    return bt.neurons.Refractory(neuron, 1.0), current, [tau, current]


def adex():
    a, current = parameter(4.0), leaf([500.0, 800.0])
    return bt.neurons.AdEx(2, a=a, surrogate=EVERY_SPIKE, **DOUBLE), bt.Constant(current), [a, current]


def hodgkin_huxley():
    c, current = parameter(1.0), leaf(10.0)
    return bt.neurons.HodgkinHuxley(2, c=c, surrogate=bt.surrogate.Arctan(1.0), **DOUBLE), current, [c, current]


def wilson_cowan():
    w, current = parameter(12.0), leaf(1.0)
    return bt.rates.WilsonCowan(4, w_ee=w, **DOUBLE), current, [w, current]


def network():
    shared, dense, tau, current = parameter(2.0), parameter(torch.randn(8, 8)), parameter(5.0), leaf(25.0)
    sparse = parameter(torch.rand(30))
    cell = bt.neurons.LIF(8, v_reset=0.0, surrogate=EVERY_SPIKE, v_init=bt.init.Uniform(0.0, 19.0), **DOUBLE)
    fixed = bt.connect.FixedNumberPre(3).build(10, 8, seed=2)
    routes = {
        ("E", "E"): [
            bt.Projection(bt.connect.FixedProbability(0.5), shared, bt.synapses.Exponential(tau, **DOUBLE), delay=1.0),
            bt.Projection(bt.connect.AllToAll(), dense, bt.synapses.Alpha(3.0, **DOUBLE)),
        ],
        ("in", "E"): bt.Projection(fixed, sparse, bt.synapses.DualExponential(1.0, 4.0, **DOUBLE)),
    }
    net = bt.Network({"in": bt.stimuli.Poisson(10, 400.0, **DOUBLE), "E": cell}, routes)
    return net, current, [shared, dense, tau, sparse, current]


def gradients(make, loop, **options):
    torch.manual_seed(0)
    system, inputs, sources = make()
    name = "E.v" if isinstance(system, bt.Network) else "e" if isinstance(system, bt.rates.WilsonCowan) else "v"
    record = {"v": bt.trace(name, every=3)}
    duration = None if isinstance(inputs, torch.Tensor) and inputs.dim() else 8.0
    sol = bt.simulate(system, inputs, dt=0.1, duration=duration, record=record, keep_out=True, loop=loop, **options)
    weights = torch.Generator().manual_seed(1)
    shown = [x for x in torch.utils._pytree.tree_leaves((sol.state, sol.out, sol["v"])) if x.requires_grad]
    total = sum((x * torch.randn(x.shape, generator=weights, **DOUBLE)).sum() for x in shown)
    return torch.autograd.grad(total, sources)


@pytest.mark.parametrize("make", [lif, refractory, adex, hodgkin_huxley, wilson_cowan, network])
@pytest.mark.parametrize("recompute", [False, True])
def test_native_gradients_equal_the_reference(make, recompute):
    expected = gradients(make, "reference")
    found = gradients(make, bt.Native(recompute=recompute))
    for a, b in zip(expected, found, strict=True):
        assert a.abs().max() > 0
        assert (a - b).abs().max() <= 1e-9 * a.abs().max()


def test_gradients_with_respect_to_replaced_parameters_and_the_initial_state():
    system = bt.neurons.LIF(3, tau=torch.tensor(10.0, **DOUBLE), v_th=1e6, **DOUBLE)

    def final(tau, v):
        state = bt.neurons.LIF.State(v)
        options = {"dt": 0.5, "duration": 10.0, "state": state, "parameters": {"tau": tau}}
        sol = bt.simulate(system, 3.0, loop="native", **options)
        assert sol.loop == "native"
        return sol.state.v

    assert torch.autograd.gradcheck(final, (leaf(8.0), leaf([0.0, 1.0, 2.0])))


@pytest.mark.parametrize("power", [1, 2])
def test_a_second_derivative_is_refused_by_name(power):
    """Whether the gradient that comes in depends on anything or not."""
    current, tau = leaf(10.0), parameter(8.0)
    system = bt.neurons.LIF(2, tau=tau, v_th=1e6, **DOUBLE)
    v = bt.simulate(system, current, dt=0.1, duration=1.0, loop="native").state.v
    (slope,) = torch.autograd.grad((v**power).sum(), current, create_graph=True)
    (expected,) = torch.autograd.grad((v**power).sum(), current, retain_graph=True)
    assert torch.equal(slope.detach(), expected)
    with pytest.raises(RuntimeError, match="no second derivatives: take `loop='reference'`"):
        torch.autograd.grad(slope, tau, retain_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        ((v**power).sum() + slope**2).backward()


@pytest.mark.parametrize("tau", [8.0, parameter(8.0)])
def test_forward_derivatives_go_by_the_reference_loop(tau):
    def tangent(loop):
        with forward_ad.dual_level():
            current = forward_ad.make_dual(torch.tensor(3.0, **DOUBLE), torch.tensor(1.0, **DOUBLE))
            sol = bt.simulate(bt.neurons.LIF(2, tau=tau, v_th=1e6, **DOUBLE), current, dt=1.0, duration=5.0, loop=loop)
            return sol.loop, forward_ad.unpack_dual(sol.state.v).tangent.detach()

    loop, found = tangent("auto")
    assert loop == "reference"
    torch.testing.assert_close(found, torch.full((2,), 1 - math.exp(-5 / 8), **DOUBLE), rtol=1e-9, atol=0.0)
    for refusing in ("native", "inductor"):
        with pytest.raises(bt.LoopError, match="carries no forward derivatives; use loop='reference'"):
            tangent(refusing)


class Masked(bt.DynamicalSystem):
    """A recurrent layer whose weights have a mask, a buffer, and a gain, a Python number; and an offset, a plain tensor."""

    def __init__(self):
        super().__init__(4, **DOUBLE)
        self.register_buffer("mask", torch.linspace(0.5, 1.5, 4, **DOUBLE))
        self.w = parameter(torch.linspace(-1, 1, 16, **DOUBLE).view(4, 4))
        self.gain, self.offset = 1.0, torch.zeros(4, **DOUBLE)

    def init_state(self, batch_shape=()):
        return {"x": self.fill(batch_shape, 0.2)}

    def step(self, state, inputs, t, dt):
        x = torch.tanh(state["x"] @ self.w * self.mask * self.gain + (inputs + self.offset))
        return {"x": x}, x


@pytest.mark.parametrize("loop", ["reference", bt.Native(), bt.Native(recompute=5)], ids=str)
def test_what_was_changed_in_place_before_the_gradient_is_refused(loop):
    system = Masked()
    out = bt.simulate(system, 0.3, dt=1.0, duration=12.0, loop=loop).out
    system.mask.mul_(3.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_an_offset_that_was_made_in_inference_mode_is_no_hindrance():
    found = []
    for loop in ("reference", "native"):
        system = Masked()
        with torch.inference_mode():
            system.offset = torch.linspace(0.0, 0.1, 4, **DOUBLE)
        bt.simulate(system, 0.3, dt=1.0, duration=8.0, loop=loop).out.sum().backward()
        found.append(system.w.grad)
    torch.testing.assert_close(*found, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("recompute", [0, 5])
def test_gradients_are_those_of_the_system_as_it_was(recompute):
    """The way back runs when `functional_call` has put its tensors away again, and numbers may have changed."""

    class Whole(torch.nn.Module):
        def __init__(self, loop):
            super().__init__()
            self.system, self.loop = Masked(), loop

        def forward(self, x):
            return bt.simulate(self.system, x, dt=1.0, duration=12.0, loop=self.loop).out

    found = []
    for loop in ("reference", bt.Native(recompute=recompute)):
        model = Whole(loop)
        w = leaf(model.system.w.detach().clone())
        out = torch.func.functional_call(model, {"system.w": 1.5 * w}, (0.3,))
        model.system.gain, model.system.mask = 2.0, torch.ones(4, **DOUBLE)
        found += torch.autograd.grad(out.sin().sum(), w)
    assert (found[0] - found[1]).abs().max() <= 1e-9 * found[0].abs().max()


def test_a_gradient_that_the_native_loop_cannot_follow_is_refused_by_name():
    gain = leaf(2.0)
    system = bt.neurons.LIF(2, **DOUBLE)
    with pytest.raises(bt.LoopError, match=r"requires a gradient, of shape \(\), is neither"):
        bt.simulate(system, lambda t: gain * t, dt=0.1, duration=1.0, loop="native")
    with pytest.warns(UserWarning, match="falling back to the reference loop"):
        sol = bt.simulate(system, lambda t: gain * t, dt=0.1, duration=1.0)
    assert sol.loop == "reference" and sol.state.v.requires_grad


def test_training_reduces_the_loss():
    torch.manual_seed(0)
    neuron = bt.neurons.LIF(
        6, tau=torch.nn.Parameter(torch.full((6,), 20.0)), v_th=1.0, v_reset=0.0, surrogate=EVERY_SPIKE
    )
    gain = torch.nn.Parameter(torch.ones(6))
    x = 3.0 * torch.rand(60, 4, 6)
    optimizer = torch.optim.Adam([neuron.tau, gain], lr=0.1)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        rate = bt.simulate(neuron, x * gain, dt=1.0, loop="native").out.mean(0)
        loss = (rate - 0.15).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


class Recurrent(bt.DynamicalSystem):
    """Spiking neurons with weights in several forms: a plain matrix, a layer with a bias, and a transposed one."""

    def __init__(self, inputs: int, n: int) -> None:
        super().__init__(n, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        self.spike = bt.surrogate.SuperSpike(2.0)
        self.layer = torch.nn.Linear(inputs, n).double()
        self.w = torch.nn.Parameter(torch.randn(n, n, generator=generator, **DOUBLE))
        self.tied = torch.nn.Parameter(torch.randn(n, n, generator=generator, **DOUBLE) / n)
        self.idle = torch.nn.Parameter(torch.ones(5, 5, **DOUBLE))
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(n, inputs, generator=generator))
            self.layer.bias.fill_(0.3)

    def init_state(self, batch_shape=()):
        return {"v": self.fill(batch_shape, 0.0), "z": self.fill(batch_shape, 0.0)}

    def step(self, state, inputs, t, dt):
        v, z = state["v"], state["z"]
        drive = self.layer(inputs) + z @ self.w + v @ self.tied.T + torch.tanh(v) @ self.tied
        v = 0.8 * v * (1 - z) + drive
        z = self.spike(v - 1.0)
        return {"v": v, "z": z}, z


def gradients_of_recurrent(loop, batch, steps=30):
    torch.manual_seed(3)
    system = Recurrent(4, 7)
    x = torch.rand(steps, *batch, 4, **DOUBLE).requires_grad_()
    state = {"v": leaf(torch.rand(*batch, 7)), "z": leaf(torch.zeros(*batch, 7))}
    record = {"z": bt.trace("z", every=4)}
    sol = bt.simulate(system, x, dt=1.0, state=state, record=record, keep_out=True, loop=loop, check_finite=False)
    total = (sol.out * torch.linspace(-1, 1, 7, **DOUBLE)).sum() + sol["z"].square().sum() + sol.state["v"].sum()
    sources = [x, *state.values(), *system.parameters()]
    return torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("recompute", [0, 7])
def test_weights_in_any_form(batch, recompute):
    expected = gradients_of_recurrent("reference", batch)
    found = gradients_of_recurrent(bt.Native(recompute=recompute), batch)
    for a, b in zip(expected, found, strict=True):
        assert (a - b).abs().max() <= 1e-9 * a.abs().max()


def test_gradients_have_the_same_bits_for_any_number_of_threads():
    first = gradients_of_recurrent(bt.Native(threads=1), (5,))
    for loop in (bt.Native(threads=1), bt.Native(threads=3)):
        assert all(torch.equal(a, b) for a, b in zip(first, gradients_of_recurrent(loop, (5,)), strict=True))


def test_gradients_go_through_the_cuts_between_chunks():
    found = gradients_of_recurrent(bt.Native(), (), steps=1100)  # two cuts
    for a, b in zip(gradients_of_recurrent("reference", (), steps=1100), found, strict=True):
        assert (a - b).abs().max() <= 1e-9 * a.abs().max()


@pytest.mark.parametrize("recompute", [-1, 2.5, "all"])
def test_a_wrong_interval_is_refused(recompute):
    with pytest.raises(ValueError, match=r"Native\(recompute=...\)"):
        bt.Native(recompute=recompute)


def test_gradients_of_indexed_reads():
    index = torch.tensor([[0, -1], [2, 0]])

    class Reader(bt.DynamicalSystem):
        def init_state(self, batch_shape=()):
            return {"x": self.fill(batch_shape, 0.5)}

        def step(self, state, inputs, t, dt):
            x = torch.tanh(state["x"] + state["x"][..., index].sum((-1, -2), keepdim=True)[..., 0] + inputs)
            return {"x": x}, x

    def final(v, current):
        system = Reader(3, dtype=torch.float64)
        return bt.simulate(system, current, dt=1.0, duration=4.0, state={"x": v}, loop="native").state["x"]

    assert torch.autograd.gradcheck(final, (leaf([[0.1, 0.2, 0.3], [0.3, -0.2, 0.1]]), leaf(0.2)))


def test_gradients_under_a_checkpoint():
    tau = parameter(8.0)
    system = bt.neurons.LIF(3, tau=tau, v_th=1e6, **DOUBLE)

    def final(current):
        return bt.simulate(system, current, dt=0.5, duration=10.0, loop="native").state.v

    plain, again = leaf(3.0), leaf(3.0)
    final(plain).sum().backward()
    expected, tau.grad = tau.grad, None
    torch.utils.checkpoint.checkpoint(final, again, use_reentrant=False).sum().backward()
    assert torch.equal(plain.grad, again.grad) and torch.equal(tau.grad, expected)


def test_a_backpropagated_run_is_forgotten_with_its_solution(monkeypatch):
    runners = []
    start = bt.Native.start

    def watched(self, body, state):
        runner = start(self, body, state)
        runners.append(weakref.ref(runner))
        return runner

    monkeypatch.setattr(bt.Native, "start", watched)
    neuron = bt.neurons.LIF(
        3, tau=torch.nn.Parameter(torch.tensor(20.0)), v_th=1.0, v_reset=0.0, surrogate=bt.surrogate.SuperSpike(10.0)
    )
    sol = bt.simulate(
        neuron, torch.full((20, 3), 2.0), dt=1.0, record={"v": bt.trace("v")}, keep_out=True, loop="native"
    )
    (sol.out.sum() + sol["v"].sum()).backward()
    del sol
    gc.collect()
    assert len(runners) == 1 and runners[0]() is None
