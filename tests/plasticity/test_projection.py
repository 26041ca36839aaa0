"""Plastic weights within networks: every rule in every loop, users' rules, batches, gradients, short-term plasticity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch.connect import AllToAll, Connectivity, FixedProbability, OneToOne, ProceduralProbability
from bdtorch.plasticity import Events, Plasticity

INF = math.inf
ROUTE = "pre->post"


class Bienenstock(Plasticity):
    """A user's own rule, after Bienenstock, Cooper & Munro (1982): w += eta y (y - theta) x, with traces x and y."""

    class State(NamedTuple):
        x: Tensor
        y: Tensor

    def init_state(self, connect: Connectivity, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(self.zeros(batch_shape, connect.n_pre), self.zeros(batch_shape, connect.n_post))

    def step(
        self, state: State, weight: Tensor, connect: Connectivity, events: Events, t: Tensor, dt: float
    ) -> tuple[State, Tensor]:
        weight = connect.on_pre(weight, events.pre, 0.5 * state.y * (state.y - 0.3), low=0.0, high=2.0)
        x, y = (trace * math.exp(-dt / 10.0) + spikes for trace, spikes in zip(state, events, strict=False))
        return self.State(x, y), weight


def pair() -> Plasticity:
    return bt.plasticity.PairSTDP(0.3, 0.2, w_max=2.0)


RULES: dict[str, Callable[[], Plasticity]] = {
    "pair": pair,
    "soft": lambda: bt.plasticity.PairSTDP(0.3, 0.2, w_max=2.0, soft=True),
    "nearest": lambda: bt.plasticity.PairSTDP(0.3, 0.2, w_max=2.0, nearest=True),
    "triplet": lambda: bt.plasticity.TripletSTDP(a2_plus=0.1, a3_plus=0.1, a2_minus=0.1, a3_minus=0.1, w_max=2.0),
    "clopath": lambda: bt.plasticity.Clopath(a_ltd=0.01, a_ltp=0.01, theta_plus=-58.0, w_max=2.0),
    "inhibitory": lambda: bt.plasticity.VogelsSprekeler(0.2, rate=5.0, w_max=2.0),
    "reward": lambda: bt.plasticity.RewardModulatedSTDP(bt.plasticity.PairSTDP(0.3, 0.2, w_min=-INF), w_max=2.0),
    "own": Bienenstock,
}
WIRING = {
    "sparse": FixedProbability(0.5),
    "pre": AllToAll(),
    "post": AllToAll(order="post"),
    "identity": OneToOne(),
    "others": AllToAll(autapses=False),
}


def network(rule: Plasticity, wiring: str = "sparse", **slots: object) -> bt.Network:
    cell = bt.neurons.LIF(12, tau=10.0, v_rest=-60.0, v_reset=-60.0, v_th=-50.0)
    projection = bt.Projection(
        WIRING[wiring], bt.init.Uniform(0.5, 1.5), receptor=bt.synapses.Jump(), plasticity=rule, **slots
    )  # fmt: skip
    source = bt.stimuli.Poisson(12, 400.0)
    return bt.Network({"pre": source, "post": cell}, {("pre", "post"): projection}, seed=3).to(torch.float64)


def drive(rule: str) -> dict[str, float]:
    return {"post": 8.0, **({ROUTE: 0.01} if rule == "reward" else {})}


@pytest.mark.parametrize(
    ("rule", "wiring"),
    [
        *((rule, "sparse") for rule in RULES),
        ("triplet", "post"),
        ("soft", "pre"),
        ("reward", "post"),
        ("own", "identity"),
    ],
)
def test_native_equals_reference(rule: str, wiring: str) -> None:
    net = network(RULES[rule](), wiring, delay=0.3)
    record = {"w": bt.trace(f"{ROUTE}.weight"), "s": bt.spikes("post")}
    native, reference = (
        bt.simulate(net, drive(rule), dt=0.1, duration=40.0, record=record, loop=loop)
        for loop in ("native", "reference")
    )
    assert len(reference["s"].pairs) > 5
    assert torch.equal(native["s"].pairs, reference["s"].pairs)
    torch.testing.assert_close(native["w"], reference["w"], rtol=1e-12, atol=1e-13)
    assert not torch.equal(native["w"][0], native["w"][-1])
    assert float(native["w"].min()) >= 0.0 and float(native["w"].max()) <= 2.0


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "wiring"), [("triplet", "sparse"), ("own", "post"), ("reward", "pre")])
def test_inductor_equals_reference(rule: str, wiring: str) -> None:
    net = network(RULES[rule](), wiring, delay=0.3)
    compiled, reference = (
        bt.simulate(net, drive(rule), dt=0.1, duration=10.0, record={"w": bt.trace(f"{ROUTE}.weight")}, loop=loop)
        for loop in (bt.Inductor(), "reference")
    )
    torch.testing.assert_close(compiled["w"], reference["w"], rtol=1e-11, atol=1e-12)
    assert not torch.equal(reference["w"][0], reference["w"][-1])


