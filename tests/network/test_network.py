"""Networks against a dense loop in plain torch, and the freedom from order."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch.connect import AllToAll, FixedNumberPost, FixedProbability, OneToOne
from bdtorch.synapses import Alpha, Conductance, Current, DualExponential, Exponential, Jump, MagnesiumBlock

DT = 0.1
SIZES = {"E": 20, "I": 8}


def _cell(n: int) -> bt.neurons.Refractory:
    v_init = bt.init.Uniform(-60.0, -50.0)
    return bt.neurons.Refractory(
        bt.neurons.LIF(n, tau=20.0, v_rest=-60.0, v_reset=-60.0, v_th=-50.0, v_init=v_init), period=0.5
    )


def _projections() -> dict[Any, Any]:
    return {
        ("E", ("E", "I")): bt.Projection(
            FixedProbability(0.3, autapses=False), 0.6, Exponential(5.0), Conductance(0.0), delay=0.8
        ),
        ("I", ("E", "I")): bt.Projection(
            FixedProbability(0.4), bt.init.Uniform(1.0, 3.0), Exponential(10.0), Conductance(-80.0), delay=0.3
        ),
        ("E", "I"): [
            bt.Projection(FixedNumberPost(3), 0.7, receptor=Jump()),
            bt.Projection(AllToAll(), 0.3, Alpha(2.0), Current(), delay=0.1),
        ],
        ("I", "I"): bt.Projection(AllToAll(autapses=False), 0.05, DualExponential(1.0, 8.0), MagnesiumBlock(0.0)),
    }


def _network(projections: dict[Any, Any] | None = None) -> bt.Network:
    populations = {name: _cell(n) for name, n in SIZES.items()}
    return bt.Network(populations, _projections() if projections is None else projections, seed=3).to(torch.float64)


class _DenseLoop:
    """The same network with matrices, queues and nothing of the package but its draws."""

    def __init__(self, net: bt.Network, v: dict[str, Tensor]) -> None:
        self.v = {name: value.clone() for name, value in v.items()}
        self.free_from = {name: torch.zeros(n, dtype=torch.int64) for name, n in SIZES.items()}
        self.w = {
            name: pathway.connect.to_dense(torch.as_tensor(pathway.weight, dtype=torch.float64))
            for name, pathway in net.projections.items()
        }
        self.spikes: list[dict[str, Tensor]] = []
        zero = torch.zeros(28, dtype=torch.float64)
        self.g_e, self.g_i = zero.clone(), zero.clone()
        self.alpha: list[tuple[int, Tensor]] = []
        self.nmda: list[tuple[int, Tensor]] = []

    def _sent(self, k: int, source: str, delay: int) -> Tensor:
        past = k - 1 - delay
        return self.spikes[past][source].double() if past >= 0 else torch.zeros(SIZES[source], dtype=torch.float64)

    def step(self, k: int, current: float) -> dict[str, Tensor]:
        g_e = self.g_e + self._sent(k, "E", 8) @ self.w["E->E+I"]
        g_i = self.g_i + self._sent(k, "I", 3) @ self.w["I->E+I"]
        self.g_e, self.g_i = g_e * math.exp(-DT / 5.0), g_i * math.exp(-DT / 10.0)
        jump = {"E": 0.0, "I": self._sent(k, "E", 0) @ self.w["E->I"]}
        self.alpha.append((k, self._sent(k, "E", 1) @ self.w["E->I#2"]))
        self.nmda.append((k, self._sent(k, "I", 0) @ self.w["I->I"]))
        alpha = sum((k - j) * DT / 2.0 * math.exp(1.0 - (k - j) * DT / 2.0) * w for j, w in self.alpha)
        peak = 8.0 / 7.0 * math.log(8.0)
        scale = 1.0 / (math.exp(-peak / 8.0) - math.exp(-peak / 1.0))
        nmda = sum(scale * (math.exp(-(k - j) * DT / 8.0) - math.exp(-(k - j) * DT)) * w for j, w in self.nmda)
        out = {}
        for name, part in (("E", slice(0, 20)), ("I", slice(20, 28))):
            v = self.v[name]
            conductance, drive = g_e[part] + g_i[part], -80.0 * g_i[part] + current
            if name == "I":
                conductance = conductance + nmda / (1.0 + torch.exp(-0.062 * v) / 3.57)
                drive = drive + alpha
            started = v + jump[name]
            rate = -(1.0 + conductance) / 20.0
            steady = (-60.0 + drive) / (1.0 + conductance)
            moved = steady + (started - steady) * torch.exp(rate * DT)
            free = k >= self.free_from[name]
            moved = torch.where(free, moved, v)
            spike = free & (moved >= -50.0)
            self.v[name] = torch.where(spike, -60.0, moved)
            self.free_from[name] = torch.where(spike, k + 6, self.free_from[name])
            out[name] = spike
        self.spikes.append(out)
        return out


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_equals_a_dense_loop(loop: str) -> None:
    net = _network()
    state = bt.initial_state(net, dt=DT, seed=1)
    dense = _DenseLoop(net, {name: state[name].neuron.v for name in SIZES})
    record = {"E": bt.trace("E.v"), "I": bt.trace("I.v"), "spikes": lambda after, out: out}
    sol = bt.simulate(net, 12.0, dt=DT, duration=60.0, state=state, record=record, loop=loop)
    total = 0
    for k in range(600):
        spikes = dense.step(k, 12.0)
        for name in SIZES:
            assert torch.equal(sol["spikes"][name][k], spikes[name]), (k, name)
            torch.testing.assert_close(sol[name][k], dense.v[name], rtol=1e-12, atol=1e-12)
        total += sum(int(s.sum()) for s in spikes.values())
    assert total > 100


def test_the_order_of_projections_and_populations_is_free() -> None:
    net = _network()
    state = bt.initial_state(net, dt=DT, seed=1)
    record = {"E": bt.trace("E.v"), "I": bt.trace("I.v")}
    want = bt.simulate(net, 12.0, dt=DT, duration=20.0, state=state, record=record, loop="reference")
    items = list(_projections().items())
    for order in itertools.islice(itertools.permutations(items), 1, 24, 5):
        shuffled = bt.Network(
            {name: _cell(SIZES[name]) for name in ("I", "E")}, dict(order), seed=3
        ).to(torch.float64)  # fmt: skip
        start = bt.initial_state(shuffled, dt=DT, seed=1)
        got = bt.simulate(shuffled, 12.0, dt=DT, duration=20.0, state=start, record=record, loop="reference")
        for name in record:
            torch.testing.assert_close(got[name], want[name], rtol=1e-11, atol=1e-11)


def test_a_seed_names_the_wiring() -> None:
    one, again = _network(), _network()
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    other = bt.Network({name: _cell(n) for name, n in SIZES.items()}, _projections(), seed=4)
    assert one.projections["E->E+I"].connect.synapses != other.projections["E->E+I"].connect.synapses


def test_a_jump_moves_the_potential_by_its_weight() -> None:
    net = bt.Network(
        {"source": bt.stimuli.Poisson(3), "cell": bt.neurons.LIF(1, tau=1e12, v_th=100.0, dtype=torch.float32)},
        {("source", "cell"): bt.Projection(AllToAll(), torch.tensor([[1.0], [2.0], [4.0]]), receptor=Jump())},
    )
    rates = torch.zeros(5, 3)
    rates[0, 0] = rates[0, 2] = rates[2, 1] = 1e4
    v = bt.simulate(net, {"source": rates}, dt=0.1, record={"v": bt.trace("cell.v")}, loop="reference")["v"][:, 0]
    torch.testing.assert_close(v, torch.tensor([0.0, 5.0, 5.0, 7.0, 7.0]))


def test_inputs_go_where_they_are_sent() -> None:
    net = bt.Network({"A": bt.neurons.LIF(2), "B": bt.neurons.LIF((2, 2)), "P": bt.stimuli.Poisson(1)})

    def end(inputs: Any) -> tuple[float, float]:
        state = bt.simulate(net, inputs, dt=1.0, duration=3.0, record={}, loop="reference").state
        return float(state["A"].v.max()), float(state["B"].v.max())

    alone = bt.simulate(bt.neurons.LIF(1), 5.0, dt=1.0, duration=3.0, record={}, loop="reference").state.v.item()
    assert end(5.0) == (alone, alone)
    assert end({"A": 5.0}) == (alone, 0.0)
    assert end({"B": bt.Drive(torch.tensor(5.0)), "P": 100.0, "A": None}) == (0.0, alone)
    assert end(None) == (0.0, 0.0)
    with pytest.raises(ValueError, match=r"`inputs`: expected populations among 'A', 'B', 'P', got 'C'"):
        end({"C": 1.0})


def test_populations_may_have_axes() -> None:
    # A grid of cells is the flat population in row-major order.
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).abs()

    def run(pre: Any, post: Any) -> Tensor:
        net = bt.Network(
            {"P": bt.stimuli.Poisson(pre, rate=400.0), "A": bt.neurons.LIF(post)},
            {("P", "A"): bt.Projection(AllToAll(), weight, Exponential(3.0))},
        )
        v: Tensor = bt.simulate(net, dt=1.0, duration=30.0, record={"v": bt.trace("A.v")}, loop="reference")["v"]
        return v.reshape(30, 4)

    assert torch.equal(run((2, 3), (2, 2)), run(6, 4))
    assert run(6, 4).abs().max() > 0


def test_stimuli_are_sources() -> None:
    net = bt.Network(
        {"noise": bt.stimuli.OrnsteinUhlenbeck(2, mean=7.0, sigma=0.0), "cell": bt.neurons.LIF(2)},
        {("noise", "cell"): bt.Projection(OneToOne(), 2.0)},
    )
    v = bt.simulate(net, dt=1.0, duration=5.0, record={"v": bt.trace("cell.v")}, loop="reference")["v"]
    alone = bt.simulate(bt.neurons.LIF(2), 14.0, dt=1.0, duration=4.0, record={"v": bt.trace("v")}, loop="reference")[
        "v"
    ]
    assert (v[0] == 0).all()  # before the first step a source is silent
    torch.testing.assert_close(v[1:], alone)


def test_weights_and_time_constants_are_trained() -> None:
    weight, tau = nn.Parameter(torch.full((12,), 3.0)), nn.Parameter(torch.tensor(4.0))
    connect = FixedNumberPost(3).build(4, 4, seed=1)
    cell = bt.neurons.LIF(4, tau=5.0, surrogate=bt.surrogate.Arctan(), v_init=bt.init.Uniform(0.0, 20.0))
    net = bt.Network({"E": cell}, {("E", "E"): bt.Projection(connect, weight, Exponential(tau))})
    assert {id(p) for p in net.parameters()} == {id(weight), id(tau)}
    out = bt.simulate(net, 60.0, dt=0.5, duration=20.0).out["E"]
    out.sum().backward()
    assert weight.grad is not None and (weight.grad != 0).any() and tau.grad is not None and tau.grad != 0


def test_a_projection_serves_networks_of_both_precisions() -> None:
    projection = bt.Projection(OneToOne(), 1.0, Exponential(torch.tensor(5.0)), Conductance(torch.tensor(-3.0)))

    def network(dtype: torch.dtype) -> bt.Network:
        return bt.Network({"A": bt.neurons.LIF(2, dtype=dtype)}, {("A", "A"): projection})

    single, double = network(torch.float32), network(torch.float64)
    for net, dtype in ((single, torch.float32), (double, torch.float64)):
        state = bt.simulate(net, 30.0, dt=0.5, duration=20.0, record={}, loop="reference").state
        assert state["A->A"]["synapse"].g.dtype == dtype and state["A->A"]["synapse"].g.max() > 0


def test_vmap_of_a_whole_simulation_is_a_batch_of_them() -> None:
    net = _network()
    currents = torch.tensor([5.0, 12.0, 20.0], dtype=torch.float64)

    def run(current: Tensor) -> Tensor:
        state = bt.initial_state(net, dt=DT, seed=1)
        sol = bt.simulate(net, current, dt=DT, duration=10.0, state=state, record={"v": bt.trace("E.v")})
        v: Tensor = sol["v"]
        return v

    together = torch.func.vmap(run)(currents)
    assert together.shape == (3, 100, 20)
    for current, v in zip(currents, together, strict=True):
        torch.testing.assert_close(v, run(current), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(together[0], together[2])


def test_gradients_of_transforms_are_those_of_backward() -> None:
    connect = FixedNumberPost(3).build(4, 4, seed=1)
    cell = bt.neurons.LIF(4, tau=5.0, surrogate=bt.surrogate.Arctan(), v_init=bt.init.Uniform(0.0, 20.0))
    net = bt.Network({"E": cell}, {("E", "E"): bt.Projection(connect, 3.0, Exponential(4.0), delay=0.5)})

    def spikes(current: Tensor) -> Tensor:
        out: Tensor = bt.simulate(net, current, dt=0.5, duration=15.0).out["E"].sum()
        return out

    current = torch.tensor(60.0, requires_grad=True)
    (backward,) = torch.autograd.grad(spikes(current), current)
    assert backward > 0
    torch.testing.assert_close(torch.func.grad(spikes)(current.detach()), backward)
    _, forward = torch.func.jvp(spikes, (current.detach(),), (torch.ones(()),))
    torch.testing.assert_close(forward, backward)
    several = torch.func.vmap(torch.func.grad(spikes))(torch.tensor([60.0, 60.0]))
    torch.testing.assert_close(several, backward.expand(2))


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_no_synapses_are_no_drive(loop: str) -> None:
    projection = bt.Projection(FixedProbability(0.0), bt.init.Normal(1.0, 1.0), Exponential(5.0), delay=0.2)
    net = bt.Network({"A": bt.neurons.LIF(3), "B": bt.neurons.LIF(2)}, {("A", "B"): projection})
    sol = bt.simulate(
        net, {"A": 100.0}, dt=0.1, duration=10.0, record={"s": bt.spikes("A"), "v": bt.trace("B.v")}, loop=loop
    )
    assert len(sol["s"]) > 0 and (sol["v"] == 0).all()


def test_bad_networks() -> None:
    lif = bt.neurons.LIF
    one = bt.Projection(OneToOne())
    cases: list[tuple[type[Exception], str, Any, Any]] = [
        (ValueError, r"populations=...\)`: expected at least one system by name, got \{\}", {}, {}),
        (TypeError, r"populations\['A'\]\)`: expected a DynamicalSystem, got 3", {"A": 3}, {}),
        (ValueError, r"populations=...\)`: expected an identifier other than 'out', got 'out'", {"out": lif(1)}, {}),
        (ValueError, r"populations=...\)`: expected an identifier .* got 'a b'", {"a b": lif(1)}, {}),
        (ValueError, r"expected populations among 'A', got 'B'", {"A": lif(1)}, {("A", "B"): one}),
        (ValueError, r"expected populations among 'A', got 'B'", {"A": lif(1)}, {("B", "A"): one}),
        (ValueError, r"'P' is a stimulus and takes no drive",
         {"A": lif(1), "P": bt.stimuli.Poisson(1)}, {("A", "P"): one}),
        (ValueError, r"expected distinct targets, got \('A', 'A'\)", {"A": lif(1)}, {("A", ("A", "A")): one}),
        (ValueError, r"expected distinct targets, got \(\)", {"A": lif(1)}, {("A", ()): one}),
        (TypeError, r"expected keys \(source, target\), got 'A'", {"A": lif(1)}, {"A": one}),
        (TypeError, r"expected a Projection or several, got 1.0", {"A": lif(1)}, {("A", "A"): [1.0]}),
        (TypeError, r"expected a Projection or several, got 1.0", {"A": lif(1)}, {("A", "A"): 1.0}),
        (ValueError, r"`OneToOne`: expected populations of equal size, got 1 and 2",
         {"A": lif(1), "B": lif(2)}, {("A", "B"): one}),
        (ValueError, r"`Projection\(connect=...\)`: expected connectivity of 1 sources and 2 targets, got 3 and 3",
         {"A": lif(1), "B": lif(2)}, {("A", "B"): bt.Projection(bt.connect.Identity(3))}),
    ]  # fmt: skip
    for error, message, populations, projections in cases:
        with pytest.raises(error, match=message):
            bt.Network(populations, projections)


def test_bad_projections() -> None:
    with pytest.raises(
        TypeError, match=r"`Projection\(connect=...\)`: expected a Rule or Connectivity object, got 0.5"
    ):
        bt.Projection(0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`Projection\(synapse=...\)`: expected a Synapse object, got"):
        bt.Projection(OneToOne(), synapse=Exponential)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`Projection\(receptor=...\)`: expected a Receptor object, got"):
        bt.Projection(OneToOne(), receptor=Exponential(1.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`Projection\(weight=...\)`: expected a number, got NaN"):
        bt.Projection(OneToOne(), weight=math.nan)
    for wrong in (torch.ones(3), torch.ones(2, 2)):
        with pytest.raises(
            ValueError, match=r"`Projection\(weight=...\)`: expected a 0-d tensor or one weight per synapse"
        ):
            bt.Network({"A": bt.neurons.LIF(2)}, {("A", "A"): bt.Projection(OneToOne(), wrong)})
    with pytest.raises(ValueError, match=r"expected numbers, got NaN"):
        bt.Network({"A": bt.neurons.LIF(1)}, {("A", "A"): bt.Projection(OneToOne(), torch.full((1,), math.nan))})
    with pytest.raises(
        TypeError, match=r"expected a number, a tensor, an nn.Parameter or an initialiser, got 'strong'"
    ):
        bt.Network({"A": bt.neurons.LIF(1)}, {("A", "A"): bt.Projection(OneToOne(), "strong")})  # type: ignore[arg-type]
