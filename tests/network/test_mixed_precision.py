"""Parts of a network in different dtypes, and weights in two bytes: what is converted where, in every loop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import _tree as tree
from bdtorch.connect import AllToAll, FixedNumberPost, FixedNumberPre, FixedProbability, OneToOne
from bdtorch.testing.case import expect_close, tolerance

TWO_BYTES = (torch.bfloat16, torch.float16)
LOOPS: list[Any] = ["reference", bt.Native(threads=1), bt.Native(threads=2)]


def every_neuron() -> dict[str, bt.DynamicalSystem]:
    """A few cells of each model, of equal number."""
    options: dict[str, Any] = {"surrogate": bt.surrogate.Sigmoid()}
    n = bt.neurons
    return {
        "lif": n.LIF(4, tau=20.0, v_init=bt.init.Uniform(0.0, 20.0)), "smooth": n.LIF(4, tau=5.0, **options),
        "exp": n.ExpIF(4), "adex": n.AdEx(4), "izhikevich": n.Izhikevich(4), "alif": n.ALIF(4, tau=5.0, **options),
        "hh": n.HodgkinHuxley(4, v_init=-55.0), "tm": n.TraubMiles(4, v_init=-55.0), "ml": n.MorrisLecar(4),
        "hr": n.HindmarshRose(4), "fhr": n.FitzHughRinzel(4), "refractory": n.Refractory(n.LIF(4), 0.5),
        "rate": bt.rates.LeakyRate(4), "poisson": bt.stimuli.Poisson(4, rate=2000.0),
        "noise": bt.stimuli.OrnsteinUhlenbeck(4, mean=1.0, sigma=0.5),
    }  # fmt: skip


def every_projection(weight_dtype: torch.dtype) -> dict[Any, Any]:
    """Every slot of a projection somewhere, into every model."""
    s, weight = bt.synapses, bt.init.Uniform(0.1, 0.5)
    delays = bt.init.Uniform(0.0, 0.4)

    def to(connect: Any, **slots: Any) -> bt.Projection:
        return bt.Projection(connect, weight, weight_dtype=weight_dtype, **slots)

    noise = {("noise", name): to(OneToOne()) for name in ("hh", "tm", "ml", "fhr", "rate")}
    return noise | {
        ("poisson", ("lif", "adex", "hh")): to(FixedProbability(0.6), synapse=s.Exponential(3.0), receptor=s.Conductance(0.0)),
        ("poisson", ("exp", "izhikevich", "tm")): to(FixedNumberPre(2), synapse=s.Alpha(2.0), delay=0.2),
        ("poisson", ("hr", "refractory")): to(FixedNumberPost(2), receptor=s.Jump(), delay=delays),
        ("poisson", "alif"): to(AllToAll(), short_term=s.TsodyksMarkram(0.4, tau_d=3.0)),
        ("smooth", "alif"): to(AllToAll(order="post"), synapse=s.DualExponential(1.0, 5.0), delay=0.1),
        ("poisson", "ml"): to(AllToAll(), presynaptic=s.NMDA(2.0, 10.0), receptor=s.MagnesiumBlock(0.0)),
        ("rate", "rate"): to(bt.connect.Groups((2, 2), (1, 3))),
        ("alif", "smooth"): to(FixedProbability(0.7), delay=torch.tensor([0.1, 0.2, 0.3, 0.2])),
        ("noise", "smooth"): to(AllToAll()),
    }  # fmt: skip


def every_model(weight_dtype: torch.dtype = torch.bfloat16) -> bt.Network:
    net = bt.Network(every_neuron(), every_projection(weight_dtype), seed=4)
    net.populations.double()
    return net


def ran(net: bt.DynamicalSystem, loop: Any, inputs: Any = None, duration: float = 3.0, **options: Any) -> bt.Solution:
    record = {"state": lambda state, out: state, "out": lambda state, out: out}
    with torch.no_grad():
        return bt.simulate(net, inputs, dt=0.1, duration=duration, loop=loop, record=record, **options)


@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_every_model_in_double_with_projections_in_single_and_weights_in_two_bytes(weight_dtype: torch.dtype) -> None:
    currents = {"lif": 100.0, "smooth": 60.0, "alif": 60.0, "exp": 60.0, "adex": 2500.0, "izhikevich": 60.0, "hh": 30.0,
                "tm": 3000.0, "ml": 150.0, "hr": 3.0, "refractory": 200.0}  # fmt: skip
    want = ran(every_model(weight_dtype), "reference", currents)
    got = ran(every_model(weight_dtype), "native", currents)
    for name in every_neuron():
        floats = [x for x in tree.tensors(want.state[name]) if x.is_floating_point()]
        assert all(x.dtype == torch.float64 for x in floats)
    for name in every_model(weight_dtype).routes:
        floats = [x for x in tree.tensors(want.state[name]) if x.is_floating_point()]
        assert all(x.dtype == torch.float32 for x in floats)
    expect_close(got.records, want.records, "native loop against reference", **tolerance(torch.float32))
    assert all(x.any() for name, x in want.records["out"].items() if name not in ("adex", "ml"))  # which spike later


def balanced(weight_dtype: torch.dtype | None = None, n: int = 300) -> bt.Network:
    """Without elementary functions, so that loops agree to the bit."""

    def cell(count: int) -> bt.DynamicalSystem:
        lif = bt.neurons.LIF(count, v_init=bt.init.Uniform(0.0, 20.0), integrator=bt.integrate.Euler())
        return bt.neurons.Refractory(lif, 2.0)

    def to(weight: float, **slots: Any) -> bt.Projection:
        bounds = sorted((0.5 * weight, 1.5 * weight))
        return bt.Projection(FixedProbability(0.1), bt.init.Uniform(*bounds), weight_dtype=weight_dtype, **slots)

    return bt.Network(
        {"E": cell(n), "I": cell(n // 4)},
        {
            ("E", ("E", "I")): to(0.4, receptor=bt.synapses.Jump(), delay=0.3),
            ("I", ("E", "I")): to(-2.0, receptor=bt.synapses.Jump(), delay=bt.init.Uniform(0.0, 0.5)),
        },
        seed=7,
    )


@pytest.mark.parametrize("weight_dtype", TWO_BYTES)
@pytest.mark.parametrize("double", [False, True])
def test_loops_agree_to_the_bit(weight_dtype: torch.dtype, double: bool) -> None:
    net = balanced(weight_dtype)
    if double:
        net.populations.double()
    want, *others = (ran(net, loop, 30.0, 20.0) for loop in LOOPS)
    assert int(want.records["out"]["E"].sum()) > 100
    for got in others:
        expect_close(got.records, want.records, "the native loop")
        expect_close(got.state, want.state, "the native loop")


def test_weights_in_two_bytes_are_those_that_were_rounded() -> None:
    """The same run as with weights in float32 that were rounded before: sums are made in float32."""
    stored, rounded = balanced(torch.bfloat16), balanced()
    for pathway in rounded.projections.values():
        pathway.weight = pathway.weight.bfloat16().float()
    assert stored.projections["E->E+I"].weight.dtype == torch.bfloat16
    expect_close(ran(stored, "native", 30.0).records, ran(rounded, "native", 30.0).records, "stored against rounded")


def test_batches_and_vmap_with_mixed_dtypes() -> None:
    net = balanced(torch.bfloat16, 60)
    net.populations.double()
    currents = torch.tensor([100.0, 150.0, 200.0], dtype=torch.float64)
    inputs = bt.Constant(currents[:, None])
    start = bt.initial_state(net, dt=0.1)
    starts = tree.map(lambda x: x.expand(3, *x.shape).clone(), start)
    whole = ran(net, "native", {"E": inputs, "I": inputs}, state=starts).records["out"]["E"]

    def member(current: Tensor) -> Tensor:
        record = {"out": lambda state, out: out["E"]}
        options: dict[str, Any] = {"dt": 0.1, "duration": 3.0, "state": start, "record": record, "loop": "native"}
        return bt.simulate(net, {"E": current, "I": current}, **options)["out"]

    for k, current in enumerate(currents):
        alone = ran(net, "native", {"E": current, "I": current}, state=start).records["out"]["E"]
        assert alone.any() and torch.equal(whole[:, k], alone)
    assert torch.equal(torch.func.vmap(member)(currents), whole.movedim(1, 0))


def test_a_run_in_pieces_saved_between_them(tmp_path: Path) -> None:
    net = balanced(torch.float16, 60)
    net.populations.double()
    whole = ran(net, "native", 30.0, 4.0)
    first = ran(net, "native", 30.0, 2.0)
    bt.save(tmp_path / "state.safetensors", first.state, t=2.0)
    state, t = bt.load(tmp_path / "state.safetensors", like=bt.initial_state(net, dt=0.1))
    expect_close(ran(net, "native", 30.0, 2.0, state=state, t0=t).state, whole.state, "a run in pieces")


def test_module_conversions_are_those_of_torch() -> None:
    net = balanced(torch.bfloat16, 20)
    pathway = net.projections["E->E+I"]
    saved = copy.deepcopy(net.state_dict())
    assert saved["projections.E->E+I.weight"].dtype == torch.bfloat16
    net.double()
    assert pathway.weight.dtype == torch.float64 and net.dtype == torch.float64
    pathway.weight = pathway.weight.to(torch.float16)
    assert ran(net, "native").state["E"].neuron.v.dtype == torch.float64
    twin = balanced(torch.bfloat16, 20)
    with torch.no_grad():
        twin.projections["E->E+I"].weight.zero_()
    twin.load_state_dict(saved)
    fresh = balanced(torch.bfloat16, 20)
    expect_close(ran(twin, "native", 30.0).state, ran(fresh, "native", 30.0).state, "a network that was loaded")


def test_parts_may_be_made_in_different_dtypes() -> None:
    cells = {"A": bt.neurons.LIF(3, dtype=torch.float64), "B": bt.neurons.LIF(3)}
    rates = {"R": bt.rates.LeakyRate(3, dtype=torch.float64), "S": bt.rates.LeakyRate(3)}
    net = bt.Network(cells | rates, {("A", "B"): bt.Projection(AllToAll()), ("B", "A"): bt.Projection(AllToAll()),
                                     ("R", "S"): bt.Projection(OneToOne()), ("S", "R"): bt.Projection(OneToOne())})  # fmt: skip
    assert net.projections["A->B"].dtype == torch.float32 and net.projections["B->A"].dtype == torch.float64
    state = ran(net, "native", 30.0).state
    assert state["A"].v.dtype == torch.float64 and state["S"].x.dtype == torch.float32


@pytest.mark.parametrize("recompute", [False, 5])
@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_the_native_loop(weight_dtype: torch.dtype, recompute: int) -> None:
    """Equal to the reference loop's up to the rounding of the weights' gradients, which the native loop sums in float32."""

    def gradients(loop: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        cell = bt.neurons.LIF(12, tau=nn.Parameter(torch.full((12,), 5.0)), surrogate=bt.surrogate.Arctan())
        weight = nn.Parameter(torch.linspace(-3.0, 5.0, 144).reshape(12, 12).to(weight_dtype).to(dtype))
        projection = bt.Projection(AllToAll(), weight, bt.synapses.Exponential(3.0), weight_dtype=dtype)
        net = bt.Network({"E": cell}, {("E", "E"): projection})
        net.populations.double()
        inputs = {"E": torch.linspace(20.0, 60.0, 480, dtype=torch.float64).reshape(40, 12)}
        v = bt.simulate(net, inputs, dt=0.1, record={"v": bt.trace("E.v")}, loop=loop)["v"]
        assert v.dtype == torch.float64
        return torch.autograd.grad(v.square().mean(), [weight, cell.tau])

    native = gradients(bt.Native(recompute=recompute), weight_dtype)
    reference, exact = gradients("reference", weight_dtype), gradients("reference", torch.float32)
    assert native[0].dtype == weight_dtype
    scale = exact[0].abs().max()
    eps = torch.finfo(weight_dtype).eps
    assert float((native[0].double() - exact[0]).abs().max() / scale) < eps
    assert float((reference[0].double() - exact[0]).abs().max() / scale) < 40 * eps
    torch.testing.assert_close(native[1], exact[1], rtol=1e-5, atol=1e-5 * float(exact[1].abs().max()))


@pytest.mark.slow
def test_the_inductor_loop_with_mixed_dtypes() -> None:
    weight = bt.init.Uniform(0.2, 0.6)
    projection = bt.Projection(FixedProbability(0.3), weight, bt.synapses.Exponential(3.0), weight_dtype=torch.bfloat16)
    net = bt.Network({"E": bt.neurons.LIF(20, tau=3.0)}, {("E", "E"): projection})
    net.populations.double()
    want, got = (ran(net, loop, 100.0) for loop in ("reference", bt.Inductor(chunk=2)))
    assert int(want.records["out"]["E"].sum()) > 20
    expect_close(got.records, want.records, "the inductor loop", **tolerance(torch.float64))


def test_layers_in_different_dtypes() -> None:
    cell = bt.neurons.LIF(4, tau=5.0, surrogate=bt.surrogate.Arctan(), v_init=bt.init.Uniform(0.0, 20.0))
    layer = bt.Recurrent(cell, 2, w_in=bt.init.Uniform(0.0, 9.0), bias=1.0)
    model = bt.Sequential(layer, bt.Readout(4, 2, tau=4.0))
    layer.cell.double()
    layer.recurrent.to(torch.bfloat16)
    x = 20.0 + torch.arange(60.0).reshape(30, 2)
    want, got = (ran(model, loop, x) for loop in ("reference", "native"))
    assert want.state["0"].cell.v.dtype == torch.float64 and want.state["1"].y.dtype == torch.float32
    expect_close(got.records, want.records, "the native loop", **tolerance(torch.float32))


def test_plastic_weights_refuse_two_bytes() -> None:
    rule = bt.plasticity.PairSTDP(0.001, 0.001, w_max=1.0)
    with pytest.raises(TypeError, match=r"plastic weights in float32 or float64.*got torch.bfloat16"):
        bt.Projection(AllToAll(), bt.init.Uniform(0.0, 1.0), plasticity=rule, weight_dtype=torch.bfloat16).build(3, 3)
    pathway = bt.Projection(AllToAll(), bt.init.Uniform(0.0, 1.0), plasticity=rule).build(3, 3)
    pathway.weight = pathway.weight.half()
    with pytest.raises(TypeError, match=r"plastic weights in float32 or float64.*got torch.float16"):
        pathway.init_state(torch.zeros(3), dt=0.1)


def test_plastic_weights_in_double_keep_changes_that_single_precision_loses() -> None:
    cells = {"P": bt.stimuli.Poisson(5, rate=3000.0), "E": bt.neurons.LIF(5, tau=4.0, v_th=2.0)}
    rule = bt.plasticity.PairSTDP(1e-9, 1e-9, w_max=2.0)
    net = bt.Network(cells, {("P", "E"): bt.Projection(AllToAll(), torch.ones(5, 5), plasticity=rule)})
    for double in (False, True):
        if double:
            net.projections.double()
        want, got = (ran(net, loop, {"E": 30.0}, 10.0) for loop in ("reference", "native"))
        expect_close(got.state, want.state, "the native loop", **tolerance(torch.float64 if double else torch.float32))
        changed = (got.state["P->E"]["weight"] - 1.0).abs().max()
        assert (changed > 0) == double
        assert got.state["E"].v.dtype == torch.float32


def _built(weight: Tensor, dtype: torch.dtype | None = None) -> Any:
    return bt.Projection(AllToAll(), weight, weight_dtype=dtype).build(3, 3)


@pytest.mark.parametrize(
    ("make", "expected", "got"),
    [
        (lambda: _built(torch.ones(3, 3), torch.int8), "float32, float64, bfloat16 or float16", "int8"),
        (lambda: _built(torch.ones(3, 3, dtype=torch.float64)), "dtype torch.float32", "float64"),
        (lambda: _built(nn.Parameter(torch.ones(3, 3)), torch.float16), "dtype torch.float16", "float32"),
        (lambda: ran(balanced(n=8), "native", torch.ones(30, 8).double()), "dtype torch.float32", "float64"),
    ],
)
def test_wrong_dtypes_are_named(make: Any, expected: str, got: str) -> None:
    with pytest.raises(TypeError, match=f"expected {expected}, got torch.{got}"):
        make()


def test_a_state_of_the_wrong_part_is_named() -> None:
    net = balanced(n=8)
    single = bt.initial_state(net, dt=0.1)
    with pytest.raises(TypeError, match=r"expected dtype torch.float64, got torch.float32 for"):
        ran(balanced(n=8).double(), "native", state=single)
    net.populations.double()
    with pytest.raises(ValueError, match="must keep shape, dtype and device"):
        ran(net, "native", state=single)