@pytest.mark.parametrize("wiring", WIRING)
def test_a_batch_is_its_samples(wiring: str) -> None:
    net = network(pair(), wiring)
    rates = torch.tensor([[200.0], [600.0]], dtype=torch.float64).expand(2, 12)
    inputs = {"pre": bt.Constant(rates), "post": 8.0}
    record = {"w": bt.trace(f"{ROUTE}.weight")}
    for loop in ("native", "reference"):
        state = bt.initial_state(net, (2,), dt=0.1, seed=4)
        both = bt.simulate(net, inputs, dt=0.1, duration=20.0, record=record, loop=loop, state=state)
        for b in range(2):
            own = torch.utils._pytree.tree_map(lambda x, b=b: x[b], state)
            single = {"pre": bt.Constant(rates[b]), "post": 8.0}
            one = bt.simulate(net, single, dt=0.1, duration=20.0, record=record, loop=loop, state=own)
            assert torch.equal(both["w"][:, b], one["w"])


def test_a_synapse_learns_from_arriving_spikes() -> None:
    """One spike at the end of step 20 arrives with a delay of 8 steps; one target spike at the end of step 38."""
    fired = torch.zeros(80, 1, dtype=torch.float64)
    rule = bt.plasticity.PairSTDP(1.0, 1.0, w_min=-INF, dtype=torch.float64)
    projection = bt.Projection(AllToAll(), 0.0, receptor=bt.synapses.Jump(), plasticity=rule, delay=0.8)
    cells = {name: bt.neurons.LIF(1, tau=1e9, v_rest=0.0, v_reset=0.0, v_th=1.0) for name in ("pre", "post")}
    net = bt.Network(cells, {("pre", "post"): projection}).to(torch.float64)
    pre, post = fired.clone(), fired.clone()
    pre[20], post[38] = 1e11, 1e11
    sol = bt.simulate(net, {"pre": pre, "post": post}, dt=0.1, record={"w": bt.trace(f"{ROUTE}.weight")})
    weights = sol["w"].flatten()
    # The pre event is in step 20 + 1 + 8, the post event in step 38 + 1: ten steps, 1 ms.
    assert torch.equal(weights[:39], torch.zeros(39, dtype=torch.float64))
    torch.testing.assert_close(weights[39:], torch.full_like(weights[39:], math.exp(-1.0 / 20.0)))


def test_gradients_reach_the_weights_at_the_start() -> None:
    """Through changes of weights, by native and reference loops alike, and against finite differences."""
    start = nn.Parameter(torch.linspace(0.4, 1.2, 144, dtype=torch.float64).reshape(12, 12))
    net = network(pair(), "pre")
    del net.projections[ROUTE].weight
    net.projections[ROUTE].register_parameter("weight", start)

    def final(loop: str) -> Tensor:
        sol = bt.simulate(net, drive("pair"), dt=0.1, duration=4.0, loop=loop)
        return (sol.state[ROUTE]["weight"] * torch.arange(144.0).reshape(12, 12)).sum() + sol.state[
            "post"
        ].v.square().sum()

    gradients = [torch.autograd.grad(final(loop), start)[0] for loop in ("native", "reference")]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        before = final("reference")
        start[3, 5] += 1e-6
        slope = (final("reference") - before) / 1e-6
    assert slope.item() == pytest.approx(gradients[1][3, 5].item(), rel=1e-4)


def test_weights_without_storage_are_refused() -> None:
    projection = bt.Projection(ProceduralProbability(0.5), plasticity=pair())
    cells = {name: bt.neurons.LIF(4) for name in ("pre", "post")}
    with pytest.raises(TypeError, match="expected connectivity that stores its synapses, got Procedural"):
        bt.Network(cells, {("pre", "post"): projection})
    with pytest.raises(TypeError, match=r"`Projection\(plasticity=...\)`: expected a Plasticity object, got 3"):
        bt.Projection(AllToAll(), plasticity=3)  # type: ignore[arg-type]


def test_only_plastic_projections_take_input() -> None:
    net = network(pair())
    with pytest.raises(
        ValueError, match="expected populations or plastic projections among 'pre', 'post', 'pre->post'"
    ):
        bt.simulate(net, {"pre->pre": 1.0}, dt=0.1, duration=1.0)


@pytest.mark.parametrize("tau_f", [None, 300.0])
def test_release_of_a_regular_train(tau_f: float | None) -> None:
    """The recursion of Tsodyks, Pawelzik & Markram (1998) from spike to spike, and its fixed point."""
    use, tau_d, interval, dt = 0.4, 150.0, 25.0, 0.5
    model = bt.synapses.TsodyksMarkram(use, tau_d=tau_d, tau_f=tau_f, dtype=torch.float64)
    state = model.init_state((1,))
    released = []
    for k in range(40 * 50):
        spikes = torch.tensor([k % 50 == 0])
        state, release = model.step(state, spikes, torch.tensor(k * dt), dt)
        if spikes:
            released.append(release.item())
        else:
            assert release.item() == 0.0
    u, x, want = use, 1.0, []
    for _ in range(40):
        want.append(u * x)
        x = 1.0 - (1.0 - x * (1.0 - u)) * math.exp(-interval / tau_d)
        u = use if tau_f is None else use + u * (1.0 - use) * math.exp(-interval / tau_f)
    assert released == pytest.approx(want, rel=1e-12)
    assert released[0] == use
    if tau_f is None:
        e = math.exp(-interval / tau_d)
        assert released[-1] == pytest.approx(use * (1.0 - e) / (1.0 - (1.0 - use) * e), rel=1e-9)


def test_short_term_plasticity_in_a_network() -> None:
    """What arrives is the weight times the release; rules of plasticity still see the spikes themselves."""
    short_term = bt.synapses.TsodyksMarkram(0.5, tau_d=100.0, tau_f=50.0)
    record = {"w": bt.trace(f"{ROUTE}.weight"), "s": bt.spikes("post"), "x": bt.trace(f"{ROUTE}.short_term.x")}
    runs = [
        bt.simulate(
            network(pair(), short_term=short_term), drive("pair"), dt=0.1, duration=30.0, record=record, loop=loop
        )
        for loop in ("native", "reference")
    ]
    for name in ("w", "x"):
        torch.testing.assert_close(runs[0][name], runs[1][name], rtol=1e-12, atol=1e-13)
    assert float(runs[0]["x"].min()) < 0.7
    with pytest.raises(ValueError, match=r"`TsodyksMarkram\(use=...\)`: expected fractions in \[0, 1\], got 1.5"):
        bt.synapses.TsodyksMarkram(1.5, tau_d=100.0)
